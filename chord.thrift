/**
 * Chord's interface: what clients may ask of any server, what servers ask of each other, and the calls of the
 * original program, which keep working.
 *
 * How it may grow: fields are added with new numbers and made optional; nothing is renumbered, removed or given
 * another meaning. Every call takes one request struct and throws at most one exception. No unions.
 * One port serves all three services, framed and unframed, binary and compact.
 */

// ── Values ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** How many replicas must take part before a call has succeeded. Left out, it is QUORUM. */
enum Level {
  ONE = 1,
  QUORUM = 2,
  ALL = 3,
  /**
   * As QUORUM while a majority of the key's replicas lives; otherwise every replica that lives, and at least one. The answer
   * says which it was. Not for scans. An older server refuses it as INVALID_REQUEST.
   */
  AVAILABLE = 4,
}

/** What a call at AVAILABLE has had. */
struct Reached {
  /**
   * QUORUM: it was as at QUORUM; a key of which every answer says so behaves as one copy. AVAILABLE: no more than that these
   * replicas, all that lived, hold it.
   */
  1: required Level level,
  /** Replicas that hold what was written or answered. */
  2: required i32 holding,
  /** Replicas that the key has. */
  3: required i32 replicas,
}

/**
 * The order of all writes of one key, compared field by field from the top.
 * `time` is microseconds since 1970 from a hybrid clock: readable, unique together with the other fields, and
 * never what correctness rests on.
 */
struct Version {
  1: required i64 time,
  2: required i32 server,
  3: required i32 incarnation,
  4: required i32 step,
}

enum ErrorCode {
  /** The request can never succeed as it is. Nothing was stored by this attempt; a former one under the same ticket may have been. */
  INVALID_REQUEST = 1,
  /** Fewer replicas are alive than the level requires. Nothing was stored, no hint was kept. */
  UNAVAILABLE = 2,
  /** This server has as much to do as it may take on. Nothing was stored; try again later or elsewhere. */
  OVERLOADED = 3,
  /** The outcome is unknown: it may or may not take effect, now or later. `version` is the ticket for a retry. */
  TIMED_OUT = 4,
}

exception ChordError {
  1: required ErrorCode code,
  2: required string message,
  3: optional Level level,
  /** Replicas the level requires. */
  4: optional i32 required_replicas,
  /** Replicas that acknowledged in time. */
  5: optional i32 received,
  /** Replicas believed to be up and voting. */
  6: optional i32 alive,
  /** The ticket: storing the same value under the same version again is safe, through any server. */
  7: optional Version version,
  /**
   * With TIMED_OUT, of a write with a ticket: every replica that was asked has refused it, so this very call has stored nothing and
   * will not. Whether a former one under the same ticket has is unknown; if there was none, it was not stored.
   */
  8: optional bool not_stored,
}

// ── Clients ─────────────────────────────────────────────────────────────────────────────────────────────────────────

struct PutRequest {
  /** 1 byte to 64 KiB. */
  1: required binary key,
  /** Up to 15 MiB; may be empty. */
  2: required binary value,
  3: optional Level level,
  /** Milliseconds until the call answers TIMED_OUT; 1 to 60000. */
  4: optional i32 timeout_ms,
  /**
   * From `prepare`, or from a TIMED_OUT of the very same value: a ticket is for one value. A put with a ticket is never refused as
   * unavailable; as invalid only if the ticket is more than a day beyond every clock of the cluster, so that no server can have
   * issued it, or if it was used for another value that stays (of two values the one with the greater CRC32C does), and nobody
   * took this one.
   */
  5: optional Version ticket,
  /**
   * The newest version its writer has seen: the write's own version will be greater, whatever the clocks say. If its
   * step has 2^30 added, so has that of the write: by this mark writers tell later readers that they have seen something
   * that fewer than a majority may hold. Has no meaning beside a ticket.
   */
  6: optional Version after,
}

struct DeleteRequest {
  1: required binary key,
  2: optional Level level,
  3: optional i32 timeout_ms,
  4: optional Version ticket,
  /** As for a put. */
  5: optional Version after,
}

struct PutResponse {
  1: required Version version,
  /** A replica held something newer already: a concurrent write has overtaken this one. */
  2: optional bool overtaken,
  /** The server that coordinated the call. */
  3: optional i32 server,
  /** Of a call at AVAILABLE. */
  4: optional Reached reached,
}

struct PrepareRequest {
  1: required binary key,
  2: optional Level level,
  3: optional i32 timeout_ms,
  /** As for a put. */
  4: optional Version after,
}

