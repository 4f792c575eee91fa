//! What can be asked of an init besides the settings: the flags of `sessionkeep run`. They belong
//! to the command line that stands in for tini's or dumb-init's, and not to a session.

use std::str::FromStr;

/// How this init behaves, apart from the session that it keeps.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Exit codes that are exchanged for others.
    pub map_exit: ExitMap,
}

/// Why a flag's value cannot be taken. The value is named by whoever parses the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not two codes with `=` between them.
    #[error("it must be two exit codes from 0 to 255, such as `143=0`")]
    NoMapping,
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
}
