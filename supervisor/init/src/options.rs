//! What can be asked of an init besides the settings: the flags of `sessionkeep run`. They belong
//! to the command line that stands in for tini's or dumb-init's, and not to a session.

use std::str::FromStr;

use super::signal_names;
use super::signals::is_passed_on;

/// How this init behaves, apart from the session that it keeps.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Exit codes that are exchanged for others.
    pub map_exit: ExitMap,
    /// Signals that are exchanged for others.
    pub rewrites: Rewrites,
    /// Who of the gateway gets a signal.
    pub reach: Reach,
    /// Whether orphans are told about.
    pub reaping: Reaping,
    /// What is sent to us when our parent dies.
    pub parent_death: Option<ParentDeath>,
    /// How much of the rest there is.
    pub scope: Scope,
}

/// Whether a line is logged for each orphan that is reaped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reaping {
    /// No.
    #[default]
    Silent,
    /// One warning for each.
    Warn,
}

/// Whether a session is kept at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// As the settings say.
    #[default]
    Session,
    /// Nothing but an init: no store, no directory, no helper.
    InitOnly,
}

/// Who of the gateway gets a signal that is passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Its main process.
    #[default]
    Main,
    /// Everything in its process group.
    Group,
}

/// Why a flag's value cannot be taken. The value is named by whoever parses the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not two codes with `=` between them.
    #[error("it must be two exit codes from 0 to 255, such as `143=0`")]
    NoMapping,
    /// Not two signals with `=` between them.
    #[error("it must be two signals, such as `TERM=INT` or `RTMIN+3=15`; `=0` drops the first")]
    NoRewrite,
    /// A signal that never comes by here.
    #[error("`{0}` cannot be exchanged, because it is never passed on; name another signal")]
    NeverPassedOn(String),
    /// Not a signal.
    #[error("it must be a signal, such as `TERM`, `HUP` or `15`")]
    NoSignal,
    /// A signal that would end us, and leave the gateway behind.
    #[error("`{0}` cannot be taken as a reason to stop in order; use `TERM`")]
    NotCaught(String),
}

/// One exit code that is exchanged for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitMapping {
    /// What the gateway ended with.
    pub from: u8,
    /// What to exit with instead.
    pub to: u8,
}

impl FromStr for ExitMapping {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let (from, to) = text.split_once('=').ok_or(OptionError::NoMapping)?;
        let code = |text: &str| text.trim().parse().map_err(|_| OptionError::NoMapping);
        let (from, to) = (code(from)?, code(to)?);
        Ok(Self { from, to })
    }
}

/// Which codes are exchanged. Of two mappings of one code the later one holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExitMap(Vec<ExitMapping>);

impl ExitMap {
    /// What becomes of `code`. Applied once: what comes out is not looked up again.
    #[must_use]
    pub fn apply(&self, code: u8) -> u8 {
        let found = self.0.iter().rev().find(|mapping| mapping.from == code);
        found.map_or(code, |mapping| mapping.to)
    }
}

impl FromIterator<ExitMapping> for ExitMap {
    fn from_iter<I: IntoIterator<Item = ExitMapping>>(mappings: I) -> Self {
        Self(mappings.into_iter().collect())
    }
}

/// One signal that is exchanged for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// What is sent to us.
    pub from: i32,
    /// What is passed on instead; `None`: nothing is.
    pub to: Option<i32>,
}

impl FromStr for Rewrite {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let (from, to) = text.split_once('=').ok_or(OptionError::NoRewrite)?;
        let signal = |text| signal_names::parse(text).ok_or(OptionError::NoRewrite);
        let number = signal(from)?;
        if !is_passed_on(number) {
            return Err(OptionError::NeverPassedOn(from.trim().to_owned()));
        }
        let to = match to.trim() {
            "0" => None,
            other => Some(signal(other)?),
        };
        Ok(Self { from: number, to })
    }
}

/// Which signals are exchanged. Of two rewrites of one signal the later one holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrites(Vec<Rewrite>);

impl Rewrites {
    /// What becomes of `signal`: itself, another, or nothing.
    #[must_use]
    pub fn apply(&self, signal: i32) -> Option<i32> {
        let found = self.0.iter().rev().find(|rewrite| rewrite.from == signal);
        found.map_or(Some(signal), |rewrite| rewrite.to)
    }
}

impl FromIterator<Rewrite> for Rewrites {
    fn from_iter<I: IntoIterator<Item = Rewrite>>(rewrites: I) -> Self {
        Self(rewrites.into_iter().collect())
    }
}

/// The signal that is sent to us when our parent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentDeath(pub i32);

impl FromStr for ParentDeath {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let signal = signal_names::parse(text).ok_or(OptionError::NoSignal)?;
        if !is_passed_on(signal) {
            return Err(OptionError::NotCaught(text.trim().to_owned()));
        }
        Ok(Self(signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_exchanged_once_and_the_last_word_holds() {
        let map: ExitMap = ["1=2", "2=3", "143=0", "143=7"]
            .map(|text| text.parse::<ExitMapping>().expect("a mapping"))
            .into_iter()
            .collect();
        assert_eq!([1, 2, 3, 143].map(|code| map.apply(code)), [2, 3, 3, 7]);
        for bad in ["", "1", "1=", "=1", "1=256", "-1=0", "a=b", "1=2=3"] {
            assert_eq!(
                bad.parse::<ExitMapping>(),
                Err(OptionError::NoMapping),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_parents_death_is_told_by_a_signal_that_can_be_caught() {
        assert_eq!("SIGTERM".parse(), Ok(ParentDeath(15)));
        assert_eq!("X".parse::<ParentDeath>(), Err(OptionError::NoSignal));
        let error = "KILL".parse::<ParentDeath>().expect_err("not caught");
        assert_eq!(error, OptionError::NotCaught("KILL".to_owned()));
    }

    #[test]
    fn signals_are_exchanged_dropped_or_refused() {
        let rewrites: Rewrites = ["TERM=QUIT", "sighup=0", "RTMIN+3=15"]
            .map(|text| text.parse::<Rewrite>().expect("a rewrite"))
            .into_iter()
            .collect();
        let got = [15, 1, 37, 3].map(|signal| rewrites.apply(signal));
        assert_eq!(got, [Some(3), None, Some(15), Some(3)]);
        for bad in ["", "TERM", "TERM=", "=TERM", "0=TERM", "TERM=65", "X=Y"] {
            assert_eq!(bad.parse::<Rewrite>(), Err(OptionError::NoRewrite), "{bad}");
        }
        for never in ["KILL=TERM", "CHLD=TERM", "STOP=TERM", "33=TERM"] {
            let error = never.parse::<Rewrite>().expect_err("never passed on");
            assert!(matches!(error, OptionError::NeverPassedOn(_)), "{never}");
        }
    }
}
