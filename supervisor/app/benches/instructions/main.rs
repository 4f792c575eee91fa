//! How many instructions the hot paths take, counted by callgrind, beside the counts that were
//! accepted and are committed in `benches/instructions.tsv`. A path that takes over a tenth more
//! than accepted fails the run.
//!
//! `make instructions` compares, `make instructions-accept` writes the table. Names of paths after
//! `--` restrict either to them. Each path runs in a process of its own, which is this program once
//! more under valgrind; only what is inside of [`callgrind::counted`] counts. Why counts, and why
//! so: `docs/decisions/0015-instruction-counts.md`.

mod callgrind;
mod inputs;
mod paths;
mod table;

use std::hint::black_box;
use std::process::ExitCode;

use paths::HotPath;
use table::Table;

/// What is to be done with the counts.
enum Task {
    Compare,
    Accept,
}

fn main() -> ExitCode {
    // With the whole product linked in, and never called, the compiler decides here as it does for
    // the binary that ships: what has one caller in a part of it is inlined where it has two in all.
    black_box(sessionkeep::cli::main as fn(std::env::ArgsOs) -> ExitCode);
    // Cargo adds `--bench`.
    let mut args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if let [flag, name] = &args[..]
        && flag == callgrind::RUN_ONE
    {
        let path = paths::find(name).expect("the parent names a path that there is");
        (path.run)();
        return ExitCode::SUCCESS;
    }
    let task = match args.first().map(String::as_str) {
        Some("--accept") => {
            args.remove(0);
            Task::Accept
        }
        _ => Task::Compare,
    };
    match run(&task, &args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Counts and compares or accepts; `false` where a count is not as accepted.
fn run(task: &Task, names: &[String]) -> Result<bool, String> {
    let chosen = choose(names)?;
    let setting = callgrind::setting()?;
    let accepted = Table::read()?;
    if !accepted.setting.is_empty() && accepted.setting != setting {
        println!(
            "note: accepted with {}, counted with {setting}",
            accepted.setting
        );
    }
    println!(
        "{:<14} {:>13} {:>13} {:>7}",
        "path", "accepted", "now", "ratio"
    );
    let mut counts = Vec::new();
    for path in &chosen {
        let count = callgrind::count(path.name)?;
        match accepted.count(path.name) {
            Some(old) => println!(
                "{:<14} {:>13} {:>13} {:>7.3}",
                path.name,
                table::grouped(old),
                table::grouped(count),
                count as f64 / old as f64
            ),
            None => println!(
                "{:<14} {:>13} {:>13} {:>7}",
                path.name,
                "-",
                table::grouped(count),
                "new"
            ),
        }
        counts.push((path.name, count));
    }
    match task {
        Task::Accept => {
            accepted.accept(setting, &counts).write()?;
            println!("written to {}", table::SHOWN_AS);
            Ok(true)
        }
        Task::Compare => {
            let findings = accepted.compare(&counts, names.is_empty());
            for finding in &findings {
                println!("\n{finding}");
            }
            Ok(!findings.iter().any(table::Finding::is_failure))
        }
    }
}

fn choose(names: &[String]) -> Result<Vec<&'static HotPath>, String> {
    if names.is_empty() {
        return Ok(paths::ALL.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            paths::find(name).ok_or_else(|| {
                let known: Vec<_> = paths::ALL.iter().map(|path| path.name).collect();
                format!("`{name}` is none of the paths: {}", known.join(", "))
            })
        })
        .collect()
}
