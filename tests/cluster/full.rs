//! Disks that take no more: a real one, and a bound on the length of files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chord::model::{ClientResponse, Level};
use chord::wire::RemoteFailure;

use crate::process::{Cluster, Shape, wait_until};

/// A small file system that nobody else sees. It goes with the value, or with the test, for its keeper waits for a pipe.
struct Medium {
    keeper: Child,
    top: PathBuf,
}

impl Medium {
    /// `None`: this machine does not permit it.
    fn mount(at: &Path) -> Option<Medium> {
        fs::create_dir(at).unwrap();
        let script = "mount -t tmpfs -o size=3m tmpfs \"$0\" && echo mounted && exec cat";
        let keeper = Command::new("unshare")
            .args(["--mount", "--", "sh", "-c", script])
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut keeper = keeper.ok()?;
        let mut said = [0; 8];
        let stdout = keeper.stdout.as_mut().unwrap();
        if std::io::Read::read_exact(stdout, &mut said).is_err() {
            keeper.wait().unwrap();
            return None;
        }
        // The same folder as the keeper sees it.
        let root = format!("/proc/{}/root", keeper.id());
        let top = Path::new(&root).join(at.strip_prefix("/").unwrap());
        Some(Medium { keeper, top })
    }

    /// Until not one byte is left.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.top.join("ballast")).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            if ballast.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.top.join("ballast")).unwrap();
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Stored by those who could, or for certain not at all.
fn is_clear(answer: &Result<ClientResponse, RemoteFailure>) -> bool {
    answer.as_ref().map_or_else(|failure| failure.is_definite(), |_| true)
}

/// A7: killed on a full disk, a server starts, reads, refuses writes, and takes them by itself once there is room.
#[test]
fn a_server_killed_on_a_full_disk_starts_and_reads() {
    let mut cluster = Cluster::shaped(Shape::of(3, 3));
    let Some(medium) = Medium::mount(&cluster.folder.path().join("medium")) else {
        eprintln!("SKIPPED: this machine permits no mount in a namespace of its own");
        return;
    };
    // Its folder moves there.
    assert_eq!(cluster.terminate(0), Some(0));
    let (data, moved) = (cluster.data(0), medium.top.join("data"));
    let copied = Command::new("cp").arg("-a").args([&data, &moved]).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(&data).unwrap();
    std::os::unix::fs::symlink(&moved, &data).unwrap();
    cluster.restart(0);
    cluster.wait_for(0, "votes", |status| status.voting);
    cluster.put(0, "before", "1", Level::All).unwrap();

    medium.fill();
    let value = "x".repeat(20_000);
    wait_until("the disk is said to be full", || {
        let answer = cluster.put(0, "much", &value, Level::Quorum);
        assert!(is_clear(&answer), "{answer:?}");
        cluster.status(0).disk.map(|_| ()).ok_or_else(|| format!("{answer:?}"))
    });
    for _ in 0..3 {
        cluster.kill(0);
        cluster.restart(0);
        let held = cluster.contents(0);
        assert!(held.iter().any(|(key, ..)| key == "before"), "{held:?}");
        cluster.wait_for(0, "votes", |status| status.voting);
        wait_until("it reads", || match cluster.get(0, "before", Level::Quorum) {
            Ok(Some(value)) if value == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let answer = cluster.put(0, "after", &value, Level::Quorum);
        assert!(is_clear(&answer), "{answer:?}");
    }
    wait_until("the others store without it", || {
        cluster.put(1, "after", "2", Level::Quorum).map(|_| ()).map_err(|e| format!("{e:?}"))
    });

    let pid = cluster.pid(0);
    medium.make_room();
    cluster.wait_for(0, "is well", |status| status.disk.is_none());
    wait_until("it takes writes", || {
        cluster.put(0, "again", "3", Level::All).map(|_| ()).map_err(|e| format!("{e:?}"))
    });
    cluster.wait_equal();
    assert_eq!(cluster.pid(0), pid);
    assert_eq!(cluster.terminate(0), Some(0));
}

/// A bound on the length of files is a full disk: nothing ends.
#[test]
fn a_bound_on_the_length_of_files_ends_no_server() {
    let cluster = Cluster::shaped(Shape::of(1, 1));
    let bound = |bytes: &str| {
        let pid = cluster.pid(0).to_string();
        Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).status()
    };
    match bound("200000:unlimited") {
        Ok(status) if status.success() => {}
        other => {
            eprintln!("SKIPPED: prlimit: {other:?}");
            return;
        }
    }
    let value = "x".repeat(20_000);
    cluster.put(0, "key", "1", Level::Quorum).unwrap();
    let refused = (0..30).find_map(|_| cluster.put(0, "much", &value, Level::Quorum).err());
    assert!(refused.is_some_and(|failure| failure.is_definite()), "one was not refused clearly");
    // As people write: under a ticket of the library's, which was never sent before.
    let put =
        cluster.client_with(&["--server", &cluster.address(0)], &format!("put much {value}\n"));
    let said = String::from_utf8_lossy(&put.stdout) + String::from_utf8_lossy(&put.stderr);
    assert!(said.contains("NOT STORED"), "{:?}: {said}", put.status);
    assert_eq!(put.status.code(), Some(3), "{said}");
    cluster.wait_for(0, "says so", |status| {
        status.disk.as_ref().is_some_and(|disk| disk.contains("full"))
    });
    assert_eq!(cluster.get(0, "key", Level::Quorum).unwrap(), Some("1".to_owned()));
    assert!(bound("unlimited:unlimited").unwrap().success());
    wait_until("it takes writes", || {
        cluster.put(0, "much", &value, Level::Quorum).map(|_| ()).map_err(|e| format!("{e:?}"))
    });
}
