//! Each branch by itself: what happens, and what is done about it.

use super::*;

mod handover;
mod liveness;

const TERM: i32 = libc::SIGTERM;
const KILL: i32 = libc::SIGKILL;

fn plan() -> InitPlan {
    InitPlan {
        mode: Mode::Store,
        readiness: Readiness::Probe,
        total: Duration::from_secs(9),
        flush: Duration::from_secs(3),
        restart: RestartPolicy::No,
        attempts: 5,
        stagger: Duration::ZERO,
        jitter_seed: 1,
        map_exit: ExitMap::default(),
        rewrites: Rewrites::default(),
        reach: Reach::Main,
        patience: Duration::from_millis(2500),
        lease_margin: None,
    }
}

/// A machine and the time that its executor sees.
struct Bench {
    machine: Machine,
    now: MonotonicMs,
}

impl Bench {
    fn new(plan: InitPlan) -> Self {
        Self {
            machine: Machine::new(plan),
            now: MonotonicMs(50_000),
        }
    }

    /// A gateway that is up.
    fn running(plan: InitPlan) -> Self {
        let mut bench = Self::new(plan);
        for event in [
            Event::Started,
            Event::PreflightDone,
            exited(Role::Restorer, 0),
            alive_until(u64::MAX, None),
            Event::Control(ToInit::GatewayReady),
        ] {
            bench.step(event);
        }
        bench.is(Lifecycle::Running);
        bench
    }

    /// What is done, without what is only said.
    fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.machine.step(event, self.now);
        actions.retain(|action| {
            !matches!(
                action,
                Action::Transition { .. } | Action::Note(_) | Action::SendLifecycle
            )
        });
        actions
    }

    fn steps(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let mut last = Vec::new();
        for event in events {
            last = self.step(event);
        }
        last
    }

    /// Waits for the next deadline.
    fn wait(&mut self) -> (u64, Vec<Action>) {
        let at = self.machine.deadline().expect("a deadline");
        let waited = at.0 - self.now.0;
        self.now = at;
        (waited, self.step(Event::DeadlineReached))
    }

    #[track_caller]
    fn is(&self, expected: Lifecycle) {
        assert_eq!(self.machine.lifecycle(), expected);
    }
}

/// The watcher says that it lives, and when it will say so again.
fn alive_until(next_by: u64, lease_ends: Option<u64>) -> Event {
    Event::Control(ToInit::Alive {
        next_by: MonotonicMs(next_by),
        lease_ends: lease_ends.map(MonotonicMs),
    })
}

fn exited(role: Role, code: u8) -> Event {
    let how = Ended::Exited(code);
    Event::ChildExited { role, how }
}

fn killed(role: Role, signal: i32) -> Event {
    let how = Ended::Killed(signal);
    Event::ChildExited { role, how }
}

#[track_caller]
fn exit_of(actions: &[Action]) -> (u8, Saved) {
    match actions.last() {
        Some(Action::Exit(verdict)) => (verdict.code, verdict.saved.clone()),
        other => panic!("no exit but {other:?} in {actions:?}"),
    }
}

/// Ends the flush of a bench that is flushing, and gives the code.
#[track_caller]
fn saved(bench: &mut Bench) -> u8 {
    bench.is(Lifecycle::Flushing);
    let flushed = Event::Control(ToInit::Flushed { seq: 8 });
    let actions = bench.steps([flushed, exited(Role::Watcher, 0)]);
    let (code, saved) = exit_of(&actions);
    assert_eq!(saved, Saved::All(8));
    code
}

