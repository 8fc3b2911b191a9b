//! A server's disk: a folder, or a small file system of its own that can be filled, frozen, and robbed of its power.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::machine::tool;

/// Bytes of a file system. Enough for the servers' work, little enough to be filled in an instant.
pub(super) const SIZE: &str = "64M";

/// What a disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// A folder of the machine's.
    Folder,
    /// A file system in memory: it can be filled.
    Tmpfs,
    /// A file system in a file: it can be filled and frozen, and its power can be cut.
    Ext4,
}

/// One server's disk.
#[derive(Debug)]
pub(super) struct Disk {
    medium: Medium,
    top: PathBuf,
    image: PathBuf,
}

impl Disk {
    /// An empty one, in a folder of its own under `parent`.
    pub(super) fn create(parent: &Path, medium: Medium, size: &str) -> Result<Disk, String> {
        let (top, image) = (parent.join("disk"), parent.join("disk.img"));
        fs::create_dir_all(&top).map_err(|error| format!("{}: {error}", top.display()))?;
        let disk = Disk { medium, top, image };
        match medium {
            Medium::Folder => {}
            Medium::Tmpfs => {
                tool(
                    "mount",
                    &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &disk.top()],
                )?;
            }
            Medium::Ext4 => {
                let image = disk.image.to_string_lossy();
                tool("truncate", &["-s", size, &image])?;
                tool("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
                disk.mount()?;
            }
        }
        Ok(disk)
    }

    fn top(&self) -> String {
        self.top.to_string_lossy().into_owned()
    }

    fn mount(&self) -> Result<(), String> {
        tool("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.top()]).map(drop)
    }

    /// The data folder on it.
    pub(super) fn data(&self) -> PathBuf {
        self.top.join("data")
    }

    /// Leaves no byte free.
    pub(super) fn fill(&self) -> Result<(), String> {
        let ballast = self.top.join("ballast");
        let mut file = File::create(&ballast).map_err(|error| format!("ballast: {error}"))?;
        let mut piece = &[1u8; 65536][..];
        while !piece.is_empty() {
            match file.write_all(piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    piece = &piece[..piece.len() / 2]
                }
                Err(error) => return Err(format!("ballast: {error}")),
            }
        }
        Ok(())
    }

    /// Gives back what [`Disk::fill`] took.
    pub(super) fn make_room(&self) {
        // Nothing was taken, or the disk is gone: either is seen elsewhere.
        let _ = fs::remove_file(self.top.join("ballast"));
    }

    /// Every access hangs until [`Disk::thaw`].
    pub(super) fn freeze(&self) -> Result<(), String> {
        tool("fsfreeze", &["-f", &self.top()]).map(drop)
    }

    /// Ends a freeze.
    pub(super) fn thaw(&self) -> Result<(), String> {
        tool("fsfreeze", &["-u", &self.top()]).map(drop)
    }

    /// What is not synced is gone, and every access fails from now on, until the disk is mounted again.
    pub(super) fn cut_power(&mut self) -> Result<(), String> {
        // FS_IOC_SHUTDOWN without flushing the journal; there is no command that does it, and no safe call.
        const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
        tool("python3", &["-c", SHUTDOWN, &self.top()]).map(drop)
    }

    /// After a power cut, once the server is dead: the journal is played back, and the files are as they were on the medium.
    pub(super) fn mount_again(&self) -> Result<(), String> {
        tool("umount", &[&self.top()])?;
        self.mount()
    }

    /// The data folder is gone.
    pub(super) fn wipe(&self) -> Result<(), String> {
        fs::remove_dir_all(self.data()).map_err(|error| format!("cannot wipe: {error}"))
    }

