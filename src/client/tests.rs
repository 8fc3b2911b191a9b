//! The client against servers that misbehave: what is sent again, to whom, and what is never sent twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Client, Error, Options, Routing, Safety, batch, grammar};
use crate::model::{
    Cell, ClientRequest, ClientResponse, Content, Failure, Incarnation, Invalid, Key, Level,
    PreparedPut, ServerId, Version,
};
use crate::wire::{Answer, Call, Format, MessageReader, decode_call, encode_answer};

type Result<T, E = Failure> = std::result::Result<T, E>;

/// What a server does with a call: answers, or (`None`) closes the connection.
type Behaviour = fn(&ClientRequest) -> Option<Result<ClientResponse>>;

/// A server that notes what it is asked.
struct Fake {
    address: String,
    asked: Arc<Mutex<Vec<ClientRequest>>>,
}

impl Fake {
    async fn start(behaviour: Behaviour) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                tokio::spawn(async move {
                    let mut reader = MessageReader::new(Format::NATIVE);
                    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
                    while stream.read_buf(&mut input).await.is_ok_and(|length| length > 0) {
                        while let Some(message) = reader.next(&mut input).unwrap() {
                            let request = decode_call(Format::NATIVE.protocol, message).unwrap();
                            let call = match request.call {
                                Ok(Call::Client(call)) => call,
                                // As a server that does not know the word.
                                Ok(Call::Session { .. }) => {
                                    let answer = Answer::Application("no such method".into());
                                    let (method, sequence) = (&request.method, request.sequence);
                                    let format = Format::NATIVE;
                                    encode_answer(format, method, sequence, &answer, &mut output)
                                        .unwrap();
                                    continue;
                                }
                                other => panic!("{other:?}"),
                            };
                            notes.lock().unwrap().push(call.clone());
                            let Some(result) = behaviour(&call) else { return };
                            let answer = Answer::Client { server: ServerId(0), result };
                            let (method, sequence) = (&request.method, request.sequence);
                            encode_answer(Format::NATIVE, method, sequence, &answer, &mut output)
                                .unwrap();
                        }
                        stream.write_all_buf(&mut output).await.unwrap();
                    }
                });
            }
        });
        Fake { address, asked }
    }

    fn puts(&self) -> Vec<Option<Version>> {
        let asked = self.asked.lock().unwrap();
        let ticket = |request: &ClientRequest| match request {
            ClientRequest::Put(put) => Some(put.ticket),
            _ => None,
        };
        asked.iter().filter_map(ticket).collect()
    }
}

fn version() -> Version {
    Version { time: 7, server: ServerId(0), incarnation: Incarnation(1), step: 0 }
}

/// Answers everything; a key's value is the key.
fn well(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    Some(Ok(match request {
        ClientRequest::Put(put) => {
            let version = put.ticket.unwrap_or(version());
            ClientResponse::Put { version, overtaken: false, reached: None }
        }
        ClientRequest::Prepare { .. } => ClientResponse::Prepared { version: version() },
        ClientRequest::Get { key, .. } => {
            let content = Content::Value(key.to_bytes());
            ClientResponse::Get { cell: Some(Cell { version: version(), content }), reached: None }
        }
        _ => return None,
    }))
}

/// Dies over every write, and answers the rest.
fn dies_over_writes(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    match request {
        ClientRequest::Put(_) => None,
        _ => well(request),
    }
}

fn dies(_: &ClientRequest) -> Option<Result<ClientResponse>> {
    None
}

/// Gives every write up, with the ticket.
fn times_out(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    match request {
        ClientRequest::Put(_) => {
            let (level, required, received) = (Level::Quorum, 2, 1);
            Some(Err(Failure::TimedOut { level, required, received, version: Some(version()) }))
        }
        _ => well(request),
    }
}

fn client(servers: &[&Fake], safety: Safety) -> Client {
    let servers = servers.iter().map(|server| server.address.clone()).collect();
    let (timeout, routing) = (Duration::from_millis(600), Routing::Sticky);
    Client::new(Options { servers, timeout, safety, routing })
}

async fn put(client: &Client) -> std::result::Result<super::Answered, Error> {
    client.write(PreparedPut::new(Key::bound("k"), Content::Value("v".into()), Level::Quorum)).await
}

#[tokio::test]
async fn a_write_without_a_ticket_is_never_sent_twice() {
    let (first, second) = (Fake::start(dies_over_writes).await, Fake::start(well).await);
    let client = client(&[&first, &second], Safety::OneCall);
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { ticket: None, .. }), "{error:?}");
    assert!(!error.is_definite() && !error.may_retry());
    assert_eq!((first.puts().len(), second.puts().len()), (1, 0));
}

