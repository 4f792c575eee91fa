//! Whether all is well: each part by itself, and what they come to.

use serde::Serialize;

use sessionkeep_core::control::Lifecycle;
use sessionkeep_core::human::{Bytes, Took};
use std::time::Duration;

use super::{Lease, Status};

/// How one part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Well.
    Ok,
    /// Not well yet, or not of its own doing.
    Waiting,
    /// Not well, and it does not make the whole unhealthy.
    Warn,
    /// Not well.
    Fail,
    /// There is no such part here.
    Off,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// How it stands.
    pub status: CheckState,
    /// In words.
    pub detail: String,
}

impl Check {
    fn new(status: CheckState, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, detail }
    }
}

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthVerdict {
    /// All is well.
    Ok,
    /// The gateway is on its way.
    Starting,
    /// Another instance is at work, and this one waits.
    Standby,
    /// Something is wrong: what.
    Unhealthy(String),
}

impl HealthVerdict {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Unhealthy(_) => "unhealthy",
        }
    }

    /// Why it is not well; empty where it is.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Unhealthy(reason) => reason,
            _ => "",
        }
    }
}

/// Every part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// Where the archive is kept.
    pub store: Check,
    /// Who may write there.
    pub lease: Check,
    /// The gateway.
    pub gateway: Check,
    /// How far saving is behind.
    pub lag: Check,
    /// Room for the session directory.
    pub disk: Check,
    #[serde(skip)]
    verdict: HealthVerdict,
}

impl Checks {
    /// Of a status.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        Self {
            store: store(status),
            lease: lease(status),
            gateway: gateway(status),
            lag: lag(status),
            disk: disk(status),
            verdict: verdict(status),
        }
    }

    /// What they come to.
    #[must_use]
    pub fn verdict(&self) -> &HealthVerdict {
        &self.verdict
    }

    /// Whether the gateway can be used: up, and not on its way out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.verdict == HealthVerdict::Ok && self.gateway.status == CheckState::Ok
    }
}

fn store(status: &Status) -> Check {
    if status.is_file_mode() {
        return Check::new(CheckState::Off, "file mode: the directory is the storage");
    }
    if status.store_reachable || status.restore.is_some() {
        return Check::new(CheckState::Ok, "it answers");
    }
    match (status.state, status.problem.as_str()) {
        (Lifecycle::Preflight | Lifecycle::Restoring | Lifecycle::Standby, "") => {
            Check::new(CheckState::Waiting, "it is being asked")
        }
        (_, "") => Check::new(CheckState::Waiting, "nothing was saved yet"),
        (_, problem) => Check::new(CheckState::Fail, problem),
    }
}

fn lease(status: &Status) -> Check {
    match status.lease {
        Lease::None if status.is_file_mode() => Check::new(CheckState::Off, "file mode"),
        Lease::None => Check::new(CheckState::Waiting, "not taken yet"),
        Lease::Held => Check::new(CheckState::Ok, "this instance owns the session"),
        Lease::Waiting => Check::new(CheckState::Waiting, "another instance owns the session"),
        Lease::Lost => Check::new(
            CheckState::Fail,
            "this instance does not own the session any more",
        ),
    }
}

fn gateway(status: &Status) -> Check {
    match (status.state, status.gateway_answers) {
        (Lifecycle::Running, Some(false)) => Check::new(CheckState::Fail, "it does not answer"),
        (Lifecycle::Running, _) => Check::new(CheckState::Ok, "it is up"),
        (Lifecycle::Starting, _) => Check::new(CheckState::Waiting, "it is starting"),
        (Lifecycle::Backoff, _) => Check::new(
            CheckState::Waiting,
            "it ended by itself and is started again after a pause",
        ),
        (Lifecycle::Stopping, _) => Check::new(CheckState::Waiting, "it is being stopped"),
        (Lifecycle::Flushing | Lifecycle::Exited, _) => Check::new(CheckState::Off, "it has ended"),
        (Lifecycle::Fenced, _) => Check::new(CheckState::Fail, "it is being ended"),
        (Lifecycle::Preflight | Lifecycle::Restoring | Lifecycle::Standby, _) => {
            Check::new(CheckState::Off, "it is not started yet")
        }
    }
}

