//! What a disk does is told within two seconds, wherever somebody may look: status, `/ready`, inspector and log.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use chord::model::{Level, ServerId};

use crate::process::{Cluster, PATIENCE, Shape, put, text, wait_until};

/// From when somebody writes to it.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// An ext4 in a file, in a mount namespace of its own; a shell in there mounts it and does what it is told.
struct Medium {
    shell: Child,
    said: BufReader<ChildStdout>,
    top: PathBuf,
    inside: PathBuf,
    frozen: bool,
}

impl Medium {
    /// `None`: this machine does not permit it.
    fn mount(at: &Path) -> Option<Medium> {
        fs::create_dir(at).unwrap();
        let shell = Command::new("unshare")
            .args(["--mount", "--", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut shell = shell.ok()?;
        let said = BufReader::new(shell.stdout.take().unwrap());
        let root = format!("/proc/{}/root", shell.id());
        let top = Path::new(&root).join(at.strip_prefix("/").unwrap());
        let mut medium = Medium { shell, said, top, inside: at.to_owned(), frozen: false };
        let image = at.with_extension("img").display().to_string();
        let made = medium.tell(&format!("truncate -s 24M {image} && mkfs.ext4 -qFm 0 {image}"))
            && medium.tell(&format!("mount -o loop {image} {}", at.display()))
            // That it can be frozen, too.
            && medium.freeze()
            && medium.thaw();
        made.then_some(medium)
    }

    /// Whether the command has succeeded.
    fn tell(&mut self, command: &str) -> bool {
        let stdin = self.shell.stdin.as_mut().unwrap();
        let told = writeln!(stdin, "{command} >/dev/null 2>&1 </dev/null; echo $?");
        let mut line = String::new();
        told.is_ok() && self.said.read_line(&mut line).is_ok() && line.trim() == "0"
    }

    fn freeze(&mut self) -> bool {
        self.frozen = self.tell(&format!("fsfreeze -f {}", self.inside.display()));
        self.frozen
    }

    fn thaw(&mut self) -> bool {
        self.frozen = false;
        self.tell(&format!("fsfreeze -u {}", self.inside.display()))
    }

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

    /// As after an error of the medium: for good.
    fn turn_read_only(&mut self) -> bool {
        self.tell(&format!("mount -o remount,abort {}", self.inside.display()))
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        if self.frozen {
            self.thaw();
        }
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn ready(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

/// Writes values of this length at a neighbour until the word is everywhere, and in the log behind so many lines.
fn is_told(cluster: &Cluster, word: &str, length: usize, lines: usize) {
    let address = cluster.address(1).parse().unwrap();
    let began = Instant::now();
    // Something to do for that disk, on a connection of its own: whatever comes of it.
    let writer = std::thread::spawn(move || {
        let value = "x".repeat(length);
        while began.elapsed() < TOLD_WITHIN {
            let _ = crate::process::ask(address, put("key", &value, Level::Quorum));
        }
    });
    let of_neighbour = || {
        let peers = cluster.status(1).peers;
        peers.into_iter().find(|peer| peer.server == ServerId(0)).and_then(|peer| peer.disk)
    };
    let places: [(&str, &dyn Fn() -> String); 5] = [
        ("its own status", &|| cluster.status(0).disk.unwrap_or_default()),
        ("a neighbour's status", &|| of_neighbour().unwrap_or_default()),
        ("/ready", &|| ready(cluster.http[0])),
        ("the log", &|| cluster.log(0).lines().skip(lines).collect()),
        ("the inspector", &|| text(&cluster.inspector(&["--summary"]).stdout)),
    ];
    for (place, says) in places {
        loop {
            let (asked, said) = (began.elapsed(), says());
            if said.contains(word) {
                break;
            }
            assert!(asked < TOLD_WITHIN, "{place} does not say '{word}' in time: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    writer.join().unwrap();
}

fn is_well(cluster: &Cluster) {
    wait_until("the disk is well again, and said to be", || {
        let _ = cluster.put(1, "key", "small", Level::Quorum);
        let (own, ready) = (cluster.status(0).disk, ready(cluster.http[0]));
        match own.is_none() && ready.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(format!("{own:?}; {ready}")),
        }
    });
}

#[test]
fn a_disk_that_hangs_is_full_or_read_only_is_named_within_two_seconds() {
    let mut cluster = Cluster::shaped(Shape { http: true, ..Shape::of(3, 3) });
    let Some(mut medium) = Medium::mount(&cluster.folder.path().join("medium")) else {
        eprintln!("SKIPPED: this machine permits no file system of the test's own");
        return;
    };
    assert_eq!(cluster.terminate(0), Some(0));
    let (data, moved) = (cluster.data(0), medium.top.join("data"));
    let copied = Command::new("cp").arg("-a").args([&data, &moved]).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(&data).unwrap();
    symlink(&moved, &data).unwrap();
    cluster.restart(0);
    cluster.wait_for(1, "sees all peers", |status| {
        status.peers.iter().all(|peer| peer.alive && peer.voting)
    });
    is_well(&cluster);

    let lines = |cluster: &Cluster| cluster.log(0).lines().count();
    let before = lines(&cluster);
    assert!(medium.freeze());
    // A flood of long values is given longer, a second for each 32 MiB.
    is_told(&cluster, "hangs", 100, before);
    assert!(medium.thaw());
    is_well(&cluster);

    let before = lines(&cluster);
    medium.fill();
    is_told(&cluster, "full", 30_000, before);
    medium.make_room();
    is_well(&cluster);

    let before = lines(&cluster);
    assert!(medium.turn_read_only());
    is_told(&cluster, "read-only", 100, before);
    cluster.kill(0);
}
