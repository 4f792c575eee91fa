//! What is wrong with settings: one line each, all reported at once, and never a secret in one.

use std::fmt;

use super::{Origin, Settings};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, variable or flag, by the name under which it was given.
    pub name: String,
    /// Its value, redacted where it may hold a secret; `None` where there is none to show.
    pub value: Option<String>,
    /// What is wrong with it; continues the name as a sentence.
    pub reason: String,
    /// The operator's next step.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}; {}", self.reason, self.remedy)
    }
}

/// Everything that is wrong with the settings of one load.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    /// Each of them, in the order of the settings.
    pub problems: Vec<Problem>,
    /// What would be in force, with defaults in place of what is wrong, so that
    /// `sessionkeep config` can show the rest. Empty where not even that is known.
    pub origins: Vec<Origin>,
    /// The settings that belong to `origins`: for a command that can do with part of them.
    pub(super) partial: Option<Box<Settings>>,
}

impl ConfigErrors {
    /// Errors of which nothing else is known.
    pub(super) fn alone(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
            origins: Vec::new(),
            partial: None,
        }
    }

    /// The settings with defaults in place of what is wrong. A health check needs the port and
    /// nothing else; it must not fail because the store's URL has a typo.
    #[must_use]
    pub fn partial(&self) -> Option<&Settings> {
        self.partial.as_deref()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to read the settings")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A value as an error line may show it: short, on one line, and nothing at all where it looks
/// like an address with a password in it, since values get pasted into the wrong variable.
pub(super) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    if value.contains('@') || value.contains("://") {
        return "[redacted]".to_owned();
    }
    let mut text: String = value
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().count() > LONGEST {
        text.push('…');
    }
    format!("\"{text}\"")
}

/// A name that was not recognised, as an error line may show it: names are letters, digits and
/// little else, and what is not may be a value in the wrong place.
pub(super) fn shown_name(name: &str) -> Option<&str> {
    let plain = (1..=80).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    plain.then_some(name)
}
