//! Bytes in hand: memory that others can make this process take, whichever endpoint they come through.
//!
//! Whoever takes in bytes takes a [`Share`] first, from the account of what they are. An account is a bound of its own within a
//! pool; the pools together are all that the process has in hand, and [`TOTAL`] is their sum.
//!
//! | pool | bytes | accounts | when there is no more |
//! |---|---|---|---|
//! | short requests | 48 MiB | Thrift calls, HTTP bodies | nothing more is read from the connection; HTTP: 503 after a while |
//! | long requests | 144 MiB | Thrift calls that wait for their answer (two of the longest), HTTP bodies and lists (64 MiB) | the same |
//! | messages of peers | 64 MiB | – | nothing more is read from the connection |
//! | long answers | 96 MiB | Thrift answers, HTTP values and pages (64 MiB) | the call is answered as overloaded |
//! | short answers | 16 MiB | HTTP values | the key is answered as overloaded |
//!
//! A share ends with its bytes, not with whoever asked: that of a long message is [bound](Share::bind_apart) to its memory, and is given
//! back once nothing refers to that memory any more, be it a request that was forgotten long ago, or a write that waits for
//! a slow replica after its client was answered. The account of calls that wait for their answer is given back with
//! the answer; what remains of a write then has bounds of its own in the node ([`crate::node::Config::max_storing`],
//! [`crate::node::Config::max_lingering`]), which lie below the pool, so that a disk that hangs leaves room for new calls.
//!
//! Short and long are apart, so that no number of half messages keeps a short call from being read. Peers are apart because a
//! client's call waits for them: peers that waited for clients' calls to end would close the circle. Requests and answers
//! are apart because the one waits for the other.
//!
//! # What is left out
//!
//! What is short and bounded in number, by the bounds of connections and of calls in flight; and what the store keeps of its
//! own accord: values in memory have their own budget, and keys are all there.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::MAX_FRAME_LENGTH;

/// Bytes of a message, or of a body, that count as short.
pub const SHORT: usize = 64 << 10;

const SHORT_REQUESTS: usize = 48 << 20;
/// What a disk that hangs may keep, what a slow replica may, and as much as new calls may have.
const LONG_REQUESTS: usize = 144 << 20;
/// Two of the longest. Each is sent to several replicas and written by all of them, so this is also what a small write may
/// have to wait for.
const THRIFT_CALLS: usize = 2 * MAX_FRAME_LENGTH;
const HTTP_BODIES: usize = 64 << 20;
const PEERS: usize = 64 << 20;
const LONG_ANSWERS: usize = 96 << 20;
const HTTP_ANSWERS: usize = 64 << 20;
const SHORT_ANSWERS: usize = 16 << 20;

/// All that is in hand at most.
pub const TOTAL: usize = SHORT_REQUESTS + LONG_REQUESTS + PEERS + LONG_ANSWERS + SHORT_ANSWERS;

/// The accounts of a process. Copies share them.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Short Thrift calls, and short HTTP bodies.
    pub short_requests: Account,
    /// Long Thrift calls.
    pub long_calls: Account,
    /// Long HTTP bodies, and the items of lists.
    pub long_bodies: Account,
    /// Messages of peers.
    pub peers: Account,
    /// Thrift answers that have not left.
    pub long_answers: Account,
    /// Long HTTP values and pages that have not left.
    pub http_answers: Account,
    /// Short HTTP values that have not left.
    pub short_answers: Account,
}

impl Default for Budget {
    fn default() -> Budget {
        let [short, requests, peers, answers, short_answers] =
            [SHORT_REQUESTS, LONG_REQUESTS, PEERS, LONG_ANSWERS, SHORT_ANSWERS].map(Pool::new);
        Budget {
            short_requests: Account::whole(short),
            long_calls: Account::part(THRIFT_CALLS, requests.clone()),
            long_bodies: Account::part(HTTP_BODIES, requests),
            peers: Account::whole(peers),
            long_answers: Account::whole(answers.clone()),
            http_answers: Account::part(HTTP_ANSWERS, answers),
            short_answers: Account::whole(short_answers),
        }
    }
}

