//! `sessionkeep doctor`: looks for what could go wrong.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::config::{self, Flags, HttpSettings, Settings};
use crate::process::runtime;
use sessionkeep_archive::store::{Finding, Lease, Severity, StoreError};
use sessionkeep_core::human::{Bytes, Causes, Timestamp, Took};
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::{Directory, Marker, MarkerError, free_space, is_interrupted};

use super::{context, stack};

/// Less free space than this is too little to restore anything into.
const SPACE_MIN: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
One line for each thing: settings, directory, store, rights, durability of
writes, clocks, encryption, free space; with the remedy where one is needed.
Exits with 1 if something will not work.

Example:
  sessionkeep doctor --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    match config::load(flags) {
        Ok(loaded) => {
            findings.push(good(
                "settings",
                format!(
                    "{} in force, none contradicts another",
                    loaded.origins.len()
                ),
            ));
            crate::log::init(&loaded.settings.log);
            for config::Note { weight, about } in &loaded.notes {
                let value = about
                    .value
                    .as_ref()
                    .map_or_else(String::new, |v| format!(" = {v}"));
                let detail = format!("{}{value}: {}", about.name, about.reason);
                findings.push(match weight {
                    config::Weight::Info => good("settings", detail),
                    config::Weight::Warning => warning("settings", detail, &about.remedy),
                });
            }
            if sessionkeep_init::rights::is_root_without_kill() {
                findings.push(warning(
                    "rights",
                    "root without CAP_KILL: a gateway that gives up root is hard to stop"
                        .to_owned(),
                    "add the capability to the container: `cap_add: [KILL]`",
                ));
            }
            if sessionkeep_init::rights::is_root_without_override() {
                findings.push(warning(
                    "rights",
                    "root without CAP_DAC_OVERRIDE: what a gateway that gives up root keeps to itself can neither be read nor put back"
                        .to_owned(),
                    "add the capability to the container: `cap_add: [DAC_OVERRIDE]`",
                ));
            }
            for key in loaded.settings.http.guessable() {
                findings.push(warning(
                    "settings",
                    format!("{key} is shorter than {} characters and can be guessed", HttpSettings::UNGUESSABLE),
                    "write a long random one: wrong tries are slowed down, but nothing else is between it and who guesses",
                ));
            }
            directory(&loaded.settings, &mut findings);
            store(&loaded.settings, &mut findings);
        }
        Err(errors) => {
            for problem in &errors.problems {
                findings.push(bad(
                    "settings",
                    problem.to_string(),
                    "correct it; `sessionkeep config --reference` lists them all",
                ));
            }
        }
    }
    if stack::is_here() {
        stack::translate(&mut findings);
    }
    if args.json {
        let shown: Vec<_> = findings
            .iter()
            .map(|f| json!({ "subject": f.subject, "severity": word(f.severity), "detail": f.detail, "remedy": f.remedy }))
            .collect();
        super::print_json(&shown)?;
    } else {
        super::print(&findings.iter().map(line).collect::<String>())?;
    }
    let broken = findings
        .iter()
        .any(|finding| finding.severity == Severity::Bad);
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "ok",
        Severity::Warning => "warn",
        Severity::Bad => "FAIL",
    }
}

fn line(finding: &Finding) -> String {
    let remedy = if finding.remedy.is_empty() {
        String::new()
    } else {
        format!(" → {}", finding.remedy)
    };
    format!(
        "{:5} {:16} {}{remedy}\n",
        word(finding.severity),
        finding.subject,
        finding.detail
    )
}

fn good(subject: &'static str, detail: String) -> Finding {
    Finding {
        subject,
        severity: Severity::Good,
        detail,
        remedy: String::new(),
    }
}

fn bad(subject: &'static str, detail: String, remedy: &str) -> Finding {
    Finding {
        subject,
        severity: Severity::Bad,
        detail,
        remedy: remedy.into(),
    }
}

