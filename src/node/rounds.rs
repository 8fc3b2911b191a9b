//! First rounds, shared: what writes need to know before they take their version.
//!
//! A write must take a version above every write of its key that had been acknowledged before it began. Any number above all that
//! a majority of the key's replicas has ever seen will do, whichever keys that was of; so a replica need not look the key up,
//! and one question serves every write that waits for that replica, if it is *sent after all of them began*. That is the whole
//! rule, and the flaw that leaves it out is caught by the simulator.
//!
//! Writes therefore only say whom they want to ask. What was gathered leaves when the driver has handed over all that had come
//! in meanwhile ([`super::Event::Flush`]), one question a replica; while a replica owes an answer, the writes that come gather
//! for the next question, as records gather for the next sync. A lone write waits for nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::turn::OperationId;
use crate::model::{Instant, ServerId};

/// A question without an answer holds the next one back no longer than this.
const PATIENCE: Duration = Duration::from_millis(20);

/// Questions for clocks, by the server that is to be asked.
#[derive(Debug, Default)]
pub(super) struct ClockRounds {
    servers: BTreeMap<ServerId, Asking>,
}

#[derive(Debug, Default)]
struct Asking {
    /// They have begun since the last question was sent.
    waiting: Vec<OperationId>,
    /// When the last question was sent that has no answer yet.
    asked: Option<Instant>,
}

impl Asking {
    fn may_be_asked(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.asked.is_none_or(|at| now - at >= PATIENCE)
    }
}

impl ClockRounds {
    /// A write wants that server's clock.
    pub(super) fn want(&mut self, server: ServerId, operation: OperationId) {
        self.servers.entry(server).or_default().waiting.push(operation);
    }

    /// Somebody can be asked at once.
    pub(super) fn is_ready(&self) -> bool {
        self.servers.values().any(|asking| !asking.waiting.is_empty() && asking.asked.is_none())
    }

    /// Whom to ask now, and on whose behalf.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(ServerId, Vec<OperationId>)> {
        let ready = self.servers.iter_mut().filter(|(_, asking)| asking.may_be_asked(now));
        let ask = |(server, asking): (&ServerId, &mut Asking)| {
            asking.asked = Some(now);
            (*server, std::mem::take(&mut asking.waiting))
        };
        ready.map(ask).collect()
    }

    /// A server has answered, or its answer is not waited for any more.
    pub(super) fn on_answer(&mut self, server: ServerId) {
        if let Some(asking) = self.servers.get_mut(&server) {
            asking.asked = None;
        }
    }

    /// A server cannot be asked any more: the writes that were to be told.
    pub(super) fn on_link_down(&mut self, server: ServerId) -> Vec<OperationId> {
        self.servers.remove(&server).map(|asking| asking.waiting).unwrap_or_default()
    }

    /// When a server is to be asked although it owes an answer.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let held_back = self.servers.values().filter(|asking| !asking.waiting.is_empty());
        held_back.filter_map(|asking| Some(asking.asked? + PATIENCE)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ServerId = ServerId(1);

    #[test]
    fn who_comes_after_the_question_waits_for_the_next() {
        let mut rounds = ClockRounds::default();
        let (early, late) = (OperationId(1), OperationId(2));
        rounds.want(PEER, early);
        assert!(rounds.is_ready());
        assert_eq!(rounds.take(Instant(0)), [(PEER, vec![early])]);
        rounds.want(PEER, late);
        assert!(!rounds.is_ready() && rounds.take(Instant(1)).is_empty());
        rounds.on_answer(PEER);
        assert!(rounds.is_ready());
        assert_eq!(rounds.take(Instant(2)), [(PEER, vec![late])]);
        assert_eq!(rounds.next_deadline(), None);
    }

    #[test]
    fn a_lost_question_does_not_hold_back_for_long() {
        let mut rounds = ClockRounds::default();
        rounds.want(PEER, OperationId(1));
        rounds.take(Instant(0));
        rounds.want(PEER, OperationId(2));
        let at = rounds.next_deadline().unwrap();
        assert_eq!(at, Instant(0) + PATIENCE);
        assert_eq!(rounds.take(at), [(PEER, vec![OperationId(2)])]);
        rounds.want(PEER, OperationId(3));
        assert_eq!(rounds.on_link_down(PEER), [OperationId(3)]);
        assert_eq!(rounds.next_deadline(), None);
    }
}