fn lag(status: &Status) -> Check {
    let waiting = Duration::try_from_secs_f64(status.lag_seconds).unwrap_or_default();
    if status.is_file_mode() {
        Check::new(CheckState::Off, "file mode")
    } else if waiting.is_zero() {
        match status.unsaved_words() {
            Some(words) => Check::new(CheckState::Warn, words),
            None => Check::new(CheckState::Ok, "everything is saved"),
        }
    } else {
        let words = format!("changes have been waiting for {}", Took(waiting));
        let state = match waiting > status.lag_limit {
            true => CheckState::Fail,
            false => CheckState::Ok,
        };
        Check::new(state, words)
    }
}

fn disk(status: &Status) -> Check {
    match status.disk {
        None => Check::new(CheckState::Waiting, "not looked at yet"),
        Some(disk) => {
            let state = match disk.is_low() {
                true => CheckState::Warn,
                false => CheckState::Ok,
            };
            Check::new(state, format!("{} are free", Bytes(disk.free_bytes)))
        }
    }
}

fn verdict(status: &Status) -> HealthVerdict {
    match status.state {
        Lifecycle::Fenced => {
            return HealthVerdict::Unhealthy(
                "this instance does not own the session any more".into(),
            );
        }
        Lifecycle::Standby => return HealthVerdict::Standby,
        Lifecycle::Preflight | Lifecycle::Restoring => return HealthVerdict::Starting,
        _ => {}
    }
    if status.lag_seconds > status.lag_limit.as_secs_f64() {
        return HealthVerdict::Unhealthy(format!(
            "changes have been waiting to be saved for {:.0} s; {}",
            status.lag_seconds, status.problem
        ));
    }
    match (status.state, status.gateway_answers) {
        (Lifecycle::Running, Some(false)) => {
            HealthVerdict::Unhealthy("the gateway does not answer".into())
        }
        (Lifecycle::Starting, _) => HealthVerdict::Starting,
        _ => HealthVerdict::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::shared;

    fn of(change: impl FnOnce(&mut Status)) -> Checks {
        let mut status = shared().read();
        change(&mut status);
        Checks::of(&status)
    }

    #[test]
    fn every_state_of_the_lifecycle_has_its_word() {
        for (state, word, ready) in [
            (Lifecycle::Preflight, "starting", false),
            (Lifecycle::Restoring, "starting", false),
            (Lifecycle::Starting, "starting", false),
            (Lifecycle::Running, "ok", true),
            (Lifecycle::Stopping, "ok", false),
            (Lifecycle::Flushing, "ok", false),
            (Lifecycle::Backoff, "ok", false),
            (Lifecycle::Standby, "standby", false),
            (Lifecycle::Fenced, "unhealthy", false),
            (Lifecycle::Exited, "ok", false),
        ] {
            let checks = of(|status| status.state = state);
            assert_eq!(checks.verdict().word(), word, "{state:?}");
            assert_eq!(checks.is_ready(), ready, "{state:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_its_check_and_in_the_reason() {
        let lagging = of(|status| {
            (status.lag_seconds, status.problem) = (61.0, "no route".into());
        });
        assert_eq!(lagging.lag.status, CheckState::Fail);
        assert_eq!(lagging.store.detail, "no route");
        assert!(lagging.verdict().reason().contains("61 s; no route"));
        let silent = of(|status| status.gateway_answers = Some(false));
        assert_eq!(silent.gateway.status, CheckState::Fail);
        assert_eq!(silent.verdict().word(), "unhealthy");
        let lost = of(|status| status.lease = Lease::Lost);
        assert_eq!(lost.lease.status, CheckState::Fail);
        let full = of(|status| {
            status.disk = Some(super::super::Disk {
                free_bytes: 1 << 20,
                total_bytes: 1 << 40,
            });
        });
        assert_eq!(
            (full.disk.status, full.verdict().word()),
            (CheckState::Warn, "ok")
        );
        let waits = of(|status| status.lag_seconds = 5.0);
        assert_eq!(
            (waits.lag.status, waits.verdict().word()),
            (CheckState::Ok, "ok")
        );
    }

    #[test]
    fn in_file_mode_there_is_no_store_to_be_unwell() {
        let checks = of(|status| status.store = "none".into());
        for check in [&checks.store, &checks.lag] {
            assert_eq!(check.status, CheckState::Off);
        }
        assert!(checks.is_ready());
    }
}
