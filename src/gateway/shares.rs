//! Shares of the process's [budget](crate::budget) for HTTP: what is waited for, for how long, and what is said when there is
//! no room.
//!
//! | for | account | when there is no more |
//! |---|---|---|
//! | bodies of at most [`SHORT`] bytes | short requests | 503 after [`ROOM`] |
//! | longer bodies, and the items of lists | long bodies | the same |
//! | values of at most [`SHORT`] bytes on their way out | short answers | the key is answered as overloaded |
//! | longer values on their way out | HTTP answers | the same |
//! | pages of scans on their way out, [`PAGE`] each | HTTP answers | 503, or the end of the listing, after [`ROOM`] |
//!
//! A share travels with its bytes and ends with them: that of a value when the socket has taken it, not when a handler is
//! done.

use std::time::Duration;

use super::problem::Problem;
use crate::budget::{Account, Budget, SHORT, Share};

/// What a page of a scan counts as: about what a server answers at most, unless a single value is longer.
const PAGE: usize = 2 << 20;
/// For others to make room.
const ROOM: Duration = Duration::from_secs(5);
/// What an item of a list takes beside its bytes: its place among the items, among the results, and in the answer.
const ITEM: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Shares(Budget);

impl Shares {
    pub(super) fn of(budget: Budget) -> Shares {
        Shares(budget)
    }

    /// Room for a body of that many bytes.
    pub(super) async fn body(&self, bytes: usize) -> Result<Share, Problem> {
        let of = if bytes <= SHORT { &self.0.short_requests } else { &self.0.long_bodies };
        wait_for(of, bytes).await.ok_or_else(|| {
            Problem::busy("too many long requests at a time; nothing was stored".to_owned())
        })
    }

    /// Room for the items of a list.
    pub(super) async fn items(&self, count: usize) -> Result<Share, Problem> {
        self.body(count * ITEM).await
    }

    /// Room for a value that has come; there is none to be waited for, as the value is there already.
    pub(super) fn value(&self, bytes: usize) -> Option<Share> {
        let of = if bytes <= SHORT { &self.0.short_answers } else { &self.0.http_answers };
        of.try_take(bytes)
    }

    /// Room for a page that is yet to be asked for.
    pub(super) async fn page(&self) -> Result<Share, Problem> {
        wait_for(&self.0.http_answers, PAGE).await.ok_or_else(|| {
            Problem::busy("too many listings at a time wait for their readers".to_owned())
        })
    }
}

async fn wait_for(of: &Account, bytes: usize) -> Option<Share> {
    tokio::time::timeout(ROOM, of.clone().take(bytes)).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_bodies_and_values_leave_room_for_short_ones() {
        let budget = Budget::default();
        let shares = Shares::of(budget.clone());
        let bodies = shares.body(budget.long_bodies.free()).await;
        assert!(bodies.is_ok());
        tokio::select! {
            biased;
            _ = shares.body(SHORT + 1) => panic!("there is no more room"),
            () = std::future::ready(()) => {}
        }
        assert!(shares.body(SHORT).await.is_ok());
        let most = budget.http_answers.free();
        let values: Vec<_> = (0..8).map(|_| shares.value(15 << 20)).collect();
        assert_eq!(values.iter().flatten().count(), most / (15 << 20));
        assert!(shares.value(SHORT).is_some());
        drop((bodies, values));
        assert_eq!(budget.in_hand(), 0);
    }
}
