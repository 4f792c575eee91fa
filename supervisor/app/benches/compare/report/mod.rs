//! From figures to `docs/benchmarks.md`: the tables between its marks, and the plots beside it.

mod goals;
mod peers;
mod unit;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::plot;
use crate::results::Results;
use goals::GOALS;
use peers::TABLES;

/// What a machine with nothing else to do shows now and then.
const QUIET: f64 = 0.5;

/// Everything that the report shows and that was neither measured nor explained.
pub(crate) fn missing(results: &Results) -> BTreeSet<String> {
    let goals = GOALS.iter().flat_map(|row| row.parts.iter());
    let goals = goals.flat_map(|part| part.of.names());
    let tables = TABLES.iter().flat_map(|table| table.names());
    let plots = plot::PLOTS.iter().flat_map(|plot| plot.names());
    goals
        .map(str::to_owned)
        .chain(tables)
        .chain(plots.map(str::to_owned))
        .filter(|name| results.get(name).is_none() && results.noted(name).is_none())
        .collect()
}

/// Writes the page's measured part, and the plots.
pub(crate) fn write(results: &Results) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let measured = measured(results);
    let page = docs.join("benchmarks.md");
    let text = fs::read_to_string(&page).expect("docs/benchmarks.md is part of the repository");
    let (begin, end) = ("<!-- begin measured -->\n", "<!-- end measured -->");
    let from = text.find(begin).expect("the page marks what was measured") + begin.len();
    let to = text.find(end).expect("the page marks what was measured");
    fs::write(&page, format!("{}{measured}{}", &text[..from], &text[to..]))
        .expect("the page is writable");
    let plots: PathBuf = docs.join("benchmarks");
    fs::create_dir_all(&plots).expect("create");
    plot::draw(results, &plots);
}

fn measured(results: &Results) -> String {
    let mut out = provenance(results);
    out.push_str("\n### Against the goals\n\n");
    out.push_str("| figure | measured | goal | met |\n|---|---|---|---|\n");
    for row in GOALS {
        let _ = writeln!(out, "{}", row.line(results));
    }
    for table in TABLES {
        out.push_str(&table.text(results));
    }
    out.push_str("\n### Plots\n\nAll axes are logarithmic.\n");
    for plot in plot::PLOTS {
        let _ = write!(out, "\n![{}](benchmarks/{}.svg)\n", plot.title, plot.file);
    }
    out
}

/// When and on what: from one run, or from which runs.
fn provenance(results: &Results) -> String {
    let runs: BTreeSet<u64> = results.sections.values().map(|s| s.run).collect();
    let machines: BTreeSet<&str> = results
        .sections
        .values()
        .map(|s| s.machine.as_str())
        .collect();
    let minutes: f64 = results.sections.values().map(|s| s.took).sum::<f64>() / 60.0;
    let machines: Vec<&str> = machines.into_iter().collect();
    let first = runs.first().copied().unwrap_or(0);
    let mut out = format!(
        "Measured {} on {}, mongod 6.0.5, in {minutes:.0} minutes",
        unit::date(first),
        machines.join("; "),
    );
    if runs.len() == 1 {
        out.push_str(", in one run.\n");
    } else {
        out.push_str(". **Not all in one run**: ");
        let each: Vec<String> = results
            .sections
            .iter()
            .map(|(name, section)| format!("{name} {}", unit::moment(section.begun)))
            .collect();
        let _ = writeln!(out, "{}.", each.join(", "));
    }
    let load = results.sections.values().map(|s| s.load);
    let load = load.fold(0.0, f64::max);
    if load > QUIET {
        let _ = writeln!(
            out,
            "**The machine was not quiet**: when sections began, up to {load:.1} other processes wanted its cores."
        );
    }
    out
}
