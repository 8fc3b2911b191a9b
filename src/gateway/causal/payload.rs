//! What a client of the causal store has seen, as text that it carries from call to call.
//!
//! The text is made of letters, digits and dots. It begins with the highest time in it, so that of two payloads of one
//! client the later one is also the greater text.

use std::fmt::Write as _;

use super::super::problem::Problem;
use crate::model::{Incarnation, Key, ServerId, Version};

/// Keys of which a payload knows exactly what its client has seen. Those beyond, the oldest first, are folded into
/// the floors, which know less exactly.
const MAX_SEEN: usize = 32;

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Payload {
    /// Whatever it has seen through others' writes is not above this.
    pub(super) floor: Version,
    /// Whatever of that fewer than a majority may hold is not above this.
    pub(super) weak: Version,
    /// What it has seen of single keys, by their hash.
    seen: Vec<Seen>,
}

/// What a client has seen of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    key: u64,
    pub(super) version: Version,
    /// A majority held it when it was seen.
    pub(super) held: bool,
}

fn hash(key: &Key) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key.as_bytes())
}

impl Payload {
    /// Its client has seen nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Payload::default()
    }

    /// What was seen of a key itself.
    pub(super) fn of(&self, key: &Key) -> Option<Seen> {
        let key = hash(key);
        self.seen.iter().find(|seen| seen.key == key).copied()
    }

    /// The highest version seen.
    pub(super) fn highest(&self) -> Version {
        let seen = self.seen.iter().map(|seen| seen.version);
        seen.chain([self.floor, self.weak]).max().unwrap_or_default()
    }

    /// Whether there is something among what was seen that fewer than a majority may hold.
    pub(super) fn is_weak(&self) -> bool {
        !self.weak.is_zero() || self.seen.iter().any(|seen| !seen.held)
    }

    /// What a write of this client follows: the highest version seen, marked if there is something weak.
    pub(super) fn after(&self) -> Option<Version> {
        let highest = self.highest();
        let mark = if self.is_weak() { Version::WEAK } else { 0 };
        (!highest.is_zero()).then_some(Version { step: highest.step | mark, ..highest })
    }

    /// The client has read this of a key. It may not have written it, so all that its writer had seen, it has seen, too.
    pub(super) fn read(&mut self, key: &Key, version: Version, held: bool) {
        if self.of(key).is_none_or(|seen| seen.version != version) {
            self.floor = self.floor.max(version);
            if version.is_weak() {
                self.weak = self.weak.max(version);
            }
        }
        self.note(key, version, held);
    }

    /// The client has written this.
    pub(super) fn wrote(&mut self, key: &Key, version: Version, held: bool) {
        self.note(key, version, held);
    }

    fn note(&mut self, key: &Key, version: Version, held: bool) {
        let key = hash(key);
        self.seen.retain(|seen| seen.key != key);
        self.seen.push(Seen { key, version, held });
        if self.seen.len() > MAX_SEEN {
            let oldest = self.seen.remove(0);
            self.floor = self.floor.max(oldest.version);
            if !oldest.held || oldest.version.is_weak() {
                self.weak = self.weak.max(oldest.version);
            }
        }
    }

    /// Weak things of long ago are not worried about any more: hints and repair have carried them everywhere.
    pub(super) fn forget_weak_before(&mut self, time: i64) {
        if self.weak.time < time {
            self.weak = Version::ZERO;
        }
    }

    /// As text; empty if nothing was seen.
    pub(super) fn to_text(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let version = |version: Version| {
            let Version { time, server, incarnation, step } = version;
            format!("{time}.{server}.{incarnation}.{step}")
        };
        let mut text = format!(
            "{:016}.c1.{}.{}",
            self.highest().time,
            version(self.floor),
            version(self.weak)
        );
        for Seen { key, version: seen, held } in &self.seen {
            let held = if *held { 'h' } else { 'w' };
            // Into a string: cannot fail.
            let _ = write!(text, ".{held}{key:016x}.{}", version(*seen));
        }
        text
    }

    /// From [`Payload::to_text`].
    pub(super) fn parse(text: &str) -> Result<Payload, Problem> {
        if text.is_empty() {
            return Ok(Payload::default());
        }
        let bad = || {
            let shown: String = text.chars().take(40).collect();
            Problem::invalid(format!(
                "causal_payload '{}' is none that this store has given; leave it empty to begin anew",
                shown.escape_debug()
            ))
        };
        let mut parts = text.split('.').skip(1);
        let mut read = || -> Option<Payload> {
            (parts.next()? == "c1").then_some(())?;
            let mut payload = Payload {
                floor: parse_version(&mut parts)?,
                weak: parse_version(&mut parts)?,
                seen: Vec::new(),
            };
            while let Some(name) = parts.next() {
                let (held, digits) = match name.as_bytes().first()? {
                    b'h' => (true, &name[1..]),
                    b'w' => (false, &name[1..]),
                    _ => return None,
                };
                let key = u64::from_str_radix(digits, 16).ok()?;
                let version = parse_version(&mut parts)?;
                payload.seen.push(Seen { key, version, held });
            }
            (payload.seen.len() <= MAX_SEEN).then_some(payload)
        };
        read().ok_or_else(bad)
    }
}

