//! Laws of the whole module: everything comes back from its bytes, in every format, however the bytes arrive.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::codec::{decode_any_call, decode_any_reply, encode_any_answer, encode_any_call};
use super::*;
use crate::model::{
    Cell, Checksum, ClientRequest, ClientResponse, Content, DiskState, Epoch, Failure, FolderId,
    Hello, Incarnation, InspectSource, Invalid, Join, Key, Level, PageEntry, PeerAnswer, PeerReply,
    PeerRequest, PeerStatus, PreparedPut, Proof, Read, Refusal, Remembered, ScanEntry, Sender,
    ServerId, Status, TopologyView, Version, ViewRange, ViewServer,
};
use crate::model::{DamagedRecord, Reached, ScrubStatus};

fn key() -> impl Strategy<Value = Key> {
    proptest::collection::vec(any::<u8>(), 1..20).prop_map(Key::bound)
}

fn value() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn content() -> impl Strategy<Value = Content> {
    proptest::option::of(value()).prop_map(|value| value.map_or(Content::Tombstone, Content::Value))
}

fn version() -> impl Strategy<Value = Version> {
    (any::<i64>(), any::<u16>(), 0..i32::MAX as u32, 0..i32::MAX as u32).prop_map(
        |(time, server, incarnation, step)| {
            let (server, incarnation) = (ServerId(server), Incarnation(incarnation));
            Version { time, server, incarnation, step }
        },
    )
}

/// One that a write can have.
fn issued() -> impl Strategy<Value = Version> {
    (version(), 1..=i64::MAX).prop_map(|(version, time)| Version { time, ..version })
}

fn level() -> impl Strategy<Value = Level> {
    prop::sample::select(Level::EVERY.to_vec())
}

fn timeout() -> impl Strategy<Value = Option<std::time::Duration>> {
    proptest::option::of((1u64..=60_000).prop_map(std::time::Duration::from_millis))
}

fn cell() -> impl Strategy<Value = Cell> {
    (issued(), content()).prop_map(|(version, content)| Cell { version, content })
}

fn hello() -> impl Strategy<Value = Hello> {
    let remembers = proptest::option::of((1..9u32, any::<u64>(), any::<u64>()));
    (".{0,9}", any::<u64>(), any::<u16>(), 0..9u32, any::<u64>(), any::<bool>(), remembers)
        .prop_map(|(cluster, topology, server, incarnation, folder, voting, remembers)| Hello {
            cluster,
            topology,
            server: ServerId(server),
            incarnation: Incarnation(incarnation),
            folder: FolderId(folder),
            voting,
            position: topology ^ folder,
            session: folder.rotate_left(7),
            remembers: remembers.map(|(incarnation, folder, position)| Remembered {
                incarnation: Incarnation(incarnation),
                folder: FolderId(folder),
                replaced: false,
                position,
                session: folder ^ position,
                before: position >> 1,
            }),
            secret: voting.then(|| "secret".to_owned()),
            proof: voting.then_some(Proof { nonce: [1; 32], mac: [2; 32] }),
        })
}

