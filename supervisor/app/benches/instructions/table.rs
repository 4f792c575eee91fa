//! The accepted counts, and what is said of those that differ.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::{callgrind, paths};

/// The table's name to whoever reads a message.
pub(crate) const SHOWN_AS: &str = "supervisor/app/benches/instructions.tsv";
/// A difference is worth a word from one in this many on.
const TOLERANCE: u64 = 10;
const SETTING: &str = "# counted with ";
const COLUMNS: &str = "# path\tinstructions\twhat is counted";

/// The accepted counts.
#[derive(Default)]
pub(crate) struct Table {
    /// What they were counted with.
    pub(crate) setting: String,
    counts: BTreeMap<String, u64>,
}

/// What is to be said of one path.
#[derive(Debug)]
pub(crate) enum Finding {
    Grown { name: String, old: u64, new: u64 },
    Shrunk { name: String, old: u64, new: u64 },
    NotAccepted { name: String, new: u64 },
    NoPath { name: String },
}

impl Table {
    /// Reads the committed table; an empty one where there is none.
    pub(crate) fn read() -> Result<Self, String> {
        match fs::read_to_string(file()) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("failed to read {SHOWN_AS}: {error}")),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        for (n, line) in text.lines().enumerate() {
            if let Some(setting) = line.strip_prefix(SETTING) {
                setting.clone_into(&mut table.setting);
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let mut columns = line.split('\t');
            let (Some(name), Some(Ok(count))) =
                (columns.next(), columns.next().map(str::parse::<u64>))
            else {
                return Err(format!("failed to read line {} of {SHOWN_AS}", n + 1));
            };
            if count == 0 || table.counts.insert(name.to_owned(), count).is_some() {
                return Err(format!(
                    "line {} of {SHOWN_AS} has no count, or one path twice",
                    n + 1
                ));
            }
        }
        Ok(table)
    }

    /// The accepted count of a path.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.counts.get(name).copied()
    }

    /// The table with these counts in place of the ones it had; others stay if there still is such
    /// a path.
    pub(crate) fn accept(mut self, setting: String, counts: &[(&str, u64)]) -> Self {
        self.counts.retain(|name, _| paths::find(name).is_some());
        self.counts
            .extend(counts.iter().map(|(name, count)| ((*name).into(), *count)));
        Self { setting, ..self }
    }

    pub(crate) fn write(&self) -> Result<(), String> {
        let mut text = format!(
            "# Written by `make instructions-accept`.\n{SETTING}{}\n{COLUMNS}\n",
            self.setting
        );
        for path in paths::ALL {
            if let Some(count) = self.count(path.name) {
                text += &format!("{}\t{count}\t{}\n", path.name, path.what);
            }
        }
        // Whole or not at all: a table cut short would fail every later run.
        let beside = file().with_extension("tsv.new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, file()))
            .map_err(|error| format!("failed to write {SHOWN_AS}: {error}"))
    }

    /// What is to be said of these counts. Where they are of all paths, a line of the table that is
    /// of none is worth a word, too.
    pub(crate) fn compare(&self, counts: &[(&str, u64)], all: bool) -> Vec<Finding> {
        let of_counts = counts.iter().filter_map(|(name, new)| {
            let (name, new) = ((*name).to_owned(), *new);
            let Some(old) = self.count(&name) else {
                return Some(Finding::NotAccepted { name, new });
            };
            if new.saturating_sub(old) > old / TOLERANCE {
                Some(Finding::Grown { name, old, new })
            } else if old.saturating_sub(new) > old / TOLERANCE {
                Some(Finding::Shrunk { name, old, new })
            } else {
                None
            }
        });
        let lines = self.counts.keys();
        let of_lines = lines
            .filter(|name| all && paths::find(name).is_none())
            .map(|name| Finding::NoPath { name: name.clone() });
        of_counts.chain(of_lines).collect()
    }
}

impl Finding {
    /// Whether the run fails for it.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self, Self::Shrunk { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grown { name, old, new } => {
                let percent = (*new as f64 / *old as f64 - 1.0) * 100.0;
                writeln!(
                    f,
                    "FAILED: `{name}` takes {percent:.1} % more instructions: {} were accepted, now it takes {}.",
                    grouped(*old),
                    grouped(*new)
                )?;
                writeln!(
                    f,
                    "  To see where: callgrind_annotate {}",
                    callgrind::profile_of(name).display()
                )?;
                write!(
                    f,
                    "  If it is worth its price: make instructions-accept, and commit {SHOWN_AS} with the reason."
                )
            }
            Self::Shrunk { name, old, new } => {
                let percent = (1.0 - *new as f64 / *old as f64) * 100.0;
                write!(
                    f,
                    "Well done: `{name}` takes {percent:.1} % fewer instructions: {} were accepted, now it takes {}.\n  \
                     So that it stays so: make instructions-accept, and commit {SHOWN_AS}.",
                    grouped(*old),
                    grouped(*new)
                )
            }
            Self::NotAccepted { name, new } => write!(
                f,
                "FAILED: `{name}`, which takes {} instructions, has no accepted count: make instructions-accept, and commit {SHOWN_AS}.",
                grouped(*new)
            ),
            Self::NoPath { name } => write!(
                f,
                "FAILED: {SHOWN_AS} has a count of `{name}`, which is no path any more: make instructions-accept, and commit it."
            ),
        }
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.tsv")
}

/// A count as people read it.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