#[test]
fn a_life_goes_from_restore_to_flush_in_order() {
    let mut bench = Bench::new(plan());
    assert_eq!(bench.step(Event::Started), [Action::Preflight]);
    let actions = bench.step(Event::PreflightDone);
    assert_eq!(actions, [Action::Spawn(Role::Restorer)]);
    bench.is(Lifecycle::Restoring);
    let actions = bench.step(exited(Role::Restorer, 0));
    let expected = [Action::Spawn(Role::Watcher), Action::Spawn(Role::Gateway)];
    assert_eq!(actions, expected, "the watcher sees the first write");
    bench.is(Lifecycle::Starting);
    bench.step(Event::Control(ToInit::GatewayReady));
    bench.is(Lifecycle::Running);
    assert_eq!(bench.step(Event::Signal(TERM)), [Action::SignalMain(TERM)]);
    bench.is(Lifecycle::Stopping);
    let actions = bench.step(exited(Role::Gateway, 0));
    assert_eq!(actions, [Action::CountDescendants]);
    let deadline = bench.now.after(Duration::from_secs(9));
    let actions = bench.step(Event::DescendantsGone);
    assert_eq!(actions, [Action::SendFlush { deadline }]);
    assert_eq!(saved(&mut bench), 0);
    bench.is(Lifecycle::Exited);
}

#[test]
fn file_mode_restores_nothing_and_still_asks_for_the_flush() {
    let mode = Mode::File;
    let readiness = Readiness::AtOnce;
    let mut bench = Bench::new(InitPlan {
        mode,
        readiness,
        ..plan()
    });
    let actions = bench.steps([Event::Started, Event::PreflightDone]);
    let expected = [Action::Spawn(Role::Watcher), Action::Spawn(Role::Gateway)];
    assert_eq!(actions, expected);
    bench.is(Lifecycle::Running);
    bench.steps([exited(Role::Gateway, 4), Event::DescendantsGone]);
    assert_eq!(saved(&mut bench), 4);
}

#[test]
fn a_restore_that_fails_ends_the_life_with_a_documented_code() {
    for (event, code) in [
        (exited(Role::Restorer, 69), 69),
        (exited(Role::Restorer, 70), 70),
        (exited(Role::Restorer, 75), 75),
        (exited(Role::Restorer, 78), 78),
        (exited(Role::Restorer, 1), exit::INTERNAL),
        (exited(Role::Restorer, 101), exit::INTERNAL),
        (killed(Role::Restorer, KILL), exit::INTERNAL),
        (
            Event::SpawnFailed {
                role: Role::Restorer,
                error: SpawnError::NoResources,
            },
            exit::INTERNAL,
        ),
    ] {
        let mut bench = Bench::new(plan());
        let actions = bench.steps([Event::Started, Event::PreflightDone, event.clone()]);
        assert_eq!(exit_of(&actions), (code, Saved::Nothing), "{event:?}");
    }
    let mut bench = Bench::new(plan());
    let actions = bench.steps([Event::Started, Event::PreflightFailed { code: 127 }]);
    assert_eq!(exit_of(&actions), (127, Saved::Nothing));
}

#[test]
fn standby_lasts_as_long_as_the_restorer_says() {
    let mut bench = Bench::new(plan());
    bench.steps([Event::Started, Event::PreflightDone]);
    bench.step(Event::Control(ToInit::Standby { waiting: true }));
    bench.is(Lifecycle::Standby);
    bench.step(Event::Control(ToInit::Standby { waiting: false }));
    bench.is(Lifecycle::Restoring);
}

#[test]
fn a_stop_before_the_gateway_started_ends_the_restorer_only() {
    let begin = || {
        let mut bench = Bench::new(plan());
        bench.steps([Event::Started, Event::PreflightDone]);
        let actions = bench.step(Event::Signal(TERM));
        assert_eq!(actions, [Action::SignalHelper(Role::Restorer, TERM)]);
        bench
    };
    for event in [killed(Role::Restorer, TERM), exited(Role::Restorer, 0)] {
        let actions = begin().step(event);
        assert_eq!(exit_of(&actions), (143, Saved::Nothing));
    }
    let kill = Action::SignalHelper(Role::Restorer, KILL);
    let mut bench = begin();
    assert_eq!(bench.wait(), (6000, vec![kill.clone()]));
    let mut bench = begin();
    assert_eq!(bench.step(Event::Signal(libc::SIGINT)), [kill]);
    let mut bench = Bench::new(plan());
    let actions = bench.steps([Event::Started, Event::Signal(libc::SIGINT)]);
    assert_eq!(exit_of(&actions), (130, Saved::Nothing));
}

