//! A write that says what its writer has seen gets a greater version, whatever the clocks say.

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.out_of_order.to_vec()
}
