//! Time that goes on while the machine sleeps.
//!
//! A lease runs out by the database's clock, whether or not its holder's machine is awake.
//! [`std::time::Instant`] stands still while a laptop is shut or a virtual machine is suspended, so
//! that its holder would think itself safe for as long as it slept. What is said of a lease is said
//! by `CLOCK_BOOTTIME`.

use std::ops::Add;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A moment, as the time since the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WakingInstant(Duration);

impl WakingInstant {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .expect("CLOCK_BOOTTIME exists on every Linux");
        Self(now.into())
    }

    /// So long after the machine was started, for tests.
    #[cfg(test)]
    pub(crate) fn at(since_start: Duration) -> Self {
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

impl Add<Duration> for WakingInstant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Waits until then: where the machine slept past it, no longer than until it wakes.
pub(crate) async fn sleep_until(moment: WakingInstant) {
    match timer(moment) {
        Ok(timer) => {
            // It is ready when it has run out, and nothing has to be read of it.
            let _ = timer.ready(Interest::READABLE).await;
        }
        // Without a descriptor for it: late after a sleep is better than never.
        Err(_) => tokio::time::sleep(moment.left()).await,
    }
}

fn timer(moment: WakingInstant) -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
    // A span of zero would switch it off. A span and not a moment: where a program lives by a clock
    // that is not the kernel's, as under libfaketime, it is the same by both.
    let left = moment.left().max(Duration::from_nanos(1));
    let once = Expiration::OneShot(TimeSpec::from_duration(left));
    timer.set(once, TimerSetTimeFlags::empty())?;
    // SAFETY: the descriptor stays open, and the same, for as long as it is owned.
    let registered =
        unsafe { AsyncFd::register_with_interest(OwnedFd::from(timer), Interest::READABLE) };
    registered.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn it_waits_for_what_is_to_come_and_not_for_what_is_past() {
        block_on(async {
            let begun = WakingInstant::now();
            let moment = begun + Duration::from_millis(30);
            sleep_until(moment).await;
            assert_eq!(moment.left(), Duration::ZERO);
            assert!(begun.elapsed() >= Duration::from_millis(30));
            sleep_until(begun).await;
            sleep_until(WakingInstant(Duration::ZERO)).await;
        });
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing_behind() {
        block_on(async {
            let far = WakingInstant::now() + Duration::from_secs(3600);
            for _ in 0..3000 {
                // More than there are descriptors.
                let near = tokio::time::sleep(Duration::ZERO);
                tokio::select! {
                    () = sleep_until(far) => panic!("an hour has passed"),
                    () = near => {}
                }
            }
        });
    }

    #[test]
    fn spans_never_wrap() {
        let now = WakingInstant::now();
        assert_eq!(now.before(Duration::MAX), WakingInstant(Duration::ZERO));
        assert_eq!(now + Duration::MAX, WakingInstant(Duration::MAX));
        assert!(now.before(Duration::from_millis(1)) < now);
    }
}