#[tokio::test]
async fn a_write_with_a_ticket_goes_to_another_server_under_the_same_ticket() {
    let (first, second) = (Fake::start(dies_over_writes).await, Fake::start(well).await);
    let client = client(&[&first, &second], Safety::Ticket);
    put(&client).await.unwrap();
    assert_eq!(first.puts(), [Some(version())]);
    assert_eq!(second.puts(), [Some(version())]);
}

#[tokio::test]
async fn a_write_that_timed_out_is_tried_again_under_its_ticket_and_then_unknown() {
    let server = Fake::start(times_out).await;
    let client = client(&[&server], Safety::OneCall);
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { ticket: Some(ticket), .. } if ticket == version()));
    let puts = server.puts();
    assert!(puts.len() > 1 && puts[0].is_none());
    assert!(puts[1..].iter().all(|ticket| *ticket == Some(version())), "{puts:?}");
}

#[tokio::test]
async fn a_read_goes_to_the_next_server_when_one_dies_over_it() {
    let (first, second) = (Fake::start(dies).await, Fake::start(well).await);
    let client = client(&[&first, &second], Safety::OneCall);
    let (key, level, timeout) = (Key::bound("k"), Level::Quorum, None);
    client.read(ClientRequest::Get { key, level, timeout }).await.unwrap();
    assert_eq!(client.address(), Some(second.address.clone()));
}

/// As a server does that has never heard of AVAILABLE.
fn is_old(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    match request {
        ClientRequest::Get { level: Level::Available, .. } => {
            Some(Err(Failure::Invalid(Invalid::Level { number: 4 })))
        }
        _ => well(request),
    }
}

#[tokio::test]
async fn a_server_that_is_older_than_a_level_is_named() {
    let server = Fake::start(is_old).await;
    let client = client(&[&server], Safety::OneCall);
    let (key, level, timeout) = (Key::bound("k"), Level::Available, None);
    let error = client.read(ClientRequest::Get { key, level, timeout }).await.unwrap_err();
    let text = error.to_string();
    let wanted = format!("the server at {} is older than level AVAILABLE", server.address);
    assert!(text.contains(&wanted), "{text}");
}

#[tokio::test]
async fn without_a_server_nothing_was_stored() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let timeout = Duration::from_millis(300);
    let (servers, safety, routing) = (vec![gone], Safety::OneCall, Routing::Sticky);
    let client = Client::new(Options { servers, timeout, safety, routing });
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_definite());
    assert_eq!(error.exit_code(), 6);
}

#[tokio::test]
async fn a_batch_prints_in_the_order_of_its_lines_and_goes_on_after_errors() {
    let server = Fake::start(well).await;
    let client = client(&[&server], Safety::OneCall);
    let (sender, mut lines) = tokio::sync::mpsc::channel(4096);
    let mut input: Vec<_> = (0..2_500).map(|i| format!("get key{i}")).collect();
    input.insert(10, "frobnicate".to_owned());
    input.insert(20, "# a note".to_owned());
    input.insert(30, "put key1 v".to_owned());
    for line in input {
        sender.send(line.into_bytes()).await.unwrap();
    }
    drop(sender);
    let options =
        batch::Options { level: Level::Quorum, json: false, quiet: false, numbered: false };
    let mut streams = batch::Streams(Vec::new(), Vec::new());
    let parse = |line: &[u8]| grammar::parse(&String::from_utf8_lossy(line));
    let summary = batch::run(&client, &mut lines, parse, options, &mut streams).await.unwrap();
    let batch::Streams(out, err) = streams;
    assert_eq!((summary.commands, summary.ok, summary.failed, summary.exit), (2_502, 2_501, 1, 2));
    let out = String::from_utf8(out).unwrap();
    let keys: Vec<_> = out
        .lines()
        .filter(|line| !line.contains("= v"))
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect();
    let expected: Vec<_> = (0..2_500).map(|i| format!("key{i}")).collect();
    assert_eq!(keys, expected);
    assert!(String::from_utf8(err).unwrap().starts_with("line 11: there is no command"));
}