#[test]
fn what_the_gateway_leaves_behind_gets_term_once_and_kill_at_the_deadline() {
    let mut bench = Bench::running(plan());
    bench.steps([Event::Signal(TERM), killed(Role::Gateway, TERM)]);
    let left = || Event::DescendantsLeft { count: 2 };
    assert_eq!(bench.step(left()), [Action::SignalDescendants(TERM)]);
    bench.now = bench.now.after(Duration::from_secs(1));
    let actions = bench.step(Event::OrphansReaped { count: 1 });
    assert_eq!(actions, [Action::CountDescendants]);
    assert_eq!(bench.step(left()), []);
    let kill = || vec![Action::SignalDescendants(KILL), Action::CountDescendants];
    assert_eq!(bench.wait(), (5000, kill()));
    assert_eq!(bench.wait(), (100, kill()), "something may have forked");
    bench.step(Event::DescendantsGone);
    assert_eq!(saved(&mut bench), 143);
}

#[test]
fn a_deaf_gateway_is_killed_at_the_deadline_or_by_the_second_signal() {
    for second in [false, true] {
        let mut bench = Bench::running(plan());
        bench.step(Event::Signal(TERM));
        let actions = if second {
            bench.step(Event::Signal(TERM))
        } else {
            let (waited, actions) = bench.wait();
            assert_eq!(waited, 6000);
            actions
        };
        assert_eq!(actions, [Action::SignalDescendants(KILL)]);
        bench.steps([killed(Role::Gateway, KILL), Event::DescendantsGone]);
        assert_eq!(bench.step(Event::Signal(TERM)), [], "saving goes on");
        assert_eq!(saved(&mut bench), 137);
    }
}

#[test]
fn what_survives_a_kill_is_not_flushed_over() {
    let mut bench = Bench::running(plan());
    bench.step(Event::Signal(TERM));
    let mut waited = 0;
    let verdict = loop {
        let (ms, actions) = bench.wait();
        waited += ms;
        if let Some(Action::Exit(verdict)) = actions.last() {
            break verdict.clone();
        }
    };
    assert_eq!(waited, 9000);
    assert_eq!(verdict.code, 137);
    assert!(matches!(verdict.saved, Saved::Not(_)));
}

#[test]
fn other_signals_reach_the_gateway_only() {
    let mut bench = Bench::running(plan());
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGWINCH, 40] {
        let actions = bench.step(Event::Signal(signal));
        assert_eq!(actions, [Action::SignalMain(signal)]);
    }
    bench.steps([exited(Role::Gateway, 0)]);
    assert_eq!(bench.step(Event::Signal(libc::SIGHUP)), []);
}

#[test]
fn stop_signals_stop_whatever_the_gateway_gets_in_their_place() {
    let rewriting = |rewrites: &[&str]| InitPlan {
        rewrites: rewrites.iter().map(|r| r.parse().expect("r")).collect(),
        ..plan()
    };
    for (rewrites, sent, gets) in [
        (&[][..], 37, 37),
        (&["37=TERM"], 37, TERM),
        (&["TERM=HUP"], TERM, libc::SIGHUP),
        (&["USR1=QUIT"], libc::SIGUSR1, libc::SIGQUIT),
    ] {
        let mut bench = Bench::running(rewriting(rewrites));
        let actions = bench.step(Event::Signal(sent));
        assert_eq!(actions, [Action::SignalMain(gets)], "{rewrites:?}");
        bench.is(Lifecycle::Stopping);
    }
    let mut bench = Bench::running(rewriting(&["TERM=0", "HUP=USR1"]));
    assert_eq!(bench.step(Event::Signal(TERM)), []);
    bench.is(Lifecycle::Running);
    let actions = bench.step(Event::Signal(libc::SIGHUP));
    assert_eq!(actions, [Action::SignalMain(libc::SIGUSR1)]);
    let reach = Reach::Group;
    let mut bench = Bench::running(InitPlan { reach, ..plan() });
    for signal in [libc::SIGHUP, TERM] {
        let actions = bench.step(Event::Signal(signal));
        assert_eq!(actions, [Action::SignalGroup(signal)]);
    }
}

