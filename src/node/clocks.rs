//! Whose wall clock is wrong.
//!
//! No promise rests on wall clocks, so a bad one goes unnoticed until somebody wonders about the times of versions. Whoever can
//! see it says so: every server asks all others every few seconds what time it is (with a sign of life), and compares.
//!
//! # The idea
//!
//! A peer says its time at some moment between the question and the answer: taken in the middle, the error is at most half the
//! round trip (Cristian 1989; NTP, RFC 5905 §8). Of the last 8 samples the one of least error counts, none that is older than a
//! minute. What is kept is the peer's wall clock less this server's *monotonic* one: a jump of the own wall clock then
//! changes no sample, only what they are compared with. A sample that a new one contradicts is from before a jump of the peer's
//! clock, and goes.
//!
//! Each server judges for itself. The median of all clocks known, its own included, is *the others' time*, if most of the clocks
//! agree with it; a clock that is more than a second off is named. Where there is no such majority (two clocks, or two against
//! two) nobody can know who is wrong, and only that they are apart is said.
//!
//! # Invariants
//!
//! 1. A clock is not named for the network's delay: the bound on the error is added to what it may be off.
//! 2. A verdict is told once it has held twice, a second apart, and taken back below half a second: one line when it begins, one
//!    when it ends; one more when the clock is off by more than twice as much as was told, or the other way.
//!
//! # What is left out
//!
//! Setting clocks right, and consequences: a server with a bad clock votes and coordinates like any other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::model::{Instant, Now, ServerId};

/// Whoever was not asked for so long is asked, however much else it has answered.
const ASK: Duration = Duration::from_secs(3);
/// Between two looks at what the clocks show.
const LOOK: Duration = Duration::from_secs(1);
/// Samples of one peer.
const KEPT: usize = 8;
/// A sample says nothing of what a clock shows much later.
const MAX_AGE: Duration = Duration::from_secs(60);
/// By so much, in microseconds, a clock is off that is to be named.
const OFF: u64 = 1_000_000;
/// Below, one that was named is right again.
const RIGHT: u64 = 500_000;
/// Two samples that differ by more than their errors and this: the clock was set between them.
const SET: u64 = 100_000;
/// Looks for which a verdict must hold.
const LOOKS: u32 = 2;
/// Servers that a sentence lists.
const LISTED: usize = 8;

/// What a peer's clock showed once.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Its wall clock less this server's monotonic one, in microseconds.
    base: i64,
    /// By at most so much that is wrong.
    error: u64,
    at: Instant,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    asked_at: Option<Instant>,
    samples: VecDeque<Sample>,
}

impl Peer {
    fn best(&self, now: Instant) -> Option<Sample> {
        let fresh = self.samples.iter().filter(|sample| now - sample.at < MAX_AGE);
        fresh.min_by_key(|sample| sample.error).copied()
    }
}

/// About whom a verdict is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// Its clock is off from the others'.
    One(ServerId),
    /// Nobody can tell whose clock is wrong.
    All,
}

#[derive(Clone, Debug)]
struct Verdict {
    /// Microseconds ahead of the others; of all: between the first and the last.
    offset: i64,
    /// The same when the operator was told last.
    told: i64,
    /// Looks for which it has held.
    looks: u32,
}

/// Something to tell the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) is_bad: bool,
    pub(super) text: String,
}

/// A server's clock against this one's.
#[derive(Clone, Copy, Debug)]
struct Known {
    server: ServerId,
    offset: i64,
    error: u64,
}

impl Known {
    fn is_near(&self, other: &Known, bound: u64) -> bool {
        let bound = bound.saturating_add(self.error).saturating_add(other.error);
        self.offset.abs_diff(other.offset) <= bound
    }
}

/// The wall clocks of all servers, as far as they are known here.
#[derive(Debug)]
pub(super) struct Clocks {
    me: ServerId,
    peers: BTreeMap<ServerId, Peer>,
    verdicts: BTreeMap<About, Verdict>,
    /// Whose clocks were compared last.
    compared: Vec<ServerId>,
    look_at: Instant,
}

impl Clocks {
    pub(super) fn new(me: ServerId) -> Clocks {
        let (peers, verdicts, compared) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Clocks { me, peers, verdicts, compared, look_at: Instant::default() }
    }

    /// It is time to ask this peer.
    pub(super) fn wants(&self, peer: ServerId, now: Instant) -> bool {
        let asked_at = self.peers.get(&peer).and_then(|peer| peer.asked_at);
        asked_at.is_none_or(|at| now - at >= ASK)
    }

    /// It is asked for a sign of life.
    pub(super) fn on_asked(&mut self, peer: ServerId, now: Instant) {
        self.peers.entry(peer).or_default().asked_at = Some(now);
    }

