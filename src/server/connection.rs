//! One accepted connection: bytes to calls, answers to bytes.
//!
//! A client may send many calls without waiting. They are carried out at the same time and answered in the
//! order in which they came, as every Thrift client expects, unless the client has said that it tells answers apart
//! by their numbers; a peer's requests are answered as they finish.
//! All answers that are ready leave in one write, up to [`HIGH_WATER`].
//!
//! Push-back, in the order in which it is felt: with [`MAX_CALLS_PER_CONNECTION`] calls in flight (fewer where answers
//! are long), or more than [`HIGH_WATER`] bytes that the other side does not take, or no room left in the
//! [budget](crate::budget), nothing more is read from the socket, and TCP tells the sender.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::gate::{Answering, Gate, Refusal};
use super::listener::Voice;
use super::mail::{Input, Outgoing, Route};
use super::original::{self, Question, Translation};
use super::secret::Nonce;
use super::stall::{Patience, Stall, WATCH};
use super::throttle::Throttle;
use super::unsent::{Unsent, weight, weight_of_reply};
use crate::budget::{Account, Budget, SHORT, Share, Waiting as Place};
use crate::model::{Failure, PeerReply, Pending, ServerId};
use crate::node::Event;
use crate::wire::{
    Answer, Call, Detection, Foreign, Format, MAX_FRAME_LENGTH, MessageReader, Method, Sequence,
    decode_call, detect, encode_answer, make_room, refuse,
};

/// Calls of one client connection in flight at most. A client that keeps more waiting gains nothing: a thousand
/// fill every batch of the storage thread.
pub(crate) const MAX_CALLS_PER_CONNECTION: usize = 1024;

/// Requests of one peer connection in flight at most: what all the calls of a busy coordinator come to.
const MAX_REQUESTS_PER_CONNECTION: usize = 16 * 1024;

/// Unsent bytes beyond which nothing more is read: the other side is slow, and answers are memory.
const HIGH_WATER: usize = 1 << 20;

/// Room made for each read.
const READ_BYTES: usize = 32 * 1024;

/// Answers taken from the queue in one go.
const MAX_ANSWERS: usize = 256;

/// First bytes that should long have told what they are.
const MAX_FIRST_BYTES: usize = 64;

/// Looks after which an unanswered request of a peer is forgotten: the peer has, long before.
const FORGET_AFTER: u32 = 12;

/// What a browser is told.
const NOT_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 54\r\n\
    Connection: close\r\n\r\nThis port of a Chord server speaks Thrift, not HTTP.\r\n";

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Who answers.
    pub(crate) server: ServerId,
    /// Who may speak as a peer.
    pub(crate) gate: Arc<Gate>,
    /// To the node's task.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// What memory there is for all of them.
    pub(crate) budget: Budget,
    /// For lines about what strangers send.
    pub(crate) strangers: Throttle,
    /// For lines about peers that are refused.
    pub(crate) refusals: Throttle,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    number: u32,
    voice: Arc<Voice>,
    shared: Arc<Shared>,
) {
    // Without it small answers wait for acknowledgements; a socket that refuses is as good as closed.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (outgoing, answers) = mpsc::unbounded_channel();
    let inputs = shared.inputs.clone();
    if inputs.send(Input::Opened { connection: number, outgoing }).await.is_err() {
        return;
    }
    let connection = Connection {
        number,
        remote,
        shared,
        voice,
        reader: None,
        input: BytesMut::new(),
        output: BytesMut::new(),
        calls: VecDeque::new(),
        as_ready: false,
        first_call: 0,
        requests: Pending::default(),
        next_request: 0,
        replies: VecDeque::new(),
        introduced: None,
        challenge: None,
        answering: Answering::Openly,
        large: None,
        waiting: None,
        ending: false,
        unsent: Unsent::default(),
        input_stall: Stall::default(),
        output_stall: Stall::default(),
        looks: 0,
    };
    connection.run(stream, answers).await;
    // The node's task may be gone; then so is its list of connections.
    let _ = inputs.send(Input::Closed { connection: number }).await;
}

/// A call between its arrival and its answer.
struct Slot {
    sequence: Sequence,
    method: Method,
    oneway: bool,
    /// Of a call of the original program.
    question: Option<Question>,
    state: State,
    /// Given back when it leaves the queue.
    _share: Held,
}

