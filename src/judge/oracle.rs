//! Is a key's history linearizable: is there one order of its operations, each taking effect at a moment between its
//! start and its end, in which every read finds what was written last?
//!
//! The search is Wing and Gong's (1993): take any operation that no other one precedes, and go on; come back if that
//! leads nowhere. With Lowe's memory (2017) of which sets of operations, with which value, have led nowhere. A write
//! whose outcome is unknown may take effect at any time after its start, or never; a refused one never.
//!
//! Two rules keep long histories cheap. A read that may come next and finds what is there is taken at once: in whatever
//! order it came later, it could as well come now. And of everything taken only what lies beyond the first operation not
//! taken is remembered one by one, so a step costs as much as there are operations at a time, not as there are in all.

use std::collections::{BTreeMap, BTreeSet};

/// A value by its number; 0 is *nothing there*. Every put has a number of its own.
pub(crate) type Value = u32;

/// Steps of a search before it is given up: a history that needs more is a finding of its own kind, not a pass.
const MAX_STEPS: usize = 2_000_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order explains this.
    Violation(String),
    /// The search was given up.
    Undecided,
}

/// An operation on one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It found this.
    Read(Value),
    /// It succeeded. A delete writes 0.
    Wrote(Value),
    /// Its outcome is unknown.
    MayHaveWritten(Value),
    /// It was refused for certain.
    Refused(Value),
}

/// Judges the operations of one key, in any order. Nothing is there at first.
pub(crate) fn judge(calls: &[Call]) -> Verdict {
    let mut search = Search::default();
    let mut refused = BTreeSet::new();
    let mut written = BTreeSet::from([0]);
    for call in calls {
        match call.what {
            What::Read(_) => search.musts.push(*call),
            What::Wrote(value) => {
                written.insert(value);
                search.musts.push(*call);
            }
            What::MayHaveWritten(value) => {
                written.insert(value);
                search.mays.push((call.start, value));
            }
            What::Refused(value) => drop(refused.insert(value)),
        }
    }
    search.musts.sort_by_key(|call| (call.start, call.end));
    for (index, call) in search.musts.iter().enumerate() {
        if let What::Read(value) = call.what {
            if !written.contains(&value) {
                let why = match refused.contains(&value) {
                    true => "its write was refused",
                    false => "nobody wrote it",
                };
                return Verdict::Violation(format!("value {value} was read, but {why}"));
            }
            search.last_read.insert(value, index);
        }
    }
    // One that nobody has seen explains nothing.
    let last_read = &search.last_read;
    search.mays.retain(|(_, value)| last_read.contains_key(value));
    search.mays.sort_unstable();
    search.run()
}

/// What is searched.
#[derive(Default)]
struct Search {
    /// Operations that must have taken effect, by their start.
    musts: Vec<Call>,
    /// Start and value of writes that may have.
    mays: Vec<(u64, Value)>,
    /// The last of those that read a value.
    last_read: BTreeMap<Value, usize>,
}

/// Which operations have been taken, and what is there then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// All `musts` before this one are taken, and it is not.
    low: usize,
    /// Those above it that are taken.
    above: BTreeSet<usize>,
    /// The `mays` that are taken.
    mays: BTreeSet<usize>,
    value: Value,
}

impl State {
    fn take(&mut self, must: usize) {
        self.above.insert(must);
        while self.above.remove(&self.low) {
            self.low += 1;
        }
    }

    fn count(&self) -> usize {
        self.low + self.above.len()
    }
}

impl Search {
    /// Depth first, on a stack of its own.
    fn run(&self) -> Verdict {
        let start = State { low: 0, above: BTreeSet::new(), mays: BTreeSet::new(), value: 0 };
        let mut seen: BTreeSet<State> = BTreeSet::new();
        let mut stack = vec![start];
        let (mut steps, mut furthest) = (0, 0);
        while let Some(mut state) = stack.pop() {
            let (horizon, writes) = self.read_on(&mut state);
            if state.low == self.musts.len() {
                return Verdict::Linearizable;
            }
            if !seen.insert(state.clone()) {
                continue;
            }
            steps += 1;
            if steps > MAX_STEPS {
                return Verdict::Undecided;
            }
            furthest = furthest.max(state.count());
            for may in self.useful(&state, horizon) {
                let mut next = state.clone();
                next.mays.insert(may);
                next.value = self.mays[may].1;
                stack.push(next);
            }
            // What began first is tried first.
            for must in writes.into_iter().rev() {
                let mut next = state.clone();
                next.take(must);
                if let What::Wrote(value) = self.musts[must].what {
                    next.value = value;
                }
                stack.push(next);
            }
        }
        let all = self.musts.len();
        Verdict::Violation(format!(
            "no order of its operations explains what was read; the best one explains {furthest} of {all}"
        ))
    }

