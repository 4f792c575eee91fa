//! The store's clock, as its writer counts it on, and how old something is by it.
//!
//! Commits carry the store's time, and go when they are older than `history.grace`. Both the store's
//! clock and this machine's can be set: forward, everything would seem older than it is, and be
//! collected at once. So a writer counts the store's time on by a clock that nobody sets, and believes
//! one that jumps ahead only for what it writes from then on; for what is older, once the grace has
//! passed since.

use std::time::Duration;

use sessionkeep_core::boot_time::BootInstant;

/// By how much two clocks may differ after a checkpoint's time: what is more was set.
const DRIFT: Duration = Duration::from_secs(60);

/// The store's time, counted on.
#[derive(Debug, Clone, Copy)]
struct Line {
    store_ms: u64,
    at: BootInstant,
}

impl Line {
    fn read(self, now: BootInstant) -> u64 {
        self.store_ms.saturating_add(millis(now.since(self.at)))
    }
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct StoreClock {
    line: Line,
    /// The slowest line of which something may be younger than the grace, and when it was left.
    left: Option<(Line, BootInstant)>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl StoreClock {
    /// Counts on from what the store's clock said just now.
    #[must_use]
    pub fn new(store_ms: u64) -> Self {
        Self::at(store_ms, BootInstant::now())
    }

    fn at(store_ms: u64, at: BootInstant) -> Self {
        let line = Line { store_ms, at };
        Self { line, left: None }
    }

    /// The store's time now, in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.line.read(BootInstant::now())
    }

    /// Takes in what the store's clock says now, and gives the time by which the age of what is stored
    /// is judged: never one at which something seems to be `grace` old that is not, as far as was seen.
    pub fn judge(&mut self, store_ms: u64, grace: Duration) -> u64 {
        self.judge_at(store_ms, grace, BootInstant::now())
    }

    fn judge_at(&mut self, store_ms: u64, grace: Duration, now: BootInstant) -> u64 {
        let expected = self.line.read(now);
        if store_ms > expected.saturating_add(millis(DRIFT)) {
            let lines = self
                .left
                .map(|(line, _)| line)
                .into_iter()
                .chain([self.line]);
            let slowest = lines.min_by_key(|line| line.read(now));
            self.left = slowest.map(|line| (line, now));
        }
        self.line = Line { store_ms, at: now };
        self.left = self.left.filter(|(_, since)| now.since(*since) < grace);
        self.left
            .map_or(store_ms, |(line, _)| line.read(now).min(store_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(3600);

    proptest! {
        /// Whatever the store's clock does between two looks at it, nothing that was written since the
        /// first is judged to be older than the grace before it is.
        #[test]
        fn nothing_is_judged_to_be_older_than_it_is(
            looks in prop::collection::vec((1..3_000u64, prop_oneof![Just(0i64), -20_000..-61i64, 61..20_000i64]), 1..40),
        ) {
            let mut now = BootInstant::at(Duration::from_secs(1_000_000));
            let mut ahead = 1_800_000_000_000i64;
            let store_ms = |real: u64, ahead: i64| real.saturating_add_signed(ahead);
            let mut real = 0u64;
            let mut clock = StoreClock::at(store_ms(real, ahead), now);
            // What was written, with its stamp and when it really was.
            let mut written = vec![(clock.line.read(now), real)];
            for (seconds, step) in looks {
                now = now + Duration::from_secs(seconds);
                real += seconds * 1000;
                written.push((clock.line.read(now), real));
                ahead += step * 1000;
                let judged = clock.judge_at(store_ms(real, ahead), GRACE, now);
                for (stamp, at) in &written {
                    let is_old = judged >= stamp + millis(GRACE);
                    prop_assert!(!is_old || real - at >= millis(GRACE), "{}s old", (real - at) / 1000);
                }
                written.push((clock.line.read(now), real));
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_once_the_grace_is_over() {
        let begun = BootInstant::at(Duration::from_secs(1000));
        let mut clock = StoreClock::at(1_000_000, begun);
        let year = 31_536_000_000;
        assert_eq!(clock.judge_at(1_000_000 + year, GRACE, begun), 1_000_000);
        assert_eq!(clock.line.read(begun), 1_000_000 + year);
        let later = begun + GRACE;
        let store_ms = 1_000_000 + year + millis(GRACE);
        assert_eq!(clock.judge_at(store_ms, GRACE, later), store_ms);
        // Back is believed at once: less is collected.
        assert_eq!(clock.judge_at(5_000, GRACE, later), 5_000);
    }
}