fn calls() -> impl Strategy<Value = Call> {
    let of_version = || proptest::option::of(version());
    let put = (key(), content(), level(), timeout(), of_version(), of_version());
    let put = put.prop_map(|(key, content, level, timeout, ticket, after)| {
        let put = PreparedPut { key, content, level, timeout, ticket, after };
        Call::Client(ClientRequest::Put(put))
    });
    let get = (key(), level(), timeout(), proptest::option::of(of_version()));
    let get = get.prop_map(|(key, level, timeout, prepare)| {
        Call::Client(match prepare {
            Some(after) => ClientRequest::Prepare { key, level, timeout, after },
            None => ClientRequest::Get { key, level, timeout },
        })
    });
    let end = proptest::option::of(key());
    let scan = (key(), end, 1usize..10_000, level(), timeout(), any::<bool>()).prop_map(
        |(from, to, limit, level, timeout, any_order)| {
            Call::Client(ClientRequest::Scan { from, to, limit, level, timeout, any_order })
        },
    );
    let session =
        any::<bool>().prop_map(|answers_as_ready| Call::Session { answers_as_ready }).boxed();
    let inspect = (key(), 1usize..10_000, proptest::option::of(any::<u16>())).prop_map(
        |(from, limit, hints)| {
            let hints = hints.map(|server| InspectSource::HintsFor(ServerId(server)));
            let source = hints.unwrap_or(InspectSource::Cells);
            Call::Client(ClientRequest::Inspect { source, from, limit })
        },
    );
    let store = (key(), any::<u32>(), cell()).prop_map(|(key, epoch, cell)| {
        Call::Peer(PeerRequest::Store { key, epoch: Epoch(epoch.into()), cell })
    });
    let read = (key(), any::<u32>(), any::<bool>()).prop_map(|(key, epoch, with_value)| {
        Call::Peer(PeerRequest::Read(Read { key, epoch: Epoch(epoch.into()), with_value }))
    });
    let page = (key(), proptest::option::of(key()), 1usize..10_000, 1usize..1 << 20, any::<bool>());
    let page = page.prop_map(|(from, to, max_entries, max_bytes, with_values)| {
        let epoch = Epoch(1);
        Call::Peer(PeerRequest::Page { from, to, epoch, max_entries, max_bytes, with_values })
    });
    let join = (0..9u32, any::<u64>()).prop_map(|(incarnation, folder)| {
        let (incarnation, folder) = (Incarnation(incarnation), FolderId(folder));
        Call::Peer(PeerRequest::Join(Join { incarnation, folder }))
    });
    let digest = key().prop_map(|start| Call::Peer(PeerRequest::Digest { start, epoch: Epoch(3) }));
    let clock = any::<u64>().prop_map(|state| Call::Peer(PeerRequest::Clock { state }));
    let old = (any::<u8>(), "[a-z]{0,9}", any::<bool>()).prop_map(|(number, value, put)| {
        let level = if put { Level::One } else { Level::Quorum };
        Call::Original(if put {
            OriginalCall::Put { number, value: value.into(), level }
        } else {
            OriginalCall::Get { number, level }
        })
    });
    prop_oneof![
        put,
        session,
        get,
        scan,
        inspect,
        store,
        read,
        page,
        join,
        digest,
        clock,
        old,
        hello().prop_map(Call::Hello),
        Just(Call::Client(ClientRequest::Status)),
        Just(Call::Client(ClientRequest::Topology)),
        Just(Call::Peer(PeerRequest::Ping)),
        Just(Call::Original(OriginalCall::Hello)),
        Just(Call::Original(OriginalCall::ServerId)),
        Just(Call::Original(OriginalCall::Info)),
    ]
}

fn sender() -> impl Strategy<Value = Sender> {
    let known = proptest::collection::vec((any::<u16>(), 1..9u32), 0..4);
    let disk = prop_oneof![
        Just(DiskState::Healthy),
        Just(DiskState::Hanging),
        Just(DiskState::Full),
        Just(DiskState::ReadOnly),
    ];
    (0..9u32, any::<bool>(), any::<u64>(), known, disk).prop_map(
        |(incarnation, voting, position, known, disk)| {
            let known =
                known.into_iter().map(|(server, life)| (ServerId(server), Incarnation(life)));
            let incarnation = Incarnation(incarnation);
            let session = position.rotate_left(9);
            Sender { incarnation, voting, position, session, known: known.collect(), disk }
        },
    )
}

