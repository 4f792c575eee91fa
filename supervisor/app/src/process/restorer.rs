//! The restorer: `sessionkeep restore` as init's helper, before the gateway starts. It tells while it
//! waits and works, to init and to whoever asks over HTTP.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::boot::{self, BootError, Booted, Target};
use crate::config::{Conflict, Settings};
use crate::ownership::{Identity, OwnershipError, WaitReason};
use crate::progress::Progress;
use crate::service_thread::ServiceThread;
use crate::status::incidents::IncidentKind;
use crate::status::{LastRun, Lease, Shared};
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::control::{Handover, Lifecycle, MonotonicMs, ToInit};
use sessionkeep_core::human::{Bytes, Causes, Took};
use sessionkeep_core::state_dir::StateDir;

use crate::channel::{Link, Speaker};

/// How often init hears that this process lives. Init has nothing to lose by waiting here: no gateway
/// runs, and a large restore on a slow machine must not be taken for a hung one.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// Within what the next time is promised.
const ALIVE_WITHIN: Duration = Duration::from_secs(120);

/// As init's helper: leaves the lease for the watcher, answers health checks meanwhile, and says by
/// its exit code how it went.
pub(crate) async fn under_init(settings: &Settings, handover: Handover) -> anyhow::Result<u8> {
    let Handover {
        instance,
        predecessor,
        handed_over,
        control,
        http,
        state: own,
    } = handover;
    let who = Identity {
        instance,
        predecessor,
    };
    let settings = &match handed_over {
        true => waiting_for_its_turn(settings.clone()),
        false => settings.clone(),
    };
    let store = sessionkeep_stores::open(&settings.store.choice, settings.store.timeout)?;
    let (state, lease) = match handed_over {
        true => (Lifecycle::Standby, Lease::Waiting),
        false => (Lifecycle::Restoring, Lease::None),
    };
    let life = who.instance.to_string();
    let shared = Shared::new(settings, Some(own.clone()), store.describe(), life, state);
    shared.update(|status| status.lease = lease);
    let services =
        ServiceThread::start(settings, &shared, http).context("failed to start answering HTTP")?;
    let speaker = Link::new(control, None)
        .context("failed to take up the channel to init")?
        .speaker();
    let (say, said) = mpsc::unbounded_channel();
    let talk = tokio::spawn(talk(speaker, said));
    let mut tell = |reason: WaitReason| {
        if let Some(message) = note_wait(&shared, reason) {
            let _ = say.send(message);
        }
    };
    let progress = Progress::default();
    shared.follow(&progress);
    let booted = progress
        .show(
            "restoring",
            boot::boot(
                settings,
                &own,
                &store,
                &who,
                Target::Newest,
                &progress,
                &mut tell,
            ),
        )
        .await;
    store.close().await;
    note_outcome(&shared, &own, &booted);
    services.finish();
    if let Ok(booted) = &booted {
        // What init knows of the lease until the watcher renews it.
        let _ = say.send(alive(booted.safe_until));
    }
    drop(say);
    talk.await.context("failed to send to init")?;
    match booted {
        Ok(booted) => {
            log_booted(&booted);
            Ok(0)
        }
        Err(error) => {
            let code = error.exit_code();
            error!(target: "boot", error = %Causes(&error), exit_code = code, "the gateway is not started");
            Ok(code)
        }
    }
}

/// Says to init what is to be said, and in between that this process lives.
async fn talk(speaker: Option<Speaker>, mut said: mpsc::UnboundedReceiver<ToInit>) {
    let Some(speaker) = speaker else { return };
    speaker.send(alive(None)).await;
    loop {
        tokio::select! {
            message = said.recv() => match message {
                Some(message) => speaker.send(message).await,
                None => return,
            },
            () = tokio::time::sleep(ALIVE_EVERY) => speaker.send(alive(None)).await,
        }
    }
}

/// Shows what is waited for, and gives what init has to hear of it.
fn note_wait(shared: &Shared, reason: WaitReason) -> Option<ToInit> {
    let waiting = match reason {
        WaitReason::Owner => true,
        WaitReason::OwnerGone => false,
        WaitReason::Store { silent, words } => {
            let problem = format!("the start waits for it: {words}");
            shared.store_is_silent(silent, problem);
            return None;
        }
        WaitReason::StoreAnswers => {
            shared.store_answers();
            return None;
        }
    };
    shared.update(|status| {
        (status.state, status.lease) = match waiting {
            true => (Lifecycle::Standby, Lease::Waiting),
            false => (Lifecycle::Restoring, Lease::None),
        };
    });
    Some(ToInit::Standby { waiting })
}

/// Shows what the boot came to, as incidents.
fn note_outcome(shared: &Shared, own: &StateDir, booted: &Result<Booted, BootError>) {
    match booted {
        Ok(booted) if booted.plan.is_none() => {
            let detail =
                "it did not answer at the start, which went on with the directory as it was";
            shared.incident(IncidentKind::StoreUnreachable, "", detail);
        }
        Ok(booted) if booted.epoch == 0 => {
            let detail =
                "the start went on without owning the session; nothing is saved until it does";
            shared.incident(IncidentKind::WritesRefused, "", detail);
        }
        Ok(booted) => {
            LastRun::note_restore(own, booted.took, booted.files);
            if let Some(words) = &booted.new_login {
                shared.incident(IncidentKind::NewLogin, "", words);
                // It is told once, and stays in the list.
                shared.over(IncidentKind::NewLogin, "");
            }
            if !booted.damage.is_empty() {
                shared.incident(IncidentKind::DamagedHead, "", &booted.damage.join("; "));
            }
        }
        Err(error @ BootError::Ownership(OwnershipError::StoreUnavailable { .. })) => {
            shared.incident(
                IncidentKind::StoreUnreachable,
                "",
                &Causes(error).to_string(),
            );
        }
        Err(error) if error.refuses_writes() => {
            shared.incident(IncidentKind::WritesRefused, "", &Causes(error).to_string());
        }
        Err(_) => {}
    }
}

fn alive(safe_until: Option<BootInstant>) -> ToInit {
    let now = MonotonicMs::now();
    ToInit::Alive {
        next_by: now.after(ALIVE_WITHIN),
        lease_ends: safe_until.map(|until| now.after(until.left())),
    }
}

/// A life that has made way waits for as long as it takes, whether or not the store answers: to exit
/// would be to be started again, and to take the session back.
fn waiting_for_its_turn(mut settings: Settings) -> Settings {
    settings.lease.conflict = Conflict::Wait;
    settings.store.wait = Duration::MAX;
    settings
}

fn log_booted(booted: &Booted) {
    let took = Took(booted.took);
    if booted.files > 0 {
        info!(target: "boot", seq = booted.seq, files = booted.files, bytes = %Bytes(booted.bytes), %took, "restored");
    } else {
        info!(target: "boot", seq = booted.seq, %took, "the directory is ready");
    }
}
