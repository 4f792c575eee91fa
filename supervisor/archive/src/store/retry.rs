//! How long a caller waits before it asks a store again.

use std::time::Duration;

/// Exponential backoff with jitter. Pure: the caller keeps the attempt counter and brings the
/// randomness, so that every schedule can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first delay.
    pub first: Duration,
    /// The ceiling of every later delay.
    pub max: Duration,
}

impl Backoff {
    /// For a store that went away: quick enough that a restarted database is noticed at once,
    /// slow enough that a hundred waiting containers do not keep it down.
    pub const STORE: Self = Self {
        first: Duration::from_millis(200),
        max: Duration::from_secs(5),
    };

    /// The delay after `attempt` failures in a row (counted from 0), between half of the ceiling
    /// and all of it. `fraction` picks the place, 0.0 to 1.0; what lies outside is cut off.
    #[must_use]
    pub fn delay(&self, attempt: u32, fraction: f64) -> Duration {
        // Doubling is capped well before it could overflow; `max` is reached long before that.
        let ceiling = self
            .first
            .saturating_mul(1 << attempt.min(20))
            .min(self.max);
        let fraction = if fraction.is_nan() {
            0.5
        } else {
            fraction.clamp(0.0, 1.0)
        };
        ceiling.mul_f64(0.5 + fraction / 2.0)
    }

    /// The delay after `attempt` failures in a row, at a random place.
    #[must_use]
    pub fn jittered(&self, attempt: u32) -> Duration {
        self.delay(attempt, random_fraction())
    }
}

/// A random number from 0.0 up to 1.0.
#[must_use]
pub fn random_fraction() -> f64 {
    // Without randomness everybody waits equally long, which is worse but not wrong.
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn delays_double_from_the_first_up_to_the_most() {
        let delays: Vec<u128> = (0..7)
            .map(|n| Backoff::STORE.delay(n, 1.0).as_millis())
            .collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    proptest! {
        #[test]
        fn no_delay_leaves_its_bounds(attempt: u32, fraction in prop::num::f64::ANY) {
            let delay = Backoff::STORE.delay(attempt, fraction);
            prop_assert!(delay >= Backoff::STORE.first / 2);
            prop_assert!(delay <= Backoff::STORE.max);
        }

        #[test]
        fn a_later_attempt_never_waits_less_at_the_same_place(attempt in 0u32..40, fraction in 0.0f64..=1.0) {
            let at = |n| Backoff::STORE.delay(n, fraction);
            prop_assert!(at(attempt) <= at(attempt + 1));
        }
    }
}
