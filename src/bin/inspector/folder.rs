//! A data folder at rest: shown without ever writing to it, not even its lock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use chord::client::show::{json_text, text, time};
use chord::model::{Content, Key, ServerId};
use chord::storage::{Disk, Log, Look, RecoveredCell, look, look_at};
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

/// Shows a folder. 0: it is sound, or torn as a crash leaves it; 1: damaged.
pub(crate) fn show(folder: &Path, as_json: bool, limit: u64) -> io::Result<u8> {
    let disk = ReadOnly { folder: folder.to_owned() };
    let found = look(&disk).map_err(io::Error::other)?;
    if found.identity.is_none() && found.cells.segments.is_empty() {
        let what = format!("{} is no data folder of a Chord server", folder.display());
        return Err(io::Error::other(what));
    }
    let damaged = found.remarks.iter().any(|remark| remark.contains("damaged"));
    let mut hints: BTreeMap<ServerId, u64> = BTreeMap::new();
    for RecoveredCell { key, .. } in &found.hints.cells {
        // A hint's key: 0, its target in two bytes, then the place.
        if let [0, high, low, ..] = *key.as_bytes() {
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

/// A cell's value, as far as it can be read.
fn value(disk: &ReadOnly, cell: &RecoveredCell) -> Result<Content, String> {
    look_at(disk, Log::Cells, cell.place).map_err(|error| error.to_string())
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
            log.cells.len(),
            log.segments.len(),
            log.position
        )?;
    }
    for (target, count) in hints {
        writeln!(out, "{count} hints for server {target}")?;
    }
    for cell in found.cells.cells.iter().take(limit as usize) {
        let shown = match value(disk, cell) {
            Ok(Content::Tombstone) => "(deleted)".to_owned(),
            Ok(Content::Value(value)) => text(&value),
            Err(error) => format!("UNREADABLE: {error}"),
        };
        let (key, when) = (text(cell.key.as_bytes()), time(cell.version.time));
        writeln!(out, "{key} = {shown}  ({when}, version {})", cell.version)?;
    }
    if found.cells.cells.len() as u64 > limit {
        writeln!(out, "… {} keys in all", found.cells.cells.len())?;
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
    let key = |key: &Key| json_text(key.as_bytes());
    let keys: Vec<_> = found
        .cells
        .cells
        .iter()
        .take(limit as usize)
        .map(|cell| {
            let (shown, error) = match value(disk, cell) {
                Ok(content) => (content.value().map(|value| json_text(value)), None),
                Err(error) => (None, Some(error)),
            };
            json!({"key": key(&cell.key), "value": shown, "deleted": cell.tombstone,
                   "time": cell.version.time, "cell_version": cell.version.to_string(),
                   "error": error})
        })
        .collect();
    let hints: BTreeMap<_, _> =
        hints.iter().map(|(id, count)| (id.0.to_string(), *count)).collect();
    let report = json!({
        "version": 1, "identity": identity, "keys": keys, "keys_total": found.cells.cells.len(),
        "position": found.cells.position, "segments": found.cells.segments, "hints": hints,
        "remarks": found.remarks,
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{report}")
}
