//! What `doctor` finds out about a store in a file.

use sessionkeep_archive::store::Diagnostics;
use std::path::Path;

use super::{SqliteStore, writing};
use sessionkeep_archive::store::{Finding, Severity, StoreError};

impl SqliteStore {
    /// See [`super::Diagnostics::examine`].
    pub(super) async fn findings(&self) -> Vec<Finding> {
        let finding = |subject, severity, detail, remedy: &str| Finding {
            subject,
            severity,
            detail,
            remedy: remedy.to_owned(),
        };
        let probe = self
            .work("write and check its file", |db| {
                // A write transaction takes the lock and needs the right to write; rolled back,
                // it leaves nothing.
                let transaction = writing(db)?;
                transaction.execute("INSERT INTO leases VALUES ('(doctor)', '', 0, 0, 0)", [])?;
                transaction.rollback()?;
                let check = |sql| db.query_row(sql, [], |row| row.get::<_, String>(0));
                Ok((
                    check("PRAGMA journal_mode")?,
                    check("PRAGMA quick_check(1)")?,
                ))
            })
            .await;
        let mut findings = match probe {
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                let detail = format!("{}: {error}{cause}", self.describe());
                let remedy = match &error {
                    StoreError::WritesRefused { why, .. } => why.remedy(),
                    _ => "check that the path is right, on a disk that is there, and writable",
                };
                vec![finding("store reachable", Severity::Bad, detail, remedy)]
            }
            Ok((journal, check)) => {
                let mut findings = vec![finding(
                    "store reachable",
                    Severity::Good,
                    format!("{}, writable, journal mode {journal}", self.describe()),
                    "",
                )];
                if check != "ok" {
                    findings.push(finding(
                        "store intact",
                        Severity::Bad,
                        check,
                        "restore the file from a copy, or start a new one and keep this",
                    ));
                }
                findings
            }
        };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        if let Ok(disk) = nix::sys::statvfs::statvfs(directory) {
            let free = (disk.blocks_available() * disk.fragment_size()) >> 20;
            let (severity, remedy) = if free < 512 {
                (Severity::Warning, "make room before writes fail")
            } else {
                (Severity::Good, "")
            };
            findings.push(finding(
                "free space",
                severity,
                format!("{free} MiB free beside the store's file"),
                remedy,
            ));
        }
        findings
    }
}
