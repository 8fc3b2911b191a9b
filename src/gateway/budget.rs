//! Memory that HTTP requests can make this process take. It adds to what the server allows its Thrift connections.
//!
//! | for | bytes in all | when there is no more |
//! |---|---|---|
//! | bodies of at most [`SHORT`] bytes | [`SHORT_BODIES`] | 503 after [`ROOM`] |
//! | longer bodies, and the items of lists | [`LONG_BODIES`] | 503 after [`ROOM`] |
//! | values of at most [`SHORT`] bytes on their way out | [`SHORT_VALUES`] | the key is answered as overloaded |
//! | longer values on their way out | [`LONG_VALUES`] | the same |
//! | pages of scans on their way out, [`PAGE`] each | [`PAGES`] | 503, or the end of the listing, after [`ROOM`] |
//!
//! A share travels with its bytes and ends with them: that of a value when the socket has taken it, not when a handler is
//! done. Short and long are apart, so that nobody's long bodies keep a short one waiting.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Bytes that count as short.
pub(super) const SHORT: usize = 64 << 10;
const SHORT_BODIES: usize = 16 << 20;
const LONG_BODIES: usize = 64 << 20;
const SHORT_VALUES: usize = 32 << 20;
const LONG_VALUES: usize = 64 << 20;
const PAGES: usize = 64 << 20;
/// What a page of a scan counts as: about what a server answers at most, unless a single value is longer.
const PAGE: usize = 2 << 20;
/// For others to make room.
const ROOM: Duration = Duration::from_secs(5);
/// What an item of a list takes beside its bytes: its place among the items, among the results, and in the answer.
const ITEM: usize = 512;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Budget {
    short_bodies: Arc<Semaphore>,
    long_bodies: Arc<Semaphore>,
    short_values: Arc<Semaphore>,
    long_values: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

/// A part of the budget; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    bytes: usize,
    _permit: OwnedSemaphorePermit,
}

impl Share {
    /// How many bytes it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Budget {
    pub(super) fn new() -> Budget {
        let [short_bodies, long_bodies, short_values, long_values, pages] =
            [SHORT_BODIES, LONG_BODIES, SHORT_VALUES, LONG_VALUES, PAGES]
                .map(|bytes| Arc::new(Semaphore::new(bytes)));
        Budget { short_bodies, long_bodies, short_values, long_values, pages }
    }

    /// Room for a body of that many bytes.
    pub(super) async fn body(&self, bytes: usize) -> Result<Share, Problem> {
        let of = if bytes <= SHORT { &self.short_bodies } else { &self.long_bodies };
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
        let of = if bytes <= SHORT { &self.short_values } else { &self.long_values };
        let permit = Arc::clone(of).try_acquire_many_owned(bytes as u32).ok()?;
        Some(Share { bytes, _permit: permit })
    }

    /// Room for a page that is yet to be asked for.
    pub(super) async fn page(&self) -> Result<Share, Problem> {
        wait_for(&self.pages, PAGE).await.ok_or_else(|| {
            Problem::busy("too many listings at a time wait for their readers".to_owned())
        })
    }

    /// Bytes that are in hand now.
    #[cfg(test)]
    pub(super) fn in_hand(&self) -> usize {
        let all = SHORT_BODIES + LONG_BODIES + SHORT_VALUES + LONG_VALUES + PAGES;
        let kinds = [
            &self.short_bodies,
            &self.long_bodies,
            &self.short_values,
            &self.long_values,
            &self.pages,
        ];
        all - kinds.map(|kind| kind.available_permits()).iter().sum::<usize>()
    }
}

/// Shares are taken whole, so that two halves never wait for each other's.
async fn wait_for(of: &Arc<Semaphore>, bytes: usize) -> Option<Share> {
    let permit = Arc::clone(of).acquire_many_owned(bytes as u32);
    let permit = tokio::time::timeout(ROOM, permit).await.ok()?.ok()?;
    Some(Share { bytes, _permit: permit })
}

/// Bytes that hold their share for as long as anything refers to them.
struct Owned {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Binds a share to its bytes.
pub(super) fn bind(bytes: Bytes, share: Share) -> Bytes {
    Bytes::from_owner(Owned { bytes, _share: share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_ends_once_with_the_last_reference_to_its_bytes() {
        let budget = Budget::new();
        let value = Bytes::from(vec![7; SHORT + 1]);
        let bound = bind(value.clone(), budget.value(value.len()).unwrap());
        let part = bound.slice(5..10);
        drop(bound);
        assert_eq!(budget.in_hand(), SHORT + 1, "a part of it is still there");
        drop(part);
        assert_eq!(budget.in_hand(), 0);
    }

    #[tokio::test]
    async fn long_bodies_and_values_leave_room_for_short_ones() {
        let budget = Budget::new();
        let bodies: Vec<_> =
            [budget.body(LONG_BODIES / 2).await, budget.body(LONG_BODIES / 2).await].into();
        assert!(bodies.iter().all(Result::is_ok));
        assert!(budget.body(SHORT + 1).await.is_err(), "there is no more room");
        assert!(budget.body(SHORT).await.is_ok());
        let values: Vec<_> = (0..8).map(|_| budget.value(15 << 20)).collect();
        assert_eq!(values.iter().flatten().count(), LONG_VALUES / (15 << 20));
        assert!(budget.value(SHORT).is_some());
        drop((bodies, values));
        assert_eq!(budget.in_hand(), 0);
    }
}
