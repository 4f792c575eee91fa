//! The last hour in samples of ten seconds, for a chart: how long changes waited, and what was
//! committed.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::ShownCommit;

/// How long a sample is.
const SAMPLE_MS: u64 = 10_000;
/// How many are kept: an hour.
const KEPT: usize = 360;

/// Ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// The longest that a change was waiting, in seconds.
    pub lag_seconds: f64,
    /// How many commits were made.
    pub commits: u32,
    /// Content bytes that they brought.
    pub bytes: u64,
}

/// Samples, of which those in which nothing happened are not kept.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    pub(super) fn committed(&mut self, commit: &ShownCommit, lag: Duration) {
        self.lag(commit.time_ms, lag);
        let sample = self.at(commit.time_ms);
        sample.commits += 1;
        sample.bytes += commit.bytes;
    }

    pub(super) fn lag(&mut self, now_ms: u64, lag: Duration) {
        if lag > Duration::ZERO {
            let sample = self.at(now_ms);
            sample.lag_seconds = sample.lag_seconds.max(lag.as_secs_f64());
        }
    }

    /// The sample of this moment. A clock that was set back goes on with the newest.
    fn at(&mut self, now_ms: u64) -> &mut Sample {
        let at_ms = now_ms - now_ms % SAMPLE_MS;
        if self.0.back().is_none_or(|newest| newest.at_ms < at_ms) {
            if self.0.len() == KEPT {
                self.0.pop_front();
            }
            self.0.push_back(Sample {
                at_ms,
                lag_seconds: 0.0,
                commits: 0,
                bytes: 0,
            });
        }
        self.0.back_mut().expect("one was just made")
    }

    /// Those of the last hour, the oldest first.
    pub(super) fn samples(&self, now_ms: u64) -> Vec<Sample> {
        let oldest = now_ms.saturating_sub(SAMPLE_MS * KEPT as u64);
        let recent = self.0.iter().filter(|sample| sample.at_ms >= oldest);
        recent.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(time_ms: u64, bytes: u64) -> ShownCommit {
        ShownCommit {
            seq: 1,
            time_ms,
            changes: 1,
            bytes,
        }
    }

    #[test]
    fn a_sample_has_the_longest_wait_and_the_sum_of_its_commits() {
        let mut history = History::default();
        history.committed(&commit(100_001, 5), Duration::from_millis(70));
        history.committed(&commit(109_999, 6), Duration::from_millis(30));
        history.committed(&commit(110_000, 7), Duration::from_millis(20));
        history.lag(119_000, Duration::ZERO);
        let samples = history.samples(120_000);
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].commits, samples[0].bytes), (2, 11));
        assert!((samples[0].lag_seconds - 0.07).abs() < 1e-9);
        assert_eq!((samples[1].at_ms, samples[1].commits), (110_000, 1));
    }

    #[test]
    fn an_hour_is_kept_and_no_more_and_a_clock_set_back_loses_nothing() {
        let mut history = History::default();
        for n in 0..1000 {
            history.lag(n * SAMPLE_MS, Duration::from_secs(1));
        }
        assert_eq!(history.0.len(), KEPT);
        history.lag(5, Duration::from_secs(9));
        assert_eq!(history.0.len(), KEPT);
        assert!((history.samples(999 * SAMPLE_MS)[KEPT - 1].lag_seconds - 9.0).abs() < 1e-9);
        assert!(history.samples(2000 * SAMPLE_MS).is_empty());
    }
}
