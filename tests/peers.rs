//! What an init must do in a container, each case as a real PID 1, against ours and against those
//! that people use instead: tini, dumb-init, catatonit, s6. Ours must pass every case; what the
//! others do is shown in `docs/init.md`, which `make init-table` writes.
//!
//! Needs root and util-linux, for namespaces. Where none can be made, nothing is tried, and that
//! is a failure where `CI` is set.

#[path = "support/built.rs"]
mod built;
#[path = "peers/codes.rs"]
mod codes;
#[path = "peers/container.rs"]
mod container;
#[path = "peers/hostile.rs"]
mod hostile;
#[path = "peers/inheritance.rs"]
mod inheritance;
#[path = "peers/inits.rs"]
mod inits;
#[path = "peers/orphans.rs"]
mod orphans;
#[path = "support/policy.rs"]
mod policy;
#[path = "peers/signals.rs"]
mod signals;
#[path = "peers/stdio.rs"]
mod stdio;
#[path = "peers/stopping.rs"]
mod stopping;
#[path = "peers/table.rs"]
mod table;
#[path = "peers/terminal.rs"]
mod terminal;
#[path = "peers/verdict.rs"]
mod verdict;

use std::collections::HashSet;
use std::process::{Command, Stdio};

use inits::{Init, subject};
use verdict::Miss;

/// Set to write `docs/init.md` anew. All peers must be installed then.
const WRITE: &str = "INIT_TABLE";

/// Cases that ours does not pass yet. One of them that passes is a failure too, so that this list
/// stays true.
const NOT_YET: &[(Init, &str)] = &[];

fn namespaces_can_be_made() -> bool {
    let tried = Command::new("unshare")
        .args(["--fork", "--pid", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status();
    if tried.is_ok_and(|status| status.success()) {
        return true;
    }
    crate::policy::cannot_run("no pid namespace can be made (it needs root)");
    false
}

#[test]
fn ours_passes_every_case_and_the_others_are_recorded() {
    if !namespaces_can_be_made() {
        return;
    }
    // Built before the clock of any case runs.
    subject();
    let ours = Init::ours();
    let write = std::env::var_os(WRITE).is_some();
    let peers = Init::peers();
    let all: Vec<Init> = ours.iter().chain(&peers).copied().collect();
    let outcome = table::run(&all);
    let page = table::page(&all, &outcome);
    println!("{page}");
    if write {
        assert!(peers.len() == 5, "only {peers:?} are installed");
        table::write_part("table", &page);
    }
    let mut wrong = Vec::new();
    for init in ours {
        for case in table::cases() {
            let expected = !NOT_YET.contains(&(init, case.name));
            let name = format!("{}: {}", init.name(), case.name);
            match &outcome[&(case.name, init.name())] {
                Ok(()) if expected => {}
                Ok(()) => wrong.push(format!("{name}: it passes: take it off NOT_YET")),
                Err(_) if !expected => {}
                Err(Miss::Fails(why)) => wrong.push(format!("{name}: {why}")),
                Err(Miss::NotApplicable(why)) => wrong.push(format!("{name}: not tried: {why}")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn an_init_with_a_fault_fails_the_case_about_it() {
    if !namespaces_can_be_made() {
        return;
    }
    subject();
    built::example("broken_init");
    let verdict = |fault, name: &str| {
        let case = table::cases().find(|case| case.name == name);
        (case.expect("there is such a case").check)(Init::Broken(fault))
    };
    let term = "TERM reaches the command, whose handler sets the code";
    let orphan = "an orphan is reaped";
    let last = "a wrapper shell dies of TERM at once: its child, which needs 3 s, gets them";
    let code = "exit code 1 is passed on";
    for (fault, case) in [
        ("deaf", term),
        ("messy", orphan),
        ("hasty", last),
        ("hasty", code),
    ] {
        let verdict = verdict(fault, case);
        assert!(
            matches!(verdict, Err(Miss::Fails(_))),
            "{fault}: {case}: {verdict:?}"
        );
    }
    // The faults, and not the way they are tried, make the difference.
    for (fault, case) in [
        ("deaf", orphan),
        ("messy", term),
        ("messy", code),
        ("hasty", orphan),
    ] {
        assert_eq!(verdict(fault, case), Ok(()), "{fault}: {case}");
    }
}

#[test]
fn the_page_shows_every_case_and_no_other() {
    let page = table::part("table");
    let missing: Vec<_> = table::cases()
        .filter(|case| !page.contains(&format!("| {} |", table::shown(case.name))))
        .map(|case| case.name)
        .collect();
    assert!(
        missing.is_empty(),
        "run `make init-table`: not in docs/init.md: {missing:#?}"
    );
    let marked = |line: &&str| ["| ✓", "| ✗", "| –"].iter().any(|mark| line.contains(mark));
    let rows = page.lines().filter(marked).count();
    assert_eq!(rows, table::cases().count(), "run `make init-table`");
}

#[test]
fn there_are_enough_cases_and_each_has_a_name_of_its_own() {
    let names: HashSet<_> = table::cases().map(|case| case.name).collect();
    assert_eq!(names.len(), table::cases().count());
    assert!(names.len() >= 60, "{}", names.len());
    for (_, name) in NOT_YET {
        assert!(names.contains(name), "NOT_YET names no case: {name}");
    }
}
