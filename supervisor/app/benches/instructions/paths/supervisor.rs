//! Paths of PID 1.

use std::hint::black_box;
use std::time::Duration;

use sessionkeep_core::control::{Lifecycle, MonotonicMs, ToInit};
use sessionkeep_init::RestartPolicy;
use sessionkeep_init::machine::{
    Action, Ended, Event, ExitVerdict, InitPlan, Machine, Mode, Readiness, Role, Saved,
};
use sessionkeep_init::{ExitMap, Reach, Rewrites};

use crate::callgrind::counted;

const LIVES: u32 = 1000;

/// A gateway that starts, answers, gets signals, and fails: what comes in meanwhile, in order.
fn life(n: u32) -> Vec<Event> {
    let mut events = vec![
        Event::Control(ToInit::GatewayReady),
        Event::Signal(libc::SIGHUP),
        Event::OrphansReaped { count: 3 },
        Event::Signal(libc::SIGUSR1),
        Event::DeadlineReached,
    ];
    if n.is_multiple_of(10) {
        events.push(Event::ChildExited {
            role: Role::Watcher,
            how: Ended::Killed(libc::SIGKILL),
        });
        events.push(Event::DeadlineReached);
        events.push(Event::Control(ToInit::Ready));
    }
    events.extend([
        Event::ChildExited {
            role: Role::Gateway,
            how: Ended::Exited(1),
        },
        Event::DescendantsLeft { count: 2 },
        Event::OrphansReaped { count: 2 },
        Event::DescendantsGone,
        Event::DeadlineReached,
    ]);
    events
}

pub(super) fn machine() {
    let plan = InitPlan {
        mode: Mode::Store,
        readiness: Readiness::Probe,
        total: Duration::from_secs(25),
        flush: Duration::from_secs(15),
        restart: RestartPolicy::OnFailure,
        attempts: u32::MAX,
        stagger: Duration::ZERO,
        jitter_seed: 7,
        map_exit: ExitMap::default(),
        rewrites: Rewrites::default(),
        reach: Reach::Main,
        patience: Duration::from_millis(2500),
        lease_margin: None,
    };
    let mut events = vec![
        Event::Started,
        Event::PreflightDone,
        Event::ChildExited {
            role: Role::Restorer,
            how: Ended::Exited(0),
        },
        Event::Control(ToInit::Ready),
        // Its next sign of life is not what this waits for.
        Event::Control(ToInit::Alive {
            next_by: MonotonicMs(u64::MAX),
            lease_ends: None,
        }),
    ];
    events.extend((0..LIVES).flat_map(life));
    events.extend([
        Event::Control(ToInit::GatewayReady),
        Event::Signal(libc::SIGTERM),
        Event::ChildExited {
            role: Role::Gateway,
            how: Ended::Exited(0),
        },
        Event::DescendantsGone,
        Event::Control(ToInit::Flushed { seq: 7 }),
        Event::ChildExited {
            role: Role::Watcher,
            how: Ended::Exited(0),
        },
    ]);
    let mut now = MonotonicMs(1_000_000);
    let mut machine = Machine::new(plan);
    let (last, actions) = counted(|| {
        let (mut last, mut actions) = (Vec::new(), 0);
        for event in black_box(events) {
            if event == Event::DeadlineReached {
                now = machine.deadline().unwrap_or(now).max(now);
            }
            last = machine.step(event, now);
            actions += last.len();
        }
        (last, actions)
    });
    assert_eq!(machine.restarts(), LIVES);
    assert_eq!(machine.lifecycle(), Lifecycle::Exited);
    let saved = ExitVerdict {
        code: 0,
        saved: Saved::All(7),
    };
    assert!(
        last.contains(&Action::Exit(saved)),
        "it ended in order: {last:?}"
    );
    assert!(actions > 10 * LIVES as usize, "{actions} actions");
}
