//! Memory, and statistics over samples.

use std::fs;
use std::time::Duration;

/// Proportional set size of a process, in bytes: a page that two share counts half in each.
pub(crate) fn pss(pid: u32) -> u64 {
    kibibytes(pid, "smaps_rollup", "Pss:")
}

/// The most memory that a process ever had resident since it was executed, in bytes.
pub(crate) fn peak_rss(pid: u32) -> u64 {
    kibibytes(pid, "status", "VmHWM:")
}

fn kibibytes(pid: u32, file: &str, name: &str) -> u64 {
    // A process that has just ended has no such file.
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    value.unwrap_or(0) * 1024
}

/// How many processes wanted a core just now, a few looks apart.
pub(crate) fn load() -> f64 {
    const LOOKS: u32 = 20;
    let mut running = 0;
    for _ in 0..LOOKS {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix("procs_running "));
        // This process is one of them.
        running += line.and_then(|n| n.parse::<u32>().ok()).unwrap_or(1) - 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    f64::from(running) / f64::from(LOOKS)
}

/// The arguments that a process was started with.
pub(crate) fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

/// Nanoseconds on the clock that all processes of this machine share and nobody sets.
pub(crate) fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_nanos() as u64
}

/// The smallest sample that at least so many percent of all do not exceed.
pub(crate) fn percentile(samples: &[f64], percent: f64) -> f64 {
    assert!(!samples.is_empty(), "no samples");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The middle of some samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50.0)
}