fn peer_answers() -> impl Strategy<Value = (PeerRequest, PeerAnswer)> {
    let read = PeerRequest::Read(Read { key: Key::bound("k"), epoch: Epoch(1), with_value: true });
    let store = |cell| PeerRequest::Store { key: Key::bound("k"), epoch: Epoch(1), cell };
    let page = PeerRequest::Page {
        from: Key::bound(""),
        to: None,
        epoch: Epoch(1),
        max_entries: 1,
        max_bytes: 1,
        with_values: true,
    };
    let digest = PeerRequest::Digest { start: Key::bound(""), epoch: Epoch(1) };
    let join = PeerRequest::Join(Join { incarnation: Incarnation(1), folder: FolderId(2) });
    let checksum = || {
        let tombstone = Just(Checksum::TOMBSTONE);
        proptest::option::of(prop_oneof![tombstone, any::<u32>().prop_map(Checksum::of_value)])
    };
    let entry = (key(), issued(), checksum(), proptest::option::of(content())).prop_map(
        |(key, version, checksum, content)| PageEntry { key, version, checksum, content },
    );
    let refusal = prop_oneof![
        Just(Refusal::NotReplica),
        Just(Refusal::WrongEpoch),
        Just(Refusal::Storage),
        Just(Refusal::Overloaded),
    ];
    let remembered = proptest::option::of((1..9u32, any::<u64>(), any::<bool>()));
    let requests = prop_oneof![Just(read.clone()), Just(page.clone()), Just(digest.clone())];
    prop_oneof![
        prop::option::of(any::<i64>())
            .prop_map(|wall| (PeerRequest::Ping, PeerAnswer::Pong { wall })),
        (version(), checksum(), proptest::option::of(content())).prop_map(
            move |(version, checksum, content)| {
                (read.clone(), PeerAnswer::Held { version, checksum, content })
            }
        ),
        (cell(), version(), checksum()).prop_map(move |(cell, current, other)| {
            (store(cell), PeerAnswer::Stored { current, other })
        }),
        (proptest::collection::vec(entry, 0..5), any::<bool>()).prop_map(
            move |(entries, truncated)| { (page.clone(), PeerAnswer::Page { entries, truncated }) }
        ),
        (any::<u64>(), any::<u64>(), any::<Option<u64>>()).prop_map(
            move |(count, hash, contents)| {
                (digest.clone(), PeerAnswer::Digest { count, hash, contents })
            }
        ),
        (any::<u64>(), 0..i64::MAX).prop_map(|(state, time)| {
            (PeerRequest::Clock { state }, PeerAnswer::Clock { time })
        }),
        (remembered, any::<bool>()).prop_map(move |(remembered, recorded)| {
            let remembered = remembered.map(|(incarnation, folder, replaced)| Remembered {
                incarnation: Incarnation(incarnation),
                folder: FolderId(folder),
                replaced,
                ..Remembered::default()
            });
            (join.clone(), PeerAnswer::Joined { recorded, remembered })
        }),
        (requests, refusal).prop_map(|(request, refusal)| (request, PeerAnswer::Refused(refusal))),
    ]
}

