//! `sessionkeep config`: the settings in force.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::config::{self, Flags, Origin};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Secrets are never shown. Where settings are wrong, the rest is shown and the
errors follow on standard error; the exit code is then 78.

Examples:
  sessionkeep config
  sessionkeep config --json
  sessionkeep config --set store.wait=2m --store none")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long, conflicts_with = "reference")]
    json: bool,
    /// Print the reference of all settings and exit codes, in Markdown
    #[arg(long)]
    reference: bool,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    if args.reference {
        super::print(&config::reference())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (origins, notes, errors) = match config::load(flags) {
        Ok(loaded) => (loaded.origins, loaded.notes, None),
        Err(errors) => (errors.origins.clone(), Vec::new(), Some(errors)),
    };
    let notes: Vec<String> = notes.iter().map(|note| note.about.to_string()).collect();
    if args.json {
        let settings: Vec<_> = origins
            .iter()
            .map(|origin| {
                json!({
                    "key": origin.key,
                    "value": origin.value_shown,
                    "source": origin.source.to_string(),
                })
            })
            .collect();
        let problems: Vec<_> = errors
            .iter()
            .flat_map(|errors| &errors.problems)
            .map(ToString::to_string)
            .collect();
        super::print_json(&json!({ "settings": settings, "notes": notes, "errors": problems }))?;
    } else {
        super::print(&table(&origins))?;
        for note in notes {
            super::print(&format!("note: {note}\n"))?;
        }
    }
    match errors {
        Some(errors) => Err(errors.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn table(origins: &[Origin]) -> String {
    let width = |text: fn(&Origin) -> &str| {
        let longest = origins
            .iter()
            .map(|origin| text(origin).chars().count())
            .max();
        // One long address must not push every source out of sight.
        longest.unwrap_or_default().min(48)
    };
    let (keys, values) = (width(|o| o.key), width(|o| &o.value_shown));
    let mut table = String::new();
    for Origin {
        key,
        value_shown,
        source,
    } in origins
    {
        let _ = writeln!(table, "{key:keys$}  {value_shown:values$}  {source}");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn the_table_lines_up_and_a_long_value_keeps_its_source() {
        let origin = |key, value: &str, source| Origin {
            key,
            value_shown: value.to_owned(),
            source,
        };
        let long = "x".repeat(60);
        let table = table(&[
            origin("dir", "/a", Source::Default),
            origin("store.url", &long, Source::Env("MONGO_URL")),
        ]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], format!("dir        {:48}  default", "/a"));
        assert_eq!(lines[1], format!("store.url  {long}  MONGO_URL"));
    }
}
