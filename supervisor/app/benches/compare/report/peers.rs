//! The product beside what people use instead, and beside the limits.

use std::fmt::Write as _;

use super::unit::Unit::{self, Core, Count, Megabytes, Millis, Milliseconds, Seconds, Times};
use crate::results::Results;

/// A table with a column for each subject. The first one is the product; the others' cells say
/// how many times its figure theirs is.
pub(crate) struct Table {
    title: &'static str,
    subjects: &'static [(&'static str, &'static str)],
    /// What is shown, and the figure's name with `{}` in the place of the subject's. A subject
    /// that has no such figure is named after `except`.
    rows: &'static [Line],
}

struct Line {
    what: &'static str,
    name: &'static str,
    unit: Unit,
    except: &'static [&'static str],
}

const fn line(
    what: &'static str,
    name: &'static str,
    unit: Unit,
    except: &'static [&'static str],
) -> Line {
    Line {
        what,
        name,
        unit,
        except,
    }
}

impl Table {
    /// The figures that are needed.
    pub(crate) fn names(&self) -> Vec<String> {
        let of_line = |line: &'static Line| {
            let subjects = self.subjects.iter().map(|(subject, _)| *subject);
            let has = move |subject: &&str| !line.except.contains(subject);
            subjects
                .filter(has)
                .map(|subject| line.name.replace("{}", subject))
        };
        self.rows.iter().flat_map(of_line).collect()
    }

    /// In Markdown.
    pub(crate) fn text(&self, results: &Results) -> String {
        let mut out = format!("\n### {}\n\n| |", self.title);
        for (_, title) in self.subjects {
            let _ = write!(out, " {title} |");
        }
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(self.subjects.len()));
        for line in self.rows {
            let _ = write!(out, "| {} |", line.what);
            let ours = results.get(&line.name.replace("{}", self.subjects[0].0));
            for (number, (subject, _)) in self.subjects.iter().enumerate() {
                let name = line.name.replace("{}", subject);
                let cell = match results.get(&name) {
                    _ if line.except.contains(subject) => "–".to_owned(),
                    None => results.noted(&name).unwrap_or("–").to_owned(),
                    Some(value) => match ours {
                        Some(ours) if number > 0 && ours > 0.0 && line.unit != Count => {
                            let ratio = Times.text(value / ours);
                            format!("{} ({ratio})", line.unit.text(value))
                        }
                        _ => line.unit.text(value),
                    },
                };
                let _ = write!(out, " {cell} |");
            }
            out.push('\n');
        }
        out
    }
}

