//! The cluster's secret: servers show each other that they know it, and tell it nobody.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::{Bytes, BytesMut};
use chord::model::{Hello, HelloRefusal, Level, ServerId};
use chord::wire::{
    Answer, Call, Format, MessageReader, Method, Reply, Sequence, decode_call, decode_reply,
    encode_answer, encode_call,
};

use crate::process::{Cluster, PATIENCE, Shape, wait_until};

const SECRET: &str = "correct horse battery staple";

/// One side of a connection, spoken by hand; it keeps all that it was told.
struct Line {
    stream: TcpStream,
    reader: MessageReader,
    input: BytesMut,
    heard: Vec<u8>,
}

impl Line {
    fn new(stream: TcpStream) -> Line {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = MessageReader::new(Format::NATIVE);
        Line { stream, reader, input: BytesMut::new(), heard: Vec::new() }
    }

    /// `None`: it was closed.
    fn hear(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.reader.next(&mut self.input).unwrap() {
                return Some(message);
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).ok().filter(|count| *count > 0)?;
            self.heard.extend_from_slice(&piece[..count]);
            self.input.extend_from_slice(&piece[..count]);
        }
    }

    fn hear_hello(&mut self) -> Hello {
        let request = decode_call(Format::NATIVE.protocol, self.hear().unwrap()).unwrap();
        match request.call {
            Ok(Call::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, sequence: i32, answer: Result<Hello, HelloRefusal>) {
        let (mut out, sequence) = (BytesMut::new(), Sequence(sequence));
        let answer = Answer::Hello(answer);
        encode_answer(Format::NATIVE, &Method::PeerHello, sequence, &answer, &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    fn say(&mut self, hello: Hello) -> Result<Hello, HelloRefusal> {
        let mut out = BytesMut::new();
        encode_call(Format::NATIVE, Sequence(0), &Call::Hello(hello), &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
        match decode_reply(Format::NATIVE.protocol, self.hear().unwrap()).unwrap() {
            (_, Reply::Hello(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever listens at a peer's address, as after its host was given to somebody else, learns neither the secret nor anything that
/// opens another server; and whoever tells the secret in clear is sent away.
#[test]
fn an_impostor_learns_nothing_that_opens_another_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let flags = ["--secret-file", file.to_str().unwrap()];
    let mut cluster = Cluster::shaped(Shape { flags: &flags, ..Shape::of(3, 3) });
    cluster.put(0, "k", "v", Level::All).unwrap();
    cluster.kill(1);
    let impostor = TcpListener::bind(cluster.address(1)).unwrap();
    let mut line = Line::new(impostor.accept().unwrap().0);
    let first = line.hear_hello();
    assert_eq!((&first.secret, first.proof), (&None, None), "it was not asked for a proof yet");
    // The number of another server's own connection, so that the answer opens that one.
    let mut other = Line::new(TcpStream::connect(cluster.address(2)).unwrap());
    let asks = Hello { server: ServerId(1), ..first.clone() };
    let challenge = other.say(asks.clone()).unwrap_err().challenge;
    assert!(challenge.is_some());
    let message = "prove it".to_owned();
    line.answer(0, Err(HelloRefusal { message, challenge }));
    let proven = line.hear_hello();
    assert!(proven.secret.is_none() && proven.proof.is_some());
    let victim = first.server;
    for server in [ServerId(1), victim] {
        let refused = other.say(Hello { proof: proven.proof, server, ..first.clone() });
        assert!(refused.unwrap_err().message.contains("secret"), "as server {server}");
    }
    // What it says itself is no proof either, neither its own word nor the caller's.
    for proof in [None, proven.proof] {
        line.answer(1, Ok(Hello { server: ServerId(1), proof, ..first.clone() }));
        assert!(line.hear().is_none(), "the caller goes");
        let heard = String::from_utf8_lossy(&line.heard).into_owned();
        assert!(!heard.contains(SECRET), "{heard}");
        line = Line::new(impostor.accept().unwrap().0);
        line.hear_hello();
        line.answer(0, Err(HelloRefusal { message: "again".to_owned(), challenge }));
        line.hear_hello();
    }
    let clear = Hello { secret: Some(SECRET.to_owned()), ..asks };
    let refused = other.say(clear).unwrap_err().message;
    assert!(refused.contains("--secret-in-clear"), "{refused}");
    assert!(cluster.log(victim.0.into()).contains("the secret is missing or another one"));
    drop((line, impostor));
    cluster.restart(1);
    cluster.wait_alive(0, &[0, 1, 2]);
    cluster.put(0, "k", "w", Level::All).unwrap();
}

/// Two secrets in one cluster: both sides say what is wrong, and with the right one it goes on.
#[test]
fn another_secret_is_named_at_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let flags = ["--secret-file", file.to_str().unwrap()];
    let mut cluster = Cluster::shaped(Shape { flags: &flags, ..Shape::of(3, 3) });
    cluster.kill(1);
    std::fs::write(&file, "another").unwrap();
    cluster.restart(1);
    let said = "the secret is missing or another one; give all servers the same --secret-file";
    wait_until("both name it", || {
        let (theirs, ours) = (cluster.log(1), cluster.log(0));
        let both = theirs.contains(&format!("it does not accept this server: {said}"))
            && ours.contains(&format!("is refused: {said}"));
        both.then_some(()).ok_or_else(|| format!("{theirs}\n{ours}"))
    });
    cluster.kill(1);
    std::fs::write(&file, SECRET).unwrap();
    cluster.restart(1);
    cluster.wait_alive(0, &[0, 1, 2]);
}