    /// The answer to what was asked at `sent`.
    pub(super) fn on_pong(&mut self, from: ServerId, sent: Instant, wall: i64, now: Instant) {
        let error = (now - sent).as_micros() as u64 / 2;
        let middle = sent.0.saturating_add(error) as i64;
        let sample = Sample { base: wall.saturating_sub(middle), error, at: now };
        let samples = &mut self.peers.entry(from).or_default().samples;
        samples.retain(|old| {
            let bound = SET.saturating_add(old.error).saturating_add(error);
            old.base.abs_diff(sample.base) <= bound
        });
        samples.push_back(sample);
        if samples.len() > KEPT {
            samples.pop_front();
        }
    }

    /// By so many microseconds that peer's clock is ahead of this server's, if it is known.
    pub(super) fn offset(&self, peer: ServerId, now: Now) -> Option<i64> {
        Some(self.known(peer, self.peers.get(&peer)?, now)?.offset)
    }

    fn known(&self, server: ServerId, peer: &Peer, now: Now) -> Option<Known> {
        let Sample { base, error, .. } = peer.best(now.instant)?;
        let own = now.wall.saturating_sub(now.instant.0 as i64);
        Some(Known { server, offset: base.saturating_sub(own), error })
    }

    /// Whom this server calls wrong.
    pub(super) fn bad(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.told().filter_map(|(about, _)| match about {
            About::One(server) => Some(*server),
            About::All => None,
        })
    }

    fn told(&self) -> impl Iterator<Item = (&About, &Verdict)> {
        self.verdicts.iter().filter(|(_, verdict)| verdict.looks >= LOOKS)
    }

    /// A sentence for people, if there is anything to say.
    pub(super) fn describe(&self) -> Option<String> {
        let sentences: Vec<_> =
            self.told().map(|(about, verdict)| self.sentence(about, verdict.offset)).collect();
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }

    fn sentence(&self, about: &About, offset: i64) -> String {
        let length = length(offset.unsigned_abs());
        let way = if offset > 0 { "ahead of" } else { "behind" };
        match about {
            About::One(server) => {
                format!("{} is {length} {way} the others", self.clock_of(*server))
            }
            About::All => match self.compared.as_slice() {
                [first, second] => {
                    format!("the clocks of servers {first} and {second} are {length} apart")
                }
                many => format!("the clocks of {} are up to {length} apart", list(many)),
            },
        }
    }

    fn clock_of(&self, server: ServerId) -> String {
        if server == self.me {
            "this server's clock".to_owned()
        } else {
            format!("server {server}'s clock")
        }
    }

    /// Compares, if it is time for that, and says what is new.
    pub(super) fn look(&mut self, now: Now) -> Vec<News> {
        if now.instant < self.look_at {
            return Vec::new();
        }
        self.look_at = now.instant + LOOK;
        let mut known = vec![Known { server: self.me, offset: 0, error: 0 }];
        known.extend(self.peers.iter().filter_map(|(id, peer)| self.known(*id, peer, now)));
        self.compared = known.iter().map(|known| known.server).collect();
        self.compared.sort_unstable();
        let found = self.judge(&mut known);
        let mut news = Vec::new();
        let ended = self.told().filter(|(about, _)| !found.contains_key(about));
        let is_split = found.contains_key(&About::All);
        news.extend(ended.map(|(about, _)| {
            let text = match about {
                About::One(server) if !is_split && self.compared.contains(server) => {
                    format!("{} is right again", self.clock_of(*server))
                }
                About::One(server) => {
                    format!("whether {} is right cannot be told any more", self.clock_of(*server))
                }
                About::All => "that clocks are apart holds no more".to_owned(),
            };
            News { is_bad: false, text }
        }));
        self.verdicts.retain(|about, _| found.contains_key(about));
        for (about, offset) in found {
            let verdict = self.verdicts.entry(about.clone()).or_insert(Verdict {
                offset,
                told: offset,
                looks: 0,
            });
            verdict.offset = offset;
            verdict.looks = verdict.looks.saturating_add(1);
            // One that was off by days and is off by years, or the other way, was set since.
            let is_another = offset.abs_diff(verdict.told) > verdict.told.unsigned_abs();
            if verdict.looks == LOOKS || verdict.looks > LOOKS && is_another {
                verdict.told = offset;
                news.push(News { is_bad: true, text: self.sentence(&about, offset) });
            }
        }
        news
    }

