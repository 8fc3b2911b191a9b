// Nothing but the original program's interface: a client of it must work unchanged.
exception SystemException {
  1: optional string message
}
struct KV {
  1: i32 key,
  2: optional string value,
  3: optional i64 time
}
struct ClientRequest {
  1: string constLevel,
  2: KV kv
}
struct ServerResponse {
  1: string status,
  2: optional KV kv
}
service KVStore {
  ServerResponse clientGet(1: ClientRequest request) throws (1: SystemException systemException),
  ServerResponse clientPut(1: ClientRequest request) throws (1: SystemException systemException),
  string hello() throws (1: SystemException systemException),
  i32 getServerID() throws (1: SystemException systemException),
  string getInfo() throws (1: SystemException systemException)
}