struct PrepareResponse {
  /** A version above all writes of the key that completed before; a ticket for one put or delete. */
  1: required Version version,
}

struct GetRequest {
  1: required binary key,
  2: optional Level level,
  3: optional i32 timeout_ms,
}

struct GetResponse {
  1: required bool found,
  2: optional binary value,
  /** Of the value, or of the deletion; absent if the key was never written. */
  3: optional Version version,
  4: optional i32 server,
  /** Of a call at AVAILABLE. */
  5: optional Reached reached,
}

struct ScanRequest {
  /** First key, inclusive; empty or absent: from the beginning. */
  1: optional binary from_key,
  /** End, exclusive; absent: to the end. */
  2: optional binary to_key,
  /** Entries to answer with at most; 1 to 10000, absent: 100. */
  3: optional i32 limit,
  4: optional Level level,
  5: optional i32 timeout_ms,
  /**
   * In the order in which the cluster keeps its keys, whatever that is: the only scan there is where keys are placed by
   * hash. `from_key`, `to_key` and `next_key` are then places in that order, to be taken from an answer as they are.
   */
  6: optional bool any_order,
}

struct Entry {
  1: required binary key,
  2: required binary value,
  3: required Version version,
}

struct ScanResponse {
  /** In key order. May be fewer than the limit, even none, while `next_key` is set. */
  1: required list<Entry> entries,
  /** Ask again from here; absent: there is nothing more. */
  2: optional binary next_key,
  3: optional i32 server,
}

struct StatusRequest {
}

struct PeerStatus {
  1: required i32 server,
  2: required string address,
  /** The link is up and was heard in the last second. */
  3: required bool alive,
  /** It counts towards a majority. */
  4: required bool voting,
  5: required i32 incarnation,
  /** Hints that wait here for that server. */
  6: required i64 hints,
  /** What its disk does that it should not, by its own word: a sentence. Absent: nothing. */
  8: optional string disk,
  /** By so many milliseconds its wall clock is ahead of the answering server's. Absent: not known. */
  7: optional i64 clock_offset_ms,
}

/** A record that could not be read. Times are in microseconds since 1970, UTC. */
struct DamagedRecord {
  /** In the data folder; the record's first byte in it. */
  1: required string file,
  2: required i64 offset,
  /** The first 256 bytes of its key. */
  3: required binary key,
  4: required i64 found,
  /** When the key could be read again. Absent: not yet; until then the server refuses it. */
  5: optional i64 healed,
}

/** What has rotted on a server's disk, and how far the search for more is. */
struct ScrubStatus {
  /** Bytes a second; 0: it does not search. */
  1: required i64 rate,
  /** When the pass began that is under way, or else the last one; when a pass was complete last. Absent: never. */
  2: optional i64 began,
  3: optional i64 ended,
  /** Bytes to be read until the pass under way is complete; 0: none is. */
  4: required i64 bytes_left,
  /** Records that cannot be read at present. */
  5: required i64 waiting,
  /** Those that were found since the server started, the newest last; 32 at most. */
  6: required list<DamagedRecord> recent,
}

struct StatusResponse {
  1: required i32 server,
  2: required i32 incarnation,
  3: required bool voting,
  /** In words: what this server is doing about not voting. Empty when voting. */
  4: required string state,
  5: required list<PeerStatus> peers,
  /** Keys held, tombstones included. */
  6: required i64 keys,
  7: required i64 tombstones,
  /** Bytes of all log segments; of hint segments. */
  8: required i64 log_bytes,
  9: required i64 hint_log_bytes,
  /** Bytes of values held in memory, and the budget. */
  10: required i64 memory_bytes,
  11: required i64 memory_budget,
  /** Named counters: operations, outcomes, repairs, syncs. */
  12: required map<string, i64> counters,
  /** What this server's disk does that it should not: a sentence. Absent: nothing. */
  14: optional string disk,
  15: optional ScrubStatus scrub,
  /** Whose wall clock is wrong, as far as this server can tell: a sentence. Absent: none, as far as it knows. */
  13: optional string clock,
}

/** What one server holds of its own, without asking others: for the inspector. */
struct InspectRequest {
  /** First key, inclusive. */
  1: optional binary from_key,
  2: optional i32 limit,
  /** Hints instead of cells; then only those for this target. */
  3: optional i32 hints_for,
}

struct InspectEntry {
  1: required binary key,
  /** Absent: a tombstone. */
  2: optional binary value,
  3: required Version version,
}

struct InspectResponse {
  1: required list<InspectEntry> entries,
  2: optional binary next_key,
}

