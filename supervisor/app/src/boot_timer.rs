//! A timer by the clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`), for async code.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use sessionkeep_core::boot_time::BootInstant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until then: where the machine slept past it, no longer than until it wakes.
pub(crate) async fn sleep_until(moment: BootInstant) {
    match timer(moment) {
        Ok(timer) => {
            // It is ready when it has run out, and nothing has to be read of it.
            let _ = timer.ready(Interest::READABLE).await;
        }
        // Without a descriptor for it: late after a sleep is better than never.
        Err(_) => tokio::time::sleep(moment.left()).await,
    }
}

fn timer(moment: BootInstant) -> std::io::Result<AsyncFd<OwnedFd>> {
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
            let begun = BootInstant::now();
            let moment = begun + Duration::from_millis(30);
            sleep_until(moment).await;
            assert_eq!(moment.left(), Duration::ZERO);
            assert!(begun.elapsed() >= Duration::from_millis(30));
            sleep_until(begun).await;
            sleep_until(BootInstant::at(Duration::ZERO)).await;
        });
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing_behind() {
        block_on(async {
            let far = BootInstant::now() + Duration::from_secs(3600);
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
}
