//! When sealed segments are read through, so that rot is found before every copy has it.
//!
//! A pass reads all segments that are sealed when it begins, at [`Config::scrub_rate`] bytes a second on the average; one
//! begins [`Config::scrub_interval`] after the last one began. Its pieces are short (256 KiB, or one record), one at a time,
//! and wait for a moment while the replica has work in hand, but no longer than [`PATIENCE`], or a busy server would never be
//! looked at. How far it is stands in the identity, which is saved a little later: what is lost of that is read again.

use std::time::Duration;

use super::Config;
use crate::model::{Instant, Now};
use crate::storage::{ScrubMark, Scrubbed};

/// How long a piece waits for the replica to have nothing in hand, at most, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);
/// When the wall clock is looked at, at the latest: it may have been set.
const LONGEST: Duration = Duration::from_secs(3600);
/// When nothing is sealed yet, it is looked again after this time.
const NOTHING: Duration = Duration::from_secs(60);
/// Between pieces, at least.
const SHORTEST: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Scrub {
    mark: ScrubMark,
    /// When there is something to be done; `None`: a piece is being read, or there is no scrub.
    at: Option<Instant>,
    /// A piece has waited for the replica since then.
    waiting: Option<Instant>,
}

impl Scrub {
    pub(super) fn new(config: &Config, mark: ScrubMark, now: Instant) -> Scrub {
        let at = (config.scrub_rate > 0).then_some(now + PATIENCE);
        Scrub { mark, at, waiting: None }
    }

    pub(super) fn mark(&self) -> ScrubMark {
        self.mark
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.at
    }

    /// Behind which segment a piece is to be read now, and before which one. `active` is the one that is written to.
    pub(super) fn wants(
        &mut self,
        config: &Config,
        now: Now,
        is_busy: bool,
        active: u32,
    ) -> Option<(u32, u32)> {
        if self.at.is_none_or(|at| at > now.instant) {
            return None;
        }
        if self.mark.end == 0 {
            let since = u64::try_from(now.wall.saturating_sub(self.mark.began)).ok();
            // A clock that was set back says nothing of the time that has passed.
            let left = since.map(Duration::from_micros).filter(|_| self.mark.began > 0);
            let left =
                left.map_or(Duration::ZERO, |since| config.scrub_interval.saturating_sub(since));
            if !left.is_zero() {
                self.at = Some(now.instant + left.min(LONGEST));
                return None;
            }
            self.mark = ScrubMark { began: now.wall, done: 0, end: active, ..self.mark };
        }
        let since = *self.waiting.get_or_insert(now.instant);
        if is_busy && now.instant - since < PATIENCE {
            self.at = Some(now.instant + LOOK);
            return None;
        }
        (self.at, self.waiting) = (None, None);
        Some((self.mark.done, self.mark.end))
    }

    /// There is nothing left to be read. True: a pass is complete; else nothing was sealed when it was to begin.
    pub(super) fn on_end(&mut self, now: Now) -> bool {
        let is_complete = self.mark.done > 0;
        if is_complete {
            self.mark.ended = now.wall;
            self.at = Some(now.instant + SHORTEST);
        } else {
            self.mark.began = self.mark.ended;
            self.at = Some(now.instant + NOTHING);
        }
        (self.mark.done, self.mark.end) = (0, 0);
        is_complete
    }

    /// A piece was read.
    pub(super) fn on_scrubbed(&mut self, config: &Config, now: Instant, scrubbed: Scrubbed) {
        if scrubbed.is_done {
            self.mark.done = self.mark.done.max(scrubbed.segment);
        }
        let micros = u64::from(scrubbed.bytes).saturating_mul(1_000_000) / config.scrub_rate.max(1);
        self.at = Some(now + Duration::from_micros(micros).max(SHORTEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, ServerId};
    use crate::ring::Placement;

    const SECOND: u64 = 1_000_000;

    fn config() -> Config {
        let topology = Placement::Ring.topology(&[ServerId(0)], &[Key::bound("")], 1).unwrap();
        Config::new(ServerId(0), "test".to_owned(), topology)
    }

    #[test]
    fn a_pass_keeps_to_its_rate_and_the_next_one_to_its_interval() {
        let mut config = config();
        (config.scrub_rate, config.scrub_interval) = (1 << 20, Duration::from_secs(100));
        let at = |seconds: u64| Now {
            instant: Instant(seconds * SECOND),
            wall: 1_000 + (seconds * SECOND) as i64,
        };
        let mut scrub = Scrub::new(&config, ScrubMark::default(), at(0).instant);
        assert_eq!(
            scrub.wants(&config, at(0), false, 9),
            None,
            "a server that starts has other work"
        );
        assert_eq!(scrub.wants(&config, at(5), true, 9), None, "clients come first");
        assert_eq!(scrub.wants(&config, at(6), true, 9), Some((0, 9)), "but not for ever");
        assert_eq!(scrub.next_deadline(), None, "one piece at a time");
        let piece = Scrubbed { segment: 4, bytes: 3 << 20, is_done: true, damaged: false };
        scrub.on_scrubbed(&config, at(6).instant, piece);
        assert_eq!(scrub.next_deadline(), Some(at(9).instant), "3 MiB at 1 MiB a second");
        // A new process goes on behind what is done, up to where the pass ended when it began.
        let mut scrub = Scrub::new(&config, scrub.mark(), at(20).instant);
        assert_eq!(scrub.wants(&config, at(21), false, 12), Some((4, 9)));
        assert!(scrub.on_end(at(22)));
        assert_eq!(scrub.wants(&config, at(23), false, 12), None);
        assert_eq!(scrub.next_deadline(), Some(at(105).instant), "it began at 5");
        assert_eq!(scrub.wants(&config, at(105), false, 12), Some((0, 12)));
        assert_eq!(scrub.mark().ended, at(22).wall);
    }

    #[test]
    fn a_pass_with_nothing_to_read_is_none() {
        let config = config();
        let at = |seconds: u64| Now { instant: Instant(seconds * SECOND), wall: 7 };
        let mut scrub = Scrub::new(&config, ScrubMark::default(), at(0).instant);
        assert_eq!(scrub.wants(&config, at(1), false, 1), Some((0, 1)));
        assert!(!scrub.on_end(at(1)));
        assert_eq!(scrub.mark(), ScrubMark::default());
        assert_eq!(scrub.wants(&config, at(61), false, 3), Some((0, 3)), "a minute later");
    }

    #[test]
    fn without_a_rate_there_is_no_scrub() {
        let mut config = config();
        config.scrub_rate = 0;
        let scrub = Scrub::new(&config, ScrubMark::default(), Instant(0));
        assert_eq!(scrub.next_deadline(), None);
    }
}
