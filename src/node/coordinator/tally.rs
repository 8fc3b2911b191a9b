//! Counting towards a level. No waiting in here, and no meaning: who has answered, in which life, and whether
//! that is enough.

use smallvec::SmallVec;

use super::super::turn::Roster;
use crate::model::{Incarnation, Sender, ServerId};

/// One replica's part in a round.
#[derive(Clone, Debug)]
enum Slot<T> {
    /// Asked, or to be asked.
    Waiting,
    /// It has answered.
    Answered { incarnation: Incarnation, voting: bool, answer: T },
    /// It cannot be asked, has refused, or its link went down.
    Missed,
}

/// The answers of one round, one slot a replica: a replica counts once, however often it answers.
#[derive(Clone, Debug)]
pub struct Tally<T> {
    slots: SmallVec<[(ServerId, Slot<T>); 3]>,
    required: usize,
}

impl<T> Tally<T> {
    /// A round among `replicas` of which `required` must answer.
    pub fn new(replicas: &[ServerId], required: usize) -> Tally<T> {
        let slots = replicas.iter().map(|replica| (*replica, Slot::Waiting)).collect();
        Tally { slots, required }
    }

    /// How many must answer.
    pub fn required(&self) -> usize {
        self.required
    }

    /// Takes in an answer; a later one of the same replica replaces it.
    pub fn answer(&mut self, replica: ServerId, sender: &Sender, answer: T) {
        let (incarnation, voting) = (sender.incarnation, sender.voting);
        if let Some((_, slot)) = self.slots.iter_mut().find(|(server, _)| *server == replica) {
            *slot = Slot::Answered { incarnation, voting, answer };
        }
    }

    /// The replica will not answer. What it has answered stays.
    pub fn miss(&mut self, replica: ServerId) {
        let slot = self.slots.iter_mut().find(|(server, _)| *server == replica);
        if let Some((_, slot @ Slot::Waiting)) = slot {
            *slot = Slot::Missed;
        }
    }

    /// The answers that count: of voting replicas, in their latest known life.
    pub fn votes<'a>(
        &'a self,
        roster: &'a dyn Roster,
    ) -> impl Iterator<Item = (ServerId, &'a T)> + 'a {
        self.slots.iter().filter_map(|(server, slot)| match slot {
            Slot::Answered { incarnation, voting: true, answer }
                if *incarnation >= roster.incarnation(*server) =>
            {
                Some((*server, answer))
            }
            Slot::Answered { .. } | Slot::Waiting | Slot::Missed => None,
        })
    }

    /// How many answers count.
    pub fn received(&self, roster: &dyn Roster) -> usize {
        self.votes(roster).count()
    }

    /// Enough answers count.
    pub fn is_met(&self, roster: &dyn Roster) -> bool {
        self.received(roster) >= self.required
    }

    /// Even if all that are waited for answer, it is not enough.
    pub fn is_hopeless(&self, roster: &dyn Roster) -> bool {
        self.received(roster) + self.waiting().count() < self.required
    }

    /// Replicas that may still answer.
    pub fn waiting(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Waiting))
            .map(|(server, _)| *server)
    }

    /// Replicas that have not answered, whether they still may or not.
    pub fn silent(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.slots
            .iter()
            .filter(|(_, slot)| !matches!(slot, Slot::Answered { .. }))
            .map(|(server, _)| *server)
    }

    /// All answers, also those that do not count.
    pub fn answers(&self) -> impl Iterator<Item = (ServerId, &T)> + '_ {
        self.slots.iter().filter_map(|(server, slot)| match slot {
            Slot::Answered { answer, .. } => Some((*server, answer)),
            Slot::Waiting | Slot::Missed => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Latest lives by server; everyone is alive.
    struct Lives(BTreeMap<ServerId, u32>);

    impl Roster for Lives {
        fn alive(&self, _: ServerId) -> bool {
            true
        }
        fn prompt(&self, _: ServerId) -> bool {
            true
        }
        fn reachable(&self, _: ServerId) -> bool {
            true
        }
        fn incarnation(&self, server: ServerId) -> Incarnation {
            Incarnation(self.0.get(&server).copied().unwrap_or(0))
        }
    }

    const REPLICAS: [ServerId; 3] = [ServerId(0), ServerId(1), ServerId(2)];

    fn sender(incarnation: u32, voting: bool) -> Sender {
        Sender { incarnation: Incarnation(incarnation), voting, ..Sender::default() }
    }

    #[test]
    fn one_replica_counts_once_however_often_it_answers() {
        let roster = Lives(BTreeMap::new());
        let mut tally = Tally::new(&REPLICAS, 2);
        tally.answer(ServerId(0), &sender(1, true), ());
        tally.answer(ServerId(0), &sender(1, true), ());
        tally.answer(ServerId(9), &sender(1, true), ());
        assert!(!tally.is_met(&roster));
        tally.answer(ServerId(2), &sender(1, true), ());
        assert!(tally.is_met(&roster));
    }

    #[test]
    fn an_answer_of_an_older_life_stops_counting_once_the_new_one_is_known() {
        let mut tally = Tally::new(&REPLICAS, 2);
        tally.answer(ServerId(0), &sender(1, true), ());
        tally.answer(ServerId(1), &sender(1, true), ());
        assert!(tally.is_met(&Lives(BTreeMap::from([(ServerId(0), 1)]))));
        assert!(!tally.is_met(&Lives(BTreeMap::from([(ServerId(0), 2)]))));
    }

    #[test]
    fn a_replica_that_is_being_rebuilt_does_not_count() {
        let roster = Lives(BTreeMap::new());
        let mut tally = Tally::new(&REPLICAS, 2);
        tally.answer(ServerId(0), &sender(1, true), ());
        tally.answer(ServerId(1), &sender(2, false), ());
        assert_eq!(tally.received(&roster), 1);
        assert!(!tally.is_hopeless(&roster));
        tally.miss(ServerId(2));
        assert!(tally.is_hopeless(&roster));
    }

    #[test]
    fn a_miss_after_the_answer_changes_nothing() {
        let roster = Lives(BTreeMap::new());
        let mut tally = Tally::new(&REPLICAS, 1);
        tally.answer(ServerId(0), &sender(1, true), ());
        tally.miss(ServerId(0));
        assert!(tally.is_met(&roster));
        assert_eq!(tally.silent().count(), 2);
    }
}
