//! Import and export with real programs: any bytes, failures kept, unfinished exports resumed.

use std::fs;

use crate::process::{Cluster, Shape, text};

fn hashed() -> Cluster {
    Cluster::shaped(Shape { partitioner: "hashed", ..Shape::of(4, 3) })
}

/// Out of one cluster and into another, in both formats, ordered and hashed: the same records.
#[test]
fn records_come_back_as_they_went() {
    for format in ["jsonl", "tsv"] {
        let (from, to) = (Cluster::demo(), hashed());
        let file = from.folder.path().join(format!("all.{format}"));
        let path = file.to_str().unwrap();
        let mut input: String = (0..3_000).map(|i| format!("put k{i} 'value {i}'\n")).collect();
        input +=
            "put \"a\\tb\\n\" \"\\xff\\x00\\\\\"\nput caf\u{e9} \"\"\nput gone 1\ndelete gone\n";
        assert!(from.client_with(&["--quiet"], &input).status.success());
        let export = from.client(&["export", "--output", path]);
        assert!(export.status.success(), "{export:?}");
        assert!(text(&export.stderr).contains("3002 records"), "{export:?}");
        let lines = fs::read(&file).unwrap();
        let import = to.client(&["import", path]);
        assert!(import.status.success(), "{import:?}");
        assert!(
            text(&import.stderr).contains("3002 stored, 0 unknown, 0 not stored"),
            "{import:?}"
        );
        // Through a pipe, out of the hashed cluster: the same records in another order.
        let piped = to.client(&["export", "--format", format]);
        let sorted = |bytes: &[u8]| {
            let mut lines: Vec<Vec<u8>> =
                bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&piped.stdout), sorted(&lines), "{format}");
        assert_eq!(to.client(&["--raw", "get", "k7"]).stdout, b"value 7");
    }
}

/// What cannot be stored is shown with its line, counted, and kept for another try.
#[test]
fn failures_are_counted_shown_and_kept() {
    let mut cluster = Cluster::demo();
    let rejected = cluster.folder.path().join("rejected.tsv");
    let path = rejected.to_str().unwrap();
    // "0" is kept by 0, 1, 2; "137" by 2, 3, 0.
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    cluster.wait_alive(1, &[0, 1]);
    let input = "0\tzero\n137\tv\nno tab\n\n\tempty key\n";
    let args = ["import", "-", "--format", "tsv", "--rejected", path];
    let import = cluster.client_with(&args, input);
    let said = text(&import.stderr);
    assert_eq!(import.status.code(), Some(2), "the first failure counts: {said}");
    assert!(said.contains("4 records: 1 stored, 0 unknown, 3 not stored"), "{said}");
    for expected in ["line 2: NOT STORED 137", "line 3: no tab", "line 5: NOT STORED"] {
        assert!(said.contains(expected), "{said}");
    }
    let mut kept: Vec<String> =
        fs::read_to_string(&rejected).unwrap().lines().map(str::to_owned).collect();
    kept.sort();
    assert_eq!(kept, ["\tempty key", "137\tv", "no tab"]);
    cluster.restart(2);
    cluster.wait_alive(0, &[0, 1, 2]);
    let again = cluster.client(&["import", path]);
    assert!(text(&again.stderr).contains("3 records: 1 stored"), "{again:?}");
    assert_eq!(cluster.client(&["--raw", "get", "137"]).stdout, b"v");
}

/// A server dies in the middle: under tickets every record is stored all the same.
#[test]
fn an_import_goes_on_when_a_server_dies() {
    let mut cluster = hashed();
    let file = cluster.folder.path().join("in.tsv");
    let input: String = (0..60_000).map(|i| format!("key{i:05}\tvalue{i}\n")).collect();
    fs::write(&file, &input).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chord-client"));
    command.args(["--server", &cluster.addresses(), "--timeout", "20", "import"]).arg(&file);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    crate::process::wait_until("it is well under way", || {
        let keys = cluster.status(1).keys;
        if keys > 5_000 { Ok(()) } else { Err(keys.to_string()) }
    });
    cluster.kill(0);
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("60000 stored, 0 unknown, 0 not stored"), "{said}");
    cluster.restart(0);
    let export = cluster.client(&["export", "--format", "tsv"]);
    let mut lines: Vec<String> = text(&export.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.join("\n") + "\n", input);
}

/// An export that was cut off goes on behind its last whole line.
#[test]
fn an_unfinished_export_is_resumed() {
    for cluster in [Cluster::demo(), hashed()] {
        let input: String = (0..2_000).map(|i| format!("put key{i:04} value{i}\n")).collect();
        assert!(cluster.client_with(&["--quiet"], &input).status.success());
        let whole = cluster.client(&["export"]).stdout;
        let file = cluster.folder.path().join("out.jsonl");
        let path = file.to_str().unwrap();
        for cut in [0, 10, whole.len() / 3, whole.len() - 1, whole.len()] {
            fs::write(&file, &whole[..cut]).unwrap();
            let resumed = cluster.client(&["export", "--output", path, "--resume"]);
            assert!(resumed.status.success(), "{resumed:?}");
            assert!(fs::read(&file).unwrap() == whole, "cut at {cut}");
        }
        fs::write(&file, "no record\n").unwrap();
        let refused = cluster.client(&["export", "--output", path, "--resume"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("not a record"), "{refused:?}");
        assert_eq!(fs::read(&file).unwrap(), b"no record\n", "it was left alone");
    }
    let range = Cluster::demo();
    range.client_with(&["--quiet"], "put a 1\nput b 2\nput c 3\n");
    let part = range.client(&["export", "--from", "b", "--to", "c", "--format", "tsv"]);
    assert_eq!(text(&part.stdout), "b\t2\n");
}
