//! The figures that have goals, and the goals.

use super::unit::Unit::{self, Core, Count, Megabytes, Millis, Milliseconds, Seconds, Times};
use crate::results::Results;
use Goal::{AtLeast, AtMost, Free};
use Of::{Figure, Ratio};

/// A line of the table.
pub(crate) struct Row {
    figure: &'static str,
    /// What is shown, one after the other.
    pub(crate) parts: &'static [Part],
}

/// One figure with its goal.
pub(crate) struct Part {
    pub(crate) of: Of,
    unit: Unit,
    goal: Goal,
}

/// Where a figure comes from.
pub(crate) enum Of {
    /// As measured.
    Figure(&'static str),
    /// The first divided by the second.
    Ratio(&'static str, &'static str),
}

enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Free,
}

impl Of {
    /// The figures that are needed.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        match self {
            Figure(name) => vec![name],
            Ratio(above, below) => vec![above, below],
        }
    }

    fn value(&self, results: &Results) -> Option<f64> {
        match self {
            Figure(name) => results.get(name),
            Ratio(above, below) => Some(results.get(above)? / results.get(below)?),
        }
    }
}

impl Row {
    /// In Markdown.
    pub(crate) fn line(&self, results: &Results) -> String {
        let each = |show: &dyn Fn(&Part) -> String| {
            let shown: Vec<String> = self.parts.iter().map(show).collect();
            shown.join(" / ")
        };
        let measured = each(&|part| match part.of.value(results) {
            Some(value) => part.unit.text(value),
            None => {
                let why = part.of.names().into_iter();
                why.filter_map(|name| results.noted(name)).collect()
            }
        });
        let goal = each(&|part| {
            // A goal in the unit that the figure was noted in.
            let text = |value| {
                part.unit
                    .text(value)
                    .replace(".00 ", " ")
                    .replace(".0 ", " ")
            };
            match part.goal {
                AtMost(value) => format!("≤ {}", text(value)),
                AtLeast(value) => format!("≥ {}", text(value)),
                Free => "–".to_owned(),
            }
        });
        let met = each(&|part| {
            let value = part.of.value(results);
            let met = match part.goal {
                AtMost(most) => value.is_some_and(|value| value <= most),
                AtLeast(least) => value.is_some_and(|value| value >= least),
                Free => return "–".to_owned(),
            };
            if met { "yes" } else { "**no**" }.to_owned()
        });
        format!("| {} | {measured} | {goal} | {met} |", self.figure)
    }
}

const fn part(of: Of, unit: Unit, goal: Goal) -> Part {
    Part { of, unit, goal }
}

