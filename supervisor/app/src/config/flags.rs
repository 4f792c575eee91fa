//! The flags that every command takes.

use std::path::PathBuf;

use super::registry;
use sessionkeep_core::secret::Secret;

/// Flags that set settings. They win over the environment and the file.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings (each also in the environment and in sessionkeep.yaml)")]
pub struct Flags {
    /// The session directory
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Option<String>,
    /// Where the archive is kept; a flag shows in process lists, so give a
    /// password as MONGO_URL or SESSIONKEEP_STORE instead
    #[arg(long, global = true, value_name = "URL", value_parser = secret)]
    pub store: Option<Secret>,
    /// The name of the directory's history in the store
    #[arg(long, global = true, value_name = "NAME")]
    pub archive: Option<String>,
    /// Which gateway it is: waha, baileys, whatsmeow, generic
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// The settings file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any other setting, such as store.wait=30s; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = secret)]
    pub set: Vec<Secret>,
    /// How much is logged: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines look: text, json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Any text is taken here and judged later, by code that does not repeat it in an error.
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl Flags {
    /// The flags that have a setting of their own, as `(flag, text)`.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("--dir", self.dir.as_deref()),
            ("--store", self.store.as_ref().map(Secret::expose)),
            ("--archive", self.archive.as_deref()),
            ("--profile", self.profile.as_deref()),
            ("--log-level", self.log_level.as_deref()),
            ("--log-format", self.log_format.as_deref()),
        ]
        .into_iter()
        .filter_map(|(flag, text)| Some((flag, text?)))
    }
}

/// Where in the argument `word`, which follows `before`, something begins that is secret or may be.
pub(crate) fn is_secret_argument(before: &[u8], word: &[u8]) -> Option<usize> {
    const STORE: &[u8] = b"--store";
    const SET: &[u8] = b"--set";
    if before == STORE {
        return Some(0);
    }
    if before == SET {
        return secret_in_setting(word);
    }
    let equals = word.iter().position(|byte| *byte == b'=')?;
    let (flag, value) = (&word[..equals], equals + 1);
    if flag == STORE {
        return Some(value);
    }
    let within = secret_in_setting(&word[value..]);
    within.filter(|_| flag == SET).map(|at| value + at)
}

/// The same for a `KEY=VALUE`. What is no setting may be a secret that was meant for another flag.
fn secret_in_setting(pair: &[u8]) -> Option<usize> {
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
        return Some(0);
    };
    let key = std::str::from_utf8(&pair[..equals]).ok();
    match key.and_then(registry::find) {
        Some(setting) => setting.secret.then_some(equals + 1),
        None => Some(0),
    }
}