#[test]
fn the_terminals_signals_suspend_until_cont_or_a_stop() {
    use Action::{SignalDescendants, SignalGroup, SignalMain, Suspend};
    let (stop, cont) = (libc::SIGSTOP, libc::SIGCONT);
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        let mut bench = Bench::running(plan());
        let suspended = [SignalGroup(stop), Suspend];
        assert_eq!(bench.step(Event::Signal(cont)), [SignalMain(cont)]);
        assert_eq!(bench.step(Event::Signal(signal)), suspended);
        assert_eq!(bench.step(Event::Signal(cont)), [SignalGroup(cont)]);
        assert_eq!(bench.step(Event::Signal(signal)), suspended);
        let actions = bench.step(Event::Signal(TERM));
        assert_eq!(actions, [SignalMain(TERM), SignalGroup(cont)]);
        assert_eq!(bench.step(Event::Signal(signal)), [], "it is stopping");
        // What it left behind was stopped with it.
        let mut bench = Bench::running(plan());
        bench.steps([Event::Signal(signal), killed(Role::Gateway, KILL)]);
        let actions = bench.step(Event::DescendantsLeft { count: 1 });
        assert_eq!(actions, [SignalDescendants(TERM), SignalDescendants(cont)]);
    }
    // The key stopped the gateway by itself.
    let mut bench = Bench::running(plan());
    let actions = bench.step(Event::GatewayStopped(Resumer::Nobody));
    assert_eq!(actions, [SignalGroup(cont)]);
    let actions = bench.step(Event::GatewayStopped(Resumer::Shell));
    assert_eq!(actions, [Action::SuspendJob]);
    assert_eq!(bench.step(Event::Signal(cont)), [SignalGroup(cont)]);
    bench.step(Event::Signal(TERM));
    let actions = bench.step(Event::GatewayStopped(Resumer::Shell));
    assert_eq!(actions, [SignalGroup(cont)], "a stop goes on");
    let mut bench = Bench::new(plan());
    bench.steps([Event::Started, Event::PreflightDone]);
    let actions = bench.step(Event::Signal(libc::SIGTSTP));
    assert_eq!(actions, [Suspend], "nothing of a gateway yet");
}

#[test]
fn a_flush_that_fails_shows_in_the_code_only_where_the_gateway_did_well() {
    for (own, expected) in [(0, exit::FLUSH_FAILED), (3, 3)] {
        let flushing = || {
            let mut bench = Bench::running(plan());
            bench.steps([
                Event::Signal(TERM),
                exited(Role::Gateway, own),
                Event::DescendantsGone,
                alive_until(u64::MAX, None),
            ]);
            bench
        };
        let mut bench = flushing();
        let failed = Event::Control(ToInit::FlushFailed {
            reason: "full".into(),
        });
        let actions = bench.steps([failed, exited(Role::Watcher, 0)]);
        assert_eq!(exit_of(&actions), (expected, Saved::Not("full".into())));

        let mut bench = flushing();
        let (waited, actions) = bench.wait();
        assert_eq!(waited, 9000);
        assert_eq!(actions[0], Action::SignalHelper(Role::Watcher, KILL));
        assert_eq!(exit_of(&actions).0, expected);

        let mut bench = flushing();
        let deadline = bench.machine.deadline().expect("a deadline");
        let actions = bench.step(killed(Role::Watcher, KILL));
        assert!(
            actions.ends_with(&[Action::Spawn(Role::Watcher), Action::SendFlush { deadline }]),
            "it gets a second try: {actions:?}"
        );
        let actions = bench.step(exited(Role::Watcher, 0));
        assert_eq!(exit_of(&actions).0, expected, "and no third");
    }
}

