//! Looks from time to time at what no event tells: how long changes have been waiting, room on the
//! disk, whether the gateway starts over and over.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::status::incidents::IncidentKind;
use crate::status::{Disk, Shared, Status};
use sessionkeep_core::control::Lifecycle;
use sessionkeep_core::human::{Bytes, Took};

/// How often that is.
const EVERY: Duration = Duration::from_secs(2);
/// How often the disk is looked at.
const DISK_EVERY: Duration = Duration::from_secs(10);
/// So many starts anew in this span are a loop.
const RESTARTS: u32 = 3;
const RESTARTS_WITHIN: Duration = Duration::from_secs(300);
/// A gateway that has been up for so long is not in a loop any more.
const STEADY: Duration = Duration::from_secs(60);

pub(crate) async fn observe(settings: Settings, shared: Shared) {
    let mut disk_due = Instant::now();
    let mut restarts = Restarts::default();
    let mut news = shared.ledger().subscribe();
    loop {
        shared.sample();
        let now = Instant::now();
        if now >= disk_due {
            disk_due = now + DISK_EVERY;
            let dir = settings.dir.clone();
            // A file system over a network may take its time.
            if let Ok(Some(disk)) = tokio::task::spawn_blocking(move || room(&dir)).await {
                shared.update(|status| status.disk = Some(disk));
                watch_disk(&shared, disk);
            }
        }
        let status = shared.read();
        watch_lag(&shared, &status, settings.alarm.lag);
        watch_unsaved(&shared, &status, settings.alarm.lag);
        restarts.watch(&shared, &status, now);
        if shared.ledger().is_unsaved() {
            let ledger = shared.clone();
            // Durable writes wait for the disk.
            let _ = tokio::task::spawn_blocking(move || ledger.ledger().save()).await;
        }
        let _ = tokio::time::timeout(EVERY, news.changed()).await;
    }
}

fn room(dir: &Path) -> Option<Disk> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let of = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Some(Disk {
        free_bytes: of(stat.blocks_available()),
        total_bytes: of(stat.blocks()),
    })
}

fn watch_disk(shared: &Shared, disk: Disk) {
    if disk.is_low() {
        // What is free by now stands beside it; what is said here has to stay true.
        let detail = format!(
            "less than {} of {} are free",
            Bytes(disk.needed()),
            Bytes(disk.total_bytes)
        );
        shared.incident(IncidentKind::DiskFull, "", &detail);
    } else if disk.is_ample() {
        shared.over(IncidentKind::DiskFull, "");
    }
}

fn watch_lag(shared: &Shared, status: &Status, limit: Duration) {
    let lag = Duration::try_from_secs_f64(status.lag_seconds).unwrap_or_default();
    if lag > limit {
        let mut detail = format!("changes have been waiting for more than {}", Took(limit));
        // Where the store is the cause, that is an incident of its own, with the store's words.
        if !status.problem.is_empty() && status.store_reachable {
            detail = format!("{detail}; {}", status.problem);
        }
        shared.incident(IncidentKind::Lagging, "", &detail);
    } else {
        shared.over(IncidentKind::Lagging, "");
    }
}

fn watch_unsaved(shared: &Shared, status: &Status, limit: Duration) {
    match status.unsaved_words() {
        None => shared.over(IncidentKind::NotSaved, ""),
        Some(words) if status.unsaved_for() > limit => {
            shared.incident(IncidentKind::NotSaved, "", &words);
        }
        Some(_) => {}
    }
}

/// How often the gateway was started again, and when.
#[derive(Debug, Default)]
struct Restarts {
    seen: Option<u32>,
    /// When it was, at most [`RESTARTS`] of them.
    times: Vec<Instant>,
    up_since: Option<Instant>,
}

impl Restarts {
    fn watch(&mut self, shared: &Shared, status: &Status, now: Instant) {
        let before = self.seen.replace(status.gateway_restarts);
        // A watcher that was started anew finds a number and knows no times.
        let fresh = status
            .gateway_restarts
            .saturating_sub(before.unwrap_or(status.gateway_restarts));
        self.times.extend((0..fresh.min(RESTARTS)).map(|_| now));
        self.times
            .retain(|at| now.duration_since(*at) <= RESTARTS_WITHIN);
        if fresh > 0 || status.state != Lifecycle::Running {
            self.up_since = None;
        } else {
            self.up_since.get_or_insert(now);
        }
        if self.times.len() >= RESTARTS as usize {
            let detail = format!(
                "it was started again {} times; the last {RESTARTS} within {}",
                status.gateway_restarts,
                Took(RESTARTS_WITHIN)
            );
            shared.incident(IncidentKind::GatewayRestarting, "", &detail);
        }
        if self
            .up_since
            .is_some_and(|since| now.duration_since(since) >= STEADY)
        {
            self.times.clear();
            shared.over(IncidentKind::GatewayRestarting, "");
        }
    }
}
