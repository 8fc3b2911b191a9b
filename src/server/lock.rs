//! The lock on a data folder: two servers never write one log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs2::FileExt;

/// The file that is locked, in the data folder. It stays behind; only the lock on it matters, and the operating
/// system takes that back when the process ends, however it ends.
const LOCK_FILE: &str = "lock";

/// Held for as long as the process uses the folder.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "data folder {} is in use by {}; stop that server first, or give this one another --data folder",
        folder.display(), holder.map_or("another process".into(), |pid| format!("process {pid}"))
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who said that it holds the lock.
        holder: Option<u32>,
    },
    /// The folder or the file in it cannot be made or opened.
    #[error(
        "data folder {} cannot be used: {source}; check that it may be created and written",
        folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FolderLock {
    /// Makes the folder if it is not there, for its owner alone, and locks it. Never waits.
    pub(crate) fn take(folder: &Path) -> Result<FolderLock, LockError> {
        let failed = |source| LockError::Folder { folder: folder.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            // What is in it is the holder's number: not ours to cut before the lock is.
            .truncate(false)
            .mode(0o600)
            .open(folder.join(LOCK_FILE))
            .map_err(failed)?;
        if let Err(error) = FileExt::try_lock_exclusive(&file) {
            if error.kind() != fs2::lock_contended_error().kind() {
                return Err(failed(error));
            }
            let mut text = String::new();
            // Not readable as a number: then the message says "another process".
            let _ = (&file).take(32).read_to_string(&mut text);
            return Err(LockError::Held {
                folder: folder.to_owned(),
                holder: text.trim().parse().ok(),
            });
        }
        // For people only: whether it can be written decides nothing.
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = writeln!(file, "{}", std::process::id());
        Ok(FolderLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_held_folder_is_refused_by_the_holders_number_and_is_free_again_afterwards() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("data/7");
        let held = FolderLock::take(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        match FolderLock::take(&folder) {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        FolderLock::take(&folder).unwrap();
    }

    #[test]
    fn a_file_in_the_folders_place_is_an_error_that_names_it() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let error = FolderLock::take(&path).unwrap_err().to_string();
        assert!(error.contains("file") && error.contains("check that"), "{error}");
    }
}
