//! Whether the store's clock was set while somebody looks at it, told by this machine's own.

use std::time::Duration;

use sessionkeep_archive::store::CLOCK_SLACK;
use sessionkeep_core::boot_time::BootInstant;

/// How far a clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It says more than it would have.
    Forward(Duration),
    /// It says less.
    Back(Duration),
}

/// One reading of the store's clock.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// When it was asked for.
    asked: BootInstant,
    /// When the answer came.
    answered: BootInstant,
    now_ms: u64,
}

/// Compares what a store's clock says from time to time with how long it really was. Pure.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    last: Option<Reading>,
}

impl ClockWatch {
    /// Takes in a reading, and says by how much the clock was set since the last one; nothing where
    /// that is less than clocks may differ by.
    pub(crate) fn read(
        &mut self,
        asked: BootInstant,
        answered: BootInstant,
        now_ms: u64,
    ) -> Option<Step> {
        let reading = Reading {
            asked,
            answered,
            now_ms,
        };
        let last = self.last.replace(reading)?;
        // It was read at some moment between question and answer, the last time as well.
        let at_least = asked.since(last.answered);
        let at_most = answered.since(last.asked);
        let passed = now_ms.checked_sub(last.now_ms).map(Duration::from_millis);
        let went_back = Duration::from_millis(last.now_ms.saturating_sub(now_ms));
        let step = match passed {
            Some(passed) if passed > at_most => Step::Forward(passed - at_most),
            Some(passed) => Step::Back(at_least.saturating_sub(passed)),
            None => Step::Back(at_least + went_back),
        };
        let (Step::Forward(by) | Step::Back(by)) = step;
        (by > CLOCK_SLACK).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A clock that is set is found out, whatever the answers take; one that is not is left alone.
        #[test]
        fn a_step_is_told_by_its_length_and_nothing_else_is(
            begun in 0..1_000_000u64,
            spans in prop::collection::vec((0..20_000u64, 0..3_000u64, 0..3_000u64), 1..20),
            set_at in 0..20usize,
            by in prop_oneof![Just(0i64), -7_200_000..-4_500i64, 4_500..7_200_000i64],
        ) {
            let mut watch = ClockWatch::default();
            let at = |ms: u64| BootInstant::at(Duration::from_millis(ms));
            let mut real = begun;
            let mut ahead = 1_800_000_000_000i64;
            let mut longest = 0;
            for (n, (idle, there, back)) in spans.into_iter().enumerate() {
                real += idle;
                let asked = real;
                real += there;
                let is_set = n == set_at && n > 0 && by != 0;
                if is_set {
                    ahead += by;
                }
                let now_ms = real.saturating_add_signed(ahead);
                real += back;
                let step = watch.read(at(asked), at(real), now_ms);
                longest = longest.max(there + back);
                match step {
                    Some(Step::Forward(found)) => {
                        prop_assert!(is_set && by > 0);
                        let off = by.unsigned_abs() - u64::try_from(found.as_millis()).expect("small");
                        prop_assert!(off <= 2 * longest);
                    }
                    Some(Step::Back(found)) => {
                        prop_assert!(is_set && by < 0);
                        let off = by.unsigned_abs() - u64::try_from(found.as_millis()).expect("small");
                        prop_assert!(off <= 2 * longest);
                    }
                    // What the way took can hide as much.
                    None => prop_assert!(!is_set || by.unsigned_abs() <= 2 * longest + 1_000),
                }
            }
        }
    }
}
