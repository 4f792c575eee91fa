//! An error of whoever asked, and not of what was asked.

/// What was asked for cannot be had as it was asked for: another try is of no use before that has changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);
