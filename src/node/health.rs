//! What this server's own disk does, judged by what it carries out of what the node has asked for.
//!
//! | state | since | until |
//! |---|---|---|
//! | *hangs* | something is asked for, and nothing was carried out for [`DISK_SILENCE`], and a second more for each [`SECONDS_WORTH`] of bytes | something is |
//! | *is full*, *is read-only* | an append, or the identity, was refused for that reason | one is taken in again, and none was refused for a while |
//!
//! Nothing is asked of a healthy disk for the sake of this: a disk that hangs while nobody wants anything of it harms
//! nobody. One that refuses is tried again every [`PROBE`], by saving the identity, for its clients may have
//! gone elsewhere and nothing else would show that it has room again.

use std::time::Duration;

use crate::model::{DiskState, Instant, Now};
use crate::storage::{AppendError, Completion};

/// A disk that has carried out nothing for so long, though asked, hangs. Long against a sync of a slow disk, and short
/// enough for others to know within two seconds.
pub(super) const DISK_SILENCE: Duration = Duration::from_secs(1);

/// Bytes that a working disk moves in a second, also one that others are busy with: so much longer it may take over what it
/// is asked for, or a flood of long values would pass for a disk that hangs.
pub(super) const SECONDS_WORTH: u64 = 32 << 20;

/// A disk that refuses is tried again so often.
pub(super) const PROBE: Duration = Duration::from_secs(1);

/// One that has refused nothing for so long takes writes again, once it has taken one.
const CALM: Duration = Duration::from_millis(500);

/// At most: the wait doubles for a disk that refuses again soon after it was believed well, so that one on which there is
/// room for some records and not for others is not said to be well every second.
const MAX_CALM: Duration = Duration::from_secs(16);

/// A node that was not called for so long has stood still itself: what it has not been told meanwhile says nothing of its
/// disk, nor of its peers.
const STANDSTILL: Duration = Duration::from_millis(500);

/// The disk has refused.
#[derive(Clone, Copy, Debug)]
struct Refusing {
    state: DiskState,
    /// By the wall clock.
    since: i64,
    last: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    /// Commands that are not carried out.
    outstanding: usize,
    /// Bytes of keys and values in them. What an error took with it counts until nothing is outstanding.
    bytes: u64,
    /// While there are some: since when nothing was carried out.
    silent_since: Now,
    hangs: bool,
    refusing: Option<Refusing>,
    calm: Duration,
    /// When it was last believed to take writes again.
    well_since: Option<Instant>,
    probe_at: Instant,
    /// As it was told last.
    told: (DiskState, i64),
    last_step: Instant,
}

/// It is different from what was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) from: (DiskState, i64),
    pub(super) to: (DiskState, i64),
}

impl Health {
    pub(super) fn new(now: Now) -> Health {
        Health {
            outstanding: 0,
            bytes: 0,
            silent_since: now,
            hangs: false,
            refusing: None,
            calm: CALM,
            well_since: None,
            probe_at: now.instant,
            told: (DiskState::Healthy, now.wall),
            last_step: now.instant,
        }
    }

    /// The node is called. Whether it had stood still.
    pub(super) fn on_step(&mut self, now: Now) -> bool {
        let stood_still = now.instant - self.last_step > STANDSTILL;
        if stood_still && !self.hangs {
            self.silent_since = now;
        }
        self.last_step = now.instant;
        stood_still
    }

    /// A command goes to the disk, with so many bytes to be moved.
    pub(super) fn on_ordered(&mut self, now: Now, bytes: u64) {
        if self.outstanding == 0 {
            self.silent_since = now;
            self.bytes = 0;
        }
        self.outstanding += 1;
        self.bytes += bytes;
    }