struct TopologyRequest {
}

struct TopologyServer {
  1: required i32 server,
  2: required string address,
}

struct TopologyRange {
  1: required binary start,
  2: required i64 epoch,
  /** In preference order; the first is the owner. */
  3: required list<i32> replicas,
}

struct TopologyResponse {
  1: required string cluster,
  2: required list<TopologyServer> servers,
  3: required list<TopologyRange> ranges,
  /** "byte-ordered" or "hashed". */
  4: required string partitioner,
}

/** A word about the connection itself. */
struct SessionRequest {
  /** Answer each call as soon as its answer is there: the client tells answers apart by their sequence numbers. */
  1: optional bool answers_as_ready,
}

struct SessionResponse {
  1: required i32 server,
}

service Chord {
  PutResponse put(1: PutRequest request) throws (1: ChordError error),
  PutResponse remove(1: DeleteRequest request) throws (1: ChordError error),
  PrepareResponse prepare(1: PrepareRequest request) throws (1: ChordError error),
  GetResponse get(1: GetRequest request) throws (1: ChordError error),
  ScanResponse scan(1: ScanRequest request) throws (1: ChordError error),
  StatusResponse status(1: StatusRequest request) throws (1: ChordError error),
  InspectResponse inspect(1: InspectRequest request) throws (1: ChordError error),
  TopologyResponse topology(1: TopologyRequest request) throws (1: ChordError error),
  SessionResponse session(1: SessionRequest request) throws (1: ChordError error),
}

// ── Servers among themselves ────────────────────────────────────────────────────────────────────────────────────────

/** First call on a connection between servers, answered by the same from the other side. */
struct PeerHello {
  1: required string cluster,
  2: required i64 topology_hash,
  3: required i32 server,
  4: required i32 incarnation,
  5: required i64 folder,
  6: required bool voting,
  /** Highest log position that was durable when its process began. */
  7: required i64 position,
  /** What the sender remembers of the receiver. */
  8: optional i32 remembered_incarnation,
  9: optional i64 remembered_folder,
  10: optional i64 remembered_position,
  /** Only between servers of release 0.1 and those that were told to bear with them. */
  11: optional string secret,
  /** Differs from process to process: tells what was remembered of a former one from what this one has said. */
  12: optional i64 session,
  /** In which session of the receiver `remembered_position` was told, and the highest one told before that. */
  13: optional i64 remembered_session,
  14: optional i64 remembered_before,
  /**
   * Required when the receiver has a secret: 32 bytes that the sender has never used before, and the HMAC-SHA256 under the secret of
   * the side ("chord peer, caller" or "chord peer, answerer"), the cluster's name, the caller's and the answerer's number (2
   * bytes each), the challenge and the caller's nonce, each with its length (8 bytes) before it. In an answer `nonce` is the challenge.
   */
  16: optional binary nonce,
  17: optional binary proof,
}

exception PeerRefusal {
  1: required string message,
  /** To a hello without a proof: 32 bytes, never used before, for a second hello with one on the same connection. */
  2: optional binary challenge,
}

/** What a server's disk does. */
enum DiskState {
  HEALTHY = 0,
  /** It has carried out nothing for a second, though asked. */
  HANGING = 1,
  /** It has no room for what was appended last. */
  FULL = 2,
  READ_ONLY = 3,
}

/** Who answers, and which incarnations of others it knows: a coordinator discards answers from older ones. */
struct PeerSender {
  1: required i32 incarnation,
  2: required bool voting,
  3: required i64 position,
  4: required list<i32> known_servers,
  5: required list<i32> known_incarnations,
  /** As in its hello: to which of its processes `position` belongs. */
  6: optional i64 session,
  /** Absent: healthy. A state that is not known here is one that takes no writes. */
  8: optional DiskState disk,
}

enum RefusalReason {
  /** Not a replica of that key under the topology known here. */
  NOT_REPLICA = 1,
  /** The request's epoch is not the range's epoch here. */
  WRONG_EPOCH = 2,
  /** The record could not be written (disk full), and nothing of it remains. */
  STORAGE = 3,
  OVERLOADED = 4,
}

struct PeerPing {
}

struct PeerPong {
  1: required PeerSender sender,
  /** Its wall clock when it answered, in microseconds since 1970. Absent: a server of release 0.1. */
  2: optional i64 wall,
}

struct PeerRead {
  1: required binary key,
  2: required i64 epoch,
  /** False: the version alone is wanted. */
  3: required bool with_value,
}

