//! A data folder at rest: shown without ever writing to it, not even its lock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use chord::client::show::{json_text, text, time};
use chord::model::{Content, ServerId};
use chord::storage::{Disk, Held, Log, Look, look, look_at};
use serde_json::json;

/// A folder that can only be read.
struct ReadOnly {
    folder: PathBuf,
}

fn refuse<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "an inspector never writes"))
}

impl Disk for ReadOnly {
    fn make_folder(&mut self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.folder.join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.folder.join(name))?.len())
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.folder.join(name))?;
        let rest = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(length))];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write(&mut self, _: &str, _: u64, _: &[u8]) -> io::Result<()> {
        refuse()
    }

    fn reserve(&mut self, _: &str, _: u64) -> io::Result<()> {
        refuse()
    }

    fn truncate(&mut self, _: &str, _: u64) -> io::Result<()> {
        refuse()
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn sync_folder(&mut self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
        refuse()
    }

    fn remove(&mut self, _: &str) -> io::Result<()> {
        refuse()
    }
}

/// Damaged records that are told one by one.
const TOLD: usize = 100;

/// Shows a folder. 0: it is sound, or torn as a crash leaves it; 1: damaged.
pub(crate) fn show(folder: &Path, as_json: bool, limit: u64, verify: bool) -> io::Result<u8> {
    let disk = ReadOnly { folder: folder.to_owned() };
    let mut found = look(&disk).map_err(io::Error::other)?;
    if found.identity.is_none() && found.cells.segments.is_empty() {
        let what = format!("{} is no data folder of a Chord server", folder.display());
        return Err(io::Error::other(what));
    }
    if verify {
        found.remarks.extend(unreadable(&disk, &found));
    }
    let damaged = found.remarks.iter().any(|remark| remark.contains("damaged"));
    let mut hints: BTreeMap<ServerId, u64> = BTreeMap::new();
    for held in found.hints.keydir.iter() {
        // A hint's key: 0, its target in two bytes, then the place.
        if let [0, high, low, ..] = *held.key() {
            *hints.entry(ServerId(u16::from_be_bytes([high, low]))).or_insert(0) += 1;
        }
    }
    if as_json {
        in_json(&disk, &found, &hints, limit)?;
    } else {
        in_text(&disk, &found, &hints, limit)?;
    }
    Ok(u8::from(damaged))
}

/// What cannot be read of all that the newest records should hold.
fn unreadable(disk: &ReadOnly, found: &Look) -> Vec<String> {
    let (mut remarks, mut more) = (Vec::new(), 0);
    for held in found.cells.keydir.iter() {
        let Err(error) = value(disk, held) else { continue };
        if remarks.len() == TOLD {
            more += 1;
            continue;
        }
        let (key, place) = (text(held.key()), held.place());
        remarks.push(format!(
            "damaged: the record of {key}, at byte {} of segment {}: {error}",
            place.offset, place.segment
        ));
    }
    if more > 0 {
        remarks.push(format!("damaged: {more} more records"));
    }
    remarks
}

/// A cell's value, as far as it can be read.
fn value(disk: &ReadOnly, held: Held<'_>) -> Result<Content, String> {
    look_at(disk, Log::Cells, held.place()).map_err(|error| error.to_string())
}

fn in_text(
    disk: &ReadOnly,
    found: &Look,
    hints: &BTreeMap<ServerId, u64>,
    limit: u64,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match &found.identity {
        Some(identity) => writeln!(
            out,
            "server {} of cluster '{}', incarnation {}, {}",
            identity.server,
            identity.cluster,
            identity.incarnation,
            if identity.voting { "votes" } else { "does not vote" }
        )?,
        None => writeln!(out, "no identity")?,
    }
    for (name, log) in [("cells", &found.cells), ("hints", &found.hints)] {
        let bytes: u64 = log.segments.iter().map(|(_, length)| u64::from(*length)).sum();
        writeln!(
            out,
            "{name}: {} newest records, {} segments with {bytes} bytes, log position {}",
            log.keydir.len(),
            log.segments.len(),
            log.position
        )?;
    }
    for (target, count) in hints {
        writeln!(out, "{count} hints for server {target}")?;
    }
    for held in found.cells.keydir.iter().take(limit as usize) {
        let shown = match value(disk, held) {
            Ok(Content::Tombstone) => "(deleted)".to_owned(),
            Ok(Content::Value(value)) => text(&value),
            Err(error) => format!("UNREADABLE: {error}"),
        };
        let (key, version) = (text(held.key()), held.version());
        writeln!(out, "{key} = {shown}  ({}, version {version})", time(version.time))?;
    }
    if found.cells.keydir.len() as u64 > limit {
        writeln!(out, "… {} keys in all", found.cells.keydir.len())?;
    }
    for remark in &found.remarks {
        writeln!(out, "NOTE {remark}")?;
    }
    out.flush()
}

fn in_json(
    disk: &ReadOnly,
    found: &Look,
    hints: &BTreeMap<ServerId, u64>,
    limit: u64,
) -> io::Result<()> {
    let identity = found.identity.as_ref().map(|identity| {
        json!({"server": identity.server.0, "cluster": identity.cluster,
               "incarnation": identity.incarnation.0, "voting": identity.voting,
               "forgetful": identity.forgetful, "ceiling": identity.ceiling})
    });
    let keys: Vec<_> = found
        .cells
        .keydir
        .iter()
        .take(limit as usize)
        .map(|held| {
            let version = held.version();
            let (shown, error) = match value(disk, held) {
                Ok(content) => (content.value().map(|value| json_text(value)), None),
                Err(error) => (None, Some(error)),
            };
            json!({"key": json_text(held.key()), "value": shown, "deleted": held.is_tombstone(),
                   "time": version.time, "cell_version": version.to_string(), "error": error})
        })
        .collect();
    let hints: BTreeMap<_, _> =
        hints.iter().map(|(id, count)| (id.0.to_string(), *count)).collect();
    let report = json!({
        "version": 1, "identity": identity, "keys": keys, "keys_total": found.cells.keydir.len(),
        "position": found.cells.position, "segments": found.cells.segments, "hints": hints,
        "remarks": found.remarks,
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{report}")
}