#[test]
fn a_mapped_code_hides_neither_a_failure_of_ours_nor_what_is_not_saved() {
    let mapped = |text: &str| InitPlan {
        map_exit: text.split(',').map(|m| m.parse().expect("m")).collect(),
        restart: RestartPolicy::OnFailure,
        ..plan()
    };
    let flushing = |text: &str, how: Ended| {
        let mut bench = Bench::running(InitPlan {
            attempts: 0,
            ..mapped(text)
        });
        let role = Role::Gateway;
        bench.steps([Event::ChildExited { role, how }, Event::DescendantsGone]);
        bench
    };
    let failed = || {
        Event::Control(ToInit::FlushFailed {
            reason: "full".into(),
        })
    };
    for (map, how, well, unsaved) in [
        ("143=0", Ended::Killed(TERM), 0, exit::FLUSH_FAILED),
        ("0=5", Ended::Exited(0), 5, exit::FLUSH_FAILED),
        ("3=4", Ended::Exited(3), 4, 4),
        ("74=0", Ended::Exited(0), 0, exit::FLUSH_FAILED),
    ] {
        assert_eq!(saved(&mut flushing(map, how)), well, "{map}");
        let actions = flushing(map, how).steps([failed(), exited(Role::Watcher, 0)]);
        assert_eq!(exit_of(&actions).0, unsaved, "{map}");
    }
    // Ours: the restore's, the command's, the fence's.
    let mut bench = Bench::new(mapped("69=0"));
    let ended = exited(Role::Restorer, 69);
    let actions = bench.steps([Event::Started, Event::PreflightDone, ended]);
    assert_eq!(exit_of(&actions).0, 69);
    let missing = Ended::NotStarted(SpawnError::NotFound);
    assert_eq!(mapped("127=0").code(missing), 127);
    let mut bench = Bench::running(mapped("75=0"));
    bench.step(exited(Role::Watcher, exit::FENCED));
    bench.step(killed(Role::Gateway, TERM));
    assert_eq!(exit_of(&bench.step(Event::DescendantsGone)).0, 75);
    // A stop before the gateway was started looks like the gateway's own.
    let mut bench = Bench::new(mapped("143=0"));
    let actions = bench.steps([Event::Started, Event::Signal(TERM)]);
    assert_eq!(exit_of(&actions).0, 0);
    // The restart goes by the gateway's own code.
    let mut bench = Bench::running(mapped("9=0"));
    bench.steps([exited(Role::Gateway, 9), Event::DescendantsGone]);
    bench.is(Lifecycle::Backoff);
}

#[test]
fn a_watcher_that_answered_is_not_waited_for_long() {
    let mut bench = Bench::running(plan());
    bench.steps([
        exited(Role::Gateway, 0),
        Event::DescendantsGone,
        Event::Control(ToInit::Flushed { seq: 1 }),
    ]);
    let (waited, actions) = bench.wait();
    assert_eq!(waited, 250);
    assert_eq!(exit_of(&actions), (0, Saved::All(1)));
}

#[test]
fn the_flush_ends_within_the_whole_budget() {
    let mut bench = Bench::running(plan());
    let by = bench.now.after(Duration::from_secs(9));
    bench.step(Event::Signal(TERM));
    bench.now = bench.now.after(Duration::from_millis(7000));
    bench.step(killed(Role::Gateway, KILL));
    let actions = bench.step(Event::DescendantsGone);
    assert_eq!(actions, [Action::SendFlush { deadline: by }]);
}

#[test]
fn the_flush_has_all_that_the_gateway_left_of_the_budget() {
    let mut bench = Bench::running(plan());
    let by = bench.now.after(Duration::from_secs(9));
    bench.step(Event::Signal(TERM));
    bench.now = bench.now.after(Duration::from_millis(20));
    bench.step(exited(Role::Gateway, 0));
    let actions = bench.step(Event::DescendantsGone);
    assert_eq!(actions, [Action::SendFlush { deadline: by }]);
    // One that hangs is noticed as early as before: after half of what is kept for it at least.
    let (waited, _) = bench.wait();
    assert_eq!(waited, 1500);
}