struct PeerReadReply {
  1: required PeerSender sender,
  2: optional RefusalReason refused,
  /** Time 0: never written. */
  3: optional Version version,
  /** With neither this nor `tombstone`: the content was not asked for, or there is none. */
  4: optional binary value,
  5: optional bool tombstone,
  /**
   * Which content it is: 1 for a tombstone, else the CRC32C of the value and 2 more. Of two cells with one version the greater
   * one wins. Absent: never written, or not known, as from a server of release 0.1.
   */
  6: optional i64 checksum,
}

struct PeerStore {
  1: required binary key,
  2: required i64 epoch,
  3: required Version version,
  /** Absent: a tombstone. */
  4: optional binary value,
}

struct PeerStoreReply {
  1: required PeerSender sender,
  2: optional RefusalReason refused,
  /** What the replica durably holds now: the cell sent, or something newer. */
  3: optional Version current,
  /** It holds another content under the very version that was sent, with this greater checksum. */
  4: optional i64 other_checksum,
}

struct PeerPage {
  1: required binary from_key,
  2: optional binary to_key,
  3: required i64 epoch,
  4: required i32 max_entries,
  5: required i32 max_bytes,
  6: required bool with_values,
}

struct PeerPageEntry {
  1: required binary key,
  2: required Version version,
  3: optional binary value,
  4: optional bool tombstone,
  /** As in PeerReadReply. */
  5: optional i64 checksum,
}

struct PeerPageReply {
  1: required PeerSender sender,
  2: optional RefusalReason refused,
  3: required list<PeerPageEntry> entries,
  /** The answer was cut at a limit: there may be more behind its last key. */
  4: required bool truncated,
}

/** What is the greatest version time that you have seen? The first round of every write that has begun before this was sent. */
struct PeerClock {
  /** Of the ranges and their epochs as the sender knows them. */
  1: required i64 state,
}
struct PeerClockReply {
  1: required PeerSender sender,
  2: optional RefusalReason refused,
  3: optional i64 time,
}
struct PeerDigest {
  1: required binary range_start,
  2: required i64 epoch,
}

struct PeerDigestReply {
  1: required PeerSender sender,
  2: optional RefusalReason refused,
  3: required i64 count,
  /** Of keys and versions. */
  4: required i64 hash,
  /** Of keys, versions and checksums. Absent: some are not known, as on a server of release 0.1; then `hash` has to do. */
  5: optional i64 contents,
}

/** A server with a new data folder asks what is remembered of it (incarnation 0), then has its new one recorded. */
struct PeerJoin {
  1: required i32 incarnation,
  2: required i64 folder,
}

struct PeerJoinReply {
  1: required PeerSender sender,
  /** The incarnation asked for is now durably recorded here. */
  2: required bool recorded,
  /** What is remembered: 0 if nothing. */
  3: required i32 incarnation,
  4: required i64 folder,
  /** The server was known under another folder before. */
  5: required bool replaced,
}

service ChordPeer {
  PeerHello peerHello(1: PeerHello request) throws (1: PeerRefusal error),
  PeerPong peerPing(1: PeerPing request) throws (1: PeerRefusal error),
  PeerReadReply peerRead(1: PeerRead request) throws (1: PeerRefusal error),
  PeerStoreReply peerStore(1: PeerStore request) throws (1: PeerRefusal error),
  PeerPageReply peerPage(1: PeerPage request) throws (1: PeerRefusal error),
  PeerDigestReply peerDigest(1: PeerDigest request) throws (1: PeerRefusal error),
  PeerClockReply peerClock(1: PeerClock request) throws (1: PeerRefusal error),
  PeerJoinReply peerJoin(1: PeerJoin request) throws (1: PeerRefusal error),
}

// ── The original program's calls ────────────────────────────────────────────────────────────────────────────────────

exception SystemException {
  1: optional string message,
}

struct KV {
  /** 0 to 255: the decimal keys "000" to "255". Optional here, so that one left out is not read as 0. */
  1: optional i32 key,
  2: optional string value,
  3: optional i64 time,
}

struct ClientRequest {
  /** "ONE" or "QUORUM". */
  1: optional string constLevel,
  2: optional KV kv,
}

struct ServerResponse {
  /** "SUCCESS" or "FAIL". */
  1: string status,
  2: optional KV kv,
}

service KVStore {
  ServerResponse clientGet(1: ClientRequest request) throws (1: SystemException systemException),
  ServerResponse clientPut(1: ClientRequest request) throws (1: SystemException systemException),
  string hello() throws (1: SystemException systemException),
  i32 getServerID() throws (1: SystemException systemException),
  string getInfo() throws (1: SystemException systemException),
}
