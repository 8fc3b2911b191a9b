//! Versions: the order of all writes of one key.

use std::fmt;
use std::str::FromStr;

use super::{Incarnation, ServerId};

/// The order of all writes of a key, compared field by field from the top.
///
/// No two writes share one: a coordinator never issues a `time` twice within an incarnation, `server` tells
/// coordinators apart, and `incarnation` tells apart the lives of one that lost its disk, and with it the
/// memory of the times it had issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Microseconds since 1970 from the coordinator's hybrid clock.
    pub time: i64,
    /// The coordinator.
    pub server: ServerId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// 0 for plain writes; counts conditional writes on top of one, which come later.
    pub step: u32,
}

impl Version {
    /// Below every version that is ever issued: what a replica holds of a key never written.
    pub const ZERO: Version =
        Version { time: 0, server: ServerId(0), incarnation: Incarnation(0), step: 0 };

    /// Added to the step of a [weak](Version::is_weak) version. Conditional writes count below it.
    pub const WEAK: u32 = 1 << 30;

    /// Whether its writer had seen something that fewer than a majority may hold: what this write follows may be
    /// missing where the write itself is found. A mark for doors with causal promises; no other looks at it.
    pub fn is_weak(&self) -> bool {
        self.step & Version::WEAK != 0
    }

    /// Whether a write can have it: above [`Version::ZERO`]. A record under any other is damage to recovery, so none is
    /// taken in, whoever sends it.
    pub fn is_issued(&self) -> bool {
        *self > Version::ZERO
    }

    /// Whether the key was never written.
    pub fn is_zero(&self) -> bool {
        *self == Version::ZERO
    }
}

/// `time@server.incarnation`, with `+step` if there is one, and `~` if it is weak.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.time, self.server, self.incarnation)?;
        let step = self.step & !Version::WEAK;
        if step > 0 {
            write!(f, "+{step}")?;
        }
        if self.is_weak() { f.write_str("~") } else { Ok(()) }
    }
}

/// The text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no version; one is like 1795155361123456@0.1")]
pub struct NoVersion(String);

impl FromStr for Version {
    type Err = NoVersion;

    /// What [`fmt::Display`] has written.
    fn from_str(text: &str) -> Result<Version, NoVersion> {
        let parse = || {
            let (plain, weak) =
                text.strip_suffix('~').map_or((text, 0), |rest| (rest, Version::WEAK));
            let (time, rest) = plain.split_once('@')?;
            let (server, rest) = rest.split_once('.')?;
            let (incarnation, step) = rest.split_once('+').unwrap_or((rest, "0"));
            Some(Version {
                time: time.parse().ok()?,
                server: ServerId(server.parse().ok()?),
                incarnation: Incarnation(incarnation.parse().ok()?),
                step: step.parse::<u32>().ok().filter(|step| *step < Version::WEAK)? | weak,
            })
        };
        parse().ok_or_else(|| NoVersion(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_decides_then_server_then_incarnation_then_step() {
        let version = |time, server, incarnation, step| Version {
            time,
            server: ServerId(server),
            incarnation: Incarnation(incarnation),
            step,
        };
        assert!(version(1, 9, 9, 9) < version(2, 0, 0, 0));
        assert!(version(1, 1, 9, 9) < version(1, 2, 0, 0));
        assert!(version(1, 1, 1, 9) < version(1, 1, 2, 0));
        assert!(version(1, 1, 1, 1) < version(1, 1, 1, 2));
        assert!(Version::ZERO < version(1, 0, 0, 0));
    }

    #[test]
    fn a_version_comes_back_from_its_text() {
        for step in [0, 7, Version::WEAK, Version::WEAK | 3] {
            let version =
                Version { time: 12, server: ServerId(3), incarnation: Incarnation(4), step };
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(version.is_weak(), step >= Version::WEAK);
        }
        for text in ["", "1", "1@2", "1@2.x", "1@2.3+4294967295", "1@70000.1"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