/// The tables, in the order of the report.
pub(crate) const TABLES: &[Table] = &[
    Table {
        title: "W1: restore",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("plain", "limit: plain writes"),
            ("find", "limit: `find` in batches, and writes"),
            ("keys_bulk", "a document a key, in bulk"),
            ("keys_each", "a document a key, 16 at a time"),
            ("sidecar16", "sidecar, 16 at a time"),
            ("sidecar1", "sidecar, one at a time"),
        ],
        rows: &[
            line("time", "w1.restore.{}", Seconds, &[]),
            line("CPU time", "w1.cpu.restore.{}", Seconds, &["plain", "find"]),
            line(
                "peak RSS",
                "w1.rss.restore.{}",
                Megabytes,
                &["plain", "find"],
            ),
        ],
    },
    Table {
        title: "W1: first upload",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("read", "limit: plain reads"),
            ("insert_many", "limit: `insert_many`"),
            ("keys_bulk", "a document a key, in bulk"),
            ("keys_each", "a document a key, 16 at a time"),
            ("sidecar16", "sidecar, 16 at a time"),
            ("sidecar1", "sidecar, one at a time"),
        ],
        rows: &[
            line("time", "w1.upload.{}", Seconds, &[]),
            line(
                "CPU time",
                "w1.cpu.upload.{}",
                Seconds,
                &["read", "insert_many"],
            ),
            line(
                "peak RSS",
                "w1.rss.upload.{}",
                Megabytes,
                &["read", "insert_many"],
            ),
        ],
    },
    Table {
        title: "W1: data and indexes in the store, to the source",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("insert_many", "limit: `insert_many`"),
            ("keys", "a document a key"),
            ("sidecar", "sidecar"),
        ],
        rows: &[line("stored", "w1.stored.{}", Times, &[])],
    },
    Table {
        title: "W2: a database under a hundred transactions a second",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("litestream", "Litestream"),
            ("sidecar", "sidecar"),
            ("copy", "limit: a copy of the file"),
        ],
        rows: &[
            line("CPU, of a core", "w2.cpu.{}", Core, &["copy"]),
            line("peak RSS", "w2.rss.{}", Megabytes, &["copy"]),
            line(
                "sent, or written to the replica",
                "w2.sent.{}",
                Megabytes,
                &["copy"],
            ),
            line("behind, p50", "w2.behind.{}.p50", Milliseconds, &["copy"]),
            line("behind, p99", "w2.behind.{}.p99", Milliseconds, &["copy"]),
            line(
                "transactions not seen within 3 s",
                "w2.missing.{}",
                Count,
                &["copy"],
            ),
            line(
                "transactions a second, as reached",
                "w2.rate.{}",
                Count,
                &["copy"],
            ),
            line("restore", "w2.restore.{}", Seconds, &["sidecar"]),
        ],
    },
    Table {
        title: "W3: a browser profile",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("sidecar16", "sidecar, 16 at a time"),
        ],
        rows: &[
            line("first upload", "w3.upload.{}", Seconds, &[]),
            line("restore", "w3.restore.{}", Seconds, &[]),
            line("peak RSS of the upload", "w3.rss.upload.{}", Megabytes, &[]),
        ],
    },
    Table {
        title: "W4, W5, and at rest",
        subjects: &[("product", "**sessionkeep**"), ("sidecar", "sidecar")],
        rows: &[
            line(
                "W4 written → durable, p50",
                "w4.durable.{}.p50",
                Millis,
                &[],
            ),
            line(
                "W4 written → durable, p99",
                "w4.durable.{}.p99",
                Millis,
                &[],
            ),
            line(
                "W4 writes that never were durable",
                "w4.durable.{}.missing",
                Count,
                &[],
            ),
            line("W4 CPU, of a core", "w4.cpu.{}", Core, &[]),
            line("W4 peak RSS", "w4.rss.{}", Megabytes, &[]),
            line(
                "W5 written → durable, p50",
                "w5.durable.{}.p50",
                Millis,
                &[],
            ),
            line(
                "W5 written → durable, p99",
                "w5.durable.{}.p99",
                Millis,
                &[],
            ),
            line(
                "W5 writes that never were durable",
                "w5.durable.{}.missing",
                Count,
                &[],
            ),
            line("W5 CPU, of a core", "w5.cpu.{}", Core, &[]),
            line("W5 peak RSS", "w5.rss.{}", Megabytes, &[]),
            line("idle CPU with W1, of a core", "idle.cpu.{}", Core, &[]),
            line("idle PSS with W1", "idle.pss.{}", Megabytes, &[]),
        ],
    },
    Table {
        title: "A stop, where the gateway writes 50 files after it was told to end",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("start", "sidecar, `start.sh`"),
            ("trap", "sidecar, `start-trap.sh`"),
        ],
        rows: &[
            line("of 50 saved", "stop.saved.{}", Count, &[]),
            line("TERM → exit", "stop.took.{}", Milliseconds, &[]),
        ],
    },
    Table {
        title: "One account (1,021 files) on a tenth of a core and 512 MB",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("sidecar16", "sidecar, 16 at a time"),
        ],
        rows: &[line("restore", "small.restore.{}", Seconds, &[])],
    },
    Table {
        title: "Restore of one account from a store that is far away",
        subjects: &[
            ("product", "**sessionkeep**"),
            ("sidecar16", "sidecar, 16 at a time"),
        ],
        rows: &[
            line("30 ms", "link.30.account.{}", Seconds, &[]),
            line("100 ms", "link.100.account.{}", Seconds, &[]),
        ],
    },
];
