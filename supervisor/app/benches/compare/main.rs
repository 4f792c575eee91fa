//! `make bench`: the product and what people use instead, on the same data against the same real
//! mongod, in one run. Writes `docs/benchmarks.md` and the plots beside it.
//!
//! Nothing here passes or fails by a figure: machines differ, and each figure is read beside those
//! that were taken with it. What does fail is a subject that does not do its job: what was restored
//! is compared with what was stored.
//!
//! `BENCH` names the sections to run (`BENCH=w2,w4`), whose figures then replace those of an
//! earlier run; `BENCH=smoke` runs all of it in a minute or two on next to no data, and keeps nothing.
//! `BENCH_ALONE=1` leaves out what the product is compared with, and keeps nothing either: with
//! `BENCH_PRODUCT=PATH`, the binary to measure, two builds are compared by turns (W1, W2, W4).

mod cage;
mod link;
mod measure;
mod observe;
mod plot;
mod process;
mod report;
mod results;
mod section;
mod server;
mod subject;
mod workload;
mod writer;

#[path = "../../../../tests/support/mongod.rs"]
mod mongod;
#[path = "../../../../tests/support/proxy.rs"]
mod proxy;
#[path = "../../../../tests/support/process.rs"]
mod system;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use results::Results;
use section::{Context, SECTIONS, Scale};

fn main() -> ExitCode {
    if writer::is_writer() {
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` runs this too; only `cargo bench` is asked to measure.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let asked = std::env::var("BENCH").unwrap_or_default();
    let smoke = asked == "smoke";
    let wanted: Vec<&str> = if smoke || asked.is_empty() {
        SECTIONS.iter().map(|(name, _)| *name).collect()
    } else {
        asked.split(',').collect()
    };
    let known = |name: &str| SECTIONS.iter().any(|(known, _)| *known == name);
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !known(name) && **name != "report")
    {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "BENCH names {unknown:?}, which is none of: smoke, report, {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let kept = kept();
    std::fs::create_dir_all(kept.parent().expect("it has one")).expect("create target/bench");
    let is_alone = section::is_alone();
    let mut results = if smoke || is_alone {
        Results::default()
    } else {
        Results::load(&kept)
    };
    let run = results::now();
    let machine = machine();
    let scale = if smoke { Scale::SMOKE } else { Scale::FULL };
    for (name, section) in SECTIONS {
        if !wanted.contains(name) {
            continue;
        }
        println!("{name}:");
        let begun = Instant::now();
        results.begin(name, run, &machine, measure::load());
        section(&mut Context::new(scale, &mut results));
        results.end(begun.elapsed().as_secs_f64());
        println!("    ({:.0} s)", begun.elapsed().as_secs_f64());
    }
    if is_alone {
        println!("measured without the others; nothing is kept");
        return ExitCode::SUCCESS;
    }
    let missing = report::missing(&results);
    if smoke {
        assert!(missing.is_empty(), "nothing was measured of {missing:#?}");
        println!("every subject and every observer works");
    } else if missing.is_empty() {
        report::write(&results);
        println!("docs/benchmarks.md is written");
    } else {
        println!("docs/benchmarks.md stays as it is; not measured yet: {missing:#?}");
    }
    ExitCode::SUCCESS
}

/// Where figures are kept from run to run.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench/results.json")
}

/// What was measured on, in words.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| {
        rest.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = kernel.trim().split(['.', '-']).take(2).collect();
    format!(
        "{cores} cores ({model}), {:.0} GB of memory, Linux {}",
        memory.unwrap_or(0) as f64 * 1024.0 / 1e9,
        kernel.join("."),
    )
}
