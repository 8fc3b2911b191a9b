//! Has a store kept its promises? Decided from nothing but what its clients did and were told.
//!
//! A history is a list of [`Entry`]s, one finished operation each; as a file, one line of JSON each. The simulator and
//! `chord-torture` write it; a recorder of any other store could. Five properties are judged:
//!
//! | property | what it says |
//! |---|---|
//! | linearizable | at QUORUM and ALL each key behaves as one copy (`oracle.rs` decides); unknown writes may take effect at any later time, or never |
//! | thin air | nothing is read or held, at whatever level, that nobody wrote or whose write was refused |
//! | own writes | nobody who has written reads what was there before |
//! | lost | at the end every replica holds, of each key, the newest acknowledged write or a later one |
//! | differ | at the end all replicas of a key hold the same |
//!
//! And a run in which too little succeeded has shown nothing: that is a failure of its own kind.
//!
//! Own writes and lost would follow from the first; they are judged apart since they say what is wrong in a line, and
//! since they also hold where the search is given up. Keys that were written at ONE, or used at AVAILABLE, are not judged by the
//! first and the third, nor is what was read at ONE: that may be any value whose write had begun, and nothing else.

mod entry;
pub(crate) mod oracle;

pub use entry::{Entry, Op, Outcome};

use std::collections::{BTreeMap, BTreeSet};

use oracle::{Call, Verdict, What};

/// What was found out about a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Operations in all, final reads aside.
    pub operations: u64,
    /// Of them, successes.
    pub succeeded: u64,
    /// Certain failures.
    pub failed: u64,
    /// Operations that may have taken effect, or whose answer never came.
    pub unknown: u64,
    /// Reads of single replicas at the end.
    pub finals: u64,
    /// What has not held, each with the name of its property.
    pub violations: Vec<String>,
}

/// Judges a whole history. At least `wanted` operations must have succeeded, some reads and some writes among them.
pub fn judge(history: &[Entry], wanted: u64) -> Judgement {
    let mut judgement = Judgement::default();
    for entry in history {
        if entry.is_final {
            judgement.finals += 1;
            continue;
        }
        judgement.operations += 1;
        match entry.outcome {
            Outcome::Ok => judgement.succeeded += 1,
            Outcome::Fail => judgement.failed += 1,
            Outcome::Unknown => judgement.unknown += 1,
        }
    }
    let mut keys: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in history {
        keys.entry(&entry.key).or_default().push(entry);
    }
    let violations = &mut judgement.violations;
    type Check = fn(&[&Entry]) -> Result<(), String>;
    let checks: [(&str, Check); 5] = [
        ("linearizable", linearizable),
        ("thin air", thin_air),
        ("own writes", own_writes),
        ("lost", lost),
        ("differ", differ),
    ];
    for (key, entries) in &keys {
        for (name, check) in checks {
            if let Err(why) = check(entries) {
                violations.push(format!("{name}: key {key}: {why}"));
            }
        }
    }
    let did = |op: fn(Op) -> bool| {
        let good = |entry: &&Entry| entry.outcome == Outcome::Ok && !entry.is_final && op(entry.op);
        history.iter().filter(good).count() as u64
    };
    let (reads, writes) = (did(|op| op == Op::Get), did(|op| op != Op::Get));
    if reads + writes < wanted || reads == 0 || writes == 0 {
        violations.push(format!(
            "too few successes: {reads} reads and {writes} writes, of {wanted} that were wanted"
        ));
    }
    judgement
}

fn written<'a>(entry: &'a &Entry) -> Option<&'a str> {
    (entry.op == Op::Put).then_some(entry.value.as_deref()).flatten()
}

/// A write at this level may take effect before one that was acknowledged earlier.
fn is_weak(level: &str) -> bool {
    matches!(level, "ONE" | "AVAILABLE")
}