/// What a call has of the budget until it is answered.
enum Held {
    /// All that its message takes.
    Share { _share: Share },
    /// Its place among the long calls: the message has the rest.
    Place { _place: Place },
}

/// How far the answer to a call is.
enum State {
    Waiting,
    Ready(Answer),
    /// It has been encoded, before its turn.
    Left,
}

/// A peer's request between its arrival and its answer.
struct Request {
    sequence: Sequence,
    method: Method,
    oneway: bool,
    /// The look at which it came.
    since: u32,
    _share: Held,
}

/// A share of the byte budget that is being waited for.
struct Waiting {
    /// For this message, or, if none, for a long one that is not complete yet.
    message: Option<Bytes>,
    share: Pin<Box<dyn Future<Output = Option<Share>> + Send>>,
    /// How many bytes it is.
    bytes: usize,
}

/// Nobody is left to serve for: the node's task is gone, or this side has closed.
struct Gone;

struct Connection {
    number: u32,
    remote: SocketAddr,
    shared: Arc<Shared>,
    voice: Arc<Voice>,
    /// `None` until the first bytes have said how the connection speaks.
    reader: Option<(Format, MessageReader)>,
    input: BytesMut,
    output: BytesMut,
    /// In the order of their arrival. Answered ones behind others stay until it is their turn to leave the queue.
    calls: VecDeque<Slot>,
    /// Answers leave as they are ready, not in the order of the calls.
    as_ready: bool,
    /// The number of the first of them; wraps around.
    first_call: u32,
    requests: Pending<Request>,
    next_request: u64,
    /// What they are answered, not encoded yet.
    replies: VecDeque<(u32, PeerReply)>,
    /// Which server speaks here, once it has said so and was let in.
    introduced: Option<ServerId>,
    /// What it was challenged with.
    challenge: Option<Nonce>,
    /// How it is answered.
    answering: Answering,
    /// The share of a long message that is being read.
    large: Option<Share>,
    waiting: Option<Waiting>,
    /// Nothing more is read; it ends when everything is answered.
    ending: bool,
    unsent: Unsent,
    input_stall: Stall,
    output_stall: Stall,
    looks: u32,
}

