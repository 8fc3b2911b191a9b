//! Versions: the order of all writes of one key.

use std::fmt;

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

    /// Whether the key was never written.
    pub fn is_zero(&self) -> bool {
        *self == Version::ZERO
    }
}

/// `time@server.incarnation`, with `+step` if there is one.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.time, self.server, self.incarnation)?;
        if self.step > 0 {
            write!(f, "+{}", self.step)?;
        }
        Ok(())
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
}