fn warning(subject: &'static str, detail: String, remedy: &str) -> Finding {
    Finding {
        subject,
        severity: Severity::Warning,
        detail,
        remedy: remedy.into(),
    }
}

fn directory(settings: &Settings, findings: &mut Vec<Finding>) {
    let dir = &settings.dir;
    if let Err(error) =
        sessionkeep_init::place::check(&settings.dir, &crate::process::setup::storage(settings))
    {
        findings.push(bad(
            "directory",
            error.to_string(),
            "set SESSIONKEEP_DIR (or SESSIONS_PATH) to another one",
        ));
        return;
    }
    if !dir.exists() {
        findings.push(not_made_yet(dir));
        return;
    }
    content(settings, findings);
    room(dir, findings);
    own_directory(settings, findings);
}

/// A session directory that does not exist.
fn not_made_yet(dir: &Path) -> Finding {
    let parent = dir
        .ancestors()
        .find(|above| above.exists())
        .unwrap_or(Path::new("/"));
    let writable = nix::unistd::access(parent, nix::unistd::AccessFlags::W_OK).is_ok();
    if writable {
        good(
            "directory",
            format!("{} does not exist yet and will be made", dir.display()),
        )
    } else {
        bad(
            "directory",
            format!(
                "{} does not exist and {} is not writable",
                dir.display(),
                parent.display()
            ),
            "mount it, or give another SESSIONKEEP_DIR",
        )
    }
}

/// What is in the session directory, and whether it may be read and written.
fn content(settings: &Settings, findings: &mut Vec<Finding>) {
    let dir = &settings.dir;
    let access = nix::unistd::AccessFlags::R_OK
        | nix::unistd::AccessFlags::W_OK
        | nix::unistd::AccessFlags::X_OK;
    match (
        Directory::open(dir, settings.profile.files()),
        nix::unistd::access(dir, access),
    ) {
        (Ok(directory), Ok(())) => {
            let (mut files, mut bytes) = (0u64, 0u64);
            let report = directory.scan(None, &mut |_, _| {}, &mut |found| {
                files += 1;
                bytes += found.print.size;
            });
            findings.push(good(
                "directory",
                format!("{} holds {files} entries, {}", dir.display(), Bytes(bytes)),
            ));
            if let Some((path, why)) = report.unreadable.first() {
                findings.push(warning(
                    "directory",
                    format!(
                        "{} entries cannot be read, such as {path}: {why}",
                        report.unreadable.len()
                    ),
                    "give sessionkeep the gateway's user, or root",
                ));
            }
        }
        (Err(error), _) => findings.push(bad(
            "directory",
            format!("{}: {error}", dir.display()),
            "give sessionkeep the right to read it",
        )),
        (_, Err(error)) => findings.push(bad(
            "directory",
            format!("{}: {error}", dir.display()),
            "make it writable for the user that runs sessionkeep",
        )),
    }
}

fn room(dir: &Path, findings: &mut Vec<Finding>) {
    match free_space(dir) {
        Ok(free) if free < SPACE_MIN => findings.push(bad(
            "free space",
            format!("{} free beside the session directory", Bytes(free)),
            "free some space; a restore needs the session's size once more",
        )),
        Ok(free) => findings.push(good(
            "free space",
            format!("{} free beside the session directory", Bytes(free)),
        )),
        Err(error) => findings.push(warning("free space", error.to_string(), "")),
    }
}