#[tokio::test]
async fn a_batch_whose_server_dies_reports_what_is_unknown_and_goes_on() {
    let (first, second) = (Fake::start(dies_over_writes).await, Fake::start(well).await);
    let client = client(&[&first, &second], Safety::OneCall);
    let (sender, mut lines) = tokio::sync::mpsc::channel(16);
    for line in ["put a 1", "exit"] {
        sender.send(line.as_bytes().to_vec()).await.unwrap();
    }
    let options =
        batch::Options { level: Level::Quorum, json: false, quiet: false, numbered: false };
    let mut streams = batch::Streams(Vec::new(), Vec::new());
    let parse = |line: &[u8]| grammar::parse(&String::from_utf8_lossy(line));
    let summary = batch::run(&client, &mut lines, parse, options, &mut streams).await.unwrap();
    let batch::Streams(out, _) = streams;
    assert_eq!(summary.exit, 4);
    assert!(String::from_utf8(out).unwrap().starts_with("UNKNOWN a"));
    assert!(second.puts().is_empty());
}

/// Takes no ticket for one of this cluster's; as a server whose clock is behind did.
fn knows_no_ticket(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    match request {
        ClientRequest::Put(put) if put.ticket.is_some() => {
            Some(Err(Failure::Invalid(Invalid::Ticket)))
        }
        _ => well(request),
    }
}

#[tokio::test]
async fn no_refusal_is_a_definite_no_once_a_write_may_have_arrived() {
    for first in [dies_over_writes as Behaviour, times_out] {
        for second in [knows_no_ticket as Behaviour, is_overloaded, is_cut_off] {
            let (first, second) = (Fake::start(first).await, Fake::start(second).await);
            let client = client(&[&first, &second], Safety::Ticket);
            let error = put(&client).await.unwrap_err();
            let unknown =
                matches!(error, Error::Unknown { ticket: Some(ticket), .. } if ticket == version());
            assert!(unknown && !error.is_definite(), "{error:?}");
            assert!(!second.puts().is_empty());
        }
    }
}

#[tokio::test]
async fn a_refusal_after_a_possible_arrival_sends_the_write_to_another_server() {
    let (first, second) = (Fake::start(dies_over_writes).await, Fake::start(knows_no_ticket).await);
    let third = Fake::start(well).await;
    let client = client(&[&first, &second, &third], Safety::Ticket);
    put(&client).await.unwrap();
    assert_eq!(third.puts(), [Some(version())]);
}

#[tokio::test]
async fn a_ticket_that_the_caller_brings_is_never_refused_for_certain() {
    let (first, second) = (Fake::start(knows_no_ticket).await, Fake::start(knows_no_ticket).await);
    let client = client(&[&first, &second], Safety::OneCall);
    let mut put = PreparedPut::new(Key::bound("k"), Content::Value("v".into()), Level::Quorum);
    put.ticket = Some(version());
    let error = client.write(put).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { ticket: Some(ticket), .. } if ticket == version()));
    // Asking again would change nothing.
    assert_eq!((first.puts().len(), second.puts().len()), (1, 1));
}

/// Has no room for a write.
fn is_overloaded(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    match request {
        ClientRequest::Put(_) => Some(Err(Failure::Overloaded { server: ServerId(0) })),
        _ => well(request),
    }
}

/// Sees no majority.
fn is_cut_off(request: &ClientRequest) -> Option<Result<ClientResponse>> {
    match request {
        ClientRequest::Put(_) => {
            let (level, required, alive) = (Level::Quorum, 2, 1);
            Some(Err(Failure::Unavailable { level, required, alive }))
        }
        _ => well(request),
    }
}

#[tokio::test]
async fn what_one_server_refuses_for_itself_another_one_is_asked() {
    for refuses in [is_overloaded as Behaviour, is_cut_off] {
        let (first, second) = (Fake::start(refuses).await, Fake::start(well).await);
        let client = client(&[&first, &second], Safety::OneCall);
        put(&client).await.unwrap();
        assert_eq!((first.puts().len(), second.puts().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_refusal_of_all_is_the_last_one_and_each_was_asked_once() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Fake::start(is_overloaded).await);
    }
    let client = client(&[&servers[0], &servers[1], &servers[2]], Safety::OneCall);
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.exit_code() == 5, "{error:?}");
    assert!(servers.iter().all(|server| server.puts().len() == 1));
}

#[tokio::test]
async fn that_too_few_replicas_live_is_believed_when_a_second_server_says_so() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Fake::start(is_cut_off).await);
    }
    let client = client(&[&servers[0], &servers[1], &servers[2]], Safety::OneCall);
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.exit_code() == 3, "{error:?}");
    let asked: Vec<_> = servers.iter().map(|server| server.puts().len()).collect();
    assert_eq!(asked, [1, 1, 0]);
}
