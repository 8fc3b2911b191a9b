//! One connection: many calls in flight, answered in order.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::model::ClientRequest;
use crate::wire::{
    Call, Error, FailureCode, Format, MessageReader, RemoteFailure, Reply, Sequence, decode_reply,
    encode_call,
};

/// Calls that wait to be written are taken in lots of this many: one write for all of them.
const LOT: usize = 256;
/// Unwritten bytes beyond which no more calls are encoded.
const HIGH_WATER: usize = 1 << 20;

/// The connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Broken {
    /// What happened.
    pub why: String,
    /// The call was not written, not even in part.
    pub unsent: bool,
}

/// An answer that is to come.
pub type Pending = oneshot::Receiver<Result<Reply, Broken>>;

type Order = (ClientRequest, oneshot::Sender<Result<Reply, Broken>>);

/// A connection to one server. Dropping the last handle ends it.
#[derive(Clone, Debug)]
pub struct Connection {
    orders: mpsc::UnboundedSender<Order>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The system's.
    pub async fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(serve(stream, receiver));
        Ok(Connection { orders })
    }

    /// Sends a call; its answer comes later. Bounding how many are in flight is the caller's part.
    pub fn send(&self, request: ClientRequest) -> Pending {
        let (sender, receiver) = oneshot::channel();
        if let Err(mpsc::error::SendError((_, sender))) = self.orders.send((request, sender)) {
            let why = "the connection is closed".to_owned();
            // The receiver is in this very function.
            let _ = sender.send(Err(Broken { why, unsent: true }));
        }
        receiver
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.orders.is_closed()
    }
}

/// Calls that were written, oldest first, and those whose bytes are not all written yet.
type Waiting = VecDeque<(Sequence, oneshot::Sender<Result<Reply, Broken>>)>;

async fn serve(mut stream: TcpStream, mut orders: mpsc::UnboundedReceiver<Order>) {
    let (mut reader, mut waiting) = (MessageReader::new(Format::NATIVE), Waiting::new());
    let (mut input, mut output) = (BytesMut::with_capacity(64 << 10), BytesMut::new());
    let (mut lot, mut next) = (Vec::new(), 0i32);
    let why = loop {
        tokio::select! {
            count = orders.recv_many(&mut lot, LOT), if output.len() < HIGH_WATER => {
                // Nobody can ask any more; those who still wait want their answers.
                if count == 0 && waiting.is_empty() {
                    return;
                }
                if count == 0 {
                    match finish(&mut stream, &mut reader, &mut input, &mut output, &mut waiting).await {
                        Ok(()) => return,
                        Err(why) => break why,
                    }
                }
                for (request, sender) in lot.drain(..) {
                    next = next.wrapping_add(1);
                    let call = Call::Client(request);
                    match encode_call(Format::NATIVE, Sequence(next), &call, &mut output) {
                        Ok(_) => waiting.push_back((Sequence(next), sender)),
                        Err(error) => {
                            let _ = sender.send(Ok(impossible(&error)));
                        }
                    }
                }
            }
            step = transfer(&mut stream, &mut input, &mut output) => {
                if let Err(why) = step.and_then(|()| answer(&mut reader, &mut input, &mut waiting)) {
                    break why;
                }
            }
        }
    };
    // What was encoded may have been written in part: nobody can be told that it was not.
    orders.close();
    for (_, sender) in waiting {
        let _ = sender.send(Err(Broken { why: why.clone(), unsent: false }));
    }
    while let Some((_, sender)) = orders.recv().await {
        let _ = sender.send(Err(Broken { why: why.clone(), unsent: true }));
    }
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
    };
    Reply::Client { server: None, result: Err(failure) }
}

/// Writes and reads until the last call is answered.
async fn finish(
    stream: &mut TcpStream,
    reader: &mut MessageReader,
    input: &mut BytesMut,
    output: &mut BytesMut,
    waiting: &mut Waiting,
) -> Result<(), String> {
    while !waiting.is_empty() {
        transfer(stream, input, output).await?;
        answer(reader, input, waiting)?;
    }
    Ok(())
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
        match waiting.pop_front() {
            Some((expected, sender)) if expected == sequence => {
                // Whoever asked may have stopped waiting.
                let _ = sender.send(Ok(reply));
            }
            Some((expected, sender)) => {
                waiting.push_front((expected, sender));
                return Err(format!("answer {} came where {} was due", sequence.0, expected.0));
            }
            None => return Err("an answer came that nobody had asked for".to_owned()),
        }
    }
    Ok(())
}
