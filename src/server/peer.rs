//! Links to the other servers: one task and one connection each, over which this server asks.
//!
//! Requests are many at a time and answered in any order; the sequence number on the wire finds the request
//! again. Everything that is queued when the task wakes leaves in one write. Nothing is ever sent twice: when a
//! connection breaks, what is queued or unanswered is forgotten and the node is told.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};

use super::clock::Clock;
use super::gate::{Answering, Gate, Refusal};
use super::mail::Input;
use super::random::Jitter;
use super::throttle::Throttle;
use crate::model::{Hello, PeerRequest, RequestId, ServerId};
use crate::node::Event;
use crate::wire::{self, Call, Format, MessageReader, Reply, Sequence, decode_reply, encode_call};

/// Requests queued for one peer at most; beyond it they are dropped, as a network would. A coordinator with all
/// the calls it may have in flight sends each peer one or two requests a call.
const MAX_QUEUE: usize = 16 * 1024;

/// Bytes of keys and values in that queue at most.
const MAX_QUEUE_BYTES: usize = 64 << 20;

/// Requests without an answer that are remembered; beyond it the oldest is forgotten.
const MAX_UNANSWERED: usize = 64 * 1024;

/// Requests put into one write at most.
const MAX_PARCELS: usize = 512;

/// Unsent bytes beyond which the queue is left alone.
const HIGH_WATER: usize = 1 << 20;

/// Room made for each read.
const READ_BYTES: usize = 64 * 1024;

/// For a connection to be made, and for a hello to be answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between looks for silence.
const WATCH: Duration = Duration::from_secs(1);

/// Looks without a byte while requests wait, after which the connection is given up: the other host may have
/// gone without a word.
const SILENT_LOOKS: u32 = 5;

/// Waits between attempts, doubled from the first to the last and then shortened by up to half at random.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The same trouble with a peer is logged once in this time.
const SAME_TROUBLE: Duration = Duration::from_secs(60);

/// A request on its way to a link's task.
#[derive(Debug)]
struct Parcel {
    id: RequestId,
    request: PeerRequest,
    bytes: usize,
}

/// All links of this server, as the node's task sees them.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Clock,
    pub(crate) inputs: mpsc::WeakSender<Input>,
    pub(crate) addresses: BTreeMap<ServerId, String>,
    pub(crate) links: BTreeMap<ServerId, LinkQueue>,
    pub(crate) seed: u64,
}

/// The near end of a link.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    parcels: mpsc::Sender<Parcel>,
    bytes: Arc<AtomicUsize>,
    overflow: Throttle,
    /// Ends a pause between two attempts.
    now: Arc<Notify>,
}

impl Links {
    /// A link that is kept up, whether it is used or not.
    pub(crate) fn open(&mut self, to: ServerId) {
        self.start(to, true);
    }

    /// The server was heard of: it is worth another attempt at once.
    pub(crate) fn hurry(&self, to: ServerId) {
        if let Some(link) = self.links.get(&to) {
            link.now.notify_one();
        }
    }

    /// Queues a request, over a link that is made now if there is none. It may be lost.
    pub(crate) fn send(&mut self, to: ServerId, id: RequestId, request: PeerRequest) {
        if !self.links.contains_key(&to) {
            self.start(to, false);
        }
        // None: a server that is not in the cluster file.
        let Some(link) = self.links.get(&to) else { return };
        let bytes = size(&request);
        let queued = link.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued <= MAX_QUEUE_BYTES.max(bytes)
            && link.parcels.try_send(Parcel { id, request, bytes }).is_ok()
        {
            return;
        }
        link.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(more) = link.overflow.pass() {
            log::warn!("requests to server {to} are dropped: too many are queued{more}");
        }
    }

