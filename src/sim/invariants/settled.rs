//! Once faults have stopped, every server votes, believes all others alive, and has delivered its hints.

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for (server, status) in evidence.statuses {
        if !status.voting {
            violations.push(format!("server {server} does not vote: {}", status.state));
        }
        for peer in &status.peers {
            if peer.hints > 0 {
                violations.push(format!(
                    "server {server} keeps {} hints for {}",
                    peer.hints, peer.server
                ));
            }
            if !peer.alive || !peer.voting {
                violations.push(format!("server {server} does not believe {} alive", peer.server));
            }
        }
    }
    violations
}
