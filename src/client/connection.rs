//! One connection: many calls in flight, their answers told apart by number.
//!
//! The server is asked to answer as answers are ready, so a call that takes long holds up nobody but whoever made
//! it. One that does not know that word answers in order, which is as good, only slower.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::model::ClientRequest;
use crate::wire::{
    Call, Error, FailureCode, Format, MessageReader, RemoteFailure, Reply, Sequence, decode_reply,
    encode_call,
};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Calls that wait to be written are taken in lots of this many: one write for all of them.
const LOT: usize = 256;
/// Unwritten bytes beyond which no more calls are encoded.
const HIGH_WATER: usize = 1 << 20;
/// Room made for each read.
const READ_BYTES: usize = 64 << 10;
/// Of the word about the connection itself; calls are counted from 1.
const SESSION: Sequence = Sequence(0);

/// The connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Broken {
    /// What happened.
    pub(super) why: String,
    /// The call was not written, not even in part.
    pub(super) unsent: bool,
}

/// An answer that is to come.
pub(super) type Pending = oneshot::Receiver<Result<Reply, Broken>>;

type Order = (ClientRequest, oneshot::Sender<Result<Reply, Broken>>);

/// A connection to one server, which may still be in the making. Dropping the last handle ends it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    orders: mpsc::UnboundedSender<Order>,
}

impl Connection {
    /// Connects, in a task of its own; calls wait for that.
    pub(super) fn open(address: String) -> Connection {
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(live(address, receiver));
        Connection { orders }
    }

    /// Sends a call; its answer comes later. Bounding how many are in flight is the caller's part.
    pub(super) fn send(&self, request: ClientRequest) -> Pending {
        let (sender, receiver) = oneshot::channel();
        if let Err(mpsc::error::SendError((_, sender))) = self.orders.send((request, sender)) {
            let why = "the connection is closed".to_owned();
            // The receiver is in this very function.
            let _ = sender.send(Err(Broken { why, unsent: true }));
        }
        receiver
    }

    /// The connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.orders.is_closed()
    }

    /// Both are handles of one connection.
    pub(super) fn is(&self, other: &Connection) -> bool {
        self.orders.same_channel(&other.orders)
    }
}

/// Calls that were written, and those whose bytes are not all written yet.
type Waiting = BTreeMap<Sequence, oneshot::Sender<Result<Reply, Broken>>>;

/// From the attempt to connect to the end.
async fn live(address: String, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut waiting = Waiting::new();
    let why = match tokio::time::timeout(CONNECT, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => match serve(stream, &mut orders, &mut waiting).await {
            Ok(()) => return,
            Err(why) => why,
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {CONNECT:?}"),
    };
    // What was encoded may have been written in part: nobody can be told that it was not.
    orders.close();
    for sender in waiting.into_values() {
        let _ = sender.send(Err(Broken { why: format!("{address}: {why}"), unsent: false }));
    }
    while let Some((_, sender)) = orders.recv().await {
        let _ = sender.send(Err(Broken { why: format!("{address}: {why}"), unsent: true }));
    }
}

/// Until nobody can ask any more, or, as an error, until the connection breaks.
async fn serve(
    mut stream: TcpStream,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &mut Waiting,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut reader = MessageReader::new(Format::NATIVE);
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let (mut lot, mut next) = (Vec::new(), SESSION.0);
    let session = Call::Session { answers_as_ready: true };
    encode_call(Format::NATIVE, SESSION, &session, &mut output).map_err(|e| e.to_string())?;
    let mut asking = true;
    while asking || !waiting.is_empty() {
        reader.make_room(&mut input, READ_BYTES);
        tokio::select! {
            count = orders.recv_many(&mut lot, LOT), if asking && output.len() < HIGH_WATER => {
                // Nobody can ask any more; those who still wait want their answers.
                asking = count > 0;
                for (request, sender) in lot.drain(..) {
                    // After 2³¹ calls from 1 on again; none of those is still in flight.
                    next = if next == i32::MAX { 1 } else { next + 1 };
                    let call = Call::Client(request);
                    match encode_call(Format::NATIVE, Sequence(next), &call, &mut output) {
                        Ok(_) => {
                            waiting.insert(Sequence(next), sender);
                        }
                        Err(error) => {
                            let _ = sender.send(Ok(impossible(&error)));
                        }
                    }
                }
            }
            step = transfer(&mut stream, &mut input, &mut output) => {
                step?;
                answer(&mut reader, &mut input, waiting)?;
            }
        }
    }
    Ok(())
}

/// A call that cannot even be written is refused here, as a server would.
fn impossible(error: &Error) -> Reply {
    let failure = RemoteFailure {
        code: FailureCode::InvalidRequest,
        message: format!("invalid request: {error}"),
        level: None,
        required: None,
        received: None,
        alive: None,
        version: None,
        not_stored: false,
    };
    Reply::Client { server: None, result: Err(failure) }
}

/// Moves some bytes, in whichever direction is ready. Can be dropped at any point without losing any.
async fn transfer(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    output: &mut BytesMut,
) -> Result<(), String> {
    let (mut from, mut to) = stream.split();
    tokio::select! {
        written = to.write_buf(output), if !output.is_empty() => {
            written.map(|_| ()).map_err(|error| format!("the connection broke: {error}"))
        }
        read = from.read_buf(input) => match read {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the connection broke: {error}")),
        },
    }
}

/// Hands out the answers that have come.
fn answer(
    reader: &mut MessageReader,
    input: &mut BytesMut,
    waiting: &mut Waiting,
) -> Result<(), String> {
    while let Some(message) = reader.next(input).map_err(|error| error.to_string())? {
        let (sequence, reply) =
            decode_reply(Format::NATIVE.protocol, message).map_err(|error| error.to_string())?;
        match waiting.remove(&sequence) {
            Some(sender) => {
                // Whoever asked may have stopped waiting.
                let _ = sender.send(Ok(reply));
            }
            // However the server has taken it.
            None if sequence == SESSION => {}
            None => return Err(format!("answer {} came that nobody waits for", sequence.0)),
        }
    }
    Ok(())
}
