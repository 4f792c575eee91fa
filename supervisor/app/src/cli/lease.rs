//! `sessionkeep lease`: who owns the session, who waits for it; and ending a lease.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::config::Flags;
use crate::process::runtime;
use sessionkeep_archive::store::{Broken, Lease};
use sessionkeep_core::human::{Timestamp, Took};

use super::context;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A lease needs no help to end: an instance that stops lets it go, and that of one
that died runs out within lease.ttl. --break is for those who know better. An
owner that is alive after all stops its gateway when it next renews, and exits
with 75; what it has not saved by then is not saved. The queue of those who
wait ends too; who is alive enters it again.

Examples:
  sessionkeep lease
  sessionkeep lease --break")]
pub(super) struct Args {
    /// End the lease and its queue, whoever holds it
    #[arg(long = "break")]
    pub(super) end: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let (lease, damage) = runtime::block_on(async {
        let store = context::open_to_read(&settings).await?;
        let (lease, damage) = match args.end {
            true => match store.break_lease(&settings.archive).await? {
                Broken::Absent => (None, None),
                Broken::Ended(lease) => (Some(lease), None),
                Broken::Replaced(damage) => (None, Some(damage.to_string())),
            },
            false => (store.lease(&settings.archive).await?, None),
        };
        if args.end
            && let Err(error) = store.notify(&settings.archive).await
        {
            // Who waits for it asks again within a second.
            tracing::debug!(%error, "those who wait could not be told");
        }
        store.close().await;
        anyhow::Ok((lease, damage))
    })??;
    if args.json {
        let lease = lease.as_ref().map(as_json);
        super::print_json(&match args.end {
            true => json!({ "ended": lease, "replaced": damage }),
            false => json!({ "lease": lease }),
        })?;
    } else if let Some(damage) = damage {
        super::print(&format!(
            "{damage}\nreplaced: if its owner is still alive, it stops its gateway when it next \
             renews (lease.renew)\n"
        ))?;
    } else {
        super::print(&told(args, lease.as_ref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A lease as JSON, for every command that shows one.
pub(super) fn as_json(lease: &Lease) -> Value {
    let waiting: Vec<Value> = lease
        .waiting
        .iter()
        .map(|waiter| {
            json!({
                "instance": waiter.instance,
                "since": Timestamp(waiter.since_ms).to_string(),
                "asks_for_takeover": waiter.asks == Some(lease.epoch),
            })
        })
        .collect();
    json!({
        "instance": lease.instance,
        "epoch": lease.epoch,
        "remaining_seconds": lease.remaining.as_secs_f64(),
        "since": Timestamp(lease.since_ms).to_string(),
        "waiting": waiting,
    })
}

/// Who owns the session and who waits for it, in lines that begin with a word each.
pub(super) fn lines(lease: Option<&Lease>) -> String {
    let Some(lease) = lease else {
        return "owner      none\n".to_owned();
    };
    let mut text = match lease.remaining.is_zero() {
        true => format!(
            "owner      none; last {} (epoch {})\n",
            lease.instance, lease.epoch
        ),
        false => format!(
            "owner      {} since {} (epoch {})\n",
            lease.instance,
            Timestamp(lease.since_ms),
            lease.epoch
        ),
    };
    if lease.queue_damaged {
        text.push_str(
            "waiting    cannot be read, in part at least; who waits enters again within a second\n",
        );
    }
    for waiter in &lease.waiting {
        let asks = match waiter.asks == Some(lease.epoch) {
            true => ", asks the owner to hand over",
            false => "",
        };
        let _ = writeln!(
            text,
            "waiting    {} since {}{asks}",
            waiter.instance,
            Timestamp(waiter.since_ms)
        );
    }
    text
}

fn told(args: &Args, lease: Option<&Lease>) -> String {
    let mut text = lines(lease);
    match lease {
        Some(lease) if args.end => text.push_str(&ended(lease)),
        Some(lease) if !lease.remaining.is_zero() => {
            let _ = writeln!(
                text,
                "runs out   in {} unless renewed",
                Took(lease.remaining)
            );
        }
        _ => {}
    }
    text
}

/// What was ended.
fn ended(lease: &Lease) -> String {
    let mut text = match lease {
        lease if !lease.remaining.is_zero() => format!(
            "ended: if {} is still alive, it stops its gateway when it next renews (lease.renew)\n",
            lease.instance
        ),
        lease if lease.mark.is_some() => {
            "it had run out: the next may have it at once\n".to_owned()
        }
        lease if lease.waiting.is_empty() && !lease.queue_damaged => {
            "nobody held it, and nobody waited: nothing was ended\n".to_owned()
        }
        _ => "nobody held it\n".to_owned(),
    };
    if !lease.waiting.is_empty() || lease.queue_damaged {
        let _ = writeln!(
            text,
            "ended the queue, with {} in it: who is still alive enters it again within a second",
            lease.waiting.len()
        );
    }
    text
}