fn parse_version<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Version> {
    Some(Version {
        time: parts.next()?.parse().ok().filter(|time| *time >= 0)?,
        server: ServerId(parts.next()?.parse().ok()?),
        incarnation: Incarnation(parts.next()?.parse().ok()?),
        step: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(time: i64, step: u32) -> Version {
        Version { time, server: ServerId(2), incarnation: Incarnation(1), step }
    }

    fn key(number: u32) -> Key {
        Key::bound(format!("key{number}"))
    }

    proptest! {
        #[test]
        fn a_payload_comes_back_from_its_text_and_later_ones_are_greater(
            events in proptest::collection::vec((0u32..50, any::<bool>(), any::<bool>(), any::<bool>()), 1..80)
        ) {
            let mut payload = Payload::default();
            let mut before = String::new();
            for (step, (number, wrote, held, weak)) in events.into_iter().enumerate() {
                let at = version(1_700_000_000_000_000 + step as i64, if weak { Version::WEAK } else { 0 });
                if wrote {
                    payload.wrote(&key(number), at, held);
                } else {
                    payload.read(&key(number), at, held);
                }
                let text = payload.to_text();
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
                prop_assert_eq!(Payload::parse(&text).unwrap(), payload.clone());
                prop_assert!(text > before);
                before = text;
                // Nothing that was seen is forgotten: it is known exactly, or below the floor.
                prop_assert_eq!(payload.highest().time, at.time);
                prop_assert_eq!(payload.of(&key(number)).map(|seen| seen.version), Some(at));
                prop_assert!(held || payload.is_weak());
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "[0-9a-zA-Z.]{0,80}") {
            let _ = Payload::parse(&text);
        }
    }

    #[test]
    fn own_writes_are_known_exactly_and_others_bring_all_that_they_had_seen() {
        let mut payload = Payload::default();
        payload.wrote(&key(1), version(10, 0), true);
        assert_eq!((payload.floor, payload.is_weak()), (Version::ZERO, false));
        payload.read(&key(1), version(10, 0), true);
        assert_eq!(payload.floor, Version::ZERO);
        payload.read(&key(2), version(20, Version::WEAK), true);
        assert_eq!(
            (payload.floor, payload.weak),
            (version(20, Version::WEAK), version(20, Version::WEAK))
        );
        assert_eq!(payload.after().map(|after| after.is_weak()), Some(true));
        payload.forget_weak_before(21);
        assert!(!payload.is_weak());
    }

    #[test]
    fn what_falls_out_of_the_list_is_below_the_floor() {
        let mut payload = Payload::default();
        payload.wrote(&key(0), version(1, 0), false);
        for number in 1..=MAX_SEEN as u32 {
            payload.wrote(&key(number), version(1 + i64::from(number), 0), true);
        }
        assert_eq!(payload.of(&key(0)), None);
        assert_eq!((payload.floor, payload.weak), (version(1, 0), version(1, 0)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["x", "1.2.3", "0000.c1.1.1.1.1.1.1.1", "0000.c1.1.1.1.1.1.1.1.1.q00.1.1.1.1"] {
            assert!(Payload::parse(text).is_err(), "{text}");
        }
    }
}