impl Budget {
    /// Bytes that are in hand now.
    pub fn in_hand(&self) -> usize {
        let pools = [
            &self.short_requests,
            &self.long_calls,
            &self.peers,
            &self.long_answers,
            &self.short_answers,
        ];
        pools.map(|account| account.pool.taken()).iter().sum()
    }
}

#[derive(Clone, Debug)]
struct Pool {
    bytes: usize,
    free: Arc<Semaphore>,
}

impl Pool {
    fn new(bytes: usize) -> Pool {
        Pool { bytes, free: Arc::new(Semaphore::new(bytes)) }
    }

    fn taken(&self) -> usize {
        self.bytes - self.free.available_permits()
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(permits(bytes)).ok()
    }

    /// `None` only if the pool was closed, which nobody does.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_many_owned(permits(bytes)).await.ok()
    }
}

/// No message is as long as 4 GiB; one that claimed to be would wait for ever.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What one kind of bytes may come to: a bound of its own, if it has one, within that of its pool.
#[derive(Clone, Debug)]
pub struct Account {
    own: Option<Pool>,
    pool: Pool,
}

impl Account {
    fn whole(pool: Pool) -> Account {
        Account { own: None, pool }
    }

    fn part(bytes: usize, pool: Pool) -> Account {
        Account { own: Some(Pool::new(bytes)), pool }
    }

    /// A share, if there is room now.
    pub fn try_take(&self, bytes: usize) -> Option<Share> {
        let own = match &self.own {
            Some(own) => Some(own.try_take(bytes)?),
            None => None,
        };
        Some(Share { own, pool: self.pool.try_take(bytes)? })
    }

    /// A share, once there is room. Shares are taken whole, and before the bytes are, so that two halves never wait for
    /// each other's.
    pub async fn take(self, bytes: usize) -> Option<Share> {
        let own = match &self.own {
            Some(own) => Some(own.take(bytes).await?),
            None => None,
        };
        Some(Share { own, pool: self.pool.take(bytes).await? })
    }

    /// Bytes that can be had now.
    pub fn free(&self) -> usize {
        let own = self.own.as_ref().map_or(usize::MAX, |own| own.free.available_permits());
        own.min(self.pool.free.available_permits())
    }

    /// Most of the pool is in hand.
    pub fn is_tight(&self) -> bool {
        self.pool.taken() > self.pool.bytes / 2
    }
}

/// Bytes that are accounted for, until this is dropped.
#[derive(Debug)]
pub struct Share {
    own: Option<OwnedSemaphorePermit>,
    pool: OwnedSemaphorePermit,
}

impl Share {
    /// How many bytes it is.
    pub fn bytes(&self) -> usize {
        self.pool.num_permits()
    }

    /// Takes so many bytes off it; `None` if it has less.
    pub fn split(&mut self, bytes: usize) -> Option<Share> {
        if bytes > self.bytes() {
            return None;
        }
        let own = match &mut self.own {
            Some(own) => Some(own.split(bytes)?),
            None => None,
        };
        Some(Share { own, pool: self.pool.split(bytes)? })
    }

    /// Adds one of the same account to it.
    pub fn merge(&mut self, other: Share) {
        self.pool.merge(other.pool);
        match (&mut self.own, other.own) {
            (Some(own), Some(other)) => own.merge(other),
            (None, None) => {}
            _ => debug_assert!(false, "shares of one account are merged"),
        }
    }

    /// Binds it to these bytes: it ends when nothing refers to their memory any more.
    pub fn bind(self, bytes: Bytes) -> Bytes {
        debug_assert!(self.bytes() >= bytes.len(), "all bytes are accounted for");
        Bytes::from_owner(Owned { bytes, _share: self })
    }

