//! Memory that others can make this server take, and how much of it there is.
//!
//! | for | bytes in all | when there is no more |
//! |---|---|---|
//! | short calls of clients, in hand | [`CALLS`] | nothing more is read from the connection |
//! | long messages of clients, from their first part on | [`LONG`] | the same; and who sends nothing is sent away sooner |
//! | messages of peers | [`PEERS`] | nothing more is read from the connection |
//! | long answers that clients have not taken | [`ANSWERS`], of one connection [`ANSWERS_PER_CONNECTION`] | the call is answered as overloaded |
//!
//! Short and long are apart, so that no number of half messages keeps a short call from being read; clients and peers are
//! apart because a client's call waits for peers, and peers that waited for clients' calls to end would close the circle.
//! Not counted: what is short and bounded in number, by the bounds of connections and of calls in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::{ClientResponse, Failure, PeerAnswer, PeerReply};
use crate::wire::MAX_FRAME_LENGTH;

/// Short calls of clients.
const CALLS: usize = 64 << 20;
/// Long messages of clients: two of the longest. Each is sent to several replicas and written by all of them, so this
/// is also what a small write may have to wait for.
const LONG: usize = 2 * MAX_FRAME_LENGTH;
/// Messages of peers.
const PEERS: usize = 128 << 20;
/// Long answers to clients.
const ANSWERS: usize = 256 << 20;
/// Of them, those of one connection: twice the longest.
const ANSWERS_PER_CONNECTION: usize = 2 * MAX_FRAME_LENGTH;

/// Bytes of a message, or of the half of one, that count as short.
pub(crate) const SHORT: usize = 64 * 1024;
/// Bytes of an answer that need no share.
const SHORT_ANSWER: usize = 4 * 1024;
/// Calls that a new connection may have in flight; each answer that comes allows for one more. So nobody has a thousand
/// long answers on their way before the first one has told that they are long.
const FIRST_CALLS: usize = 16;
/// Requests of a peer are taken on as long as their answers would not come to more than this.
const REPLIES_PER_CONNECTION: usize = 64 << 20;

/// What all connections share.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) long: Arc<Semaphore>,
    pub(crate) peers: Arc<Semaphore>,
    pub(crate) answers: Arc<Semaphore>,
}

impl Budget {
    pub(crate) fn new() -> Budget {
        let [calls, long, peers, answers] =
            [CALLS, LONG, PEERS, ANSWERS].map(|bytes| Arc::new(Semaphore::new(bytes)));
        Budget { calls, long, peers, answers }
    }
}

/// Answers of one connection that have not left, and how long the next ones are to be expected.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    share: Option<OwnedSemaphorePermit>,
    /// Bytes of the longest one lately; forgotten slowly.
    largest: usize,
    /// How many there have been.
    count: usize,
}

impl Unsent {
    /// Takes note of an answer of that many bytes, if it may be kept until it has left.
    pub(crate) fn admit(&mut self, bytes: usize, budget: &Budget) -> bool {
        self.expect(bytes);
        if bytes <= SHORT_ANSWER {
            return true;
        }
        let held = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if held + bytes > ANSWERS_PER_CONNECTION {
            return false;
        }
        let Ok(share) = Arc::clone(&budget.answers).try_acquire_many_owned(bytes as u32) else {
            return false;
        };
        match &mut self.share {
            Some(all) => all.merge(share),
            None => self.share = Some(share),
        }
        true
    }

    /// Takes note of how long answers are.
    pub(crate) fn expect(&mut self, bytes: usize) {
        self.largest = bytes.max(self.largest - self.largest / 64);
        self.count = self.count.saturating_add(1);
    }

    /// So many bytes have left.
    pub(crate) fn left(&mut self, bytes: usize) {
        match &mut self.share {
            Some(share) if share.num_permits() > bytes => drop(share.split(bytes)),
            _ => self.share = None,
        }
    }

    /// How many calls may be in flight, at most `usual`: long answers are asked for a few at a time.
    pub(crate) fn most_calls(&self, usual: usize) -> usize {
        let tried = self.count.saturating_add(FIRST_CALLS);
        self.most(ANSWERS_PER_CONNECTION / 2, usual).min(tried)
    }

    /// The same of a peer's requests.
    pub(crate) fn most_requests(&self, usual: usize) -> usize {
        self.most(REPLIES_PER_CONNECTION, usual)
    }

    fn most(&self, bytes: usize, usual: usize) -> usize {
        if self.largest <= SHORT_ANSWER { usual } else { (bytes / self.largest).clamp(1, usual) }
    }
}

/// Bytes of keys and values in an answer.
pub(crate) fn weight(result: &Result<ClientResponse, Failure>) -> usize {
    match result {
        Ok(ClientResponse::Get { cell: Some(cell), .. }) => cell.content.len(),
        Ok(ClientResponse::Scan { entries, .. }) => {
            entries.iter().map(|entry| entry.key.as_bytes().len() + entry.value.len()).sum()
        }
        Ok(ClientResponse::Inspected { entries, .. }) => {
            entries.iter().map(|(key, cell)| key.as_bytes().len() + cell.content.len()).sum()
        }
        Ok(_) | Err(_) => 0,
    }
}

/// The same of a reply to a peer.
pub(crate) fn weight_of_reply(reply: &PeerReply) -> usize {
    match &reply.answer {
        PeerAnswer::Held { content: Some(content), .. } => content.len(),
        PeerAnswer::Page { entries, .. } => {
            let value = |entry: &crate::model::PageEntry| {
                entry.content.as_ref().map_or(0, crate::model::Content::len)
            };
            entries.iter().map(|entry| entry.key.as_bytes().len() + value(entry)).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_may_keep_so_much_and_all_of_them_so_much() {
        let budget = Budget::new();
        let mut greedy = Unsent::default();
        assert_eq!(greedy.most_calls(1024), FIRST_CALLS);
        let half = ANSWERS_PER_CONNECTION / 2;
        assert!(greedy.admit(half, &budget) && greedy.admit(half, &budget));
        assert!(!greedy.admit(SHORT_ANSWER + 1, &budget), "beyond its own bound");
        assert!(greedy.admit(SHORT_ANSWER, &budget), "a short one needs no share");
        assert_eq!(greedy.most_calls(1024), 1);
        greedy.left(half);
        assert!(greedy.admit(half, &budget), "there is room again");
        let mut others: Vec<_> = (0..20).map(|_| Unsent::default()).collect();
        let admitted: usize =
            others.iter_mut().map(|other| usize::from(other.admit(half, &budget))).sum();
        assert_eq!(admitted, ANSWERS / half - 2, "beyond the bound of all");
        drop((greedy, others));
        assert_eq!(budget.answers.available_permits(), ANSWERS);
    }

    #[test]
    fn long_answers_are_forgotten_slowly() {
        let mut unsent = Unsent::default();
        unsent.expect(1 << 20);
        assert_eq!(unsent.most_calls(1024), ANSWERS_PER_CONNECTION / 2 / (1 << 20));
        unsent.expect(10);
        assert!(unsent.most_calls(1024) < FIRST_CALLS + 3, "one at a time");
        for _ in 0..1100 {
            unsent.expect(10);
        }
        assert_eq!(unsent.most_calls(1024), 1024);
    }
}
