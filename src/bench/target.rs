//! A store as the load generator sees it: any that has keys and values can be driven by the same loop.

use std::future::Future;

use bytes::Bytes;

/// A store that takes connections.
pub trait Target {
    /// What one client drives.
    type Connection: Connection;

    /// Connects the client with this number.
    fn connect(&self, client: usize) -> impl Future<Output = Result<Self::Connection, String>>;
}

/// One client's connection. Calls are answered in the order in which they were sent.
pub trait Connection {
    /// Puts a call after those that have not left yet.
    ///
    /// # Errors
    /// The connection cannot go on.
    fn send(&mut self, call: &Call<'_>) -> Result<(), String>;

    /// Lets all calls leave, and waits for the next answer.
    ///
    /// # Errors
    /// The connection cannot go on; a call that fails by itself is [`Answer::Failed`].
    fn receive(&mut self) -> impl Future<Output = Result<Answer, String>>;
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// Read a key.
    Get {
        /// Which.
        key: &'a [u8],
    },
    /// Store a value.
    Put {
        /// Under which key.
        key: &'a [u8],
        /// Which.
        value: &'a [u8],
    },
    /// Read keys in order.
    Scan {
        /// First key, inclusive.
        from: &'a [u8],
        /// Keys at most.
        limit: usize,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Stored; where the write stands among all of its key, if the store tells.
    Put(Option<Order>),
    /// What the key holds.
    Got(Option<Found>),
    /// Keys in order, each with what it holds.
    Scanned(Vec<(Bytes, Found)>),
    /// Not done; why.
    Failed(String),
}

/// A value that was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The bytes.
    pub value: Bytes,
    /// Where its write stands among all of its key, if the store tells.
    pub order: Option<Order>,
}

/// Where a write stands among all writes of its key: greater is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(pub u128);
