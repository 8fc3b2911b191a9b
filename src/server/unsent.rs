//! Answers of a connection that have not left, and how many more may be asked for.
//!
//! A long answer takes a share of the [budget](crate::budget) until the socket has taken it. Nobody has more than
//! [`ANSWERS_PER_CONNECTION`] on their way: whoever does not take them is not asked for its next call. And while most of the pool is
//! taken, whoever's answers are long gets them one at a time, so that a few slow readers do not end the long answers of everyone.

use crate::budget::{Account, Share};
use crate::model::{ClientResponse, Failure, PeerAnswer, PeerReply};
use crate::wire::MAX_FRAME_LENGTH;

/// Bytes of long answers of one connection: twice the longest.
const ANSWERS_PER_CONNECTION: usize = 2 * MAX_FRAME_LENGTH;

/// Bytes of an answer that need no share.
const SHORT_ANSWER: usize = 4 * 1024;
/// Calls that a new connection may have in flight; each answer that comes allows for one more. So nobody has a thousand
/// long answers on their way before the first one has told that they are long.
const FIRST_CALLS: usize = 4;
/// Requests of a peer are taken on as long as their answers would not come to more than this.
const REPLIES_PER_CONNECTION: usize = 32 << 20;

/// Answers of one connection that have not left, and how long the next ones are to be expected.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    share: Option<Share>,
    /// Bytes of the longest one lately; forgotten slowly.
    largest: usize,
    /// How many there have been.
    count: usize,
}

impl Unsent {
    /// Takes note of an answer of that many bytes, if it may be kept until it has left.
    pub(crate) fn admit(&mut self, bytes: usize, answers: &Account) -> bool {
        self.expect(bytes);
        if bytes <= SHORT_ANSWER {
            return true;
        }
        let held = self.share.as_ref().map_or(0, Share::bytes);
        if held + bytes > ANSWERS_PER_CONNECTION {
            return false;
        }
        let Some(share) = answers.try_take(bytes) else { return false };
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
            Some(share) if share.bytes() > bytes => drop(share.split(bytes)),
            _ => self.share = None,
        }
    }

    /// How many calls may be in flight, at most `usual`: long answers are asked for a few at a time, and none while another might
    /// not be admitted. What is fetched to be refused costs as much as what is answered.
    pub(crate) fn most_calls(&self, usual: usize, answers: &Account) -> usize {
        let held = self.share.as_ref().map_or(0, Share::bytes);
        let is_long = self.largest > SHORT_ANSWER;
        let is_full = held + self.largest > ANSWERS_PER_CONNECTION || answers.is_tight();
        if held > 0 && is_long && is_full {
            return 0;
        }
        let tried = self.count.saturating_add(FIRST_CALLS);
        let bytes = if answers.is_tight() { 0 } else { ANSWERS_PER_CONNECTION / 2 };
        self.most(bytes, usual).min(tried)
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
    use crate::budget::Budget;

    #[test]
    fn one_connection_may_keep_so_much_and_all_of_them_so_much() {
        let budget = Budget::default();
        let account = &budget.long_answers;
        let all = account.free();
        let mut greedy = Unsent::default();
        assert_eq!(greedy.most_calls(1024, account), FIRST_CALLS);
        let half = ANSWERS_PER_CONNECTION / 2;
        assert!(greedy.admit(half, account) && greedy.admit(half, account));
        assert!(!greedy.admit(SHORT_ANSWER + 1, account), "beyond its own bound");
        assert!(greedy.admit(SHORT_ANSWER, account), "a short one needs no share");
        assert_eq!(greedy.most_calls(1024, account), 0, "it might not be admitted");
        greedy.left(half);
        assert_eq!(greedy.most_calls(1024, account), 1);
        assert!(greedy.admit(half, account), "there is room again");
        let mut others: Vec<_> = (0..20).map(|_| Unsent::default()).collect();
        let admitted: usize =
            others.iter_mut().map(|other| usize::from(other.admit(half, account))).sum();
        assert_eq!(admitted, all / half - 2, "beyond the bound of all");
        drop((greedy, others));
        assert_eq!(account.free(), all);
    }

    #[test]
    fn long_answers_are_forgotten_slowly() {
        let budget = Budget::default();
        let account = &budget.long_answers;
        let mut unsent = Unsent::default();
        unsent.expect(1 << 20);
        assert_eq!(unsent.most_calls(1024, account), FIRST_CALLS + 1);
        for _ in 0..20 {
            unsent.expect(1 << 20);
        }
        assert_eq!(unsent.most_calls(1024, account), ANSWERS_PER_CONNECTION / 2 / (1 << 20));
        unsent.expect(10);
        assert!(unsent.most_calls(1024, account) < FIRST_CALLS + 20, "one at a time");
        for _ in 0..1100 {
            unsent.expect(10);
        }
        assert_eq!(unsent.most_calls(1024, account), 1024);
    }

    #[test]
    fn while_most_of_the_pool_is_taken_long_answers_come_one_at_a_time() {
        let budget = Budget::default();
        let account = &budget.long_answers;
        let (mut long, mut short) = (Unsent::default(), Unsent::default());
        long.expect(100 << 10);
        short.expect(10);
        let _slow = account.try_take(account.free() / 2 + 1).unwrap();
        assert_eq!(long.most_calls(1024, account), 1);
        assert!(long.admit(100 << 10, account));
        assert_eq!(long.most_calls(1024, account), 0, "it has not taken the one it has got");
        assert_eq!(short.most_calls(1024, account), FIRST_CALLS + 1);
    }
}