#[test]
fn a_watcher_that_dies_comes_back_and_lets_the_gateway_go_on() {
    let mut bench = Bench::running(plan());
    let actions = bench.step(killed(Role::Watcher, KILL));
    let expected = [
        Action::SignalDescendants(libc::SIGCONT),
        Action::Spawn(Role::Watcher),
    ];
    assert_eq!(actions, expected);
    let actions = bench.step(killed(Role::Watcher, KILL));
    assert_eq!(actions, [Action::SignalDescendants(libc::SIGCONT)]);
    assert_eq!(bench.wait(), (1000, vec![Action::Spawn(Role::Watcher)]));
    bench.is(Lifecycle::Running);
    // One that waits to be started again is started at once when there is something to flush.
    bench.step(killed(Role::Watcher, KILL));
    bench.step(exited(Role::Gateway, 0));
    let actions = bench.step(Event::DescendantsGone);
    assert_eq!(actions[0], Action::Spawn(Role::Watcher));
    assert!(matches!(actions[1], Action::SendFlush { .. }));
}

#[test]
fn a_fenced_life_ends_fast_and_saves_nothing() {
    let lost = || {
        Event::Control(ToInit::LeaseLost {
            reason: "other".into(),
        })
    };
    for event in [lost(), exited(Role::Watcher, exit::FENCED)] {
        let mut bench = Bench::running(plan());
        let actions = bench.step(event);
        assert_eq!(actions.last(), Some(&Action::SignalMain(TERM)));
        bench.is(Lifecycle::Fenced);
        let (waited, actions) = bench.wait();
        assert_eq!(
            (waited, &actions[0]),
            (1000, &Action::SignalDescendants(KILL))
        );
        bench.step(killed(Role::Gateway, KILL));
        let mut actions = bench.step(Event::DescendantsGone);
        // A watcher that is still there tells of it first.
        if actions.is_empty() {
            actions = bench.step(exited(Role::Watcher, exit::FENCED));
        }
        let (code, saved) = exit_of(&actions);
        assert_eq!(code, exit::FENCED);
        assert!(matches!(saved, Saved::Not(_)));
    }
    // One that does not come to an end is not waited for long.
    let mut bench = Bench::running(plan());
    bench.steps([lost(), exited(Role::Gateway, 0)]);
    assert_eq!(bench.step(Event::DescendantsGone), []);
    let (waited, actions) = bench.wait();
    assert_eq!((waited, exit_of(&actions).0), (2000, exit::FENCED));
    let mut bench = Bench::running(plan());
    bench.steps([exited(Role::Gateway, 0), Event::DescendantsGone]);
    bench.is(Lifecycle::Flushing);
    assert_eq!(exit_of(&bench.step(lost())).0, exit::FENCED);
}

#[test]
fn a_failing_gateway_is_started_again_later_and_later_until_it_is_given_up() {
    let restart = RestartPolicy::OnFailure;
    let mut bench = Bench::running(InitPlan { restart, ..plan() });
    let mut waits = Vec::new();
    for nth in 1..=5 {
        bench.steps([exited(Role::Gateway, 9), Event::DescendantsGone]);
        bench.is(Lifecycle::Backoff);
        let (waited, actions) = bench.wait();
        assert_eq!(actions, [Action::Spawn(Role::Gateway)]);
        bench.is(Lifecycle::Starting);
        assert_eq!(bench.machine.restarts(), nth);
        waits.push(waited);
    }
    for (waited, at_most) in waits.iter().zip([1000, 2000, 4000, 8000, 16000]) {
        assert!((at_most * 3 / 4..=at_most).contains(waited), "{waits:?}");
    }
    bench.steps([exited(Role::Gateway, 9), Event::DescendantsGone]);
    assert_eq!(saved(&mut bench), 9);
}