/// The goals, in the order of the report.
pub(crate) const GOALS: &[Row] = &[
    Row {
        figure: "W1 restore: time / to plain writes of the same files / times faster than the sidecar, sixteen at a time",
        parts: &[
            part(Figure("w1.restore.product"), Seconds, AtMost(0.8)),
            part(Figure("w1.restore.ratio"), Times, AtMost(2.0)),
            part(
                Ratio("w1.restore.sidecar16", "w1.restore.product"),
                Times,
                AtLeast(25.0),
            ),
        ],
    },
    Row {
        figure: "W1 first upload: time / to `insert_many` of the same files / times faster than the sidecar, sixteen at a time",
        parts: &[
            part(Figure("w1.upload.product"), Seconds, Free),
            part(Figure("w1.upload.ratio"), Times, AtMost(1.2)),
            part(
                Ratio("w1.upload.sidecar16", "w1.upload.product"),
                Times,
                AtLeast(40.0),
            ),
        ],
    },
    Row {
        figure: "stored (data and indexes), to the source: W1 / W4 after its rewrites / W3",
        parts: &[
            part(Figure("w1.stored.product"), Times, AtMost(0.6)),
            part(Figure("w4.stored.product"), Times, AtMost(0.8)),
            part(Figure("w3.stored.product"), Times, AtMost(0.4)),
        ],
    },
    Row {
        figure: "W4 written → durable, p50 / p99 / the sidecar's p50 to it",
        parts: &[
            part(Figure("w4.durable.product.p50"), Millis, AtMost(80.0)),
            part(Figure("w4.durable.product.p99"), Millis, AtMost(250.0)),
            part(
                Ratio("w4.durable.sidecar.p50", "w4.durable.product.p50"),
                Times,
                AtLeast(10.0),
            ),
        ],
    },
    Row {
        figure: "W5 written → durable, p50 / p99 / the sidecar's p50 to it",
        parts: &[
            part(Figure("w5.durable.product.p50"), Millis, AtMost(80.0)),
            part(Figure("w5.durable.product.p99"), Millis, AtMost(250.0)),
            part(
                Ratio("w5.durable.sidecar.p50", "w5.durable.product.p50"),
                Times,
                AtLeast(10.0),
            ),
        ],
    },
    Row {
        figure: "store operations for each batch of changes: W4 / W5",
        parts: &[
            part(Figure("w4.operations.product"), Count, AtMost(1.1)),
            part(Figure("w5.operations.product"), Count, Free),
        ],
    },
    Row {
        figure: "W2 CPU, of a core / to Litestream's",
        parts: &[
            part(Figure("w2.cpu.product"), Core, AtMost(2.0)),
            part(
                Ratio("w2.cpu.product", "w2.cpu.litestream"),
                Times,
                AtMost(1.0),
            ),
        ],
    },
    Row {
        figure: "W2 bytes sent, to the changed pages",
        parts: &[part(
            Ratio("w2.sent.product", "w2.pages.product"),
            Times,
            AtMost(3.0),
        )],
    },
    Row {
        figure: "W2 behind, p50 / p99",
        parts: &[
            part(Figure("w2.behind.product.p50"), Milliseconds, AtMost(0.25)),
            part(Figure("w2.behind.product.p99"), Milliseconds, Free),
        ],
    },
    Row {
        figure: "W2 restore",
        parts: &[part(Figure("w2.restore.product"), Seconds, AtMost(0.2))],
    },
    Row {
        figure: "CPU, of a core: W5 / idle with W1",
        parts: &[
            part(Figure("w5.cpu.product"), Core, AtMost(0.5)),
            part(Figure("idle.cpu.product"), Core, AtMost(0.1)),
        ],
    },
    Row {
        figure: "writes to the store while idle, but for the lease",
        parts: &[part(Figure("idle.writes.product"), Count, AtMost(0.0))],
    },
    Row {
        figure: "peak RSS: restore of W1 / upload of W1 / W2",
        parts: &[
            part(Figure("w1.rss.restore.product"), Megabytes, AtMost(40e6)),
            part(Figure("w1.rss.upload.product"), Megabytes, AtMost(40e6)),
            part(Figure("w2.rss.product"), Megabytes, AtMost(24e6)),
        ],
    },
    Row {
        figure: "peak RSS: restore of W2 / upload of W3 / restore of W3 / W4 / W5",
        parts: &[
            part(Figure("w2.rss.restore.product"), Megabytes, Free),
            part(Figure("w3.rss.upload.product"), Megabytes, Free),
            part(Figure("w3.rss.restore.product"), Megabytes, Free),
            part(Figure("w4.rss.product"), Megabytes, Free),
            part(Figure("w5.rss.product"), Megabytes, Free),
        ],
    },
    Row {
        figure: "idle PSS with W1: PID 1 and watcher together / PID 1 alone",
        parts: &[
            part(Figure("idle.pss.product"), Megabytes, AtMost(14e6)),
            part(Figure("idle.pss.init"), Megabytes, AtMost(2e6)),
        ],
    },
    Row {
        figure: "clean stop, W1, nothing dirty",
        parts: &[part(Figure("w1.stop.product"), Milliseconds, AtMost(0.2))],
    },
    Row {
        figure: "last 50 files, written by the gateway after TERM: saved / the whole stop",
        parts: &[
            part(Figure("stop.saved.product"), Count, AtLeast(50.0)),
            part(Figure("stop.took.product"), Milliseconds, Free),
        ],
    },
    Row {
        figure: "ten times the files (306,300): restore / to W1's / idle CPU to W1's",
        parts: &[
            part(Figure("growth.x10.restore"), Seconds, Free),
            part(
                Ratio("growth.x10.restore", "growth.x1.restore"),
                Times,
                AtMost(11.0),
            ),
            part(
                Ratio("growth.x10.idle.cpu", "growth.x1.idle.cpu"),
                Times,
                AtMost(1.5),
            ),
        ],
    },
    Row {
        figure: "ten times the files: idle PSS / peak RSS of upload / of restore",
        parts: &[
            part(Figure("growth.x10.idle.pss"), Megabytes, Free),
            part(Figure("growth.x10.rss.upload"), Megabytes, Free),
            part(Figure("growth.x10.rss.restore"), Megabytes, Free),
        ],
    },
    Row {
        figure: "a hundred times the history: restore / to that of a short one",
        parts: &[
            part(Figure("growth.long.restore"), Milliseconds, Free),
            part(
                Ratio("growth.long.restore", "growth.short.restore"),
                Times,
                AtMost(1.2),
            ),
        ],
    },
    Row {
        figure: "a tenth of a core and 512 MB: restore of W5's account",
        parts: &[part(Figure("small.restore.product"), Seconds, AtMost(1.0))],
    },
    Row {
        figure: "the same, W5 for a minute: CPU of a core / written → durable p50 / p99",
        parts: &[
            part(Figure("small.cpu.product"), Core, Free),
            part(Figure("small.durable.product.p50"), Millis, Free),
            part(Figure("small.durable.product.p99"), Millis, Free),
        ],
    },
    Row {
        figure: "store 30 ms away: W1 restore / first upload",
        parts: &[
            part(Figure("link.30.restore.product"), Seconds, Free),
            part(Figure("link.30.upload.product"), Seconds, Free),
        ],
    },
    Row {
        figure: "store 100 ms away: W1 restore / first upload",
        parts: &[
            part(Figure("link.100.restore.product"), Seconds, AtMost(3.0)),
            part(Figure("link.100.upload.product"), Seconds, Free),
        ],
    },
];
