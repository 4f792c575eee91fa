//! What init does about helpers that are stopped or silent.

use super::*;
use sessionkeep_core::control::Stall;

const CONT: i32 = libc::SIGCONT;

fn cont() -> Action {
    Action::SignalHelper(Role::Watcher, CONT)
}

fn kill() -> Action {
    Action::SignalHelper(Role::Watcher, KILL)
}

#[test]
fn a_watcher_that_is_stopped_goes_on_at_once_and_in_no_spin() {
    let mut bench = Bench::running(plan());
    let stopped = || Event::HelperStopped(Role::Watcher);
    let actions = bench.step(stopped());
    assert_eq!(actions, [Action::SendStalled(Stall::Stopped), cont()]);
    // The next one within the same moment waits a little, and is not told of again.
    assert_eq!(bench.step(stopped()), []);
    assert_eq!(bench.wait(), (20, vec![cont()]));
    bench.now = bench.now.after(Duration::from_secs(60));
    let actions = bench.step(stopped());
    assert_eq!(actions, [Action::SendStalled(Stall::Stopped), cont()]);
    // A helper that is gone is nobody's.
    bench.step(killed(Role::Watcher, KILL));
    assert_eq!(bench.step(Event::HelperStopped(Role::Restorer)), []);
}

#[test]
fn a_silent_watcher_is_told_to_go_on_then_killed_and_its_successor_told_why() {
    let mut bench = Bench::running(plan());
    let next_by = bench.now.0 + 10_000;
    bench.step(alive_until(next_by, None));
    assert_eq!(bench.wait(), (10_000, vec![cont()]));
    // A sign of life in time is enough.
    bench.step(alive_until(bench.now.0 + 7_000, None));
    assert_eq!(bench.wait(), (7_000, vec![cont()]));
    assert_eq!(bench.wait(), (2_500, vec![kill()]));
    let actions = bench.step(killed(Role::Watcher, KILL));
    assert_eq!(
        actions[actions.len() - 2..],
        [
            Action::Spawn(Role::Watcher),
            Action::SendStalled(Stall::Silent)
        ]
    );
    // It has half a minute for its first sign of life.
    assert_eq!(bench.wait(), (30_000, vec![cont()]));
}

/// A machine that is slow, and a directory that is large: the same work takes as long each time.
#[test]
fn a_watcher_that_is_killed_for_its_silence_again_and_again_is_given_more_time_each_time() {
    let mut bench = Bench::running(plan());
    for patience in [2_500, 5_000, 10_000, 20_000, 40_000, 80_000, 80_000] {
        bench.step(alive_until(bench.now.0 + 10_000, None));
        assert_eq!(bench.wait(), (10_000, vec![cont()]));
        assert_eq!(bench.wait(), (patience, vec![kill()]));
        let mut actions = bench.step(killed(Role::Watcher, KILL));
        // It is started anew after a pause where it dies often.
        while !actions.contains(&Action::Spawn(Role::Watcher)) {
            actions = bench.wait().1;
        }
    }
    // One that lives on is no slow one, and what comes after it neither.
    bench.now = bench.now.after(Duration::from_secs(600));
    bench.step(alive_until(bench.now.0 + 10_000, None));
    assert_eq!(bench.wait(), (10_000, vec![cont()]));
    assert_eq!(bench.wait(), (2_500, vec![kill()]));
}

#[test]
fn a_silent_restorer_ends_the_start() {
    let mut bench = Bench::new(plan());
    bench.steps([Event::Started, Event::PreflightDone]);
    let to_restorer = |signal| Action::SignalHelper(Role::Restorer, signal);
    assert_eq!(bench.wait(), (30_000, vec![to_restorer(CONT)]));
    assert_eq!(bench.wait(), (2_500, vec![to_restorer(KILL)]));
    let actions = bench.step(killed(Role::Restorer, KILL));
    assert_eq!(exit_of(&actions), (exit::INTERNAL, Saved::Nothing));
}

#[test]
fn a_watcher_that_does_not_hear_of_the_flush_leaves_time_for_another_one() {
    let mut bench = Bench::running(plan());
    bench.steps([
        Event::Signal(TERM),
        exited(Role::Gateway, 0),
        Event::DescendantsGone,
    ]);
    let (waited, actions) = bench.wait();
    assert_eq!((waited, actions), (1500, vec![kill()]));
    // All that is left of the stop's 9 s.
    let deadline = bench.now.after(Duration::from_millis(7500));
    let actions = bench.step(killed(Role::Watcher, KILL));
    let flush = Action::SendFlush { deadline };
    assert!(
        actions.contains(&Action::Spawn(Role::Watcher)),
        "{actions:?}"
    );
    assert_eq!(actions.last(), Some(&flush));
    assert_eq!(saved(&mut bench), 0);
}

#[test]
fn a_lease_that_nobody_renews_ends_the_gateway_in_time_where_it_is_to() {
    let with = |margin| {
        let lease_margin = margin;
        let mut bench = Bench::running(InitPlan {
            lease_margin,
            ..plan()
        });
        let lease = Some(bench.now.0 + 15_000);
        bench.step(alive_until(u64::MAX, lease));
        bench
    };
    let mut bench = with(Some(Duration::from_millis(3750)));
    let (waited, actions) = bench.wait();
    assert_eq!((waited, actions), (11_250, vec![Action::SignalMain(TERM)]));
    let (waited, actions) = bench.wait();
    assert_eq!(waited, 3_250, "half a second for a kill to show");
    assert_eq!(actions[0], Action::SignalDescendants(KILL));

    // It is renewed.
    let mut bench = with(Some(Duration::from_millis(3750)));
    bench.now = bench.now.after(Duration::from_secs(10));
    bench.step(alive_until(u64::MAX, Some(bench.now.0 + 15_000)));
    assert_eq!(bench.wait().0, 11_250);

    // It may go on all the same.
    assert_eq!(with(None).machine.deadline(), Some(MonotonicMs(u64::MAX)));
}

#[test]
fn a_stop_takes_no_longer_than_a_lease_that_nobody_renews() {
    let mut bench = Bench::running(InitPlan {
        lease_margin: Some(Duration::from_secs(2)),
        ..plan()
    });
    let lease = bench.now.0 + 4_000;
    bench.step(alive_until(u64::MAX, Some(lease)));
    bench.step(Event::Signal(TERM));
    assert_eq!(bench.wait().0, 2_000);
    let (waited, actions) = bench.wait();
    assert_eq!(waited, 1_500);
    assert_eq!(actions[0], Action::SignalDescendants(KILL));
}