    /// A command was carried out, well or badly.
    pub(super) fn on_completed(&mut self, now: Now, completion: &Completion) {
        debug_assert!(self.outstanding > 0, "what is carried out was asked for");
        self.outstanding = self.outstanding.saturating_sub(1);
        self.silent_since = now;
        self.hangs = false;
        let moved = match completion {
            Completion::Appended { result: Ok(place), .. } => u64::from(place.length),
            Completion::Loaded { result: Ok(content), .. } => content.len() as u64,
            _ => 0,
        };
        self.bytes = self.bytes.saturating_sub(moved);
        match completion {
            Completion::Appended { result: Err(AppendError::Full), .. }
            | Completion::IdentityUnsaved { error: AppendError::Full, .. } => {
                self.on_refused(now, DiskState::Full);
            }
            Completion::Appended { result: Err(AppendError::ReadOnly), .. }
            | Completion::IdentityUnsaved { error: AppendError::ReadOnly, .. } => {
                self.on_refused(now, DiskState::ReadOnly);
            }
            Completion::Appended { result: Ok(_), .. } | Completion::IdentitySaved { .. } => {
                self.on_taken(now.instant);
            }
            Completion::Appended { .. }
            | Completion::IdentityUnsaved { .. }
            | Completion::Loaded { .. }
            | Completion::Surveyed { .. }
            | Completion::Removed { .. }
            | Completion::Broken { .. } => {}
        }
    }

    fn on_refused(&mut self, now: Now, state: DiskState) {
        match &mut self.refusing {
            Some(refusing) if refusing.state == state => refusing.last = now.instant,
            other => {
                if other.is_none() {
                    let again = self.well_since.is_some_and(|at| now.instant - at < self.calm * 8);
                    self.calm = if again { (self.calm * 2).min(MAX_CALM) } else { CALM };
                    self.probe_at = now.instant + PROBE;
                }
                *other = Some(Refusing { state, since: now.wall, last: now.instant });
            }
        }
    }

    fn on_taken(&mut self, now: Instant) {
        if self.refusing.is_some_and(|refusing| now - refusing.last >= self.calm) {
            self.refusing = None;
            self.well_since = Some(now);
        }
    }

    /// How long the disk may be silent.
    fn patience(&self) -> Duration {
        DISK_SILENCE + Duration::from_millis(self.bytes * 1_000 / SECONDS_WORTH)
    }

    /// Looks whether there is something new to tell.
    pub(super) fn look(&mut self, now: Now) -> Option<Change> {
        self.hangs =
            self.outstanding > 0 && now.instant - self.silent_since.instant >= self.patience();
        let state = match self.refusing {
            _ if self.hangs => (DiskState::Hanging, self.silent_since.wall),
            Some(Refusing { state, since, .. }) => (state, since),
            None => (DiskState::Healthy, now.wall),
        };
        if state.0 == self.told.0 {
            return None;
        }
        Some(Change { from: std::mem::replace(&mut self.told, state), to: state })
    }

    /// The disk has refused for a while: time to save the identity.
    pub(super) fn wants_probe(&mut self, now: Instant) -> bool {
        let is_time = self.refusing.is_some() && self.probe_at <= now;
        if is_time {
            self.probe_at = now + PROBE;
        }
        is_time
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let silence = (self.outstanding > 0 && !self.hangs)
            .then(|| self.silent_since.instant + self.patience());
        let probe = self.refusing.is_some().then_some(self.probe_at);
        silence.into_iter().chain(probe).min()
    }

    /// What was told last: the state, and since when by the wall clock.
    pub(super) fn state(&self) -> (DiskState, i64) {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Log, Ticket};

    fn at(ms: u64) -> Now {
        Now { instant: Instant(ms * 1_000), wall: ms as i64 * 1_000 }
    }

    fn appended(error: Option<AppendError>) -> Completion {
        let place = crate::storage::Place { segment: 1, offset: 0, length: 9 };
        Completion::Appended {
            log: Log::Cells,
            ticket: Ticket(1),
            result: error.map_or(Ok(place), Err),
            value_crc: 0,
            position: 0,
            active: 1,
            syncs: 1,
        }
    }

