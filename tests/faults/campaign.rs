//! How much of the campaign is run, from which seed, and what it found.
//!
//! A run of the tests is a short campaign from a fixed seed. `make soak` is a long one from a seed
//! of its own, which it prints: `FAULTS_SEED` repeats it. `FAULTS_TABLE` names a file to which
//! each fault adds its line.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The seed of a run that was given none.
const SEED: u64 = 0x5e55_1014;

/// How often something is done: `short` by default, `long` with `FAULTS=soak`, and
/// `FAULTS_ROUNDS` wins over both.
pub(crate) fn rounds(short: u64, long: u64) -> u64 {
    let asked = number("FAULTS_ROUNDS");
    let soak = std::env::var("FAULTS").is_ok_and(|scale| scale == "soak");
    asked.unwrap_or(if soak { long } else { short })
}

/// A source of chance of its own for each user, the same in each run from the same seed.
pub(crate) fn chance(user: &str) -> fastrand::Rng {
    let seed = seed();
    let mixed = user.bytes().fold(seed, |mixed, byte| {
        (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    fastrand::Rng::with_seed(mixed)
}

/// The seed, to be named by whatever fails.
pub(crate) fn seed() -> u64 {
    number("FAULTS_SEED").unwrap_or(SEED)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What one fault did, over all its rounds: a line of the campaign's table. Each number but the
/// rounds must be zero, and [`Tally::end`] fails where one is not.
#[derive(Debug)]
pub(crate) struct Tally {
    fault: &'static str,
    rounds: u64,
    lost: Vec<String>,
    torn: Vec<String>,
    double_owned: Vec<String>,
}

impl Tally {
    pub(crate) fn new(fault: &'static str) -> Self {
        Self {
            fault,
            rounds: 0,
            lost: Vec::new(),
            torn: Vec::new(),
            double_owned: Vec::new(),
        }
    }

    /// One more round was made.
    pub(crate) fn round(&mut self) {
        self.rounds += 1;
    }

    /// How many rounds there were so far.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Something that was acknowledged is not there, or is older than it must be.
    pub(crate) fn lost(&mut self, what: impl Into<String>) {
        self.lost.push(what.into());
    }

    /// Something is there that nobody wrote: half of it, or parts of two.
    pub(crate) fn torn(&mut self, what: impl Into<String>) {
        self.torn.push(what.into());
    }

    /// Two owned the session at the same time.
    pub(crate) fn double_owned(&mut self, what: impl Into<String>) {
        self.double_owned.push(what.into());
    }

    /// Adds the line to the table, and fails if anything went wrong.
    #[track_caller]
    pub(crate) fn end(self) {
        let line = format!(
            "{}\t{}\t{}\t{}\t{}",
            self.fault,
            self.rounds,
            self.lost.len(),
            self.torn.len(),
            self.double_owned.len()
        );
        println!("fault × rounds × lost × torn × double-owned: {line}");
        if let Some(table) = std::env::var_os("FAULTS_TABLE") {
            let file = OpenOptions::new().create(true).append(true).open(table);
            let mut file = file.expect("open the table");
            // In one piece: other tests write at the same time.
            file.write_all(format!("{line}\n").as_bytes())
                .expect("write the table");
        }
        assert!(self.rounds > 0, "{}: not a single round", self.fault);
        let wrong = [self.lost, self.torn, self.double_owned].concat();
        assert!(
            wrong.is_empty(),
            "{} (FAULTS_SEED={}):\n{}",
            self.fault,
            seed(),
            wrong.join("\n")
        );
    }
}
