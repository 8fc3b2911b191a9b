//! What the machine permits, and the tools that are used on it.
//!
//! Hosts, mounts and processes are made in namespaces of the run's own, so that nothing of it is seen outside and nothing
//! is left behind, however the run ends.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// Set in the process that runs within namespaces of its own.
const INSIDE: &str = "CHORD_TORTURE_INSIDE";

/// Where Debian's package puts it.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// What can be done here.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// A host for each server, with cuts between them.
    pub(super) hosts: bool,
    /// File systems of the run's own, in memory.
    pub(super) tmpfs: bool,
    /// File systems of the run's own whose power can be cut.
    pub(super) ext4: bool,
    /// Connections can be reset.
    pub(super) reset: bool,
    /// System calls of a running server can be made to fail.
    pub(super) strace: bool,
    /// The library that gives a program another wall clock.
    pub(super) faketime: Option<PathBuf>,
}

/// Runs a tool to its end; what it printed, or what it complained of.
pub(super) fn tool(program: &str, args: &[&str]) -> Result<String, String> {
    tool_with(program, args, "")
}

/// The same, with this input.
pub(super) fn tool_with(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let said = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", said()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says so by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{}: {error}", said()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{}: {}", said(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs this very program again within namespaces of its own, to its end; `None`: this is it, or the machine does not
/// permit any.
pub fn run_inside() -> Option<ExitStatus> {
    run_inside_as(std::env::args_os().skip(1))
}

/// The same with other arguments.
pub fn run_inside_with(args: &[&str]) -> Option<ExitStatus> {
    run_inside_as(args.iter().map(OsString::from))
}

fn run_inside_as(args: impl Iterator<Item = OsString>) -> Option<ExitStatus> {
    if is_inside() {
        // Its network is its own, too: without this there is not even loopback.
        let _ = tool("ip", &["link", "set", "lo", "up"]);
        return None;
    }
    const FLAGS: [&str; 7] =
        ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    tool("unshare", &[&FLAGS[..], &["true"]].concat()).ok()?;
    let own = std::env::current_exe().ok()?;
    Command::new("unshare").args(FLAGS).arg(own).args(args).env(INSIDE, "1").status().ok()
}

/// Whether this process runs within namespaces of its own.
pub(super) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

impl Machine {
    /// Tries what there is.
    pub(super) fn explore() -> Machine {
        let mut machine = Machine {
            strace: tool("strace", &["-V"]).is_ok(),
            faketime: FAKETIME.iter().map(PathBuf::from).find(|path| path.exists()),
            ..Machine::default()
        };
        if !is_inside() {
            return machine;
        }
        // Names of hosts, and whatever else is put there, in a place of the run's own.
        machine.tmpfs = tool("mount", &["-t", "tmpfs", "tmpfs", "/run"]).is_ok();
        let hosts = machine.tmpfs
            && tool("ip", &["link", "set", "lo", "up"]).is_ok()
            && tool("ip", &["link", "add", "try0", "type", "bridge"]).is_ok()
            && tool("nft", &["add", "table", "bridge", "try0"]).is_ok();
        let _ = tool("ip", &["link", "del", "try0"]);
        let _ = tool("nft", &["delete", "table", "bridge", "try0"]);
        machine.hosts = hosts;
        machine.reset = hosts && tool("ss", &["-V"]).is_ok();
        machine.ext4 = machine.tmpfs && tries_ext4().is_ok();
        machine
    }
}

/// Makes, mounts and shuts down a file system.
fn tries_ext4() -> Result<(), String> {
    let top = tempfile_in_run()?;
    let mut disk = super::disk::Disk::create(&top, super::disk::Medium::Ext4, super::disk::SIZE)?;
    disk.cut_power()
}

fn tempfile_in_run() -> Result<PathBuf, String> {
    let top = PathBuf::from("/run/try");
    std::fs::create_dir_all(&top).map_err(|error| error.to_string())?;
    Ok(top)
}