#[test]
fn a_stable_minute_makes_earlier_failures_forgotten() {
    let restart = RestartPolicy::OnFailure;
    let mut bench = Bench::running(InitPlan {
        restart,
        attempts: 1,
        ..plan()
    });
    for _ in 0..4 {
        bench.now = bench.now.after(STABLE);
        bench.steps([exited(Role::Gateway, 9), Event::DescendantsGone]);
        bench.wait();
        bench.is(Lifecycle::Starting);
    }
    bench.steps([exited(Role::Gateway, 9), Event::DescendantsGone]);
    bench.is(Lifecycle::Flushing);
}

#[test]
fn policies_differ_in_which_ends_they_mend() {
    use RestartPolicy::{Always, No, OnFailure};
    let missing = Event::SpawnFailed {
        role: Role::Gateway,
        error: SpawnError::NotFound,
    };
    for (restart, event, again) in [
        (No, exited(Role::Gateway, 1), false),
        (OnFailure, exited(Role::Gateway, 0), false),
        (OnFailure, exited(Role::Gateway, 1), true),
        (OnFailure, killed(Role::Gateway, KILL), true),
        (Always, exited(Role::Gateway, 0), true),
        (Always, missing, false),
    ] {
        let mut bench = Bench::running(InitPlan { restart, ..plan() });
        bench.steps([event.clone(), Event::DescendantsGone]);
        bench.is(if again {
            Lifecycle::Backoff
        } else {
            Lifecycle::Flushing
        });
    }
}

#[test]
fn an_init_only_has_no_helper_and_nothing_to_save() {
    let (mode, readiness) = (Mode::InitOnly, Readiness::AtOnce);
    let flush = Duration::ZERO;
    let plan = |restart| InitPlan {
        mode,
        readiness,
        flush,
        restart,
        ..plan()
    };
    let begin = |restart| {
        let mut bench = Bench::new(plan(restart));
        let actions = bench.steps([Event::Started, Event::PreflightDone]);
        assert_eq!(actions, [Action::Spawn(Role::Gateway)]);
        bench.is(Lifecycle::Running);
        bench
    };
    let mut bench = begin(RestartPolicy::No);
    let actions = bench.steps([Event::Signal(TERM), exited(Role::Gateway, 3)]);
    assert_eq!(actions, [Action::CountDescendants]);
    let actions = bench.step(Event::DescendantsGone);
    assert_eq!(exit_of(&actions), (3, Saved::Unwanted));
    assert_eq!(actions.len(), 1, "{actions:?}");
    // The whole budget is the gateway's.
    let mut bench = begin(RestartPolicy::No);
    bench.step(Event::Signal(TERM));
    assert_eq!(bench.wait().0, 9000);
    let mut bench = begin(RestartPolicy::Always);
    bench.steps([exited(Role::Gateway, 4), Event::DescendantsGone]);
    bench.is(Lifecycle::Backoff);
    let actions = bench.step(Event::Signal(TERM));
    assert_eq!(exit_of(&actions), (4, Saved::Unwanted));
}

#[test]
fn a_staggered_start_is_put_off_and_a_stop_before_it_still_lets_go() {
    let stagger = Duration::from_secs(10);
    let restart = RestartPolicy::Always;
    let plan = |jitter_seed| InitPlan {
        stagger,
        restart,
        jitter_seed,
        ..plan()
    };
    let begin = |seed| {
        let mut bench = Bench::new(plan(seed));
        let restored = exited(Role::Restorer, 0);
        let actions = bench.steps([Event::Started, Event::PreflightDone, restored]);
        assert_eq!(
            actions,
            [Action::Spawn(Role::Watcher)],
            "the lease is renewed"
        );
        bench.is(Lifecycle::Backoff);
        bench
    };
    let mut waits = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut bench = begin(seed);
        let (waited, actions) = bench.wait();
        assert_eq!(actions, [Action::Spawn(Role::Gateway)]);
        assert_eq!(bench.machine.restarts(), 0, "it is the first start");
        assert!(waited <= 10_000);
        waits.insert(waited);
        bench.steps([exited(Role::Gateway, 1), Event::DescendantsGone]);
        let (waited, _) = bench.wait();
        assert!((750..=11_000).contains(&waited), "{waited}");
        assert_eq!(bench.machine.restarts(), 1);
    }
    assert!(waits.len() > 40, "they hardly differ: {waits:?}");
    let mut bench = begin(1);
    let actions = bench.step(Event::Signal(TERM));
    assert!(matches!(actions[..], [Action::SendFlush { .. }]));
    assert_eq!(saved(&mut bench), 143);
}