    fn judge(&self, known: &mut [Known]) -> BTreeMap<About, i64> {
        known.sort_by_key(|known| (known.offset, known.server));
        // Of an even number the lower of the two in the middle: with one bad clock of four it is a good one.
        let Some(median) = known.get((known.len() - 1) / 2).copied() else {
            return BTreeMap::new();
        };
        let is_told = |about| self.told().any(|(told, _)| *told == about);
        let bound = |about| if is_told(about) { RIGHT } else { OFF };
        let agreeing = known.iter().filter(|known| known.is_near(&median, OFF)).count();
        if known.len() < 3 || 2 * agreeing <= known.len() {
            let (Some(first), Some(last)) = (known.first(), known.last()) else {
                return BTreeMap::new();
            };
            let apart = last.offset.saturating_sub(first.offset);
            let is_apart = !last.is_near(first, bound(About::All));
            return is_apart.then_some((About::All, apart)).into_iter().collect();
        }
        let is_off = |known: &&Known| !known.is_near(&median, bound(About::One(known.server)));
        let verdict =
            |known: &Known| (About::One(known.server), known.offset.saturating_sub(median.offset));
        known.iter().filter(is_off).map(verdict).collect()
    }
}

fn list(servers: &[ServerId]) -> String {
    if servers.len() > LISTED {
        return format!("{} servers", servers.len());
    }
    let numbers: Vec<_> = servers.iter().map(ServerId::to_string).collect();
    match numbers.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("servers {} and {last}", rest.join(", "))
        }
        _ => format!("servers {}", numbers.concat()),
    }
}

