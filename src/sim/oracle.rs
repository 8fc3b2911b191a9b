//! Is a key's history linearizable: is there one order of its operations, each taking effect at a moment between its
//! start and its end, in which every read finds what was written last?
//!
//! The search is Wing and Gong's (1993): take any operation that no other one precedes, and go on; come back if that
//! leads nowhere. With Lowe's memory (2017) of which sets of operations, with which value, have led nowhere. A write
//! whose outcome is unknown may take effect at any time after its start, or never; a refused one never.

use std::collections::BTreeSet;

use super::history::{Kind, Operation, Outcome, Value};

/// Steps of a search before it is given up: a history that needs more is a finding of its own kind, not a pass.
const MAX_STEPS: usize = 2_000_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Linearizable,
    /// No order explains this.
    Violation(String),
    /// The search was given up.
    Undecided,
}

/// An operation as the search sees it.
#[derive(Clone, Copy, Debug)]
struct Item {
    start: u64,
    /// `u64::MAX` for an unknown write.
    end: u64,
    reads: bool,
    value: Value,
    /// It must have taken effect.
    must: bool,
}

/// A set of operations.
type Set = Vec<u64>;

fn contains(set: &Set, item: usize) -> bool {
    set[item / 64] & (1 << (item % 64)) != 0
}

/// Judges the operations of one key. `nothing` is there at first.
pub(super) fn judge(operations: &[&Operation]) -> Verdict {
    let mut items = Vec::new();
    let read: BTreeSet<Value> = operations
        .iter()
        .filter_map(|operation| match operation.outcome {
            Outcome::Found(value) => Some(value),
            Outcome::Done(_) | Outcome::Refused | Outcome::Unknown => None,
        })
        .collect();
    for operation in operations {
        let (start, end) = (operation.start, operation.end);
        match (operation.kind, operation.outcome) {
            (Kind::Read, Outcome::Found(value)) => {
                items.push(Item { start, end, reads: true, value, must: true });
            }
            (Kind::Write(value), Outcome::Done(_)) => {
                items.push(Item { start, end, reads: false, value, must: true });
            }
            // One that nobody has seen explains nothing.
            (Kind::Write(value), Outcome::Unknown) if read.contains(&value) => {
                items.push(Item { start, end: u64::MAX, reads: false, value, must: false });
            }
            (Kind::Write(value), Outcome::Refused) if value != 0 && read.contains(&value) => {
                return Verdict::Violation(format!(
                    "value {value} was read, but its write was refused"
                ));
            }
            (_, _) => {}
        }
    }
    items.sort_by_key(|item| (item.start, item.end));
    let written: BTreeSet<Value> =
        items.iter().filter(|item| !item.reads).map(|item| item.value).chain([0]).collect();
    if let Some(value) = read.iter().find(|value| !written.contains(value)) {
        return Verdict::Violation(format!("value {value} was read, but nobody wrote it"));
    }
    search(&items)
}

/// Depth first, on a stack of its own.
fn search(items: &[Item]) -> Verdict {
    let must = items.iter().filter(|item| item.must).count();
    let mut seen: BTreeSet<(Set, Value)> = BTreeSet::new();
    let mut stack = vec![(vec![0u64; items.len() / 64 + 1], 0 as Value, 0usize)];
    let mut steps = 0;
    let mut furthest = 0;
    while let Some((taken, value, count)) = stack.pop() {
        if count == must {
            return Verdict::Linearizable;
        }
        steps += 1;
        if steps > MAX_STEPS {
            return Verdict::Undecided;
        }
        furthest = furthest.max(count);
        // Nothing that began after another one's end may come before it.
        let open = |item: &usize| !contains(&taken, *item);
        let horizon = (0..items.len()).filter(open).map(|item| items[item].end).min().unwrap_or(0);
        for (item, Item { start, reads, value: own, must, .. }) in items.iter().enumerate() {
            if *start > horizon {
                break;
            }
            if contains(&taken, item) || (*reads && *own != value) {
                continue;
            }
            // Unknown writes of one value (deletes, that is) can stand for each other: the one that began first will do.
            let same = |earlier: usize| !items[earlier].must && items[earlier].value == *own;
            if !must && (0..item).any(|earlier| same(earlier) && !contains(&taken, earlier)) {
                continue;
            }
            let mut taken = taken.clone();
            taken[item / 64] |= 1 << (item % 64);
            let value = if *reads { value } else { *own };
            if seen.insert((taken.clone(), value)) {
                stack.push((taken, value, count + usize::from(*must)));
            }
        }
    }
    Verdict::Violation(format!(
        "no order of its operations explains what was read; the best one explains {furthest} of {must}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Version};

    /// `w1` a write of 1 that succeeded, `?2` an unknown one of 2, `!3` a refused one, `r1` a read of 1; each with
    /// start and end.
    fn history(text: &str) -> Verdict {
        let operations: Vec<_> = text
            .split_whitespace()
            .map(|word| {
                let (what, times) = word.split_once(':').unwrap();
                let (start, end) = times.split_once('-').unwrap();
                let value: Value = what[1..].parse().unwrap();
                let (kind, outcome) = match &what[..1] {
                    "w" => (Kind::Write(value), Outcome::Done(Version::ZERO)),
                    "?" => (Kind::Write(value), Outcome::Unknown),
                    "!" => (Kind::Write(value), Outcome::Refused),
                    _ => (Kind::Read, Outcome::Found(value)),
                };
                let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
                Operation {
                    client: 0,
                    server: crate::model::ServerId(0),
                    level: crate::model::Level::Quorum,
                    key: Key::bound("k"),
                    kind,
                    start,
                    end,
                    outcome,
                }
            })
            .collect();
        judge(&operations.iter().collect::<Vec<_>>())
    }

    fn is_violation(text: &str) -> bool {
        matches!(history(text), Verdict::Violation(_))
    }

    #[test]
    fn what_one_copy_could_do_is_accepted() {
        for text in [
            "",
            "r0:1-2",
            "w1:1-2 r1:3-4",
            // Concurrent: either order.
            "w1:1-10 r0:2-3 r1:4-5",
            "w1:1-10 w2:1-10 r1:11-12 r1:13-14",
            // Unknown: later, or never.
            "w1:1-2 ?2:3-4 r1:5-6 r2:100-101 r2:102-103",
            "w1:1-2 ?2:3-4 r1:5-6 r1:100-101",
            // Deleted and written again.
            "w1:1-2 w0:3-4 r0:5-6 w2:7-8 r2:9-10",
            "w1:1-2 !2:3-4 r1:5-6",
        ] {
            assert_eq!(history(text), Verdict::Linearizable, "{text}");
        }
    }

    #[test]
    fn what_one_copy_could_not_do_is_a_violation() {
        for (text, why) in [
            ("w1:1-2 r0:3-4", "a stale read"),
            ("w1:1-2 w2:3-4 r1:5-6", "a lost update"),
            ("w1:1-2 ?2:3-4 r2:5-6 r1:7-8", "a read that goes back in time"),
            (
                "w1:1-2 ?2:3-4 r1:5-6 r2:7-8 w3:9-10 r3:11-12 r2:13-14",
                "an unknown write seen twice",
            ),
            ("w1:1-2 w0:3-4 r1:5-6", "a deleted value come back"),
            ("r7:1-2", "thin air"),
            ("w1:1-2 !2:3-4 r2:5-6", "a definite no that took effect"),
            ("r1:1-2 w1:3-4", "a read of the future"),
        ] {
            assert!(is_violation(text), "{why}: {text}");
        }
    }
}