    /// Binds its part of the pool alone; that of the account is for whoever waits for what becomes of them.
    pub fn bind_apart(self, bytes: Bytes) -> (Bytes, Waiting) {
        let Share { own, pool } = self;
        (Share { own: None, pool }.bind(bytes), Waiting { _own: own })
    }
}

/// A place in the account of what is waited for; the bytes themselves are accounted for elsewhere.
#[derive(Debug)]
pub struct Waiting {
    _own: Option<OwnedSemaphorePermit>,
}

/// Bytes that hold their share for as long as anything refers to them.
struct Owned {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_ends_once_with_the_last_reference_to_its_bytes() {
        let budget = Budget::default();
        let value = Bytes::from(vec![7; SHORT + 1]);
        let share = budget.long_calls.try_take(value.len()).unwrap();
        let (bound, waiting) = share.bind_apart(value);
        let part = bound.slice(5..10);
        drop(bound);
        assert_eq!(budget.in_hand(), SHORT + 1, "a part of it is still there");
        assert_eq!(budget.long_calls.free(), THRIFT_CALLS - SHORT - 1);
        drop(waiting);
        assert_eq!(budget.long_calls.free(), THRIFT_CALLS, "nobody waits any more");
        assert_eq!(budget.in_hand(), SHORT + 1, "but the bytes are there");
        drop(part);
        assert_eq!(budget.in_hand(), 0);
    }

    #[test]
    fn answered_calls_whose_bytes_are_still_there_leave_room_for_others() {
        let budget = Budget::default();
        let longest = MAX_FRAME_LENGTH;
        let mut kept = Vec::new();
        // What a slow replica, or a disk that hangs, keeps in memory after the answer.
        while kept.len() * longest < LONG_REQUESTS - THRIFT_CALLS - longest {
            let (bytes, waiting) =
                budget.long_calls.try_take(longest).unwrap().bind_apart(Bytes::new());
            kept.push(bytes);
            drop(waiting);
        }
        assert!(budget.long_calls.try_take(longest).is_some());
        let bodies = budget.long_bodies.try_take(HTTP_BODIES);
        assert!(bodies.is_none(), "the pool bounds what both have in hand");
    }

    #[test]
    fn an_account_is_bounded_and_so_is_its_pool() {
        let budget = Budget::default();
        let pages = budget.http_answers.try_take(HTTP_ANSWERS).unwrap();
        assert!(budget.http_answers.try_take(1).is_none(), "its own bound");
        let answers = budget.long_answers.try_take(LONG_ANSWERS - HTTP_ANSWERS).unwrap();
        assert!(budget.long_answers.try_take(1).is_none(), "that of the pool");
        assert!(budget.short_answers.try_take(SHORT).is_some() && budget.long_answers.is_tight());
        assert_eq!(budget.in_hand(), LONG_ANSWERS);
        drop((pages, answers));
        assert_eq!((budget.in_hand(), budget.long_answers.is_tight()), (0, false));
    }

    #[test]
    fn shares_are_split_and_merged() {
        let budget = Budget::default();
        let mut share = budget.long_calls.try_take(100).unwrap();
        let part = share.split(30).unwrap();
        assert_eq!((share.bytes(), part.bytes()), (70, 30));
        assert!(share.split(71).is_none());
        share.merge(part);
        assert_eq!((share.bytes(), budget.in_hand()), (100, 100));
        drop(share);
        assert_eq!((budget.in_hand(), budget.long_calls.free()), (0, THRIFT_CALLS));
    }

    #[tokio::test]
    async fn who_waits_for_a_share_gets_it_when_others_are_done() {
        let budget = Budget::default();
        let all = budget.peers.try_take(PEERS).unwrap();
        let waiting = tokio::spawn(budget.peers.clone().take(1));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(all);
        assert_eq!(waiting.await.unwrap().unwrap().bytes(), 1);
    }
}
