//! What processes cost: time on the processors, memory.

use std::fs;
use std::time::Duration;

/// The kernel's unit of processor time in /proc: a hundredth of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Processor time that these processes have taken so far, user and system; one that is gone counts as nothing.
pub fn cpu_of(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu(&pid.to_string())).sum()
}

/// The same of this process.
pub fn own_cpu() -> Duration {
    cpu("self")
}

fn cpu(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name stands in parentheses and may hold anything; user and system time are the 12th and 13th field after it.
    let Some((_, rest)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks = |field| rest.split_whitespace().nth(field)?.parse::<u32>().ok();
    TICK * ticks(11).unwrap_or(0) + TICK * ticks(12).unwrap_or(0)
}

/// Time that all processors of this machine have been at work, whoever they worked for.
pub fn machine_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|text| text.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = |index: usize| ticks.get(index).copied().unwrap_or(0);
    let ticks = [0, 1, 2, 5, 6, 7].into_iter().map(busy).sum::<u64>();
    Duration::from_millis(ticks.saturating_mul(10))
}

/// Bytes of memory that a process has resident.
pub fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen() {
        let before = (own_cpu(), machine_cpu());
        let mut sum = 0u64;
        while own_cpu() < before.0 + TICK * 5 {
            (0..1_000_000u64).for_each(|i| sum = std::hint::black_box(sum ^ i));
        }
        assert!(machine_cpu() > before.1);
        assert!(memory_of(std::process::id()) > 1 << 20);
        assert_eq!(cpu_of(&[u32::MAX]), Duration::ZERO);
    }
}
