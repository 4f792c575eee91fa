//! What a bot acknowledged, and what sessionkeep said that it committed.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use crate::place::{Commit, Place};

/// How far the clock by which commits are dated (the store's, as it was last compared with ours)
/// may be off. Both run on this machine, so the comparison's round trip is all there is to it.
const CLOCKS_MS: i64 = 100;

/// One acknowledged message or transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) n: u64,
    pub(crate) at_ms: i64,
    /// Which process wrote it; numbers repeat in another after a restore of an older state.
    run: String,
}

impl Place {
    /// The lines of the newest process that wrote any; failed messages are not among them.
    pub(crate) fn acknowledged(&self) -> Vec<Acknowledged> {
        let journal = fs::read_to_string(self.journal()).unwrap_or_default();
        let mut lines: Vec<Acknowledged> = journal
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a whole line"))
            .filter(|line| line.get("error").is_none())
            .map(|line| Acknowledged {
                n: line["n"].as_u64().expect("a number"),
                at_ms: line["at_ms"].as_i64().expect("a moment"),
                run: line["run"].as_str().expect("a name").to_owned(),
            })
            .collect();
        if let Some(last) = lines.last().map(|line| line.run.clone()) {
            lines.retain(|line| line.run == last);
        }
        lines
    }

    /// The last number that was acknowledged.
    pub(crate) fn last_acknowledged(&self) -> u64 {
        self.acknowledged().last().map_or(0, |line| line.n)
    }

    /// How many commits the log tells of; cheaper to ask than the store.
    pub(crate) fn logged_commits(&self) -> usize {
        self.took_ms().len()
    }

    /// How long each commit took in all, by its number, as the log says.
    fn took_ms(&self) -> HashMap<u64, i64> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["message"] == "committed")
            .filter_map(|line| Some((line["seq"].as_u64()?, span_ms(line["took"].as_str()?))))
            .collect()
    }

    /// Commits that the log tells of, each with a moment that lies before the reading of its first
    /// file. What was acknowledged by then must be in it.
    ///
    /// A record is dated when it is composed, which is after all files were read and before it is
    /// sent; `took` runs from before the first file to the store's answer. Hence its date less
    /// `took` lies before the first file was read.
    pub(crate) fn commits_with_beginnings(&self) -> Vec<(Commit, i64)> {
        let took = self.took_ms();
        let all = self.commits().into_iter();
        all.filter_map(|commit| {
            let took = took.get(&commit.seq)?;
            let began = commit.time_ms - took - CLOCKS_MS;
            Some((commit, began))
        })
        .collect()
    }
}

/// The last number that was acknowledged by a moment; 0 where there is none.
pub(crate) fn acknowledged_by(lines: &[Acknowledged], moment_ms: i64) -> u64 {
    let by_then = lines.iter().take_while(|line| line.at_ms <= moment_ms);
    by_then.last().map_or(0, |line| line.n)
}

/// A span as the log writes it, rounded up: the log rounds down.
fn span_ms(text: &str) -> i64 {
    let number = |digits: &str| -> f64 { digits.parse().expect("a number") };
    let ms = if text.ends_with("us") {
        1.0
    } else if let Some(ms) = text.strip_suffix("ms") {
        number(ms) + 1.0
    } else if let Some((minutes, seconds)) = text.split_once('m') {
        number(minutes) * 60_000.0 + (number(seconds.trim_end_matches('s')) + 1.0) * 1000.0
    } else {
        number(text.trim_end_matches('s')) * 1000.0 + 10.0
    };
    #[expect(clippy::cast_possible_truncation, reason = "spans of seconds")]
    let ms = ms.ceil() as i64;
    ms
}

#[test]
fn spans_are_read_as_the_log_writes_them() {
    assert_eq!(span_ms("624us"), 1);
    assert_eq!(span_ms("7ms"), 8);
    assert_eq!(span_ms("1.25s"), 1260);
    assert_eq!(span_ms("2m05s"), 126_000);
}