/// What promises to be one copy: everything that was not read at ONE, unless someone has written at ONE or used AVAILABLE.
fn promised<'a>(entries: &[&'a Entry]) -> Vec<&'a Entry> {
    let at_one = |entry: &&Entry| entry.level == "ONE" && entry.op == Op::Get && !entry.is_final;
    let weakens = |entry: &&Entry| is_weak(&entry.level) && !entry.is_final && !at_one(entry);
    if entries.iter().any(weakens) {
        return Vec::new();
    }
    entries.iter().copied().filter(|entry| !at_one(entry)).collect()
}

fn linearizable(entries: &[&Entry]) -> Result<(), String> {
    let entries = promised(entries);
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let mut twice = None;
    for value in entries.iter().filter_map(written) {
        let next = numbers.len() as u32 + 1;
        if numbers.insert(value, next).is_some() {
            twice = Some(value);
        }
    }
    if let Some(value) = twice {
        return Err(format!(
            "value {value} was written twice: nothing can be said of such a history"
        ));
    }
    // What nobody wrote has no number; it gets one, and the search says so.
    let number = |value: &Option<String>| match value {
        None => 0,
        Some(value) => numbers.get(value.as_str()).copied().unwrap_or(u32::MAX),
    };
    let call = |entry: &&&Entry| {
        let value = number(&entry.value);
        let what = match (entry.op, entry.outcome) {
            (Op::Get, Outcome::Ok) => What::Read(value),
            (Op::Get, Outcome::Fail | Outcome::Unknown) => return None,
            (Op::Put | Op::Delete, Outcome::Ok) => What::Wrote(value),
            (Op::Put | Op::Delete, Outcome::Unknown) => What::MayHaveWritten(value),
            (Op::Put | Op::Delete, Outcome::Fail) => What::Refused(value),
        };
        Some(Call { start: entry.start, end: entry.end, what })
    };
    let calls: Vec<_> =
        entries.iter().filter(|entry| !entry.is_final).filter_map(|entry| call(&entry)).collect();
    match oracle::judge(&calls) {
        Verdict::Linearizable => Ok(()),
        Verdict::Violation(why) => Err(why),
        Verdict::Undecided => Err("the search was given up".to_owned()),
    }
}

fn thin_air(entries: &[&Entry]) -> Result<(), String> {
    let of = |refused: bool| -> BTreeSet<&str> {
        let is_wanted = |entry: &&&Entry| (entry.outcome == Outcome::Fail) == refused;
        entries.iter().filter(is_wanted).filter_map(written).collect()
    };
    let (there, refused) = (of(false), of(true));
    let begun = writes(entries);
    for entry in entries.iter().filter(|entry| entry.op == Op::Get && entry.outcome == Outcome::Ok)
    {
        let Some(value) = entry.value.as_deref() else { continue };
        if !there.contains(value) {
            let why =
                if refused.contains(value) { "its write was refused" } else { "nobody wrote it" };
            return Err(format!("{} found {value}, but {why}", entry.who()));
        }
        if !entry.is_final && begun.get(value).is_some_and(|write| write.start > entry.end) {
            return Err(format!("{} found {value} before it was written", entry.who()));
        }
    }
    Ok(())
}

/// When the write of a value began and, if it succeeded, ended.
fn writes<'a>(entries: &'a [&Entry]) -> BTreeMap<&'a str, &'a Entry> {
    entries.iter().filter_map(|entry| Some((written(entry)?, *entry))).collect()
}

fn own_writes(entries: &[&Entry]) -> Result<(), String> {
    let entries = promised(entries);
    let writes = writes(&entries);
    // The latest write that a client was told had succeeded.
    let mut own: BTreeMap<&str, &Entry> = BTreeMap::new();
    let mut sorted: Vec<_> = entries.iter().filter(|entry| !entry.is_final).collect();
    sorted.sort_by_key(|entry| entry.start);
    for entry in sorted.into_iter().filter(|entry| entry.outcome == Outcome::Ok) {
        if entry.op != Op::Get {
            own.insert(&entry.client, entry);
            continue;
        }
        let Some(last) = own.get(entry.client.as_str()).filter(|last| last.end <= entry.start)
        else {
            continue;
        };
        let before = entry.value.as_deref().and_then(|value| writes.get(value));
        if let Some(before) = before
            && before.outcome == Outcome::Ok
            && before.end < last.start
        {
            return Err(format!(
                "{} wrote {}, and then read what was there before: {}",
                entry.who(),
                last.value.as_deref().unwrap_or("a delete"),
                entry.value.as_deref().unwrap_or("nothing")
            ));
        }
    }
    Ok(())
}

