//! Why a text that somebody wrote cannot be taken.

/// Why a value cannot be taken. Neither text ever repeats the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Continues the setting's name as a sentence: "is longer than a year".
    pub reason: String,
    /// What to write instead.
    pub remedy: String,
}

impl Invalid {
    /// What is wrong, and what to write instead.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}