    /// Turns one bit of a segment or key file, the choice by `random`; `None`: there is nothing to choose from. Of the
    /// segment that is written to only the older half is touched: a bit in the very last batch looks as a torn write
    /// does, and nothing can tell them apart.
    pub(super) fn rot(&self, random: &mut impl FnMut(u64) -> u64) -> Option<String> {
        let log = ["cells", "hints"][random(4) as usize / 3];
        let mut files: Vec<_> = fs::read_dir(self.data().join(log))
            .ok()?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "log" || end == "keys"))
            .collect();
        files.sort();
        let path = files.get(random(files.len() as u64) as usize)?;
        let mut bytes = fs::read(path).ok()?;
        let is_last = files.last() == Some(path);
        let reach = if is_last { bytes.len() / 2 } else { bytes.len() };
        if is_last && bytes.len() < 8192 {
            return None;
        }
        let at = random(reach as u64) as usize;
        *bytes.get_mut(at)? ^= 1 << random(8);
        fs::write(path, &bytes).ok()?;
        Some(format!("{log}/{} at byte {at}", path.file_name()?.to_string_lossy()))
    }

    /// As a kernel does that meets an error of the medium: reads go on, and every write and sync fails with EROFS, until the disk
    /// is mounted again. What was not synced is gone.
    pub(super) fn turn_read_only(&self) -> Result<(), String> {
        tool("mount", &["-o", "remount,abort", &self.top()]).map(drop)
    }

    /// Turns a bit each in up to `most` values that `is_struck` says are struck by their key; how many there were. Of the segment
    /// that is written to only the older half is touched, as by [`Disk::rot`].
    pub(super) fn rot_values(
        &self,
        most: u64,
        is_struck: &impl Fn(&str) -> bool,
        random: &mut impl FnMut(u64) -> u64,
    ) -> u64 {
        let Ok(entries) = fs::read_dir(self.data().join("cells")) else { return 0 };
        let mut files: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        files.sort();
        let mut places = Vec::new();
        let mut contents: Vec<_> = files.into_iter().map(|path| (fs::read(&path), path)).collect();
        for (file, (bytes, _)) in contents.iter().enumerate() {
            let mut found: Vec<_> = bytes.iter().flat_map(|bytes| values(bytes)).collect();
            if file + 1 == contents.len() {
                found.truncate(found.len() / 2);
            }
            let struck = found.into_iter().filter(|(key, _)| is_struck(key));
            places.extend(struck.map(|(_, at)| (file, at)));
        }
        let mut turned = 0;
        while turned < most && !places.is_empty() {
            let (file, at) = places.swap_remove(random(places.len() as u64) as usize);
            let (Ok(bytes), _) = &mut contents[file] else { continue };
            bytes[at] ^= 1 << random(8);
            turned += 1;
        }
        for (bytes, path) in contents {
            // A segment that cannot be written to keeps its bits.
            let _ = bytes.and_then(|bytes| fs::write(path, bytes));
        }
        turned
    }

    /// Keeps the files of a run that failed.
    pub(super) fn keep(&self, to: &Path) {
        let _ = tool("cp", &["-r", &self.data().to_string_lossy(), &to.to_string_lossy()]);
    }
}

/// The values that lie in a segment, each with its key and the place of its first byte: a key of three letters, and at once the value that
/// [`super::load`] has stored under it.
fn values(bytes: &[u8]) -> impl Iterator<Item = (String, usize)> {
    const LETTERS: &[u8] = b"kmov";
    bytes.windows(5).enumerate().filter_map(|(at, window)| {
        let [letter, tens, ones, b'c', number] = window else { return None };
        let is_key =
            LETTERS.contains(letter) && [tens, ones, number].iter().all(|it| it.is_ascii_digit());
        is_key.then(|| (String::from_utf8_lossy(&window[..3]).into_owned(), at + 3))
    })
}

/// A disk of one server's own that can be made to hang, for whoever runs servers elsewhere: within namespaces of the run's own
/// ([`super::run_inside`]), and as root.
#[derive(Debug)]
pub struct OwnDisk(Disk);

impl OwnDisk {
    /// An empty one of that size, as `truncate` knows it, in this folder.
    ///
    /// # Errors
    /// The machine does not permit it.
    pub fn create(folder: &Path, size: &str) -> Result<OwnDisk, String> {
        if !super::machine::is_inside() {
            return Err("namespaces of the run's own are not permitted here".to_owned());
        }
        Disk::create(folder, Medium::Ext4, size).map(OwnDisk)
    }

    /// The data folder on it.
    pub fn data(&self) -> PathBuf {
        self.0.data()
    }

    /// Every access hangs until [`OwnDisk::thaw`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn freeze(&self) -> Result<(), String> {
        self.0.freeze()
    }

    /// Ends a freeze.
    ///
    /// # Errors
    /// The system refuses.
    pub fn thaw(&self) -> Result<(), String> {
        self.0.thaw()
    }

    /// Leaves no byte free, until [`OwnDisk::make_room`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn fill(&self) -> Result<(), String> {
        self.0.fill()
    }

    /// Gives back what [`OwnDisk::fill`] took.
    pub fn make_room(&self) {
        self.0.make_room();
    }

    /// Reads go on, and every write fails, as after an error of the medium, until [`OwnDisk::mount_again`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn turn_read_only(&self) -> Result<(), String> {
        self.0.turn_read_only()
    }

    /// Mounted anew, once nobody uses it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn mount_again(&self) -> Result<(), String> {
        self.0.mount_again()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.medium != Medium::Folder {
            let _ = tool("umount", &[&self.top()]);
        }
        let _ = fs::remove_file(&self.image);
    }
}