fn responses() -> Vec<(ClientRequest, ClientResponse)> {
    let key = Key::bound("k");
    let version = Version { time: 7, server: ServerId(2), incarnation: Incarnation(1), step: 0 };
    let (level, timeout) = (Level::Quorum, None);
    let get = ClientRequest::Get { key: key.clone(), level, timeout };
    let put = |content| {
        let key = key.clone();
        ClientRequest::Put(PreparedPut { key, content, level, timeout, ticket: None, after: None })
    };
    let cell = |content| Some(Cell { version, content });
    let peer = PeerStatus {
        address: "a:1".to_owned(),
        alive: true,
        hints: 3,
        disk: Some("its disk hangs".to_owned()),
        clock_offset_ms: Some(-1_577_000_000_000),
        ..PeerStatus::default()
    };
    let status = Status {
        state: "not voting".to_owned(),
        peers: vec![peer],
        keys: u64::MAX,
        counters: [("reads_ok".to_owned(), 9)].into(),
        disk: Some("its disk is full".to_owned()),
        clock: Some("server 3's clock is 2 days ahead of the others".to_owned()),
        scrub: Some(ScrubStatus {
            rate: 4 << 20,
            began: 7,
            left: 5,
            waiting: 1,
            recent: vec![DamagedRecord {
                file: "cells/0000000001.log".to_owned(),
                offset: 62,
                key: "k".into(),
                found: 8,
                healed: Some(9),
            }],
            ..ScrubStatus::default()
        }),
        ..Status::default()
    };
    let view = TopologyView {
        cluster: "demo".to_owned(),
        servers: vec![ViewServer { server: ServerId(1), address: "a:1".to_owned() }],
        ranges: vec![ViewRange { replicas: vec![ServerId(1)], ..ViewRange::default() }],
        partitioner: "hashed".to_owned(),
    };
    let entry = ScanEntry { key: key.clone(), value: "v".into(), version };
    let reached = Some(Reached { level: Level::Available, holding: 1, replicas: 3 });
    let scan = ClientRequest::Scan {
        from: Key::bound(""),
        to: None,
        limit: 1,
        level,
        timeout,
        any_order: false,
    };
    let (source, from) = (InspectSource::Cells, Key::bound(""));
    let inspect = ClientRequest::Inspect { source, from, limit: 1 };
    let tombstone = Cell { version, content: Content::Tombstone };
    vec![
        (
            put(Content::Value("v".into())),
            ClientResponse::Put { version, overtaken: true, reached: None },
        ),
        (put(Content::Tombstone), ClientResponse::Put { version, overtaken: false, reached }),
        (
            ClientRequest::Prepare { key: key.clone(), level, timeout, after: None },
            ClientResponse::Prepared { version },
        ),
        (get.clone(), ClientResponse::Get { cell: None, reached }),
        (get.clone(), ClientResponse::Get { cell: cell(Content::Tombstone), reached: None }),
        (get, ClientResponse::Get { cell: cell(Content::Value(Bytes::new())), reached }),
        (scan, ClientResponse::Scan { entries: vec![entry], next: Some(key.clone()) }),
        (ClientRequest::Status, ClientResponse::Status(Box::new(status))),
        (inspect, ClientResponse::Inspected { entries: vec![(key, tombstone)], next: None }),
        (ClientRequest::Topology, ClientResponse::Topology(Box::new(view))),
    ]
}

/// Whether it is written by hand.
fn is_hot(call: &Call) -> bool {
    match call {
        Call::Client(ClientRequest::Put(put)) => put.content != Content::Tombstone,
        Call::Client(ClientRequest::Get { .. }) => true,
        Call::Peer(request) => matches!(
            request,
            PeerRequest::Read(_) | PeerRequest::Store { .. } | PeerRequest::Clock { .. }
        ),
        _ => false,
    }
}

/// All messages in `bytes`, given `step` bytes at a time.
fn messages(format: Format, bytes: &[u8], step: usize) -> Vec<Bytes> {
    let mut reader = MessageReader::new(format);
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        while let Some(message) = reader.next(&mut buffer).unwrap() {
            found.push(message);
        }
    }
    assert!(buffer.is_empty(), "{} bytes are left over", buffer.len());
    found
}

