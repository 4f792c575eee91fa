//! Stops the watcher again and again, so that it renews no lease, and writes to the session
//! directory meanwhile.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use super::Score;
use super::helpers::{helpers, send};

/// Arguments: the session directory; a file that one gateway at a time may lock; and how long is
/// waited after each time, in milliseconds.
pub(super) fn run(arguments: &[String], until: Instant) -> anyhow::Result<Score> {
    let [session, lock, pause] = arguments else {
        anyhow::bail!("pause takes the session directory, a file to lock and a pause");
    };
    let pause = Duration::from_millis(pause.parse().context("a number")?);
    let held = Flock::lock(File::create(lock)?, FlockArg::LockExclusiveNonblock);
    let Ok(held) = held else {
        anyhow::bail!("TWO GATEWAYS AT ONCE");
    };
    // For as long as this process lives.
    std::mem::forget(held);
    let mut score = Score::default();
    while Instant::now() < until {
        for pid in helpers() {
            score.tried += 1;
            score.achieved += u64::from(send(pid, libc::SIGSTOP));
        }
        if score.tried.is_multiple_of(16) {
            fs::write(
                Path::new(session).join("creds.json"),
                format!("{{\"n\":{}}}", score.tried),
            )?;
        }
        std::thread::sleep(pause);
    }
    Ok(score)
}
