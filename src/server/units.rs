//! Sizes and times with units, as flags have them.

use std::time::Duration;

use crate::storage::SyncPolicy;

/// The text is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnitError {
    expected: &'static str,
}

/// Longest interval between syncs: a minute of acknowledged writes is much to lose already.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// A size in bytes: a whole number and KiB, MiB, GiB or nothing.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let error = UnitError { expected: "a size like 256MiB, 1GiB, 64KiB, or a number of bytes" };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(error),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or(error)
}

/// Bytes a second: a size, and `/s` behind it or nothing.
pub(super) fn rate(text: &str) -> Result<u64, UnitError> {
    let error = UnitError { expected: "a rate like 4MiB/s, 512KiB/s, or 0 for none" };
    size(text.strip_suffix("/s").unwrap_or(text)).map_err(|_| error)
}

/// `always`, or an interval: 1ms to 60s.
pub fn sync_policy(text: &str) -> Result<SyncPolicy, UnitError> {
    let error = UnitError { expected: "'always', or an interval of 1ms to 60s, like 100ms or 1s" };
    if text == "always" {
        return Ok(SyncPolicy::Always);
    }
    let interval = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().ok().map(Duration::from_millis),
        (None, Some(number)) => number.parse().ok().map(Duration::from_secs),
        (None, None) => None,
    };
    let allowed = |interval: &Duration| !interval.is_zero() && *interval <= MAX_INTERVAL;
    interval.filter(allowed).map(SyncPolicy::Interval).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_nothing_else_behind_them() {
        for (text, expected) in
            [("0", 0), ("17", 17), ("64KiB", 65_536), ("256 MiB", 256 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(size(text), Ok(expected));
        }
        for text in ["", "MiB", "1MB", "1.5MiB", "-1", "99999999999GiB", "1é"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_size_a_second() {
        for (text, expected) in [("0", 0), ("4MiB/s", 4 << 20), ("512KiB", 512 << 10)] {
            assert_eq!(rate(text), Ok(expected));
        }
        for text in ["", "/s", "4MB/s", "4MiB/m", "4MiB/s/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_sync_policy_is_always_or_an_interval_within_bounds() {
        assert_eq!(sync_policy("always"), Ok(SyncPolicy::Always));
        let interval = |ms| Ok(SyncPolicy::Interval(Duration::from_millis(ms)));
        assert_eq!(sync_policy("100ms"), interval(100));
        assert_eq!(sync_policy("1s"), interval(1000));
        for text in ["", "never", "0ms", "61s", "5", "ms", "1m"] {
            assert!(sync_policy(text).is_err(), "{text}");
        }
    }
}
