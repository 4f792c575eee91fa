//! A hostile gateway: it tries one attack in a tight loop for a while, says what it achieved, and then
//! idles until it is told to stop. The tests in `tests/hostile/` run it under the real program.
//!
//! ```text
//! attacker ATTACK SECONDS ARGUMENT…
//! ```

mod helpers;
mod pause;
mod peek;
mod replace;
mod scratch;
mod swap;

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How often an attack was tried and, as far as the attacker can tell, came out well.
#[derive(Debug, Default)]
struct Score {
    tried: u64,
    achieved: u64,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &'static str| arguments.next().with_context(|| format!("no {what}"));
    let attack = next("attack")?;
    let seconds: u64 = next("number of seconds")?.parse()?;
    let until = Instant::now() + Duration::from_secs(seconds);
    end_with_0_on_term();
    let arguments: Vec<String> = arguments.collect();
    let score = match attack.as_str() {
        "pause" => pause::run(&arguments, until)?,
        "peek" => peek::run(&arguments, until)?,
        "forge" => replace::forge_once(&arguments)?,
        "replace" => replace::run(&arguments, until)?,
        "scratch" => scratch::run(&arguments, until)?,
        "swap" => swap::run(&arguments, until)?,
        other => bail!("there is no attack {other}"),
    };
    let Score { tried, achieved } = score;
    println!("attack {attack} is over: tried={tried} achieved={achieved}");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

fn end_with_0_on_term() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: it may be called from a handler.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: the handler calls nothing but `_exit`.
    unsafe { libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t) };
}
