//! What the storage engine needs of a medium, and what it assumes of one.
//!
//! Assumed: bytes written and synced are there after a power cut; bytes written and not synced may be there
//! wholly, partly or not at all, in any order; a rename, a creation or a removal is certain only after the
//! folder was synced; a byte that was synced may later come back wrong or not at all, and then checksums tell.
//! Not assumed: that a write is atomic at any size, or that a failed sync may be tried again.

use std::io;

use super::AppendError;

/// Whether the medium takes no more, and why: it may again. `None`: some other error.
pub(super) fn refusal(error: &io::Error) -> Option<AppendError> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Some(AppendError::Full)
        }
        io::ErrorKind::ReadOnlyFilesystem => Some(AppendError::ReadOnly),
        _ => None,
    }
}

/// A data folder. Names are relative and have at most one folder level, like `cells/0000000001.log`.
///
/// Calls are synchronous; the driver runs them on a thread of their own. Errors keep their
/// [`io::ErrorKind`]: those of a medium that takes no more (`StorageFull`, `QuotaExceeded`, `FileTooLarge`,
/// `ReadOnlyFilesystem`) are survived, except from the sync of a segment, which is final whatever it fails for.
pub trait Disk {
    /// Makes `folder` if it is not there, durably.
    fn make_folder(&mut self, folder: &str) -> io::Result<()>;

    /// Names of the files in `folder` (`""`: the top), without the folder, in byte order.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Bytes in the file.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// Up to `length` bytes from `offset`; fewer at the end of the file.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Writes at `offset`, making the file if it is not there. Bytes may have been written even on failure.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file, which is there, at least `length` bytes long, with zeros behind what it holds, and takes the space for them.
    /// On failure it may be longer than it was, by zeros.
    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Makes the file's bytes durable. A failure is final for this process.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals in `folder` durable.
    fn sync_folder(&mut self, folder: &str) -> io::Result<()>;

    /// Renames within one folder, replacing what is there.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}