proptest! {
    #[test]
    fn calls_come_back_in_every_format_however_they_arrive(
        calls in proptest::collection::vec(calls(), 1..5),
        step in 1usize..50,
    ) {
        for format in Format::ALL {
            let mut out = BytesMut::new();
            for (number, call) in calls.iter().enumerate() {
                encode_call(format, Sequence(number as i32), call, &mut out).unwrap();
            }
            let found = messages(format, &out, step);
            prop_assert_eq!(found.len(), calls.len());
            for (number, (message, call)) in found.into_iter().zip(&calls).enumerate() {
                let request = decode_call(format.protocol, message).unwrap();
                prop_assert_eq!(request.sequence, Sequence(number as i32));
                prop_assert_eq!(request.call.as_ref(), Ok(call));
            }
        }
    }

    #[test]
    fn answers_of_peers_come_back_in_every_format(
        (request, answer) in peer_answers(),
        sender in sender(),
    ) {
        for format in Format::ALL {
            let method =
                encode_call(format, Sequence(1), &Call::Peer(request.clone()), &mut BytesMut::new());
            let mut out = BytesMut::new();
            let reply = PeerReply { sender: sender.clone(), answer: answer.clone() };
            let expected = Answer::Peer(Ok(reply.clone()));
            encode_answer(format, &method.unwrap(), Sequence(-3), &expected, &mut out).unwrap();
            let message = messages(format, &out, out.len()).remove(0);
            let decoded = decode_reply(format.protocol, message).unwrap();
            prop_assert_eq!(decoded, (Sequence(-3), Reply::Peer(Ok(reply))));
        }
    }

    /// What is written by hand is what the generated code writes.
    #[test]
    fn calls_by_hand_are_byte_for_byte_those_of_the_generated_code(call in calls()) {
        for framing in [Framing::Framed, Framing::Unframed] {
            let format = Format { framing, protocol: Protocol::Binary };
            let (mut by_hand, mut generated) = (BytesMut::new(), BytesMut::new());
            let method = hot::encode_call(format, Sequence(9), &call, &mut by_hand);
            prop_assert_eq!(method.is_some(), is_hot(&call));
            encode_any_call(format, Sequence(9), &call, &mut generated).unwrap();
            if method.is_some() {
                prop_assert_eq!(by_hand, generated);
            } else {
                prop_assert!(by_hand.is_empty());
            }
        }
    }

    #[test]
    fn answers_by_hand_are_byte_for_byte_those_of_the_generated_code(
        (request, answer) in peer_answers(),
        sender in sender(),
        cell in proptest::option::of(cell()),
        (version, overtaken) in (version(), any::<bool>()),
    ) {
        let request = Call::Peer(request);
        let method = encode_call(Format::NATIVE, Sequence(1), &request, &mut BytesMut::new());
        let server = ServerId(7);
        let of_client = |response| Answer::Client { server, result: Ok(response) };
        // What is rare is left to the generated code.
        let is_rare = matches!(answer, PeerAnswer::Refused(_) | PeerAnswer::Stored { other: Some(_), .. });
        let answers = [
            (method.unwrap(), Answer::Peer(Ok(PeerReply { sender, answer })), !is_rare && is_hot(&request)),
            (Method::Get, of_client(ClientResponse::Get { cell, reached: None }), true),
            (Method::Put, of_client(ClientResponse::Put { version, overtaken, reached: None }), true),
        ];
        for (method, answer, expected) in answers {
            let (mut by_hand, mut generated) = (BytesMut::new(), BytesMut::new());
            let format = Format::NATIVE;
            let written = hot::encode_answer(format, &method, Sequence(9), &answer, &mut by_hand);
            prop_assert_eq!(written, expected);
            encode_any_answer(format, &method, Sequence(9), &answer, &mut generated).unwrap();
            if written {
                prop_assert_eq!(&by_hand, &generated);
            }
            let message = messages(format, &generated, generated.len()).remove(0);
            let read = hot::decode_reply(&message);
            // Of a key never written the generated code tells.
            let known = !matches!(answer, Answer::Client { result: Ok(ClientResponse::Get { cell: None, .. }), .. });
            prop_assert_eq!(read.is_some(), expected && known);
            if let Some(read) = read {
                prop_assert_eq!(read, decode_any_reply(Protocol::Binary, message).unwrap());
            }
        }
    }

    /// What is read by hand is what the generated code reads, whatever the bytes; what is not is left to it.
    #[test]
    fn reading_by_hand_gives_up_or_agrees(
        call in calls(),
        (request, answer) in peer_answers(),
        sender in sender(),
        changes in proptest::collection::vec((any::<u16>(), 0u8..20), 0..3),
        cut in 0usize..3,
    ) {
        let change = |out: &mut BytesMut| {
            for (place, byte) in &changes {
                let place = usize::from(*place) % out.len();
                out[place] = *byte;
            }
            let length = out.len() - cut.min(out.len());
            out.truncate(length);
        };
        let format = Format { framing: Framing::Unframed, protocol: Protocol::Binary };
        let mut out = BytesMut::new();
        encode_any_call(format, Sequence(1), &call, &mut out).unwrap();
        change(&mut out);
        let message = out.split().freeze();
        if let Some(read) = hot::decode_call(&message) {
            prop_assert_eq!(read, decode_any_call(Protocol::Binary, message).unwrap());
        } else if changes.is_empty() && cut == 0 {
            let with_version = matches!(&call, Call::Client(ClientRequest::Put(put))
                if put.ticket.is_some() || put.after.is_some());
            prop_assert!(!is_hot(&call) || with_version);
        }
        let method = encode_call(format, Sequence(1), &Call::Peer(request), &mut BytesMut::new());
        let reply = Answer::Peer(Ok(PeerReply { sender, answer }));
        encode_any_answer(format, &method.unwrap(), Sequence(1), &reply, &mut out).unwrap();
        change(&mut out);
        let message = out.freeze();
        if let Some(read) = hot::decode_reply(&message) {
            prop_assert_eq!(read, decode_any_reply(Protocol::Binary, message).unwrap());
        }
    }

    #[test]
    fn changed_bytes_are_no_panic(
        call in calls(),
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        for format in Format::ALL {
            let mut out = BytesMut::new();
            encode_call(format, Sequence(1), &call, &mut out).unwrap();
            for (place, byte) in &changes {
                let place = usize::from(*place) % out.len();
                out[place] = *byte;
            }
            let mut reader = MessageReader::new(format);
            while let Ok(Some(message)) = reader.next(&mut out) {
                let _ = decode_call(format.protocol, message.clone());
                let _ = decode_reply(format.protocol, message);
            }
        }
    }
}

