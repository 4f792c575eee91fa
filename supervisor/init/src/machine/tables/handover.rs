//! Making way, branch by branch.

use super::*;

fn asked() -> Event {
    let by = "newer".to_owned();
    Event::Control(ToInit::TakeoverRequested { by })
}

fn flushed() -> Event {
    Event::Control(ToInit::Flushed { seq: 8 })
}

fn failed() -> Event {
    let reason = "full".to_owned();
    Event::Control(ToInit::FlushFailed { reason })
}

/// What is done when the watcher ends, besides letting the gateway go on that it may have frozen.
fn watcher_ends(bench: &mut Bench, code: u8) -> Vec<Action> {
    let mut actions = bench.step(exited(Role::Watcher, code));
    actions.retain(|action| *action != Action::SignalDescendants(libc::SIGCONT));
    actions
}

/// A bench that was asked, and whose gateway is gone.
fn asked_and_ended(plan: InitPlan) -> Bench {
    let mut bench = Bench::running(plan);
    assert_eq!(bench.step(asked()), [Action::SignalMain(TERM)]);
    bench.is(Lifecycle::Stopping);
    bench.steps([exited(Role::Gateway, 0), Event::DescendantsGone]);
    bench.is(Lifecycle::Flushing);
    bench
}

/// A bench that has made way.
fn in_standby() -> Bench {
    let mut bench = asked_and_ended(plan());
    bench.step(flushed());
    let actions = watcher_ends(&mut bench, 0);
    assert_eq!(actions, [Action::Spawn(Role::Restorer)]);
    bench.is(Lifecycle::Standby);
    assert!(bench.machine.has_handed_over());
    bench
}

#[test]
fn who_is_asked_ends_its_gateway_saves_and_waits_for_another_turn() {
    let mut bench = in_standby();
    bench.step(Event::Control(ToInit::Standby { waiting: false }));
    bench.is(Lifecycle::Restoring);
    let actions = bench.step(exited(Role::Restorer, 0));
    let expected = [Action::Spawn(Role::Watcher), Action::Spawn(Role::Gateway)];
    assert_eq!(actions, expected);
    assert!(!bench.machine.has_handed_over(), "it has the session again");
}

#[test]
fn a_life_that_has_made_way_leaves_with_0() {
    let mut bench = in_standby();
    let actions = bench.step(Event::Signal(TERM));
    assert_eq!(actions, [Action::SignalHelper(Role::Restorer, TERM)]);
    let actions = bench.step(killed(Role::Restorer, TERM));
    assert_eq!(exit_of(&actions), (0, Saved::All(8)));
}

#[test]
fn who_must_not_save_something_makes_way_all_the_same_and_says_so_at_its_end() {
    let mut bench = asked_and_ended(plan());
    let reason = "creds.json is not whole".to_owned();
    let saved = Saved::Except(8, reason.clone());
    bench.step(Event::Control(ToInit::FlushedExcept { seq: 8, reason }));
    let actions = watcher_ends(&mut bench, 74);
    assert_eq!(actions, [Action::Spawn(Role::Restorer)]);
    bench.is(Lifecycle::Standby);
    bench.step(Event::Signal(TERM));
    let actions = bench.step(killed(Role::Restorer, TERM));
    assert_eq!(exit_of(&actions), (74, saved));
}

#[test]
fn a_stop_on_the_way_is_a_stop() {
    let mut bench = Bench::running(plan());
    bench.steps([asked(), Event::Signal(TERM)]);
    bench.steps([exited(Role::Gateway, 3), Event::DescendantsGone]);
    assert_eq!(saved(&mut bench), 3);

    let mut bench = asked_and_ended(plan());
    bench.step(Event::Signal(TERM));
    assert_eq!(saved(&mut bench), 0);
}

#[test]
fn a_gateway_that_does_not_end_is_killed_at_the_end_of_its_grace() {
    let mut bench = Bench::running(plan());
    bench.step(asked());
    let (waited, actions) = bench.wait();
    assert_eq!(waited, 6000);
    assert_eq!(actions[0], Action::SignalDescendants(KILL));
}

#[test]
fn what_cannot_be_saved_is_not_handed_over_and_asked_for_in_vain_for_a_while() {
    let mut bench = asked_and_ended(plan());
    bench.step(failed());
    let actions = watcher_ends(&mut bench, 74);
    assert_eq!(actions, [Action::Spawn(Role::Watcher)]);
    let (waited, actions) = bench.wait();
    assert_eq!((waited, actions), (0, vec![Action::Spawn(Role::Gateway)]));
    assert_eq!(bench.step(asked()), []);
    bench.now = bench.now.after(Duration::from_secs(300));
    assert_eq!(bench.step(asked()), [Action::SignalMain(TERM)]);
}