fn lost(entries: &[&Entry]) -> Result<(), String> {
    let writes = writes(entries);
    let acknowledged = entries.iter().filter(|entry| entry.outcome == Outcome::Ok);
    let newest =
        acknowledged.clone().filter(|entry| entry.op != Op::Get).max_by_key(|entry| entry.start);
    let stamp = acknowledged.filter(|entry| entry.op != Op::Get).filter_map(|entry| entry.ts).max();
    let Some(newest) = newest else { return Ok(()) };
    for held in entries.iter().filter(|entry| entry.is_final) {
        let older_stamp = match (held.ts, stamp) {
            (Some(held), Some(stamp)) => held < stamp,
            // A replica with nothing at all, of a key that was written.
            (None, Some(_)) => true,
            (_, None) => false,
        };
        // By the clock of whoever recorded: what is held was overwritten before the newest write began.
        let before = held.value.as_deref().and_then(|value| writes.get(value));
        let older = before.is_some_and(|before| {
            before.outcome == Outcome::Ok && before.end < newest.start && !is_weak(&newest.level)
        });
        if older_stamp || older {
            return Err(format!(
                "{} holds {} of time {:?} at the end, but {} was acknowledged, and one of time {stamp:?}",
                held.who(),
                held.value.as_deref().unwrap_or("nothing"),
                held.ts,
                newest.value.as_deref().unwrap_or("a delete"),
            ));
        }
    }
    Ok(())
}

