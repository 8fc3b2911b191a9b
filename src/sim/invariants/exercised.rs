//! A run in which nothing succeeded, or nothing was compared, proves nothing.

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let summary = evidence.summary;
    let needed = [
        ("writes that succeeded", summary.writes_ok),
        ("reads that found out", summary.reads_ok),
        ("operations judged", summary.judged),
        ("batches on disks", summary.batches),
        ("cells compared", evidence.contents.values().map(|cells| cells.len() as u64).sum()),
    ];
    let missing = needed.into_iter().filter(|(_, count)| *count == 0);
    missing.map(|(what, _)| format!("there were no {what}")).collect()
}
