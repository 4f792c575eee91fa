//! `sessionkeep status`: the state of the session and its archive.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Flags, Settings};
use crate::human::{Bytes, Moment, Took};
use crate::store::{Header, Lease, Usage};

use super::{context, health, lease, log};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessionkeep status --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What the store says.
struct Stored {
    head: Option<Header>,
    lease: Option<Lease>,
    usage: Usage,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    // Two sources, and either may be missing: the running instance, and the store.
    let running = health::ask(&settings.http, "/status")
        .ok()
        .filter(|answer| answer.status == 200)
        .and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
    let stored = if settings.is_file_mode() {
        None
    } else {
        Some(context::block_on(read(&settings))?)
    };
    if args.json {
        let stored = stored.map(|stored| match stored {
            Ok(stored) => json!({
                "head": stored.head.as_ref().map(log::as_json),
                "lease": stored.lease.as_ref().map(lease::as_json),
                "usage": { "commits": stored.usage.commits, "commit_bytes": stored.usage.commit_bytes,
                           "packs": stored.usage.packs, "pack_bytes": stored.usage.pack_bytes },
            }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        });
        super::print_json(&json!({ "running": running, "stored": stored }))?;
    } else {
        super::print(&told(&settings, running.as_ref(), stored.as_ref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(settings: &Settings) -> anyhow::Result<Stored> {
    let store = context::open(settings).await?;
    let archive = &settings.archive;
    let stored = Stored {
        head: store.head(archive).await?,
        lease: store.lease(archive).await?,
        usage: store.usage(archive).await?,
    };
    store.close().await;
    Ok(stored)
}

/// How long changes have been waiting, as the running instance says.
pub(crate) fn lag(status: &Value) -> Duration {
    let seconds = status["lag_seconds"].as_f64().unwrap_or_default();
    // Whoever listens on that port may answer anything.
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

fn told(
    settings: &Settings,
    running: Option<&Value>,
    stored: Option<&anyhow::Result<Stored>>,
) -> String {
    let mut text = format!("archive    {}\n", settings.archive);
    match running {
        Some(status) => {
            let lag = lag(status);
            let saved = if lag > Duration::ZERO {
                format!("changes waiting since {}", Took(lag))
            } else {
                "everything saved".to_owned()
            };
            let _ = writeln!(
                text,
                "running    {}, {saved}",
                status["state"].as_str().unwrap_or("?")
            );
            if let Some(problem) = status["problem"]
                .as_str()
                .filter(|problem| !problem.is_empty())
            {
                let _ = writeln!(text, "problem    {problem}");
            }
        }
        None => text.push_str("running    no instance answers here\n"),
    }
    match stored {
        None => text.push_str("store      none (file mode)\n"),
        Some(Err(error)) => {
            let _ = writeln!(text, "store      {error:#}");
        }
        Some(Ok(stored)) => {
            match &stored.head {
                Some(head) => {
                    let _ = writeln!(
                        text,
                        "newest     commit {} of {}: {} files, {}",
                        head.seq,
                        Moment(head.time_ms),
                        head.live_files,
                        Bytes(head.live_bytes)
                    );
                }
                None => text.push_str("newest     nothing was ever committed\n"),
            }
            text.push_str(&lease::lines(stored.lease.as_ref()));
            let usage = &stored.usage;
            let _ = writeln!(
                text,
                "stored     {} commits with {}, {} packs with {}",
                usage.commits,
                Bytes(usage.commit_bytes),
                usage.packs,
                Bytes(usage.pack_bytes)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_no_clock_can_count_is_told_all_the_same() {
        for (answer, expected) in [
            (json!({ "lag_seconds": 1.5 }), Duration::from_millis(1500)),
            (json!({ "lag_seconds": 1e300 }), Duration::MAX),
            (json!({ "lag_seconds": -1e300 }), Duration::ZERO),
            (json!({ "lag_seconds": "?" }), Duration::ZERO),
            (json!([]), Duration::ZERO),
        ] {
            assert_eq!(lag(&answer), expected, "{answer}");
            let _ = Took(lag(&answer)).to_string();
        }
    }
}