fn differ(entries: &[&Entry]) -> Result<(), String> {
    let mut finals = entries.iter().filter(|entry| entry.is_final);
    let Some(first) = finals.next() else { return Ok(()) };
    match finals.find(|other| (&other.value, other.ts) != (&first.value, first.ts)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "{} holds {:?} of time {:?} at the end, and {} holds {:?} of time {:?}",
            first.who(),
            first.value,
            first.ts,
            other.who(),
            other.value,
            other.ts
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `c1 put k a 1-2 ok`, `c2 get k a 3-4`, `c3 delete k - 5-6 unknown`; `node` in front: a final read.
    fn history(text: &str) -> Vec<Entry> {
        let line = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (start, end) = words[4].split_once('-').unwrap();
            let outcome = match words.get(5) {
                None | Some(&"ok") => Outcome::Ok,
                Some(&"fail") => Outcome::Fail,
                _ => Outcome::Unknown,
            };
            Entry {
                client: words[0].to_owned(),
                op: match words[1] {
                    "put" => Op::Put,
                    "get" => Op::Get,
                    _ => Op::Delete,
                },
                key: words[2].to_owned(),
                value: (words[3] != "-").then(|| words[3].to_owned()),
                start: start.parse().unwrap(),
                end: end.parse().unwrap(),
                outcome,
                level: "QUORUM".to_owned(),
                node: Some(1),
                ts: words.get(6).map(|ts| ts.parse().unwrap()),
                is_final: words[0].starts_with("node"),
            }
        };
        text.lines().map(str::trim).filter(|text| !text.is_empty()).map(line).collect()
    }

    fn names(text: &str) -> Vec<String> {
        let violations = judge(&history(text), 2).violations;
        violations.iter().map(|text| text.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_a_good_store_does_is_accepted() {
        let text = "
            c1 put k a 1-2 ok 10
            c2 get k a 3-4
            c1 delete k - 5-6 unknown
            c2 get k a 7-8
            c2 get k - 9-10
            c1 put k b 11-12 fail
            c3 get j - 1-2
            node0 get k - 20-21 ok 12
            node1 get k - 20-21 ok 12";
        assert_eq!(names(text), Vec::<String>::new());
        let judgement = judge(&history(text), 2);
        let Judgement { operations, succeeded, failed, unknown, finals, .. } = judgement;
        assert_eq!((operations, succeeded, failed, unknown, finals), (7, 5, 1, 1, 2));
    }

    #[test]
    fn each_property_has_a_history_that_breaks_it() {
        for (expected, text) in [
            (vec!["linearizable"], "c1 put k a 1-2 ok\n c2 get k - 3-4"),
            (vec!["linearizable", "thin air"], "c1 put k a 1-2 ok\n c2 get k x 3-4"),
            (vec!["linearizable", "thin air"], "c1 put k a 1-2 fail\n c2 get k a 3-4\n c2 put j b 1-2"),
            (
                vec!["linearizable", "own writes"],
                "c1 put k a 1-2\n c1 put k b 3-4\n c1 get k a 5-6",
            ),
            (
                vec!["lost", "lost"],
                "c1 put k a 1-2 ok 10\n c1 put k b 3-4 ok 11\n c1 get k b 5-6\n node1 get k a 7-8 ok 10
                 c1 put j a 1-2 ok 10\n c1 get j a 5-6\n node1 get j - 7-8",
            ),
            (
                vec!["differ"],
                "c1 put k a 1-2 ok 10\n c1 put k b 3-4 unknown\n c1 get k a 5-6
                 node1 get k a 7-8 ok 10\n node2 get k b 7-8 ok 11",
            ),
            (vec!["too few successes"], "c1 get k - 1-2\n c1 put k b 3-4 unknown"),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    /// `ONE` after the key: at that level.
    #[test]
    fn what_was_read_at_one_may_be_old_but_was_written_and_leaves_the_rest_of_its_key_judged() {
        let names = |text: &str| {
            let mut history = history(&text.replace("ONE", ""));
            for (entry, line) in history.iter_mut().zip(text.lines()) {
                if line.contains("ONE") {
                    entry.level = "ONE".to_owned();
                }
            }
            judge(&history, 2)
                .violations
                .iter()
                .map(|v| v.split(':').next().unwrap().to_owned())
                .collect()
        };
        let expect = |text: &str, expected: &[&str]| {
            let found: Vec<String> = names(text);
            assert_eq!(found, expected, "{text}");
        };
        let written = "c1 put k a 1-2 ok\nc1 put k b 3-4 ok\n";
        expect(&format!("{written}c2 get k ONE a 5-6\nc1 get k ONE - 7-8"), &[]);
        expect(&format!("{written}c2 get k ONE x 5-6"), &["thin air"]);
        expect(&format!("{written}c2 get k ONE b 1-2"), &["thin air"]);
        expect(&format!("{written}c2 get k ONE a 5-6\nc2 get k a 7-8"), &["linearizable"]);
        expect("c1 put k ONE a 1-2 ok\nc1 put k b 3-4 ok\nc2 get k a 5-6", &[]);
    }

    #[test]
    fn keys_at_available_are_held_to_less() {
        // Both sides of a cut have written and read.
        let mut entries = history(
            "c1 put k a 1-2 ok 10\n c2 put k b 3-4 ok 11\n c1 get k a 5-6\n node0 get k b 9-9 ok 11",
        );
        let names = |entries: &[Entry]| judge(entries, 2).violations.len();
        assert!(names(&entries) > 0);
        for entry in &mut entries {
            entry.level = "AVAILABLE".to_owned();
        }
        assert_eq!(names(&entries), 0);
        // What was acknowledged is still not to be lost, nor anything to come from nowhere.
        entries[3].ts = Some(9);
        assert!(names(&entries) > 0);
    }

    #[test]
    fn an_entry_is_a_line_of_json() {
        let entry = &history("node1 delete k - 1-2 ok 7")[0];
        let line = entry.to_json();
        assert_eq!(
            line,
            "{\"client\":\"node1\",\"op\":\"delete\",\"key\":\"k\",\"value\":null,\"start\":1,\"end\":2,\
             \"outcome\":\"ok\",\"level\":\"QUORUM\",\"node\":1,\"ts\":7,\"final\":true}"
        );
        assert_eq!(Entry::parse(&line).unwrap(), *entry);
        assert!(Entry::parse("{}").is_err());
    }
}