/// What `.sessionkeep` says of the archive, and of a restore that was interrupted.
fn own_directory(settings: &Settings, findings: &mut Vec<Finding>) {
    let state = match StateDir::existing(&settings.dir) {
        Ok(state) => state,
        Err(error) => {
            findings.push(bad(
                "own directory",
                error.to_string(),
                "the next start refuses it",
            ));
            return;
        }
    };
    match state.as_ref().map_or(Ok(None), Marker::read) {
        Ok(Some(marker)) if marker.archive == settings.archive.as_str() => {
            findings.push(good(
                "marker",
                format!("at commit {} of archive {}", marker.seq, marker.archive),
            ));
        }
        Ok(Some(marker)) => findings.push(warning(
            "marker",
            format!(
                "the directory belongs to archive {}, not to {}",
                marker.archive, settings.archive
            ),
            "set SESSIONKEEP_ARCHIVE to it, or the next start sets these files aside",
        )),
        Ok(None) => findings.push(good("marker", "none yet".into())),
        Err(error @ MarkerError::Malformed { .. }) => findings.push(warning(
            "marker",
            error.to_string(),
            "the next start treats the files as unknown: where the store has a session, they are set aside",
        )),
        // No start gets past these.
        Err(error) => findings.push(bad("marker", Causes(&error).to_string(), "as it says")),
    }
    match state.as_ref().map_or(Ok(false), is_interrupted) {
        Ok(false) => {}
        Ok(true) => findings.push(warning(
            "restore",
            "one was interrupted while it was put in place".to_owned(),
            "the next start finishes it",
        )),
        Err(error) => findings.push(bad("restore", Causes(&error).to_string(), "as it says")),
    }
}

fn store(settings: &Settings, findings: &mut Vec<Finding>) {
    if settings.is_file_mode() {
        findings.push(warning(
            "store",
            "file mode: nothing is replicated".into(),
            "fine with a persistent volume; otherwise set MONGO_URL",
        ));
        return;
    }
    if let Some(file) = context::missing_file(settings) {
        let there = file.ancestors().skip(1).find(|above| above.exists());
        let there = there.unwrap_or(Path::new("/"));
        let writable = nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).is_ok();
        let file = file.display();
        findings.push(match writable {
            true => good(
                "store",
                format!("SQLite file {file} does not exist yet and will be made"),
            ),
            false => bad(
                "store",
                format!(
                    "SQLite file {file} does not exist, and {} is not writable",
                    there.display()
                ),
                "mount it for writing, or name another file",
            ),
        });
        return;
    }
    let examined = runtime::block_on(async {
        let store = context::open(settings).await?;
        let mut found = vec![good("store", store.describe())];
        found.extend(store.examine().await);
        found.extend(lease(store.lease(&settings.archive).await));
        store.close().await;
        anyhow::Ok(found)
    });
    match examined.and_then(|inner| inner) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(bad(
            "store",
            format!("{error:#}"),
            "check the URL and that the database is up",
        )),
    }
}

/// For how long it is told that the store's clock was set back.
const SET_BACK_TOLD: Duration = Duration::from_secs(24 * 3600);

/// What the archive's lease shows: damage, and a clock that was set.
fn lease(found: Result<Option<Lease>, StoreError>) -> Vec<Finding> {
    let lease = match found {
        Ok(Some(lease)) => lease,
        Err(error @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => {
            let remedy = match error {
                StoreError::Format { .. } => "install the version that wrote it, or a newer one",
                _ => {
                    "end the instance that holds it, if there is one, and then `sessionkeep lease --break`"
                }
            };
            return vec![bad("lease", error.to_string(), remedy)];
        }
        // None yet; or the store does not answer, which is told already.
        Ok(None) | Err(_) => return Vec::new(),
    };
    let mut findings = Vec::new();
    if lease.queue_damaged {
        findings.push(warning(
            "lease",
            "its queue cannot be read, in part at least: somebody else has written to the store"
                .into(),
            "none is needed: the next renewal or start puts it right",
        ));
    }
    if let Some(found) = lease.set_back
        && lease.now_ms.saturating_sub(found.found_ms) < millis(SET_BACK_TOLD)
    {
        findings.push(warning(
            "store clock",
            format!(
                "it was set back by {}, found at {}",
                Took(Duration::from_millis(found.by_ms)),
                Timestamp(found.found_ms)
            ),
            "run NTP on the store's host, on all members of a replica set; leases and the history's \
             grace go by that clock",
        ));
    }
    findings
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
