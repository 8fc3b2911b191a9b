//! Python's Thrift library as a foreign client, in all four of framed and unframed, binary and compact; and a client of
//! the original program's interface.
//!
//! Installs what it needs into the target folder; what cannot be had is named, and the test is skipped.

#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]
#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::path::{Path, PathBuf};
use std::process::Command;

#[allow(dead_code, reason = "this test needs a part of it")]
#[path = "../cluster/process.rs"]
mod process;

use process::{Cluster, project, text};

/// The release that the test was written against.
const THRIFT: &str = "thrift==0.25.0";

/// Runs a command; its output if it failed, or could not be run.
fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}{}", text(&output.stdout), text(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// A Python with the Thrift library, kept from run to run.
fn python(folder: &Path) -> Result<PathBuf, String> {
    let python = folder.join("venv/bin/python");
    if run(Command::new(&python).args(["-c", "import thrift"])).is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")))?;
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", THRIFT];
        run(Command::new(&python).args(install))?;
    }
    Ok(python)
}

fn generate(folder: &Path) -> Result<(), String> {
    for file in ["chord.thrift", "tests/foreign/original.thrift"] {
        let mut command = Command::new("thrift");
        run(command.args(["--gen", "py", "-out"]).arg(folder).arg(project().join(file)))?;
    }
    Ok(())
}

#[test]
fn pythons_thrift_library_is_served_in_all_four_formats() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
    std::fs::create_dir_all(&folder).unwrap();
    let python = match python(&folder).and_then(|python| generate(&folder).map(|()| python)) {
        Ok(python) => python,
        Err(missing) => {
            eprintln!(
                "SKIPPED: Python's thrift library or the Thrift compiler is missing: {missing}"
            );
            return;
        }
    };
    let mut cluster = Cluster::demo();
    let client = |mode: &str, address: &str| {
        let mut command = Command::new(&python);
        command.arg(project().join("tests/foreign/client.py")).arg(&folder).args([mode, address]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let output = command.output().unwrap();
        print!("{}", text(&output.stdout));
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    };
    client("all", &cluster.address(0));
    // "137" is kept by 2, 3 and 0.
    cluster.wait_equal();
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    client("outage", &cluster.address(0));
}

/// `gen/` is what the compiler makes of `chord.thrift`, where there is a compiler.
#[test]
fn the_generated_code_is_current() {
    let output = Command::new(project().join("gen/regenerate.sh")).arg("--check").output().unwrap();
    match output.status.code() {
        Some(0) => {}
        Some(2) => eprintln!("SKIPPED: {}", text(&output.stderr)),
        _ => panic!("{}{}", text(&output.stdout), text(&output.stderr)),
    }
}
