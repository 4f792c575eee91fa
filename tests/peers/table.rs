//! All cases against all inits, and the page that shows the outcome.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::inits::Init;
use super::verdict::{Case, Miss, Section, Verdict};
use super::{codes, hostile, inheritance, orphans, signals, stdio, stopping, terminal};

pub(crate) const SECTIONS: &[Section] = &[
    Section {
        title: "Exit codes",
        cases: codes::CASES,
    },
    Section {
        title: "Signals",
        cases: signals::CASES,
    },
    Section {
        title: "Orphans and zombies",
        cases: orphans::CASES,
    },
    Section {
        title: "Input and output",
        cases: stdio::CASES,
    },
    Section {
        title: "What the command gets",
        cases: inheritance::CASES,
    },
    Section {
        title: "Stopping",
        cases: stopping::CASES,
    },
    Section {
        title: "Hostile surroundings",
        cases: hostile::CASES,
    },
    Section {
        title: "Terminal",
        cases: terminal::CASES,
    },
];

pub(crate) fn cases() -> impl Iterator<Item = &'static Case> {
    SECTIONS.iter().flat_map(|section| section.cases)
}

/// What came out, by case and init.
pub(crate) type Outcome = BTreeMap<(&'static str, &'static str), Verdict>;

/// Cases mostly wait, so more of them run at a time than there are cores.
const AT_A_TIME: usize = 4;

/// Runs every case against each of `inits`. What an init misses is said as it comes.
pub(crate) fn run(inits: &[Init]) -> Outcome {
    let trials: Vec<(&Case, Init)> = cases()
        .flat_map(|case| inits.iter().map(move |init| (case, *init)))
        .collect();
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Outcome::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((case, init)) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = (case.check)(*init);
                    match &verdict {
                        Ok(()) => println!("{}: {} ... ok", init.name(), case.name),
                        Err(miss) => println!("{}: {} ... {miss:?}", init.name(), case.name),
                    }
                    let mut outcome = outcome.lock().expect("no case panics with it");
                    outcome.insert((case.name, init.name()), verdict);
                }
            });
        }
    });
    outcome.into_inner().expect("no case panics with it")
}

/// The generated part of the page.
pub(crate) fn page(inits: &[Init], outcome: &Outcome) -> String {
    let mut page = String::new();
    let versions: Vec<String> = inits
        .iter()
        .map(|init| init.version())
        .filter(|v| !v.is_empty())
        .collect();
    let _ = writeln!(page, "Versions: {}.\n", versions.join(", "));
    let mut row = |first: &str, cells: &[String]| {
        let _ = writeln!(page, "| {first} | {} |", cells.join(" | "));
    };
    row(
        "case",
        &inits
            .iter()
            .map(|init| init.name().to_owned())
            .collect::<Vec<_>>(),
    );
    row(
        "---",
        &inits.iter().map(|_| ":-:".to_owned()).collect::<Vec<_>>(),
    );
    for section in SECTIONS {
        row(
            &format!("**{}**", section.title),
            &inits.iter().map(|_| String::new()).collect::<Vec<_>>(),
        );
        for case in section.cases {
            let cells: Vec<String> = inits
                .iter()
                .map(|init| mark(outcome.get(&(case.name, init.name()))).to_owned())
                .collect();
            row(&shown(case.name), &cells);
        }
    }
    let count = |init: &Init, of: &str| {
        cases()
            .filter(|case| mark(outcome.get(&(case.name, init.name()))) == of)
            .count()
    };
    let totals: Vec<String> = inits
        .iter()
        .map(|init| {
            format!(
                "{} ✓ {} ✗ {} –",
                count(init, "✓"),
                count(init, "✗"),
                count(init, "–")
            )
        })
        .collect();
    row(&format!("**{} cases**", cases().count()), &totals);
    page
}

fn mark(verdict: Option<&Verdict>) -> &'static str {
    match verdict {
        Some(Ok(())) => "✓",
        Some(Err(Miss::Fails(_))) => "✗",
        Some(Err(Miss::NotApplicable(_))) | None => "–",
    }
}

/// A case's name as a cell of the table.
pub(crate) fn shown(name: &str) -> String {
    name.replace('\\', "\\\\").replace('|', "\\|")
}

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/init.md")
}

/// The page, and where in it what is generated under the name `part` begins and ends.
fn find(part: &str) -> (String, usize, usize) {
    let page = fs::read_to_string(page_path()).expect("docs/init.md is part of the repository");
    let begin = format!("<!-- begin {part} -->\n");
    let from = page.find(&begin).expect("the page marks its parts") + begin.len();
    let to = page.find(&format!("<!-- end {part} -->"));
    (page, from, to.expect("the page marks its parts"))
}

/// What the page holds under the name `part`.
pub(crate) fn part(part: &str) -> String {
    let (page, from, to) = find(part);
    page[from..to].to_owned()
}

/// Replaces that.
pub(crate) fn write_part(part: &str, text: &str) {
    let (page, from, to) = find(part);
    let page = format!("{}{text}{}", &page[..from], &page[to..]);
    fs::write(page_path(), page).expect("the page is writable");
}
