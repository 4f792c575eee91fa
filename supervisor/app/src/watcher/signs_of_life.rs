//! The signs of life that init gets. They come from a task of their own, so that they show that the
//! event loop runs and not whether a commit is done, and with the lease's renewals, so that an idle
//! watcher is not woken for them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::channel::Speaker;
use crate::config::Settings;
use crate::ownership::{LeaseStatus, Policy, events};
use crate::status::Shared;
use crate::status::incidents::IncidentKind;
use sessionkeep_core::control::{MonotonicMs, Stall, ToInit};

/// Where there is no lease: how often.
const WITHOUT_LEASE: Duration = Duration::from_secs(60);
/// What is promised at least: a machine that is short of processor time is no hung one.
const LEAST: Duration = Duration::from_secs(5);
/// How long nothing may have kept the watcher from its work for the incident to be over.
const QUIET: Duration = Duration::from_secs(60);

/// How often a helper says that it lives, and what it promises.
#[derive(Debug, Clone, Copy)]
struct Rhythm {
    /// How long after one the next comes, if nothing brings it earlier.
    every: Duration,
    /// Within what it is promised.
    within: Duration,
}

impl Rhythm {
    fn of(settings: &Settings) -> Self {
        if settings.is_file_mode() {
            return Self {
                every: WITHOUT_LEASE,
                within: WITHOUT_LEASE * 5 / 2,
            };
        }
        Self {
            // A renewal that goes through comes before it.
            every: settings.lease.renew * 3 / 2,
            within: LEAST.max(settings.lease.ttl * 2 / 3),
        }
    }
}

type Followed = Arc<watch::Sender<Option<watch::Receiver<LeaseStatus>>>>;

/// What the task goes by.
#[derive(Debug, Clone, Default)]
pub(super) struct SignsOfLife {
    followed: Followed,
    stalled: Arc<Mutex<Option<Instant>>>,
}

impl SignsOfLife {
    /// From here on the lease stands as this says.
    pub(super) fn follow(&self, status: watch::Receiver<LeaseStatus>) {
        self.followed.send_replace(Some(status));
    }

    /// Something kept the watcher from its work.
    pub(super) fn stalled(&self, how: Stall, shared: &Shared) {
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let detail = match how {
            Stall::Stopped => "a signal stopped it, and it was let go on",
            Stall::Silent => "it gave no sign of life and was killed; another one has taken over",
        };
        shared.incident(IncidentKind::WatcherStalled, "", detail);
    }

    /// Says that the watcher lives, again and again, and when init wants to know at once. Without init
    /// there is nobody to say it to.
    pub(super) fn start(
        &self,
        settings: &Settings,
        shared: &Shared,
        to: Option<(Speaker, mpsc::Receiver<()>)>,
    ) {
        let Some((speaker, asked)) = to else {
            return;
        };
        let rhythm = Rhythm::of(settings);
        let stalled = self.stalled.clone();
        *stalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let followed = self.followed.subscribe();
        let (policy, to_init) = (Policy::of(settings), speaker.clone());
        tokio::spawn(events::tell(
            policy,
            followed.clone(),
            async move |message| {
                to_init.send(message).await;
            },
        ));
        tokio::spawn(beat(
            rhythm,
            followed,
            stalled,
            shared.clone(),
            speaker,
            asked,
        ));
    }
}

async fn beat(
    rhythm: Rhythm,
    mut followed: watch::Receiver<Option<watch::Receiver<LeaseStatus>>>,
    stalled: Arc<Mutex<Option<Instant>>>,
    shared: Shared,
    speaker: Speaker,
    mut asked: mpsc::Receiver<()>,
) {
    loop {
        let mut status = followed.borrow_and_update().clone();
        let now = MonotonicMs::now();
        let lease_ends = status
            .as_mut()
            .map(|status| now.after(status.borrow_and_update().safe_until.left()));
        let next_by = now.after(rhythm.within);
        let message = ToInit::Alive {
            next_by,
            lease_ends,
        };
        speaker.send(message).await;
        let quiet = stalled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_if(|since| since.elapsed() >= QUIET);
        if quiet.is_some() {
            shared.over(IncidentKind::WatcherStalled, "");
        }
        let renewed = async {
            let ended = match &mut status {
                Some(status) => status.changed().await.is_err(),
                None => true,
            };
            if ended {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = renewed => {}
            changed = followed.changed() => if changed.is_err() { return },
            Some(()) = asked.recv() => {}
            () = sleep(rhythm.every) => {}
        }
    }
}
