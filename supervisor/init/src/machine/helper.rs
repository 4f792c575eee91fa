//! When the watcher is started again.

use std::collections::VecDeque;
use std::time::Duration;

use sessionkeep_core::control::MonotonicMs;

/// A child that lived this long was not failing: its delays begin anew.
pub(super) const STABLE: Duration = Duration::from_secs(60);
/// Longest delay before a child is started again.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(30);

/// Where the watcher stands, apart from where the gateway does: each lives its own life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watcher {
    /// It is not wanted (yet, or any more).
    Unwanted,
    /// It runs.
    Alive {
        since: MonotonicMs,
        /// How often in a row it died before.
        deaths: u32,
    },
    /// It died and is to be started again.
    Due { at: MonotonicMs, deaths: u32 },
}

impl Watcher {
    /// It has been started now.
    pub(super) fn start(&mut self, now: MonotonicMs) {
        let deaths = match self {
            Self::Unwanted => 0,
            Self::Alive { deaths, .. } | Self::Due { deaths, .. } => *deaths,
        };
        *self = Self::Alive { since: now, deaths };
    }

    /// It ended now: when is it started again? `None` where it was not running at all.
    pub(super) fn died(&mut self, now: MonotonicMs) -> Option<Duration> {
        let Self::Alive { since, deaths } = *self else {
            return None;
        };
        let before = if now >= since.after(STABLE) {
            0
        } else {
            deaths
        };
        let delay = match before {
            0 => Duration::ZERO,
            more => doubling(more - 1),
        };
        *self = Self::Due {
            at: now.after(delay),
            deaths: before + 1,
        };
        Some(delay)
    }

    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Alive { .. })
    }

    /// When it is to be started again.
    pub(super) fn due(self) -> Option<MonotonicMs> {
        match self {
            Self::Due { at, .. } => Some(at),
            _ => None,
        }
    }
}

/// So many deaths of the watcher within [`STABLE`] are a loop, and not bad luck.
const CRASHES: usize = 5;

/// The watcher's latest deaths.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    recent: VecDeque<MonotonicMs>,
    told: bool,
}

impl Crashes {
    /// It died now: does a loop begin by that? A loop is told about once. It is over when a death
    /// is the only one within a minute.
    pub(super) fn is_loop(&mut self, now: MonotonicMs) -> bool {
        self.recent.retain(|at| now < at.after(STABLE));
        if self.recent.is_empty() {
            self.told = false;
        }
        self.recent.push_back(now);
        if self.recent.len() < CRASHES {
            return false;
        }
        self.recent.pop_front();
        !std::mem::replace(&mut self.told, true)
    }
}

/// 1, 2, 4, 8, 16, 30, 30 … seconds.
pub(super) fn doubling(nth: u32) -> Duration {
    DELAY_MAX.min(Duration::from_secs(1 << nth.min(5)))
}

/// Shortens `delay` by up to a quarter, by a figure that `seed` and `nth` determine.
pub(super) fn jittered(delay: Duration, seed: u64, nth: u32) -> Duration {
    delay - spread(delay / 4, seed, nth)
}

/// A time from zero up to `most`, which `seed` and `nth` determine.
pub(super) fn spread(most: Duration, seed: u64, nth: u32) -> Duration {
    // SplitMix64's finisher: spreads neighbouring inputs over the whole range.
    let mut x = seed.wrapping_add(u64::from(nth).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
    Duration::from_millis(x % (most + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute_and_begin_anew_after_a_stable_minute() {
        let mut now = MonotonicMs(1);
        let mut watcher = Watcher::Unwanted;
        assert_eq!(watcher.died(now), None, "it was not running");
        let mut seen = Vec::new();
        for _ in 0..8 {
            watcher.start(now);
            seen.push(watcher.died(now).expect("running").as_secs());
        }
        assert_eq!(seen, [0, 1, 2, 4, 8, 16, 30, 30]);
        watcher.start(now);
        now = now.after(STABLE);
        assert_eq!(watcher.died(now), Some(Duration::ZERO));
    }

    #[test]
    fn the_fifth_death_within_a_minute_is_a_loop_and_told_once() {
        let mut crashes = Crashes::default();
        let secs = |s: u64| MonotonicMs(1_000_000 + s * 1000);
        // One every 20 s is none.
        for nth in 0..20 {
            assert!(!crashes.is_loop(secs(nth * 20)));
        }
        let told: Vec<bool> = (1000..1020).map(|s| crashes.is_loop(secs(s))).collect();
        assert_eq!(told.iter().position(|told| *told), Some(4));
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        // It goes on at half a minute each, is over, and begins anew.
        for nth in 0..5 {
            assert!(!crashes.is_loop(secs(1030 + nth * 30)));
        }
        assert!(!crashes.is_loop(secs(2000)));
        let again = (2001..2005).filter(|s| crashes.is_loop(secs(*s)));
        assert_eq!(again.collect::<Vec<_>>(), [2004]);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_quarter_at_most() {
        let delay = Duration::from_secs(8);
        let mut different = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let got = jittered(delay, seed, 3);
            assert!(got <= delay && got >= Duration::from_secs(6), "{got:?}");
            different.insert(got);
        }
        assert!(different.len() > 100, "it hardly varies");
    }
}