impl Connection {
    async fn run(mut self, mut stream: TcpStream, mut answers: mpsc::UnboundedReceiver<Outgoing>) {
        let (mut from, mut to) = stream.split();
        let mut ready = Vec::new();
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        watch.reset();
        loop {
            self.flush_replies();
            self.flush_calls();
            match self.take_in().await {
                Ok(None) => {}
                Ok(Some(foreign)) => return self.send_away(foreign, stream).await,
                Err(Gone) => return,
            }
            let answered = self.calls.is_empty() && self.requests.is_empty();
            if self.ending && answered && self.output.is_empty() {
                return;
            }
            let reading = self.may_read();
            if reading {
                make_room(&mut self.input, READ_BYTES);
            }
            tokio::select! {
                biased;
                count = answers.recv_many(&mut ready, MAX_ANSWERS), if self.replies.is_empty() => {
                    // None: the node's task is gone, and with it the server.
                    if count == 0 {
                        return;
                    }
                    for outgoing in ready.drain(..) {
                        self.settle(outgoing);
                    }
                }
                written = to.write_buf(&mut self.output), if !self.output.is_empty() => {
                    match written {
                        Ok(count) if count > 0 => {
                            self.output_stall.moved(count);
                            self.unsent.left(count);
                        }
                        _ => return,
                    }
                    if self.output.is_empty() {
                        self.output_stall.done();
                        self.give_room_back();
                    }
                }
                share = wait_for(&mut self.waiting), if self.waiting.is_some() => {
                    let (Some(share), Some(waiting)) = (share, self.waiting.take()) else { return };
                    let handed = match waiting.message {
                        Some(message) => self.hand_over(message, share).await,
                        None => {
                            self.begin_long(share, waiting.bytes);
                            Ok(())
                        }
                    };
                    if handed.is_err() {
                        return;
                    }
                }
                read = from.read_buf(&mut self.input), if reading => match read {
                    // A peer that has closed waits for no answers. A client may have closed one way only.
                    Ok(0) if self.introduced.is_some() => return,
                    Ok(0) => self.ending = true,
                    Ok(count) => self.input_stall.moved(count),
                    Err(_) => return,
                },
                // A call that came at the same moment stays: its outcome would be unknown.
                () = self.voice.must_leave(), if !self.voice.has_spoken() => return,
                _ = watch.tick() => {
                    if self.has_stalled(reading) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether bytes are wanted: there is room for what they may hold.
    fn may_read(&self) -> bool {
        !self.ending && self.has_room() && self.waiting.is_none()
    }

    /// Whether another call may be taken in.
    fn has_room(&self) -> bool {
        let answers = &self.shared.budget.long_answers;
        self.calls.len() < self.unsent.most_calls(MAX_CALLS_PER_CONNECTION, answers)
            && self.requests.len() < self.unsent.most_requests(MAX_REQUESTS_PER_CONNECTION)
            && self.output.len() < HIGH_WATER
    }

    /// Takes whole messages off the input, as long as there is room. `Some`: this is no Thrift we serve.
    async fn take_in(&mut self) -> Result<Option<Foreign>, Gone> {
        while !self.ending && !self.input.is_empty() && self.waiting.is_none() && self.has_room() {
            let Some((_, reader)) = &mut self.reader else {
                match detect(&self.input) {
                    Detection::Thrift(format) => {
                        self.reader = Some((format, MessageReader::new(format)));
                    }
                    Detection::NeedMore if self.input.len() < MAX_FIRST_BYTES => break,
                    Detection::NeedMore => return Ok(Some(Foreign::Unknown)),
                    Detection::Foreign(foreign) => return Ok(Some(foreign)),
                }
                continue;
            };
            match reader.next(&mut self.input) {
                Ok(Some(message)) => {
                    self.input_stall.done();
                    self.voice.speak();
                    self.hand_over_or_wait(message).await?;
                }
                Ok(None) => {
                    // Shares of long messages are taken whole and before they are read, so that two half
                    // messages never wait for each other's.
                    if self.input.len() > SHORT && self.large.is_none() {
                        let bytes = reader.expected(&self.input);
                        match self.account(bytes).try_take(bytes) {
                            Some(share) => self.begin_long(share, bytes),
                            None => self.wait_for_share(None, bytes),
                        }
                    }
                    break;
                }
                Err(error) => self.give_up(&error),
            }
        }
        Ok(None)
    }

    /// Where a message of that many bytes is accounted for.
    fn account(&self, bytes: usize) -> &Account {
        let Budget { short_requests, long_calls, peers, .. } = &self.shared.budget;
        match self.introduced {
            Some(_) => peers,
            None if bytes > SHORT => long_calls,
            None => short_requests,
        }
    }

    fn wait_for_share(&mut self, message: Option<Bytes>, bytes: usize) {
        let share = Box::pin(self.account(bytes).clone().take(bytes));
        self.waiting = Some(Waiting { message, share, bytes });
    }

    /// The rest of a long message of at most so many bytes may come.
    fn begin_long(&mut self, share: Share, bytes: usize) {
        self.large = Some(share);
        // All at once: grown by doubling, it would end up as twice as much. Four bytes are the length of a frame.
        self.input.reserve((bytes + 4).saturating_sub(self.input.len()));
    }

    async fn hand_over_or_wait(&mut self, message: Bytes) -> Result<(), Gone> {
        let bytes = message.len();
        if let Some(mut large) = self.large.take()
            && let Some(share) = large.split(bytes)
        {
            return self.hand_over(message, share).await;
        }
        match self.account(bytes).try_take(bytes) {
            Some(share) => self.hand_over(message, share).await,
            None => {
                self.wait_for_share(Some(message), bytes);
                Ok(())
            }
        }
    }

    /// The bytes make no sense; there is no telling where the next message begins.
    fn give_up(&mut self, error: &dyn std::error::Error) {
        if let Some(more) = self.shared.strangers.pass() {
            log::warn!("connection from {} is closed: {error}{more}", self.remote);
        }
        self.input.clear();
        self.ending = true;
    }

    /// A whole message: has its call carried out, or answers it at once.
    async fn hand_over(&mut self, message: Bytes, share: Share) -> Result<(), Gone> {
        let Some((format, _)) = self.reader else { return Ok(()) };
        let (message, share) = if message.len() > SHORT {
            let (message, place) = share.bind_apart(message);
            (message, Held::Place { _place: place })
        } else {
            (message, Held::Share { _share: share })
        };
        let request = match decode_call(format.protocol, message) {
            Ok(request) => request,
            Err(error) => {
                self.give_up(&error);
                return Ok(());
            }
        };
        let server = self.shared.server;
        let mut slot = Slot {
            sequence: request.sequence,
            method: request.method,
            oneway: request.oneway,
            question: None,
            state: State::Waiting,
            _share: share,
        };
        let number = self.first_call.wrapping_add(self.calls.len() as u32);
        let route = Route { connection: self.number, slot: number };
        let input = match request.call {
            Ok(Call::Client(request)) => Ok(Event::Call { call: route.into(), request }.into()),
            Ok(Call::Original(call)) => match original::translate(call, server) {
                Translation::Answer(answer) => Err(answer),
                Translation::Request(request, question) => {
                    slot.question = Some(question);
                    Ok(Event::Call { call: route.into(), request }.into())
                }
            },
            Ok(Call::Session { answers_as_ready }) => {
                self.as_ready = answers_as_ready;
                Err(Answer::Session { server })
            }
            Ok(Call::Hello(hello)) => {
                let (gate, from) = (&self.shared.gate, self.remote.ip());
                match gate.admit(&hello, from, &mut self.challenge) {
                    Ok(answering) => {
                        self.introduced = Some(hello.server);
                        self.answering = answering;
                        Ok(Input::Introduced { route, to: hello.server })
                    }
                    Err(refusal) => {
                        self.introduced = None;
                        if !matches!(refusal, Refusal::Challenge(_))
                            && let Some(more) = self.shared.refusals.pass()
                        {
                            log::warn!("peer at {} is refused: {refusal}{more}", self.remote);
                        }
                        Err(Answer::Hello(Err(refusal.outward())))
                    }
                }
            }
            Ok(Call::Peer(request)) => match self.introduced {
                Some(from) => {
                    let number = self.next_request;
                    self.next_request += 1;
                    let Slot { sequence, method, oneway, _share, .. } = slot;
                    let waiting = Request { sequence, method, oneway, since: self.looks, _share };
                    self.requests.insert(number, waiting);
                    let id = Route { connection: self.number, slot: number as u32 }.into();
                    return self.tell(Event::Request { from, id, request }.into()).await;
                }
                None => Err(Answer::Peer(Err("introduce yourself with peerHello first".into()))),
            },
            Err(error) => Err(refuse(&slot.method, server, &error)),
        };
        match input {
            Ok(input) => {
                self.calls.push_back(slot);
                self.tell(input).await
            }
            Err(answer) => {
                if self.as_ready && !slot.oneway {
                    self.encode(&slot.method, slot.sequence, &answer);
                    slot.state = State::Left;
                } else {
                    slot.state = State::Ready(answer);
                }
                self.calls.push_back(slot);
                self.flush_calls();
                Ok(())
            }
        }
    }

    async fn tell(&mut self, input: Input) -> Result<(), Gone> {
        self.shared.inputs.send(input).await.map_err(|_| Gone)
    }

    /// Takes an answer from the node's task.
    fn settle(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Answer { slot, result } => {
                let server = self.shared.server;
                let as_ready = self.as_ready;
                // What is not waited for never leaves, and would keep its share for good.
                let leaves = self.slot(slot).is_some_and(|slot| !slot.oneway);
                let keeps =
                    !leaves || self.unsent.admit(weight(&result), &self.shared.budget.long_answers);
                // Who does not take its answers gets no more long ones.
                let result = if keeps { result } else { Err(Failure::Overloaded { server }) };
                let Some(slot) = self.slot(slot) else { return };
                let answer = match slot.question.take() {
                    Some(question) => question.answer(result),
                    None => Answer::Client { server, result },
                };
                if as_ready {
                    slot.state = State::Left;
                    if !slot.oneway {
                        let (method, sequence) = (slot.method.clone(), slot.sequence);
                        self.encode(&method, sequence, &answer);
                    }
                } else {
                    slot.state = State::Ready(answer);
                }
            }
            Outgoing::Hello { slot, hello } => {
                let hello = self.shared.gate.answer(hello, &self.answering);
                if let Some(slot) = self.slot(slot) {
                    slot.state = State::Ready(Answer::Hello(Ok(hello)));
                }
            }
            Outgoing::Reply { slot, reply } => {
                self.unsent.expect(weight_of_reply(&reply));
                self.replies.push_back((slot, reply));
            }
            Outgoing::Finish => {
                self.input.clear();
                self.waiting = None;
                self.ending = true;
            }
        }
    }

    /// The number of a request whose last 32 bits these are: the greatest handed out.
    fn request_number(&self, slot: u32) -> u64 {
        let before = (self.next_request as u32).wrapping_sub(slot);
        self.next_request.wrapping_sub(u64::from(before))
    }

    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        self.calls.get_mut(number.wrapping_sub(self.first_call) as usize)
    }

    /// Encodes replies to a peer, as far as there is room: until then long values are shared with the store, not copied.
    fn flush_replies(&mut self) {
        while self.output.len() < HIGH_WATER
            && let Some((slot, reply)) = self.replies.pop_front()
        {
            let number = self.request_number(slot);
            if let Some(request) = self.requests.remove(number)
                && !request.oneway
            {
                self.encode(&request.method, request.sequence, &Answer::Peer(Ok(reply)));
            }
        }
    }

    /// Encodes the answers that are next in order, as far as there is room, and forgets their calls.
    fn flush_calls(&mut self) {
        while self.output.len() < HIGH_WATER
            && self.calls.front().is_some_and(|slot| !matches!(slot.state, State::Waiting))
            && let Some(slot) = self.calls.pop_front()
        {
            self.first_call = self.first_call.wrapping_add(1);
            if let (false, State::Ready(answer)) = (slot.oneway, &slot.state) {
                self.encode(&slot.method, slot.sequence, answer);
            }
        }
    }

    fn encode(&mut self, method: &Method, sequence: Sequence, answer: &Answer) {
        let Some((format, _)) = self.reader else { return };
        let before = self.output.len();
        if let Err(error) = encode_answer(format, method, sequence, answer, &mut self.output) {
            log::error!("an answer to {} cannot be encoded: {error}", self.remote);
            self.output.truncate(before);
            let instead = Answer::Application("the answer cannot be encoded".into());
            if encode_answer(format, method, sequence, &instead, &mut self.output).is_err() {
                self.output.truncate(before);
                self.ending = true;
            }
        }
    }

    /// One long answer should not make every connection keep room for another.
    fn give_room_back(&mut self) {
        if self.output.capacity() > HIGH_WATER {
            self.output = BytesMut::new();
        }
    }

    /// Looks whether the other side keeps this one waiting for too long; also forgets old requests of peers.
    fn has_stalled(&mut self, reading: bool) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let now = self.looks;
        while let Some((number, request)) = self.requests.first()
            && now.wrapping_sub(request.since) > FORGET_AFTER
        {
            self.requests.remove(number);
        }
        // Half a long message keeps others from sending theirs, if there is no more room.
        let is_in_the_way = self.large.is_some()
            && self.introduced.is_none()
            && self.shared.budget.long_calls.free() < MAX_FRAME_LENGTH;
        let patience = if is_in_the_way { Patience::Short } else { Patience::Usual };
        let what = if self.input_stall.look(reading && !self.input.is_empty(), patience) {
            "it has left a message half sent"
        } else if self.output_stall.look(!self.output.is_empty(), Patience::Usual) {
            "it does not take its answers"
        } else {
            return false;
        };
        if let Some(more) = self.shared.strangers.pass() {
            log::warn!("connection from {} is closed: {what}{more}", self.remote);
        }
        true
    }

    /// Something else than Thrift: a word in its own language if we know it, and the end.
    async fn send_away(self, foreign: Foreign, mut stream: TcpStream) {
        if let Some(more) = self.shared.strangers.pass() {
            log::warn!("connection from {} is closed: {foreign}{more}", self.remote);
        }
        if foreign != Foreign::Http {
            return;
        }
        let farewell = async {
            stream.write_all(NOT_HTTP).await?;
            stream.shutdown().await?;
            // Closing with unread bytes would reset the connection and take the answer away from the reader.
            let mut rest = [0; 1024];
            for _ in 0..MAX_FIRST_BYTES {
                if stream.read(&mut rest).await? == 0 {
                    break;
                }
            }
            std::io::Result::Ok(())
        };
        // However it ends, the connection is closed.
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }
}

/// The share, once there is one. `None` only if the budget was closed, which nobody does.
async fn wait_for(waiting: &mut Option<Waiting>) -> Option<Share> {
    match waiting {
        Some(waiting) => waiting.share.as_mut().await,
        None => std::future::pending().await,
    }
}

impl From<Event> for Input {
    fn from(event: Event) -> Input {
        Input::Event(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_http_says_its_own_length() {
        let text = std::str::from_utf8(NOT_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
