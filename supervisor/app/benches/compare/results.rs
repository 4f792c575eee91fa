//! What was measured: figures by name, section by section, in a file that a later run adds to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// All that was measured so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    current: String,
    /// By the section's name.
    pub(crate) sections: BTreeMap<String, Section>,
}

/// What one section measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    /// Which run it was part of: when that run began, in seconds since 1970.
    pub(crate) run: u64,
    /// When it began itself.
    pub(crate) begun: u64,
    /// How long it took, in seconds.
    pub(crate) took: f64,
    /// The machine.
    pub(crate) machine: String,
    /// How many processes of others wanted a core when it began: 0 on a quiet machine.
    #[serde(default)]
    pub(crate) load: f64,
    /// Figures by name, in seconds, bytes, or as the name says.
    pub(crate) figures: BTreeMap<String, f64>,
    /// Why a figure is missing, or what to know of it, by the same names.
    pub(crate) notes: BTreeMap<String, String>,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_secs()
}

impl Results {
    /// Those that the file holds, or none.
    pub(crate) fn load(path: &Path) -> Self {
        let stored = fs::read(path).ok();
        let mut results = stored
            .and_then(|text| serde_json::from_slice::<Self>(&text).ok())
            .unwrap_or_default();
        results.path = path.to_owned();
        results
    }

    /// Begins a section anew.
    pub(crate) fn begin(&mut self, section: &str, run: u64, machine: &str, load: f64) {
        section.clone_into(&mut self.current);
        let begun = Section {
            run,
            begun: now(),
            machine: machine.to_owned(),
            load,
            ..Section::default()
        };
        self.sections.insert(self.current.clone(), begun);
    }

    /// Ends the section and writes the file, if there is one.
    pub(crate) fn end(&mut self, took: f64) {
        self.section().took = took;
        if self.path.as_os_str().is_empty() {
            return;
        }
        let text = serde_json::to_vec_pretty(&self).expect("figures always encode");
        fs::write(&self.path, text).expect("write the results");
    }

    fn section(&mut self) -> &mut Section {
        let current = self.current.clone();
        self.sections
            .get_mut(&current)
            .expect("a section has begun")
    }

    /// Notes a figure of the section that has begun.
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        println!("    {name:44} {value:>14.4}");
        assert!(value.is_finite(), "{name} is {value}");
        self.section().figures.insert(name.to_owned(), value);
    }

    /// Notes why a figure is missing, or what to know of it.
    pub(crate) fn note(&mut self, name: &str, text: impl Into<String>) {
        let text = text.into();
        println!("    {name:44} {text}");
        self.section().notes.insert(name.to_owned(), text);
    }

    /// A figure, of whichever section.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        let mut sections = self.sections.values();
        sections.find_map(|section| section.figures.get(name).copied())
    }

    /// A note.
    pub(crate) fn noted(&self, name: &str) -> Option<&str> {
        let mut sections = self.sections.values();
        sections.find_map(|section| section.notes.get(name).map(String::as_str))
    }
}
