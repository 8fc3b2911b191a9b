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
    /// It cannot be asked, or its link went down.
    Missed,
    /// It lives, and does not do it.
    Refused,
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

    /// At AVAILABLE: a majority is required, or all that live if those are fewer, and at least one. Whoever has answered lives.
    pub fn fall_back(&mut self, majority: usize, roster: &dyn Roster) {
        let lives = |(server, slot): &&(ServerId, Slot<T>)| {
            roster.alive(*server) || counts(*server, slot, roster).is_some()
        };
        let living = self.slots.iter().filter(lives).count();
        self.required = majority.min(living.max(1));
    }

    /// Waits again for replicas that could not be asked; returns those.
    pub fn resume(&mut self, may: impl Fn(ServerId) -> bool) -> SmallVec<[ServerId; 3]> {
        let mut resumed = SmallVec::new();
        for (server, slot) in &mut self.slots {
            if matches!(slot, Slot::Missed) && may(*server) {
                *slot = Slot::Waiting;
                resumed.push(*server);
            }
        }
        resumed
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

    /// The replica has refused. What it has answered stays.
    pub fn refuse(&mut self, replica: ServerId) {
        let slot = self.slots.iter_mut().find(|(server, _)| *server == replica);
        if let Some((_, slot @ (Slot::Waiting | Slot::Missed))) = slot {
            *slot = Slot::Refused;
        }
    }

    /// The answers that count: of voting replicas, in their latest known life.
    pub fn votes<'a>(
        &'a self,
        roster: &'a dyn Roster,
    ) -> impl Iterator<Item = (ServerId, &'a T)> + 'a {
        self.slots
            .iter()
            .filter_map(|(server, slot)| Some((*server, counts(*server, slot, roster)?)))
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

    /// The same, to be changed.
    pub fn answers_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|(_, slot)| match slot {
            Slot::Answered { answer, .. } => Some(answer),
            Slot::Waiting | Slot::Missed | Slot::Refused => None,
        })
    }

    /// All answers, also those that do not count.
    pub fn answers(&self) -> impl Iterator<Item = (ServerId, &T)> + '_ {
        self.slots.iter().filter_map(|(server, slot)| match slot {
            Slot::Answered { answer, .. } => Some((*server, answer)),
            Slot::Waiting | Slot::Missed | Slot::Refused => None,
        })
    }
}

/// The answer, if it counts.
fn counts<'a, T>(server: ServerId, slot: &'a Slot<T>, roster: &dyn Roster) -> Option<&'a T> {
    match slot {
        Slot::Answered { incarnation, voting: true, answer }
            if *incarnation >= roster.incarnation(server) =>
        {
            Some(answer)
        }
        Slot::Answered { .. } | Slot::Waiting | Slot::Missed | Slot::Refused => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::DiskState;

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
        fn disk(&self, _: ServerId) -> DiskState {
            DiskState::Healthy
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

    /// Only these are alive.
    struct Alive(Vec<u16>);

    impl Roster for Alive {
        fn alive(&self, server: ServerId) -> bool {
            self.0.contains(&server.0)
        }
        fn prompt(&self, _: ServerId) -> bool {
            true
        }
        fn reachable(&self, _: ServerId) -> bool {
            true
        }
        fn disk(&self, _: ServerId) -> DiskState {
            DiskState::Healthy
        }
        fn incarnation(&self, _: ServerId) -> Incarnation {
            Incarnation::NONE
        }
    }

    #[test]
    fn a_majority_is_required_while_it_lives_and_then_all_that_live() {
        let mut tally = Tally::new(&REPLICAS, 2);
        for (alive, required) in
            [(vec![0, 1, 2], 2), (vec![0, 2], 2), (vec![1], 1), (Vec::new(), 1), (vec![0, 1], 2)]
        {
            tally.fall_back(2, &Alive(alive.clone()));
            assert_eq!(tally.required(), required, "{alive:?}");
        }
        // Whoever has answered and died since lives on in its answer.
        tally.answer(ServerId(0), &sender(1, true), ());
        tally.fall_back(2, &Alive(vec![1]));
        assert_eq!(tally.required(), 2);
        tally.miss(ServerId(2));
        tally.refuse(ServerId(1));
        // Who has refused is not asked again.
        assert_eq!(tally.resume(|_| true).as_slice(), [ServerId(2)]);
        assert_eq!(tally.waiting().count(), 1);
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