/// In the greatest unit of which there are two or more.
fn length(micros: u64) -> String {
    let rounded = |number: u64, unit: u64| (number + unit / 2) / unit;
    let seconds = rounded(micros, 1_000_000);
    let minutes = rounded(seconds, 60);
    let hours = rounded(seconds, 3_600);
    let days = rounded(seconds, 86_400);
    // Of 365.2425 days.
    let years = rounded(seconds, 31_556_952);
    match () {
        () if years >= 2 => format!("{years} years"),
        () if days >= 2 => format!("{days} days"),
        () if hours >= 2 => format!("{hours} hours"),
        () if minutes >= 2 => format!("{minutes} minutes"),
        () if seconds >= 10 => format!("{seconds} s"),
        () if micros >= 1_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        () => format!("{} ms", rounded(micros, 1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 24 * 60 * 60 * SECOND;
    const YEAR: i64 = 365 * DAY;
    /// The right time when the monotonic clock shows 0.
    const ORIGIN: i64 = 1_790_000_000 * SECOND;

    /// Server 0 of a world in which others' clocks are off by so much.
    struct World {
        clocks: Clocks,
        own: i64,
        offs: Vec<Option<i64>>,
        round_trip: u64,
        ms: u64,
        news: Vec<String>,
    }

    impl World {
        fn new(offs: &[i64]) -> World {
            let clocks = Clocks::new(ServerId(0));
            let others = offs[1..].iter().copied().map(Some).collect();
            World { clocks, own: offs[0], offs: others, round_trip: 400, ms: 0, news: Vec::new() }
        }

        fn now(&self) -> Now {
            let micros = self.ms * 1_000;
            Now { instant: Instant(micros), wall: ORIGIN + micros as i64 + self.own }
        }

        /// As a node does: a look at who is to be asked four times a second.
        fn pass(&mut self, seconds: u64) -> Vec<String> {
            for _ in 0..4 * seconds {
                self.ms += 250;
                let now = self.now();
                for (index, off) in self.offs.clone().into_iter().enumerate() {
                    let peer = ServerId(index as u16 + 1);
                    if let Some(off) = off.filter(|_| self.clocks.wants(peer, now.instant)) {
                        self.clocks.on_asked(peer, now.instant);
                        // Answered at once, and long on its way back.
                        let sent = Instant(now.instant.0 - self.round_trip.min(now.instant.0));
                        let wall = ORIGIN + sent.0 as i64 + off;
                        self.clocks.on_pong(peer, sent, wall, now.instant);
                    }
                }
                self.news.extend(self.clocks.look(now).into_iter().map(|news| news.text));
            }
            std::mem::take(&mut self.news)
        }
    }

    #[test]
    fn one_bad_clock_is_named_by_everyone_and_by_its_own_server() {
        for off in [2 * DAY, -2 * DAY] {
            let way = if off > 0 { "ahead of" } else { "behind" };
            for others in [2, 3, 4, 8] {
                let mut offs = vec![100; others + 1];
                offs[2] = off;
                let mut world = World::new(&offs);
                let named = format!("server 2's clock is 2 days {way} the others");
                assert_eq!(world.pass(6), std::slice::from_ref(&named));
                assert_eq!(world.clocks.describe(), Some(named));
                assert_eq!(world.clocks.bad().collect::<Vec<_>>(), [ServerId(2)]);
                offs.swap(0, 2);
                let own = format!("this server's clock is 2 days {way} the others");
                assert_eq!(World::new(&offs).pass(6), [own]);
            }
        }
    }

    #[test]
    fn where_no_majority_agrees_only_that_they_are_apart_is_said() {
        let two = World::new(&[0, -50 * YEAR]).pass(6);
        assert_eq!(two, ["the clocks of servers 0 and 1 are 50 years apart"]);
        let halves = World::new(&[0, DAY * 3, DAY * 3, 0]).pass(6);
        assert_eq!(halves, ["the clocks of servers 0, 1, 2 and 3 are up to 3 days apart"]);
        let all = World::new(&[0, DAY * 3, DAY * 9]).pass(6);
        assert_eq!(all, ["the clocks of servers 0, 1 and 2 are up to 9 days apart"]);
        assert_eq!(World::new(&[0]).pass(6), [""; 0]);
        let extremes = World::new(&[0, i64::MAX - 2 * ORIGIN, -ORIGIN * 4]).pass(6);
        assert_eq!(extremes.len(), 1, "whatever a peer says is a number: {extremes:?}");
    }

    #[test]
    fn a_clock_is_named_above_a_second_and_right_again_below_half_a_second() {
        let mut world = World::new(&[0, 0, 0, SECOND - 1_000]);
        assert_eq!(world.pass(10), [""; 0]);
        world.offs[2] = Some(SECOND + 1_000);
        assert_eq!(world.pass(10), [""; 0], "within the error, and a sample is not contradicted");
        world.offs[2] = Some(3 * SECOND / 2);
        assert_eq!(world.pass(10), ["server 3's clock is 1.5 s ahead of the others"]);
        world.offs[2] = Some(3 * SECOND / 4);
        assert_eq!(world.pass(10), [""; 0]);
        assert_eq!(
            world.clocks.describe().unwrap(),
            "server 3's clock is 750 ms ahead of the others"
        );
        world.offs[2] = Some(0);
        assert_eq!(world.pass(10), ["server 3's clock is right again"]);
        assert_eq!(world.clocks.describe(), None);
    }

    #[test]
    fn a_jump_of_the_own_clock_is_noticed_at_once_and_blamed_on_nobody_else() {
        let mut world = World::new(&[0, 0, 0]);
        assert_eq!(world.pass(10), [""; 0]);
        world.own = -50 * YEAR;
        assert_eq!(world.pass(2), ["this server's clock is 50 years behind the others"]);
        let offset = world.clocks.offset(ServerId(1), world.now()).unwrap();
        assert!(offset.abs_diff(50 * YEAR) < 1_000);
        world.own = 2 * DAY;
        assert_eq!(world.pass(3), ["this server's clock is 2 days ahead of the others"]);
        world.own = 0;
        assert_eq!(world.pass(1), ["this server's clock is right again"]);
    }

    #[test]
    fn a_slow_network_names_nobody() {
        let mut world = World::new(&[0, 0, 3 * SECOND / 2]);
        (world.ms, world.round_trip) = (10_000, 3 * SECOND as u64);
        assert_eq!(world.pass(20), [""; 0]);
        world.round_trip = 1_000;
        assert_eq!(world.pass(6), ["server 2's clock is 1.5 s ahead of the others"]);
        world.round_trip = 3 * SECOND as u64;
        assert_eq!(world.pass(9), [""; 0], "the best sample counts");
    }

    #[test]
    fn who_is_not_heard_for_a_minute_is_not_judged() {
        let mut world = World::new(&[0, 0, 0, DAY]);
        assert_eq!(world.pass(6), ["server 3's clock is 24 hours ahead of the others"]);
        world.offs[2] = None;
        assert_eq!(world.pass(55), [""; 0]);
        assert_eq!(world.pass(10), ["whether server 3's clock is right cannot be told any more"]);
    }

    #[test]
    fn lengths_are_told_in_units_that_people_use() {
        let told = |micros: i64| length(micros as u64);
        assert_eq!(told(700_400), "700 ms");
        assert_eq!(told(1_300_000), "1.3 s");
        assert_eq!(told(89 * SECOND), "89 s");
        assert_eq!(told(119 * SECOND), "2 minutes");
        assert_eq!(told(3_600 * SECOND), "60 minutes");
        assert_eq!(told(2 * DAY - 20_000), "2 days");
        assert_eq!(told(DAY), "24 hours");
        assert_eq!(told(365 * DAY), "365 days");
        assert_eq!(told(50 * YEAR), "50 years");
    }
}
