//! All keys of a stretch, page by page.

use std::time::Duration;

use super::{Client, Error};
use crate::model::{ClientRequest, ClientResponse, Key, Level, ScanEntry};

/// Entries that a server may be asked for at once.
const MAX_PAGE: usize = 10_000;

/// A scan that goes on for as long as there are keys. Each page is read at the level, some time while it is asked
/// for; the whole is no snapshot.
#[derive(Clone, Debug)]
pub struct Scanner {
    client: Client,
    /// Where the next page begins; `None`: everything was read.
    next: Option<Key>,
    to: Option<Key>,
    level: Level,
    timeout: Option<Duration>,
    any_order: bool,
}

impl Scanner {
    /// In key order, from `from` on, up to and without `to`.
    pub fn ordered(client: Client, from: Key, to: Option<Key>, level: Level) -> Scanner {
        Scanner { client, next: Some(from), to, level, timeout: None, any_order: false }
    }

    /// Everything, in the order in which the cluster keeps it; from a place on that [`Scanner::next`] has given.
    pub fn unordered(client: Client, from: Key, level: Level) -> Scanner {
        Scanner { client, next: Some(from), to: None, level, timeout: None, any_order: true }
    }

    /// Everything that comes behind a key (without one: everything), in key order if the cluster keeps one.
    ///
    /// # Errors
    /// As of a read: the cluster cannot be asked how it keeps its keys.
    pub async fn behind(client: Client, key: Option<&Key>, level: Level) -> Result<Scanner, Error> {
        let table = client.table().await?;
        let place = |key: &Key| match table.partitioner() {
            Some(partitioner) => partitioner.place(key).successor(),
            None => key.successor(),
        };
        let from = key.map_or(Key::bound(""), place);
        Ok(Scanner::unordered(client, from, level))
    }

    /// Gives up a page after so long.
    #[must_use]
    pub fn with_timeout(self, timeout: Option<Duration>) -> Scanner {
        Scanner { timeout, ..self }
    }

    /// Where the next page begins; `None`: everything was read.
    pub fn next(&self) -> Option<&Key> {
        self.next.as_ref()
    }

    /// The next page: `limit` entries at most, possibly none though more follow. `None`: everything was read.
    ///
    /// # Errors
    /// As of a read; the same page can be asked for again.
    pub async fn page(&mut self, limit: usize) -> Result<Option<Vec<ScanEntry>>, Error> {
        let Some(from) = self.next.clone() else { return Ok(None) };
        let (to, limit) = (self.to.clone(), limit.clamp(1, MAX_PAGE));
        let Scanner { level, timeout, any_order, .. } = *self;
        let request = ClientRequest::Scan { from, to, limit, level, timeout, any_order };
        match self.client.read(request).await?.response {
            ClientResponse::Scan { entries, next } => {
                self.next = next;
                Ok(Some(entries))
            }
            other => Err(Error::Unanswered { why: format!("an unexpected answer: {other:?}") }),
        }
    }
}
