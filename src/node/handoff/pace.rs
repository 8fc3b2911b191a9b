//! How many hints are under way to one server at once: as many as clients do not notice.
//!
//! A server that comes back has much to get, and clients who want answers meanwhile, from it and from those that send. A fixed window
//! is too much where disks and processors are busy, and too little where they are not. So the sender listens to how long
//! answers take. The least answer time of the last while is what a hint takes when it waits for nobody; whatever an answer takes
//! longer, it waited, behind clients, behind other senders, or behind the sender's own hints. The window grows while that wait is
//! short and shrinks in proportion once it is longer than a hint takes by itself: the answer time at most doubles, whoever
//! else is there. Senders that share a target share it evenly, for each of them sees the same queue.
//!
//! The rule is LEDBAT's (RFC 6817), as LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus) has mended it: it begins small and doubles each
//! round trip until the wait is noticed, decreases by a factor and not by a step, and begins anew from time to time, so that a
//! sender does not take the queue that it makes itself for the way things are. The window never falls below two: handoff ends.
//!
//! Left out: weights between targets, and any regard for what the sender's own clients notice but by the answer times.

use std::time::Duration;

use crate::model::Instant;

/// Hints under way at once, at most and at least.
pub(super) const MOST: usize = 64;
const LEAST: usize = 2;
/// The window is kept in these parts of a hint.
const PARTS: u64 = 256;
/// A wait up to this long is none: timers and schedulers make it.
const NOISE: Duration = Duration::from_micros(500);
/// After so long the window begins anew. What a hint takes by itself is the least answer time of this stretch and the one before it.
const STRETCH: Duration = Duration::from_secs(10);

/// The window for one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// In parts of a hint.
    window: u64,
    /// No wait was noticed since it began: each answer makes room for one more.
    doubles: bool,
    /// The least answer times of this stretch and of the one before it.
    least: [Option<Duration>; 2],
    began: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { window: LEAST as u64 * PARTS, doubles: true, least: [None; 2], began: None }
    }
}

impl Pace {
    /// Hints that may be under way.
    pub(super) fn window(&self) -> usize {
        (self.window / PARTS) as usize
    }

    /// A hint that was sent so long ago has been taken.
    pub(super) fn taken(&mut self, now: Instant, took: Duration) {
        let began = *self.began.get_or_insert(now);
        if now - began >= STRETCH {
            let least = [None, self.least[0]];
            *self = Pace { least, began: Some(now), ..Pace::default() };
        }
        let this = self.least[0].map_or(took, |least| least.min(took));
        self.least[0] = Some(this);
        let alone = self.least[1].map_or(this, |before| before.min(this));
        let (wait, bearable) = (took - alone, alone.max(NOISE));
        if self.doubles && wait * 4 <= bearable * 3 {
            self.window += PARTS;
        } else if wait <= bearable {
            self.doubles = false;
            // One more each round trip.
            self.window += (PARTS * PARTS) / self.window;
        } else {
            self.doubles = false;
            // As much of the window, each round trip, as the wait is too long by: half of it at most.
            let excess = (wait - bearable).min(bearable / 2);
            self.window -= PARTS * excess.as_micros() as u64 / bearable.as_micros() as u64;
        }
        self.bound();
    }

    /// A hint was not taken.
    pub(super) fn missed(&mut self) {
        self.doubles = false;
        self.window /= 2;
        self.bound();
    }

    fn bound(&mut self) {
        self.window = self.window.clamp(LEAST as u64 * PARTS, MOST as u64 * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Duration = Duration::from_millis(2);

    /// Hints that a target takes one after the other, each in so much time, beside so much work of others before each round of
    /// them; the windows after each round.
    fn rounds(
        pace: &mut Pace,
        now: &mut Instant,
        each: Duration,
        others: Duration,
        count: usize,
    ) -> Vec<usize> {
        (0..count)
            .map(|_| {
                let window = pace.window();
                for place in 1..=window {
                    let took = ALONE + others + each * (place as u32 - 1);
                    pace.taken(*now + took, took);
                }
                *now = *now + ALONE + others + each * window as u32;
                pace.window()
            })
            .collect()
    }

    #[test]
    fn it_takes_all_where_nobody_waits() {
        let (mut pace, mut now) = (Pace::default(), Instant(1));
        let windows = rounds(&mut pace, &mut now, Duration::ZERO, Duration::ZERO, 6);
        assert_eq!(windows, [4, 8, 16, 32, 64, 64], "it doubles, up to its bound");
    }

    #[test]
    fn answers_take_twice_as_long_as_alone_at_most() {
        let (mut pace, mut now) = (Pace::default(), Instant(1));
        let each = Duration::from_micros(200);
        let windows = rounds(&mut pace, &mut now, each, Duration::ZERO, 3_000);
        let settled = &windows[10..];
        // Ten hints behind one make its wait as long as a hint takes alone; half of them wait less than the mean.
        let usual = settled.iter().filter(|window| (8..=20).contains(*window)).count();
        assert!(usual * 10 > settled.len() * 9, "{usual} of {}", settled.len());
    }

    #[test]
    fn it_gives_way_at_once_and_never_stops() {
        let (mut pace, mut now) = (Pace::default(), Instant(1));
        rounds(&mut pace, &mut now, Duration::ZERO, Duration::ZERO, 10);
        assert_eq!(pace.window(), MOST);
        let windows = rounds(&mut pace, &mut now, Duration::ZERO, ALONE * 5, 8);
        assert!(windows[0] <= MOST / 2 + 1 && windows[7] == LEAST, "{windows:?}");
        let windows = rounds(&mut pace, &mut now, Duration::ZERO, Duration::ZERO, 200);
        assert_eq!(windows[199], MOST, "it comes back: {windows:?}");
        pace.missed();
        assert_eq!(pace.window(), MOST / 2);
    }

    /// What a hint takes alone is found anew: a disk that has become slower for good is not taken for a busy one for ever.
    #[test]
    fn it_forgets() {
        let (mut pace, mut now) = (Pace::default(), Instant(1));
        rounds(&mut pace, &mut now, Duration::ZERO, Duration::ZERO, 10);
        let slower = ALONE * 9;
        let until = now + STRETCH * 3;
        while now < until {
            rounds(&mut pace, &mut now, Duration::ZERO, slower, 1);
        }
        assert_eq!(pace.window(), MOST);
    }
}