#[test]
fn a_watcher_that_dies_again_and_again_is_told_about_once_and_stops_nothing() {
    let mut bench = Bench::running(plan());
    let mut told = 0;
    for nth in 1..=12 {
        let actions = bench.machine.step(killed(Role::Watcher, KILL), bench.now);
        let is_told = |a: &Action| matches!(a, Action::Note(Note::WatcherCrashLoop(_)));
        if actions.iter().any(is_told) {
            assert_eq!(nth, 5);
            told += 1;
        }
        let stopped = actions.iter().any(|a| matches!(a, Action::SignalMain(_)));
        assert!(!stopped);
        if nth > 1 {
            bench.wait();
        }
    }
    assert_eq!(told, 1);
    bench.is(Lifecycle::Running);
}

#[test]
fn a_command_that_cannot_be_started_is_flushed_after_and_named_by_its_code() {
    for (error, code) in [
        (SpawnError::NotFound, 127),
        (SpawnError::CannotExecute, 126),
        (SpawnError::NoResources, 126),
    ] {
        let mut bench = Bench::running(plan());
        let role = Role::Gateway;
        bench.steps([Event::SpawnFailed { role, error }, Event::DescendantsGone]);
        assert_eq!(saved(&mut bench), code);
    }
}

#[test]
fn a_stop_during_the_delay_goes_straight_to_the_flush() {
    let restart = RestartPolicy::Always;
    let mut bench = Bench::running(InitPlan { restart, ..plan() });
    bench.steps([exited(Role::Gateway, 2), Event::DescendantsGone]);
    bench.is(Lifecycle::Backoff);
    let actions = bench.step(Event::Signal(TERM));
    assert!(matches!(actions[..], [Action::SendFlush { .. }]));
    assert_eq!(saved(&mut bench), 2);
}

#[test]
fn a_stop_while_leftovers_are_awaited_is_a_stop() {
    let restart = RestartPolicy::Always;
    let mut bench = Bench::running(InitPlan { restart, ..plan() });
    bench.steps([
        exited(Role::Gateway, 2),
        Event::DescendantsLeft { count: 1 },
        Event::Signal(TERM),
    ]);
    bench.is(Lifecycle::Stopping);
    let actions = bench.step(Event::Signal(TERM));
    assert_eq!(actions[0], Action::SignalDescendants(KILL));
    bench.step(Event::DescendantsGone);
    assert_eq!(saved(&mut bench), 2);
}

#[test]
fn the_watcher_is_told_before_it_is_asked_to_flush() {
    let mut bench = Bench::running(plan());
    bench.step(exited(Role::Gateway, 0));
    let actions = bench.machine.step(Event::DescendantsGone, bench.now);
    let at = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).expect("sent");
    let told = at(|a| matches!(a, Action::SendLifecycle));
    assert!(told < at(|a| matches!(a, Action::SendFlush { .. })));
}

#[test]
fn a_restore_that_a_signal_ended_is_told_with_the_next_step() {
    let cause = Cause::RestorerEnded(Ended::Killed(9)).to_string();
    assert!(
        cause.contains("KILL") && cause.contains("start it again"),
        "{cause}"
    );
    let failed = Cause::RestorerEnded(Ended::Exited(70)).to_string();
    assert!(!failed.contains("start it again"), "{failed}");
}
