//! What is known of the gateway's process: what init says, and what its probe answers.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::probe::{Answer, Probe};
use crate::channel::Link;
use crate::config::Settings;
use crate::status::Shared;
use sessionkeep_core::control::{Lifecycle, ToInit};
use sessionkeep_core::human::Timestamp;

/// Takes in what init says of the gateway; another process is another probe.
pub(super) fn note_lifecycle(
    settings: &Settings,
    shared: &Shared,
    probe: &mut Option<Probe>,
    state: Lifecycle,
    gateway_pid: Option<i32>,
    restarts: u32,
) {
    let mut another = false;
    shared.update(|status| {
        another = status.gateway_pid != gateway_pid;
        (status.state, status.gateway_pid, status.gateway_restarts) =
            (state, gateway_pid, restarts);
        if another {
            status.gateway_started_ms = gateway_pid.map(started_ms);
        }
    });
    if another {
        *probe = match (&settings.gateway.probe, gateway_pid) {
            (Some(url), Some(_)) => Some(Probe::start(url.clone())),
            _ => None,
        };
        shared.update(|status| status.gateway_answers = probe.as_ref().map(|_| false));
    }
}

/// The probe's next answer; never one without a probe.
pub(super) async fn next_answer(probe: &mut Option<Probe>) -> Answer {
    if let Some(probe) = probe
        && let Some(answer) = probe.next().await
    {
        return answer;
    }
    std::future::pending().await
}

/// Takes in an answer of the probe; init is told of the first.
pub(super) async fn note_answer(answer: Answer, shared: &Shared, link: &mut Link) {
    shared.meters().probed(answer.up);
    shared.update(|status| status.gateway_answers = Some(answer.up));
    if answer.first {
        link.send(ToInit::GatewayReady).await;
    }
}

/// When a process was started, in milliseconds since 1970; now, where that cannot be read. A watcher
/// that was itself started anew finds a gateway that has been up for long.
fn started_ms(pid: i32) -> u64 {
    let now = Timestamp::now().0;
    let age = age(pid).unwrap_or_default();
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// How long a process has been there: field 22 of `/proc/PID/stat`, in ticks since the machine's start.
fn age(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let started = Duration::from_millis(ticks.saturating_mul(1000) / per_second.max(1));
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    Some(now.saturating_sub(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_old_as_it_is() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("start");
        let own = i32::try_from(child.id()).expect("a process id");
        let young = age(own).expect("it is there");
        let old = age(1).expect("there is always one");
        let _ = child.kill();
        let _ = child.wait();
        assert!(young < Duration::from_secs(60), "{young:?}");
        assert!(old > young, "{old:?}");
        assert_eq!(age(own), None);
    }
}