    /// Takes all reads that can come next, and returns until when others can begin to come next, and the writes that can.
    fn read_on(&self, state: &mut State) -> (u64, Vec<usize>) {
        loop {
            // Nothing that began after another one's end may come before it.
            let mut horizon = u64::MAX;
            let mut open = Vec::new();
            for index in state.low..self.musts.len() {
                let call = &self.musts[index];
                if call.start > horizon {
                    break;
                }
                if !state.above.contains(&index) {
                    horizon = horizon.min(call.end);
                    open.push(index);
                }
            }
            let is_next = |index: &usize| self.musts[*index].start <= horizon;
            let found = What::Read(state.value);
            let reads = |index: &usize| is_next(index) && self.musts[*index].what == found;
            let reads: Vec<_> = open.iter().copied().filter(reads).collect();
            if reads.is_empty() {
                let writes = |index: &usize| matches!(self.musts[*index].what, What::Wrote(_));
                let writes = open.into_iter().filter(is_next).filter(writes).collect();
                return (horizon, writes);
            }
            for read in reads {
                state.take(read);
            }
        }
    }

    /// Unknown writes that can come next and may explain a read that is still to come.
    fn useful(&self, state: &State, horizon: u64) -> Vec<usize> {
        let mut values = BTreeSet::new();
        let mut useful = Vec::new();
        for (may, (start, value)) in self.mays.iter().enumerate() {
            if *start > horizon {
                break;
            }
            let is_wanted = self.last_read.get(value).is_some_and(|last| *last >= state.low);
            // Writes of one value (deletes, that is) can stand for each other: the one that began first will do.
            let taken = state.mays.contains(&may);
            if is_wanted && !taken && *value != state.value && values.insert(*value) {
                useful.push(may);
            }
        }
        useful
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// `w1` a write of 1 that succeeded, `?2` an unknown one of 2, `!3` a refused one, `r1` a read of 1; each with
    /// start and end.
    fn history(text: &str) -> Verdict {
        let calls: Vec<_> = text
            .split_whitespace()
            .map(|word| {
                let (what, times) = word.split_once(':').unwrap();
                let (start, end) = times.split_once('-').unwrap();
                let value: Value = what[1..].parse().unwrap();
                let what = match &what[..1] {
                    "w" => What::Wrote(value),
                    "?" => What::MayHaveWritten(value),
                    "!" => What::Refused(value),
                    _ => What::Read(value),
                };
                Call { start: start.parse().unwrap(), end: end.parse().unwrap(), what }
            })
            .collect();
        judge(&calls)
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

    /// Wing and Gong's search without any shortcut: all orders.
    fn is_explained(left: &[Call], value: Value) -> bool {
        let must = |call: &&Call| !matches!(call.what, What::MayHaveWritten(_));
        if left.iter().filter(must).count() == 0 {
            return true;
        }
        let horizon = left.iter().filter(must).map(|call| call.end).min().unwrap_or(0);
        (0..left.len()).any(|index| {
            let call = left[index];
            let then = match call.what {
                What::Read(found) if found == value => value,
                What::Wrote(written) | What::MayHaveWritten(written) => written,
                What::Read(_) | What::Refused(_) => return false,
            };
            let mut rest = left.to_vec();
            rest.remove(index);
            call.start <= horizon && is_explained(&rest, then)
        })
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(3_000))]

        #[test]
        fn the_shortcuts_change_no_verdict(
            calls in proptest::collection::vec((0u64..12, 1u64..8, 0u8..6, 0u32..3), 0..7),
        ) {
            let mut next = 0;
            let calls: Vec<_> = calls
                .into_iter()
                .map(|(start, length, kind, value)| {
                    let mut own = || {
                        next += 1;
                        if value == 0 { 0 } else { next }
                    };
                    let what = match kind {
                        0..=2 => What::Read(value),
                        3 | 4 => What::Wrote(own()),
                        _ => What::MayHaveWritten(own()),
                    };
                    Call { start, end: start + length, what }
                })
                .collect();
            let verdict = judge(&calls) == Verdict::Linearizable;
            proptest::prop_assert_eq!(verdict, is_explained(&calls, 0));
        }
    }

    #[test]
    fn a_long_history_is_judged_quickly() {
        let mut calls = Vec::new();
        for round in 0..20_000u64 {
            let (value, at) = (round as Value + 1, round * 10);
            calls.push(Call { start: at, end: at + 14, what: What::Wrote(value) });
            calls.push(Call { start: at + 15, end: at + 19, what: What::Read(value) });
            if round % 50 == 0 {
                calls.push(Call { start: at, end: at + 1, what: What::MayHaveWritten(0) });
            }
        }
        assert_eq!(judge(&calls), Verdict::Linearizable);
        calls.push(Call { start: 199_998, end: 199_999, what: What::Read(1) });
        assert!(matches!(judge(&calls), Verdict::Violation(_)));
    }
}