    fn start(&mut self, to: ServerId, always: bool) {
        let Some(address) = self.addresses.get(&to) else {
            log::error!("there is no server {to} in the cluster file; what is for it is dropped");
            return;
        };
        let (parcels, queue) = mpsc::channel(MAX_QUEUE);
        let bytes = Arc::new(AtomicUsize::new(0));
        let now = Arc::new(Notify::new());
        let link = Link {
            to,
            address: address.clone(),
            always,
            gate: Arc::clone(&self.gate),
            inputs: self.inputs.clone(),
            queue,
            queued: Arc::clone(&bytes),
            now: Arc::clone(&now),
            taken: VecDeque::new(),
            jitter: Jitter::new(self.seed ^ u64::from(to.0)),
            troubles: Throttle::new(self.clock, SAME_TROUBLE),
            last_trouble: String::new(),
        };
        tokio::spawn(link.keep());
        let overflow = Throttle::new(self.clock, Duration::from_secs(10));
        self.links.insert(to, LinkQueue { parcels, bytes, overflow, now });
    }
}

/// Bytes of keys and values, about.
fn size(request: &PeerRequest) -> usize {
    match request {
        PeerRequest::Store { key, cell, .. } => key.as_bytes().len() + cell.content.len(),
        PeerRequest::Read(read) => read.key.as_bytes().len(),
        PeerRequest::Ping
        | PeerRequest::Page { .. }
        | PeerRequest::Digest { .. }
        | PeerRequest::Clock { .. }
        | PeerRequest::Join(_) => 0,
    }
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Silent,
    #[error("it has closed the connection")]
    Closed,
    #[error("it sends what makes no sense: {0}")]
    Wire(#[from] wire::Error),
    #[error("this server does not accept it: {0}")]
    Refused(#[from] Refusal),
    #[error("it does not accept this server: {0}")]
    RefusedThere(String),
    #[error("it does not answer as a server does")]
    Nonsense,
    /// The node's task is gone.
    #[error("this server is being stopped")]
    Ended,
}

struct Link {
    to: ServerId,
    address: String,
    always: bool,
    gate: Arc<Gate>,
    /// Weak, so that the node's task ends when connections and listener have.
    inputs: mpsc::WeakSender<Input>,
    queue: mpsc::Receiver<Parcel>,
    /// Bytes in `queue` and `taken`.
    queued: Arc<AtomicUsize>,
    /// Ends a pause between two attempts.
    now: Arc<Notify>,
    /// Taken from the queue and not encoded: more than there is room for, or what a link on demand was made for.
    taken: VecDeque<Parcel>,
    jitter: Jitter,
    troubles: Throttle,
    last_trouble: String,
}

/// A connection over which requests may be sent.
struct Session {
    stream: TcpStream,
    input: BytesMut,
    reader: MessageReader,
    hello: Hello,
}

impl Link {
    /// Connects and asks, again and again, until the node's task is gone.
    async fn keep(mut self) {
        let mut pause = BACK_OFF.0;
        loop {
            if !self.always && self.taken.is_empty() {
                match self.queue.recv().await {
                    Some(parcel) => self.taken.push_back(parcel),
                    None => return,
                }
            }
            let trouble = match self.connect().await {
                Ok(session) => {
                    pause = BACK_OFF.0;
                    self.last_trouble.clear();
                    log::info!("link to server {} ({}) is up", self.to, self.address);
                    let up = Event::LinkUp { hello: session.hello.clone() };
                    let trouble = match self.tell(up).await {
                        Ok(()) => self.converse(session).await,
                        Err(trouble) => trouble,
                    };
                    self.forget();
                    if self.tell(Event::LinkDown { peer: self.to }).await.is_err() {
                        return;
                    }
                    trouble
                }
                Err(trouble) => {
                    // Whoever waits for an answer to these need not wait on.
                    if self.forget() && self.tell(Event::LinkDown { peer: self.to }).await.is_err()
                    {
                        return;
                    }
                    trouble
                }
            };
            if matches!(trouble, Trouble::Ended) {
                return;
            }
            self.complain(&trouble);
            let half = pause / 2;
            let more = self.jitter.up_to(half.as_millis() as u64);
            tokio::select! {
                () = tokio::time::sleep(half + Duration::from_millis(more)) => {}
                () = self.now.notified() => {}
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    fn complain(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        let (to, address) = (self.to, &self.address);
        let more = self.troubles.pass();
        if text != self.last_trouble {
            log::warn!("no link to server {to} ({address}): {text}; trying again");
            self.last_trouble = text;
        } else if let Some(more) = more {
            log::warn!("still no link to server {to} ({address}): {text}{more}");
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Trouble> {
        let inputs = self.inputs.upgrade().ok_or(Trouble::Ended)?;
        inputs.send(event.into()).await.map_err(|_| Trouble::Ended)
    }

    /// Drops what is queued. Whether there was anything.
    fn forget(&mut self) -> bool {
        let mut any = false;
        while let Some(parcel) = self.taken.pop_front().or_else(|| self.queue.try_recv().ok()) {
            self.queued.fetch_sub(parcel.bytes, Ordering::Relaxed);
            any = true;
        }
        any
    }

    /// A connection, with both servers introduced.
    async fn connect(&self) -> Result<Session, Trouble> {
        let inputs = self.inputs.upgrade().ok_or(Trouble::Ended)?;
        let attempt = async {
            let mut stream = TcpStream::connect(&*self.address).await?;
            stream.set_nodelay(true)?;
            let (hello, said) = oneshot::channel();
            let question = Input::Introduce { to: self.to, hello };
            inputs.send(question).await.map_err(|_| Trouble::Ended)?;
            let hello = self.gate.outward(said.await.map_err(|_| Trouble::Ended)?);
            let mut output = BytesMut::new();
            let mut reader = MessageReader::new(Format::NATIVE);
            let mut input = BytesMut::with_capacity(READ_BYTES);
            // As it is, and if that is not enough, once more with what is wanted.
            let mut next = Some((hello.clone(), Answering::Openly));
            let mut refused = String::new();
            let mut sequence = Sequence(0);
            while let Some((said, answering)) = next.take() {
                encode_call(Format::NATIVE, sequence, &Call::Hello(said), &mut output)?;
                stream.write_all_buf(&mut output).await?;
                let message = loop {
                    if let Some(message) = reader.next(&mut input)? {
                        break message;
                    }
                    if stream.read_buf(&mut input).await? == 0 {
                        return Err(Trouble::Closed);
                    }
                };
                let is_first = sequence == Sequence(0);
                sequence = Sequence(1);
                match decode_reply(Format::NATIVE.protocol, message)? {
                    (_, Reply::Hello(Ok(hello))) => {
                        self.gate.recognise(&hello, self.to, &answering)?;
                        return Ok(Session {
                            stream,
                            input,
                            reader,
                            hello: self.gate.inward(hello),
                        });
                    }
                    (_, Reply::Hello(Err(refusal))) => {
                        next = self.gate.insist(&hello, self.to, &refusal).filter(|_| is_first);
                        let may_be_old = refusal.challenge.is_none() && self.gate.has_secret();
                        refused = one_line(&refusal.message);
                        if next.is_none() && is_first && may_be_old {
                            refused += " (a server of release 0.1 is told the secret only with --secret-in-clear)";
                        }
                    }
                    (_, Reply::Application(text)) => refused = one_line(&text),
                    _ => return Err(Trouble::Nonsense),
                }
            }
            Err(Trouble::RefusedThere(refused))
        };
        timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Asks and listens until the connection breaks.
    async fn converse(&mut self, session: Session) -> Trouble {
        let Session { mut stream, mut input, mut reader, .. } = session;
        let (mut from, mut to) = stream.split();
        let mut output = BytesMut::new();
        let mut come = Vec::with_capacity(MAX_PARCELS);
        let mut unanswered = Unanswered::default();
        let mut watch = tokio::time::interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = 0;
        loop {
            // The rest are encoded once these have left: until then a long value is shared, not copied.
            while output.len() < HIGH_WATER
                && let Some(Parcel { id, request, bytes }) = self.taken.pop_front()
            {
                self.queued.fetch_sub(bytes, Ordering::Relaxed);
                let sequence = unanswered.push(id);
                let call = Call::Peer(request);
                if let Err(error) = encode_call(Format::NATIVE, sequence, &call, &mut output) {
                    return error.into();
                }
            }
            reader.make_room(&mut input, READ_BYTES);
            tokio::select! {
                biased;
                read = from.read_buf(&mut input) => {
                    match read {
                        Ok(0) => return Trouble::Closed,
                        Ok(_) => silent = 0,
                        Err(error) => return error.into(),
                    }
                    if let Err(trouble) =
                        self.listen(&mut reader, &mut input, &mut unanswered).await
                    {
                        return trouble;
                    }
                }
                count = self.queue.recv_many(&mut come, MAX_PARCELS), if self.taken.is_empty() => {
                    if count == 0 {
                        return Trouble::Ended;
                    }
                    self.taken.extend(come.drain(..));
                }
                written = to.write_buf(&mut output), if !output.is_empty() => match written {
                    Ok(0) => return Trouble::Closed,
                    Ok(_) if output.is_empty() && output.capacity() > 2 * HIGH_WATER => {
                        output = BytesMut::new();
                    }
                    Ok(_) => {}
                    Err(error) => return error.into(),
                },
                _ = watch.tick() => {
                    silent = if unanswered.is_empty() { 0 } else { silent + 1 };
                    if silent > SILENT_LOOKS {
                        return Trouble::Silent;
                    }
                }
            }
        }
    }

    /// Takes the answers off the input.
    async fn listen(
        &self,
        reader: &mut MessageReader,
        input: &mut BytesMut,
        unanswered: &mut Unanswered,
    ) -> Result<(), Trouble> {
        while let Some(message) = reader.next(input)? {
            let (sequence, reply) = decode_reply(Format::NATIVE.protocol, message)?;
            let Some(id) = unanswered.take(sequence) else { continue };
            match reply {
                Reply::Peer(Ok(reply)) => {
                    self.tell(Event::Reply { from: self.to, id, reply }).await?;
                }
                Reply::Peer(Err(text)) | Reply::Application(text) => {
                    return Err(Trouble::RefusedThere(one_line(&text)));
                }
                Reply::Client { .. }
                | Reply::Session { .. }
                | Reply::Hello(_)
                | Reply::Original(_) => {
                    return Err(Trouble::Nonsense);
                }
            }
        }
        Ok(())
    }
}

/// What a stranger says, cut short.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Requests that wait for an answer, by the sequence numbers of one connection, which are handed out in turn.
#[derive(Debug, Default)]
struct Unanswered {
    /// The sequence number of the first of `ids`; wraps around.
    first: i32,
    /// `None`: answered.
    ids: VecDeque<Option<RequestId>>,
}

impl Unanswered {
    fn push(&mut self, id: RequestId) -> Sequence {
        if self.ids.len() >= MAX_UNANSWERED {
            self.ids.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        self.ids.push_back(Some(id));
        Sequence(self.first.wrapping_add(self.ids.len() as i32 - 1))
    }

    fn take(&mut self, sequence: Sequence) -> Option<RequestId> {
        let index = sequence.0.wrapping_sub(self.first) as u32 as usize;
        let id = self.ids.get_mut(index)?.take();
        while let Some(None) = self.ids.front() {
            self.ids.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        id
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_any_order_find_their_requests_once() {
        let mut unanswered = Unanswered { first: i32::MAX - 1, ..Unanswered::default() };
        let sequences: Vec<_> = (0..5).map(|id| unanswered.push(RequestId(id))).collect();
        for id in [3, 0, 4, 1, 2] {
            let sequence = sequences[id as usize];
            assert_eq!(unanswered.take(sequence), Some(RequestId(id)));
            assert_eq!(unanswered.take(sequence), None);
        }
        assert!(unanswered.is_empty());
        assert_eq!(unanswered.take(Sequence(12_345)), None);
    }

    #[test]
    fn a_peer_that_never_answers_costs_a_bounded_memory() {
        let mut unanswered = Unanswered::default();
        let first = unanswered.push(RequestId(0));
        for id in 1..=MAX_UNANSWERED as u64 {
            unanswered.push(RequestId(id));
        }
        assert_eq!(unanswered.ids.len(), MAX_UNANSWERED);
        assert_eq!(unanswered.take(first), None);
    }
}
