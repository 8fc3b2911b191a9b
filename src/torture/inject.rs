//! System calls of a running process that fail, or take their time: by strace.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::machine::tool;
use super::{pause, wait_until};

/// strace takes a moment to take hold of a process; where it may not, it ends at once.
const TAKES_HOLD: Duration = Duration::from_millis(200);

/// How long it may take to let go.
const LETS_GO: Duration = Duration::from_secs(5);

/// Goes on until it is dropped.
#[derive(Debug)]
pub struct Injection {
    strace: Child,
}

impl Injection {
    /// Into every sync of the process: `how` as strace has it, like `error=EIO` or `delay_enter=150000` (microseconds).
    ///
    /// # Errors
    /// There is no strace, or it may not.
    pub fn into_syncs(pid: u32, how: &str) -> Result<Injection, String> {
        let mut strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"])
            .args(["-e", &format!("inject=fdatasync,fsync:{how}"), "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        pause(TAKES_HOLD);
        match strace.try_wait() {
            // The process may have ended of a sync that failed; then strace has nothing to do any more.
            Ok(Some(status)) if !status.success() && is_running(pid) => {
                Err(format!("strace ended with {status}"))
            }
            _ => Ok(Injection { strace }),
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Told to end, it lets go of the process; killed, it might not.
        let _ = tool("kill", &["-INT", &self.strace.id().to_string()]);
        if !wait_until(LETS_GO, || matches!(self.strace.try_wait(), Ok(Some(_)))) {
            let _ = self.strace.kill();
        }
        let _ = self.strace.wait();
    }
}

fn is_running(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
