//! Memory and queues stay within bounds: values in memory within their budget, and when all is quiet a node has next to
//! nothing in hand, or something leaks.

use super::Evidence;

/// Signs of life and a comparison may be under way.
const IN_HAND: usize = 64;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for (server, status) in evidence.statuses {
        let (bytes, budget) = (status.memory_bytes, status.memory_budget);
        if bytes > budget {
            violations.push(format!(
                "server {server} has {bytes} bytes of values in memory, over its budget of {budget}"
            ));
        }
    }
    for (server, in_hand) in evidence.in_hand {
        if *in_hand > IN_HAND {
            violations
                .push(format!("server {server} has {in_hand} things in hand, and all is quiet"));
        }
    }
    violations
}