#[test]
fn answers_of_clients_come_back_in_every_format() {
    for format in Format::ALL {
        for (request, response) in responses() {
            let call = Call::Client(request);
            let method = encode_call(format, Sequence(1), &call, &mut BytesMut::new()).unwrap();
            let mut out = BytesMut::new();
            let answer = Answer::Client { server: ServerId(0), result: Ok(response.clone()) };
            encode_answer(format, &method, Sequence(1), &answer, &mut out).unwrap();
            let message = messages(format, &out, 1).remove(0);
            match decode_reply(format.protocol, message).unwrap().1 {
                Reply::Client { result, .. } => assert_eq!(result, Ok(response)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn failures_keep_their_numbers_and_their_ticket() {
    let version = Version { time: 7, server: ServerId(2), incarnation: Incarnation(1), step: 0 };
    let (level, required) = (Level::Quorum, 2);
    let disk = Failure::Disk { server: ServerId(1), state: DiskState::Hanging };
    let failures = [
        (Failure::Invalid(Invalid::EmptyRange), FailureCode::InvalidRequest, true, false),
        (Failure::Unavailable { level, required, alive: 1 }, FailureCode::Unavailable, true, true),
        (Failure::Overloaded { server: ServerId(1) }, FailureCode::Overloaded, true, true),
        (disk, FailureCode::Overloaded, true, true),
        (
            Failure::TimedOut { level, required, received: 1, version: Some(version) },
            FailureCode::TimedOut,
            false,
            false,
        ),
    ];
    for (failure, code, is_definite, may_retry) in failures {
        let mut out = BytesMut::new();
        let answer = Answer::Client { server: ServerId(0), result: Err(failure.clone()) };
        encode_answer(Format::NATIVE, &Method::Put, Sequence(1), &answer, &mut out).unwrap();
        let message = messages(Format::NATIVE, &out, out.len()).remove(0);
        let (_, reply) = decode_reply(Protocol::Binary, message).unwrap();
        let Reply::Client { result: Err(remote), .. } = reply else { panic!("{reply:?}") };
        assert_eq!((remote.code, remote.is_definite()), (code, is_definite));
        assert_eq!(remote.may_retry(), may_retry);
        assert_eq!(failure.is_definite(), is_definite);
        assert_eq!(remote.message, failure.to_string());
        if let Failure::TimedOut { version, .. } = failure {
            assert_eq!((remote.version, remote.received), (version, Some(1)));
        }
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_by_name_and_the_connection_goes_on() {
    use chord_gen as gen_;
    let decode = |request: &dyn Fn() -> gen_::PutRequest| {
        let mut out = BytesMut::new();
        let format = Format::NATIVE;
        envelope::with_output(format, &mut out, |output| {
            let kind = thrift::protocol::TMessageType::Call;
            envelope::write_message(output, "put", kind, Sequence(5), Some((1, &request())))
        })
        .unwrap();
        let message = messages(format, &out, out.len()).remove(0);
        decode_call(Protocol::Binary, message).unwrap().call
    };
    let put = |key: usize, value: usize, level: Option<i32>, timeout: Option<i32>| {
        decode(&|| gen_::PutRequest {
            key: vec![b'k'; key],
            value: vec![0; value],
            level: level.map(gen_::Level),
            timeout_ms: timeout,
            ticket: None,
            after: None,
        })
    };
    assert!(put(1, 0, None, None).is_ok());
    assert!(put(64 * 1024, 15 << 20, Some(3), Some(60_000)).is_ok());
    let invalid = |result: Result<Call, CallError>| match result {
        Err(CallError::Invalid(invalid)) => invalid,
        other => panic!("{other:?}"),
    };
    assert!(matches!(invalid(put(0, 0, None, None)), Invalid::Key(_)));
    assert!(matches!(invalid(put(65_537, 0, None, None)), Invalid::Key(_)));
    assert!(matches!(invalid(put(1, (15 << 20) + 1, None, None)), Invalid::ValueTooLong { .. }));
    assert!(matches!(invalid(put(1, 0, Some(9), None)), Invalid::Level { number: 9 }));
    assert!(matches!(invalid(put(1, 0, None, Some(0))), Invalid::Timeout { .. }));
    assert!(matches!(invalid(put(1, 0, None, Some(-1))), Invalid::Timeout { .. }));
}

#[test]
fn claimed_sizes_are_never_taken_on_trust() {
    let refuses = |format: Format, bytes: &[u8]| {
        let mut buffer = BytesMut::from(bytes);
        let error = MessageReader::new(format).next(&mut buffer).unwrap_err();
        assert!(buffer.capacity() < 1 << 20, "memory was reserved on a claim");
        error
    };
    let unframed = Format { framing: Framing::Unframed, protocol: Protocol::Binary };
    let compact = Format { framing: Framing::Unframed, protocol: Protocol::Compact };
    let too_long = refuses(Format::NATIVE, b"\x7f\xff\xff\xff\x80\x01");
    assert!(matches!(too_long, Error::FrameTooLong { .. }));
    // A name of 2 GiB, and one of a negative length.
    let named = |length: &[u8]| [b"\x80\x01\x00\x01", length].concat();
    assert!(matches!(refuses(unframed, &named(b"\x7f\xff\xff\xff")), Error::FrameTooLong { .. }));
    assert!(matches!(refuses(unframed, &named(b"\xff\xff\xff\xff")), Error::FrameTooLong { .. }));
    // A list of a hundred million structs.
    let list = b"\x80\x01\x00\x01\x00\x00\x00\x01x\x00\x00\x00\x01\x0f\x00\x01\x0c\x05\xf5\xe1\x00";
    assert!(matches!(refuses(unframed, list), Error::ContainerTooLong { .. }));
    // A thousand structs within each other.
    let mut deep = b"\x80\x01\x00\x01\x00\x00\x00\x01x\x00\x00\x00\x01".to_vec();
    deep.extend(b"\x0c\x00\x01".repeat(1000));
    assert!(matches!(refuses(unframed, &deep), Error::TooDeep { .. }));
    assert!(matches!(
        refuses(compact, b"\x82\x21\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Error::Malformed { .. }
    ));
}

#[test]
fn the_originals_calls_are_understood_or_refused_in_its_own_words() {
    use chord_gen as gen_;
    let decode = |level: Option<&str>, key: Option<i32>, value: Option<&str>| {
        let kv = gen_::KV { key, value: value.map(str::to_owned), time: None };
        let request = gen_::ClientRequest { const_level: level.map(str::to_owned), kv: Some(kv) };
        let mut out = BytesMut::new();
        envelope::with_output(Format::ALL[2], &mut out, |output| {
            let kind = thrift::protocol::TMessageType::Call;
            envelope::write_message(output, "clientPut", kind, Sequence(5), Some((1, &request)))
        })
        .unwrap();
        let message = messages(Format::ALL[2], &out, 1).remove(0);
        let request = decode_call(Protocol::Binary, message).unwrap();
        let refusal =
            request.call.as_ref().err().map(|error| refuse(&request.method, ServerId(0), error));
        (request.call.ok(), refusal)
    };
    let put = OriginalCall::Put { number: 137, value: "v".into(), level: Level::Quorum };
    assert_eq!(decode(Some("QUORUM"), Some(137), Some("v")), (Some(Call::Original(put)), None));
    let bad = Some(Answer::Original(Err("Bad request format".to_owned())));
    for (level, key, value) in [
        (Some("quorum"), Some(1), Some("v")),
        (Some("ALL"), Some(1), Some("v")),
        (None, Some(1), Some("v")),
        (Some("ONE"), Some(256), Some("v")),
        (Some("ONE"), Some(-1), Some("v")),
        (Some("ONE"), None, Some("v")),
        (Some("ONE"), Some(1), None),
    ] {
        assert_eq!(decode(level, key, value), (None, bad.clone()), "{level:?} {key:?} {value:?}");
    }
    assert_eq!(original::key(7).as_bytes(), b"007");
}

/// A peer's store under a version that no write has would be damage at the next start.
#[test]
fn a_cell_under_a_version_that_no_write_has_is_refused() {
    for version in [Version::ZERO, Version { time: -1, ..Version::ZERO }] {
        let content = Content::Value(Bytes::from_static(b"v"));
        let key = Key::new("k".to_owned()).unwrap();
        let cell = Cell { version, content };
        let store = PeerRequest::Store { key, epoch: Epoch(1), cell };
        let format = Format::NATIVE;
        let mut bytes = BytesMut::new();
        encode_call(format, Sequence(1), &Call::Peer(store), &mut bytes).unwrap();
        let message = MessageReader::new(format).next(&mut bytes).unwrap().unwrap();
        let call = decode_call(format.protocol, message).unwrap().call;
        let error = call.unwrap_err().to_string();
        assert!(error.contains("a version that no write has"), "{error}");
    }
}

/// A long message has memory of its own: neither does the next one's beginning keep it, nor it what it did not need.
#[test]
fn a_long_message_is_parted_from_the_buffer_it_was_read_into() {
    let long = 1 << 20;
    let mut reader = MessageReader::new(Format::NATIVE);
    let mut buffer = BytesMut::new();
    reader.make_room(&mut buffer, 1_000);
    assert!(buffer.capacity() < 10_000, "nothing is known yet");
    buffer.extend_from_slice(&(long as u32).to_be_bytes());
    reader.make_room(&mut buffer, 1_000);
    assert!((long + 4..long + 8_192).contains(&buffer.capacity()), "{}", buffer.capacity());
    buffer.extend_from_slice(&vec![7; long]);
    buffer.extend_from_slice(b"next");
    let message = reader.next(&mut buffer).unwrap().unwrap();
    assert_eq!((message.len(), &buffer[..]), (long, &b"next"[..]));
    assert!(buffer.capacity() < 10_000, "{}", buffer.capacity());
    assert!(message.is_unique(), "nobody else keeps its memory");
}
