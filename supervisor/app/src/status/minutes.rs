//! The newest commits, minute by minute: under load, twenty of them are a few seconds.

use std::collections::VecDeque;

use serde::Serialize;

use super::ShownCommit;

const MINUTE_MS: u64 = 60_000;
/// How many minutes in which something was committed are shown.
const KEPT: usize = 20;

/// What was committed in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownMinute {
    /// The number of the first commit.
    pub first_seq: u64,
    /// The number of the last.
    pub last_seq: u64,
    /// When the last was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many commits.
    pub commits: u64,
    /// How many changes they have.
    pub changes: u64,
    /// Content bytes that they brought.
    pub bytes: u64,
}

/// Adds a commit to the minutes, of which the newest comes first.
pub(super) fn add(minutes: &mut VecDeque<ShownMinute>, commit: &ShownCommit) {
    let minute = |ms: u64| ms / MINUTE_MS;
    let (changes, bytes) = (u64::from(commit.changes), commit.bytes);
    if let Some(newest) = minutes.front_mut()
        && minute(newest.time_ms) == minute(commit.time_ms)
    {
        newest.last_seq = commit.seq;
        newest.time_ms = newest.time_ms.max(commit.time_ms);
        newest.commits += 1;
        newest.changes += changes;
        newest.bytes += bytes;
        return;
    }
    minutes.push_front(ShownMinute {
        first_seq: commit.seq,
        last_seq: commit.seq,
        time_ms: commit.time_ms,
        commits: 1,
        changes,
        bytes,
    });
    minutes.truncate(KEPT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_of_a_minute_are_one_row_and_twenty_rows_are_kept() {
        let mut minutes = VecDeque::new();
        // Five a second, for an hour.
        for n in 0..18_000 {
            let commit = ShownCommit {
                seq: n + 1,
                time_ms: n * 200,
                changes: 2,
                bytes: 3,
            };
            add(&mut minutes, &commit);
        }
        assert_eq!(minutes.len(), KEPT);
        let newest = ShownMinute {
            first_seq: 17_701,
            last_seq: 18_000,
            time_ms: 17_999 * 200,
            commits: 300,
            changes: 600,
            bytes: 900,
        };
        assert_eq!(minutes[0], newest);
        assert_eq!(minutes[19].first_seq, 18_000 - 20 * 300 + 1);
    }
}