    /// As a node does: it is called every quarter of a second.
    fn pass(health: &mut Health, from: u64, to: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for ms in (from..=to).step_by(250) {
            health.on_step(at(ms));
            changes.extend(health.look(at(ms)));
        }
        changes
    }

    #[test]
    fn a_disk_that_carries_out_nothing_for_a_second_hangs_until_it_does() {
        let mut health = Health::new(at(0));
        assert_eq!(health.next_deadline(), None);
        assert_eq!(pass(&mut health, 0, 9_000), [], "nothing was asked of it");
        health.on_ordered(at(9_000), 0);
        health.on_ordered(at(9_500), 0);
        assert_eq!(health.next_deadline(), Some(at(10_000).instant));
        assert_eq!(pass(&mut health, 9_000, 9_750), []);
        let hangs = pass(&mut health, 10_000, 12_000);
        let (healthy, hanging) = ((DiskState::Healthy, 0), (DiskState::Hanging, 9_000_000));
        assert_eq!(hangs, [Change { from: healthy, to: hanging }]);
        assert_eq!(health.next_deadline(), None);
        health.on_completed(at(12_100), &appended(None));
        assert_eq!(health.look(at(12_100)).unwrap().to.0, DiskState::Healthy);
        assert_eq!(health.next_deadline(), Some(at(13_100).instant), "one is left");
    }

    #[test]
    fn a_disk_that_is_given_much_may_take_its_time() {
        let mut health = Health::new(at(0));
        health.on_ordered(at(0), 2 * SECONDS_WORTH);
        assert_eq!(health.next_deadline(), Some(at(3_000).instant));
        assert_eq!(pass(&mut health, 0, 2_750), []);
        assert_eq!(pass(&mut health, 3_000, 3_000).len(), 1);
        health.on_completed(at(3_100), &appended(None));
        // Whatever was left of the bytes is gone with the last command.
        health.on_ordered(at(4_000), 0);
        assert_eq!(health.next_deadline(), Some(at(5_000).instant));
    }

    #[test]
    fn a_node_that_stood_still_does_not_blame_its_disk() {
        let mut health = Health::new(at(0));
        health.on_ordered(at(0), 0);
        health.on_step(at(5_000));
        assert_eq!(health.look(at(5_000)), None);
        health.on_completed(at(5_001), &appended(None));
        assert_eq!(health.look(at(5_001)), None);
    }

    #[test]
    fn a_full_disk_is_tried_every_second_and_is_well_once_it_has_refused_nothing_for_a_while() {
        let mut health = Health::new(at(0));
        let done = |health: &mut Health, ms, error| {
            health.on_ordered(at(ms), 0);
            health.on_completed(at(ms), &appended(error));
            health.look(at(ms)).map(|change| change.to.0)
        };
        let full = Some(AppendError::Full);
        assert_eq!(done(&mut health, 0, full), Some(DiskState::Full));
        assert_eq!(done(&mut health, 300, None), None, "a small record still finds room");
        assert_eq!(done(&mut health, 400, full), None);
        assert_eq!(done(&mut health, 899, None), None);
        assert!(!health.wants_probe(at(999).instant));
        assert!(health.wants_probe(at(1_000).instant) && !health.wants_probe(at(1_000).instant));
        assert_eq!(health.next_deadline(), Some(at(2_000).instant));
        assert_eq!(done(&mut health, 1_500, None), Some(DiskState::Healthy));
        // Soon again: it takes longer to be believed.
        assert_eq!(done(&mut health, 2_000, full), Some(DiskState::Full));
        assert_eq!(done(&mut health, 2_999, None), None);
        assert_eq!(done(&mut health, 3_000, None), Some(DiskState::Healthy));
        // Any other error says nothing of room.
        assert_eq!(done(&mut health, 60_000, Some(AppendError::Write)), None);
        assert_eq!(done(&mut health, 60_001, full), Some(DiskState::Full));
        assert_eq!(done(&mut health, 60_501, None), Some(DiskState::Healthy));
    }
}
