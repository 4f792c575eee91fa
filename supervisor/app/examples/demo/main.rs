//! `make demo`: the main job, with no database server and no Docker.
//!
//! A gateway logs in and exchanges messages under `sessionkeep run`. It is stopped, its directory
//! is wiped, and it is started again; then everything is killed under load, wiped, and started
//! again. Each step is told with its timing. What decides the exit code is not what the gateway
//! says but what can be computed: the chain keys follow from the identity and the counters.

mod check;
mod client;
mod stack;

#[path = "../support/ratchet.rs"]
mod ratchet;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use check::Login;
use stack::{Ending, Place, Stack};

/// The load that the crash interrupts: so many messages a request, for so long.
const BURST: u64 = 2;
const LOAD: Duration = Duration::from_millis(1500);
/// A crash may cost the last moment. This is far above the goal of 200 ms, for slow machines.
const LOSS_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let started = Instant::now();
    let place = match Place::prepare().and_then(|place| {
        place.clear_up_on_interrupt()?;
        Ok(place)
    }) {
        Ok(place) => place,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match tell(&place) {
        Ok(()) => {
            println!(
                "\nPassed in {:.1} s: one login, two wiped disks, no QR code.",
                started.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nFAILED: {error:#}");
            println!("\nThe end of the log:\n{}", place.log_tail(40));
            ExitCode::FAILURE
        }
    }
}

fn tell(place: &Place) -> Result<()> {
    println!("1. A first start on an empty directory.");
    let stack = start(place)?;
    let login = stack.login()?;
    ensure!(
        login.fresh_login,
        "the first start did not make a new login"
    );
    println!(
        "   a phone scanned the QR code, so to speak: identity {}",
        login.identity
    );
    let first_identity = login.identity;
    let begun = Instant::now();
    stack.send(60)?;
    println!(
        "   60 messages exchanged in {} ms",
        begun.elapsed().as_millis()
    );

    println!("2. The host stops the container.");
    let before_term = stack.login()?;
    let begun = Instant::now();
    let ending = stack.stop()?;
    ensure!(
        ending == Ending::Code(0),
        "after TERM: {ending}, expected exit code 0"
    );
    println!(
        "   TERM → exit code 0 in {} ms; the gateway took one more step in each chain after TERM",
        begun.elapsed().as_millis()
    );
    let on_disk = check::files(&place.session_dir())
        .context("failed to read the directory that the gateway left")?;

    println!("3. The host wipes the disk and starts the container again.");
    wipe(place)?;
    let stack = start(place)?;
    let login = stack.login()?;
    ensure!(
        !login.fresh_login,
        "the gateway asks for a QR code: the login was lost"
    );
    ensure!(
        login.identity == first_identity,
        "another identity: {}",
        login.identity
    );
    ensure!(
        login.peers == on_disk.peers,
        "the chains are not where the gateway left them"
    );
    ensure!(
        login.messages == before_term.messages + 3,
        "{} messages, expected {} and 3 last words",
        login.messages,
        before_term.messages
    );
    login.verify_chains()?;
    println!(
        "   same identity, {} messages, the last words among them; each chain key recomputed and right",
        login.messages
    );

    println!("4. The host pulls the plug: kill -9 of every process at once, under load.");
    let mut acknowledged = Vec::new();
    let load = Instant::now();
    let held = stack.hold();
    let last_words = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(LOAD);
            held.kill();
        });
        // Ends with the first request that gets no answer: that is the crash.
        while let Ok(messages) = stack.send(BURST) {
            acknowledged.push((messages, load.elapsed()));
        }
        load.elapsed()
    });
    stack.reap()?;
    let (promised, _) = *acknowledged.last().context("the load never began")?;
    println!(
        "   {} messages acknowledged in {} ms, then nothing",
        promised - login.messages,
        last_words.as_millis()
    );

    println!("5. The disk is wiped again, and the container started again.");
    println!("   (the dead owner's lease has to run out first: 3 s)");
    wipe(place)?;
    let stack = start(place)?;
    let restored = stack.login()?;
    ensure!(
        !restored.fresh_login,
        "the gateway asks for a QR code: the login was lost"
    );
    ensure!(
        restored.identity == first_identity,
        "another identity: {}",
        restored.identity
    );
    ensure!(
        restored.messages >= login.messages,
        "{} messages, fewer than before the load",
        restored.messages
    );
    restored.verify_chains()?;
    let lost = acknowledged
        .iter()
        .filter(|(messages, _)| *messages > restored.messages);
    let first_lost = lost.clone().map(|(_, at)| *at).min();
    let loss = first_lost.map_or(Duration::ZERO, |at| last_words.saturating_sub(at));
    println!(
        "   same identity, {} messages, each chain key recomputed and right",
        restored.messages
    );
    println!(
        "   lost by the crash: {} of {promised} messages, the last {} ms",
        promised.saturating_sub(restored.messages),
        loss.as_millis()
    );
    ensure!(loss <= LOSS_LIMIT, "the crash cost {} ms", loss.as_millis());

    println!("6. The conversation goes on.");
    stack.send(30)?;
    let after = stack.login()?;
    ensure!(
        after.messages == restored.messages + 30,
        "{} messages after 30 more",
        after.messages
    );
    after.verify_chains()?;
    let ending = stack.stop()?;
    ensure!(
        ending == Ending::Code(0),
        "after TERM: {ending}, expected exit code 0"
    );
    check::database(&place.session_dir())?;
    println!("   30 more messages, the database's integrity check is ok, exit code 0");
    Ok(())
}

/// Starts the real thing, and says how long it took until the gateway answered.
fn start(place: &Place) -> Result<Stack<'_>> {
    let begun = Instant::now();
    let stack = Stack::start(place)?;
    println!(
        "   sessionkeep and the gateway are up after {} ms",
        begun.elapsed().as_millis()
    );
    Ok(stack)
}

fn wipe(place: &Place) -> Result<()> {
    fs::remove_dir_all(place.session_dir()).context("failed to wipe the session directory")?;
    println!("   rm -rf {}", place.session_dir().display());
    Ok(())
}

impl Stack<'_> {
    fn login(&self) -> Result<Login> {
        Login::from_json(&client::get(self.gateway_port(), "/identity")?)
    }

    fn send(&self, count: u64) -> Result<u64> {
        client::post(self.gateway_port(), &format!("/send?n={count}"))?["messages"]
            .as_u64()
            .context("the gateway did not say how many messages there are")
    }
}
