//! What the profile leaves out is named once, for whoever looks for a file that is not saved.

use std::collections::HashSet;

use tracing::{Level, debug, enabled};

use sessionkeep_core::entry::RelPath;
use sessionkeep_session::ScanReport;

/// At most so many names are remembered. Temporary files have ever new ones.
const NAMED_MAX: usize = 10_000;

/// What scans left out.
#[derive(Debug, Default)]
pub(super) struct Excluded {
    /// How many entries in the last one of the whole directory.
    pub(super) count: u64,
    named: HashSet<RelPath>,
}

impl Excluded {
    /// Names in the log what a scan left out, each entry once.
    pub(super) fn name(&mut self, report: &ScanReport) {
        if !enabled!(target: "sync", Level::DEBUG) {
            return;
        }
        for (path, why) in &report.excluded {
            if self.named.len() >= NAMED_MAX {
                self.named.clear();
            }
            if self.named.insert(path.clone()) {
                debug!(target: "sync", %path, %why, "entry is left out by the profile");
            }
        }
    }
}
