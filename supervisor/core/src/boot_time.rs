//! Time that goes on while the machine sleeps.
//!
//! A lease runs out by the database's clock, whether or not its holder's machine is awake.
//! [`std::time::Instant`] stands still while a laptop is shut or a virtual machine is suspended, so
//! that its holder would think itself safe for as long as it slept. What is said of a lease is said
//! by `CLOCK_BOOTTIME`.

use std::ops::Add;
use std::time::Duration;

use nix::time::clock_gettime;

/// A moment, as the time since the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .expect("CLOCK_BOOTTIME exists on every Linux");
        Self(now.into())
    }

    /// So long after the machine was started, for tests.
    #[must_use]
    pub fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long it was from `earlier` until then; zero where that came later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it has been since then; zero where it has yet to come.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// How long it is until then; zero where it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }

    /// So much earlier, or when the machine was started.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_never_wrap() {
        let now = BootInstant::now();
        assert_eq!(now.before(Duration::MAX), BootInstant(Duration::ZERO));
        assert_eq!(now + Duration::MAX, BootInstant(Duration::MAX));
        assert!(now.before(Duration::from_millis(1)) < now);
    }
}
