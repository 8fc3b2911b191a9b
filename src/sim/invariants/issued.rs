//! A version is issued for one write, also by a server that was started again behind its own clock; and one that a server of the
//! cluster has issued is refused by none, whatever their clocks show.

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    [evidence.disowned, evidence.doubled].concat()
}