#[test]
fn a_watcher_that_does_not_leave_is_killed_and_its_place_taken_when_it_is_gone() {
    let mut bench = asked_and_ended(plan());
    bench.step(flushed());
    for _ in 0..2 {
        let (_, actions) = bench.wait();
        assert_eq!(actions, [Action::SignalHelper(Role::Watcher, KILL)]);
    }
    let actions = bench.step(killed(Role::Watcher, KILL));
    assert_eq!(actions.last(), Some(&Action::Spawn(Role::Restorer)));
}

#[test]
fn before_a_lease_ends_the_gateway_is_gone_and_nothing_that_is_unsaved_holds_it_up() {
    let mut bench = Bench::running(plan());
    let by = bench.now.after(Duration::from_secs(4));
    let ending = Event::Control(ToInit::LeaseEnding { by });
    assert_eq!(bench.step(ending), [Action::SignalMain(TERM)]);
    let (waited, actions) = bench.wait();
    assert_eq!(
        waited, 3500,
        "the grace would last for longer than the lease"
    );
    assert_eq!(actions[0], Action::SignalDescendants(KILL));
    bench.steps([killed(Role::Gateway, KILL), Event::DescendantsGone]);
    bench.step(failed());
    let actions = watcher_ends(&mut bench, 74);
    assert_eq!(actions, [Action::Spawn(Role::Restorer)]);
    bench.step(Event::Signal(TERM));
    let (code, saved) = exit_of(&bench.step(killed(Role::Restorer, TERM)));
    assert_eq!((code, saved), (74, Saved::Not("full".into())));
}

/// A flush that fails is no reason to run the gateway again.
#[track_caller]
fn assert_not_taken_back(mut bench: Bench) {
    bench.step(failed());
    let actions = watcher_ends(&mut bench, 74);
    assert_eq!(actions, [Action::Spawn(Role::Restorer)]);
    bench.is(Lifecycle::Standby);
}

#[test]
fn who_asks_while_the_lease_ends_does_not_make_it_last() {
    let mut bench = Bench::running(InitPlan {
        lease_margin: Some(Duration::from_secs(2)),
        ..plan()
    });
    let by = bench.now.after(Duration::from_secs(4));
    bench.step(alive_until(u64::MAX, Some(by.0)));
    let (waited, actions) = bench.wait();
    assert_eq!(
        (waited, &actions[..]),
        (2000, &[Action::SignalMain(TERM)][..])
    );
    bench.step(asked());
    bench.steps([exited(Role::Gateway, 0), Event::DescendantsGone]);
    assert_not_taken_back(bench);
}

#[test]
fn a_lease_that_ends_over_the_flush_of_a_handover_ends_the_gateways_claim() {
    let mut bench = asked_and_ended(plan());
    let by = bench.now.after(Duration::from_secs(1));
    bench.step(Event::Control(ToInit::LeaseEnding { by }));
    assert_not_taken_back(bench);
}

#[test]
fn who_is_fenced_while_making_way_waits_all_the_same() {
    let lost = || Event::Control(ToInit::LeaseLost { reason: "b".into() });
    for said in [true, false] {
        let mut bench = asked_and_ended(plan());
        if said {
            bench.step(lost());
        }
        let actions = watcher_ends(&mut bench, 75);
        assert_eq!(actions, [Action::Spawn(Role::Restorer)], "said: {said}");
        bench.is(Lifecycle::Standby);
    }
}

#[test]
fn between_two_starts_of_the_gateway_way_is_made_at_once() {
    let restart = RestartPolicy::Always;
    let mut bench = Bench::running(InitPlan { restart, ..plan() });
    bench.steps([exited(Role::Gateway, 2), Event::DescendantsGone]);
    bench.is(Lifecycle::Backoff);
    let actions = bench.step(asked());
    assert!(matches!(actions[..], [Action::SendFlush { .. }]));
    bench.step(flushed());
    let actions = watcher_ends(&mut bench, 0);
    assert_eq!(actions, [Action::Spawn(Role::Restorer)]);
}

#[test]
fn without_a_session_of_its_own_nobody_makes_way() {
    let mut bench = Bench::new(plan());
    bench.steps([Event::Started, Event::PreflightDone]);
    assert_eq!(bench.step(asked()), []);
    bench.is(Lifecycle::Restoring);
    let (mode, readiness) = (Mode::File, Readiness::AtOnce);
    let mut bench = Bench::new(InitPlan {
        mode,
        readiness,
        ..plan()
    });
    bench.steps([Event::Started, Event::PreflightDone]);
    assert_eq!(bench.step(asked()), []);
    bench.is(Lifecycle::Running);
}
