//! Random worlds: children that end as they like, signals, lies and late answers, time that jumps.
//! Whatever happens, the machine's rules hold.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::options::Rewrite;

/// What a stop may take more than its budget, where nothing is left of it for a kill to show and
/// a flush to be tried.
const SLACK: Duration = Duration::from_millis(1500);

/// How the world answers when it is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// It does.
    Cooperative,
    /// Only KILL ends it, and no watcher ever answers.
    Deaf,
    /// Nothing ends it.
    Stuck,
}

/// Something that happens by itself.
#[derive(Debug, Clone)]
enum Nudge {
    RestorerEnds(Ended),
    WatcherEnds(Ended),
    GatewayEnds(Ended, u8),
    LeftoverEnds,
    Signal(i32),
    Control(ToInit),
    /// The watcher is stopped by a signal.
    WatcherStops,
    /// The watcher says that it lives, and until when it has the lease.
    Alive {
        within: u64,
        lease: Option<u64>,
    },
    SpawnsFail(u8, SpawnError),
    /// Time passes and nobody looks.
    Jump(u64),
    /// Events that are late, doubled, or about nobody.
    Nonsense(u8),
}

fn ended() -> impl Strategy<Value = Ended> {
    prop_oneof![
        4 => prop_oneof![Just(0), Just(1), Just(69), Just(75), any::<u8>()].prop_map(Ended::Exited),
        1 => (1..32).prop_map(Ended::Killed),
    ]
}

fn nudge() -> impl Strategy<Value = Nudge> {
    let control = prop_oneof![
        Just(ToInit::Ready),
        Just(ToInit::GatewayReady),
        any::<bool>().prop_map(|waiting| ToInit::Standby { waiting }),
        any::<u64>().prop_map(|seq| ToInit::Flushed { seq }),
        any::<u64>().prop_map(|seq| ToInit::FlushedExcept {
            seq,
            reason: "torn".into()
        }),
        Just(ToInit::FlushFailed {
            reason: "full".into()
        }),
        Just(ToInit::TakeoverRequested { by: "b".into() }),
        // Some long past, some far off.
        (900_000u64..1_500_000).prop_map(|by| ToInit::LeaseEnding {
            by: MonotonicMs(by)
        }),
    ];
    let lost = Just(ToInit::LeaseLost { reason: "b".into() });
    let error = prop_oneof![
        Just(SpawnError::NotFound),
        Just(SpawnError::CannotExecute),
        Just(SpawnError::NoResources)
    ];
    let signal = prop_oneof![
        3 => prop_oneof![Just(libc::SIGTERM), Just(libc::SIGINT), Just(libc::SIGQUIT)],
        2 => prop_oneof![Just(libc::SIGHUP), Just(libc::SIGUSR1), Just(37), Just(40)],
        2 => prop_oneof![Just(libc::SIGTSTP), Just(libc::SIGTTOU), Just(libc::SIGCONT)],
    ];
    prop_oneof![
        4 => prop_oneof![3 => Just(Ended::Exited(0)), 1 => ended()].prop_map(Nudge::RestorerEnds),
        4 => ended().prop_map(Nudge::WatcherEnds),
        6 => (ended(), 0u8..4).prop_map(|(how, left)| Nudge::GatewayEnds(how, left)),
        6 => Just(Nudge::LeftoverEnds),
        1 => signal.prop_map(Nudge::Signal),
        4 => control.prop_map(Nudge::Control),
        1 => lost.prop_map(Nudge::Control),
        2 => Just(Nudge::WatcherStops),
        3 => (1u64..20_000, prop::option::of(1u64..30_000))
            .prop_map(|(within, lease)| Nudge::Alive { within, lease }),
        2 => (1u8..4, error).prop_map(|(count, error)| Nudge::SpawnsFail(count, error)),
        2 => (0u64..120_000).prop_map(Nudge::Jump),
        4 => any::<u8>().prop_map(Nudge::Nonsense),
    ]
}

/// Every kind: of stop signals, into them, both, and away.
fn rewrite() -> impl Strategy<Value = Rewrite> {
    const TEXTS: &[&str] = &["HUP=TERM", "INT=HUP", "QUIT=INT", "USR1=0", "TERM=TSTP"];
    prop::sample::select(TEXTS).prop_map(|text| text.parse().expect("well formed"))
}

fn plan() -> impl Strategy<Value = InitPlan> {
    (
        prop_oneof![Just(Mode::Store), Just(Mode::File), Just(Mode::InitOnly)],
        prop_oneof![Just(Readiness::Probe), Just(Readiness::AtOnce)],
        0u64..20_000,
        0u64..20_000,
        prop_oneof![
            Just(RestartPolicy::No),
            Just(RestartPolicy::OnFailure),
            Just(RestartPolicy::Always)
        ],
        0u32..7,
        any::<u64>(),
        prop::collection::vec(rewrite(), 0..3),
        (
            prop_oneof![Just(Reach::Main), Just(Reach::Group)],
            prop_oneof![Just(0), 0u64..10_000],
            prop::option::of(500u64..6000),
        ),
    )
        .prop_map(
            |(
                mode,
                readiness,
                total,
                flush,
                restart,
                attempts,
                jitter_seed,
                rewrites,
                (reach, stagger, margin),
            )| {
                InitPlan {
                    mode,
                    readiness,
                    total: Duration::from_millis(total),
                    flush: Duration::from_millis(flush),
                    restart,
                    attempts,
                    stagger: Duration::from_millis(stagger),
                    jitter_seed,
                    map_exit: ExitMap::default(),
                    rewrites: rewrites.into_iter().collect(),
                    reach,
                    patience: Duration::from_millis(2500),
                    lease_margin: margin
                        .filter(|_| mode == Mode::Store)
                        .map(Duration::from_millis),
                }
            },
        )
}

struct World {
    plan: InitPlan,
    machine: Machine,
    nature: Nature,
    now: MonotonicMs,
    events: VecDeque<Event>,
    restorer: bool,
    watcher: bool,
    gateway: bool,
    leftovers: u32,
    failing: Option<(u8, SpawnError)>,
    /// What the rules are about.
    restored: bool,
    gateway_ran: bool,
    flush_tried: bool,
    /// When KILL may be sent to the gateway at the earliest.
    kill_from: Option<MonotonicMs>,
    stop_signals: u32,
    exit_by: Option<MonotonicMs>,
    verdict: Option<ExitVerdict>,
    /// Since when the watcher is stopped.
    stopped: Option<MonotonicMs>,
    /// When it has to be heard of again, as it said itself or init assumes.
    heard_by: MonotonicMs,
    /// How many helpers were killed: each may have doubled the patience with the next.
    kills: u32,
    /// Until when nobody else can have the session, as the watcher said last.
    lease_ends: Option<MonotonicMs>,
    /// The same, while init could act in time.
    gone_by: Option<MonotonicMs>,
}

impl World {
    fn new(plan: InitPlan, nature: Nature) -> Self {
        let mut world = Self {
            machine: Machine::new(plan.clone()),
            plan,
            nature,
            now: MonotonicMs(1_000_000),
            events: VecDeque::from([Event::Started]),
            restorer: false,
            watcher: false,
            gateway: false,
            leftovers: 0,
            failing: None,
            restored: false,
            gateway_ran: false,
            flush_tried: false,
            kill_from: None,
            stop_signals: 0,
            exit_by: None,
            verdict: None,
            stopped: None,
            heard_by: MonotonicMs(0),
            kills: 0,
            lease_ends: None,
            gone_by: None,
        };
        world.settle();
        world
    }

    fn descendants(&self) -> u32 {
        self.leftovers + u32::from(self.gateway)
    }

    fn stops(&self, signal: i32) -> bool {
        let sent = self.plan.rewrites.apply(signal);
        sent.is_some_and(|sent| is_stop(signal) || is_stop(sent))
    }

    fn may_kill_from(&mut self, at: MonotonicMs) {
        self.kill_from = Some(self.kill_from.map_or(at, |old| old.min(at)));
    }

    /// Feeds what is queued until nothing is.
    fn settle(&mut self) {
        let mut rounds = 0;
        while let Some(event) = self.events.pop_front() {
            rounds += 1;
            assert!(
                rounds < 1000,
                "the machine and the world never come to rest"
            );
            match &event {
                Event::Signal(signal) if self.stops(*signal) => {
                    self.stop_signals += 1;
                    let grace = match self.stop_signals {
                        1 => self.plan.grace(),
                        _ => Duration::ZERO,
                    };
                    self.may_kill_from(self.now.after(grace));
                    let exit_by = self.now.after(self.plan.total);
                    self.exit_by.get_or_insert(exit_by);
                }
                Event::Control(ToInit::TakeoverRequested { .. }) => {
                    self.may_kill_from(self.now.after(self.plan.grace()));
                }
                Event::Control(ToInit::LeaseEnding { by }) => {
                    (self.lease_ends, self.gone_by) = (None, None);
                    let left = by.until(self.now);
                    let left = left.saturating_sub(Duration::from_millis(500));
                    self.may_kill_from(self.now.after(left.min(self.plan.grace())));
                }
                Event::Control(ToInit::LeaseLost { .. })
                | Event::ChildExited {
                    role: Role::Watcher,
                    how: Ended::Exited(exit::FENCED),
                } => self.may_kill_from(self.now.after(Duration::from_secs(1))),
                Event::ChildExited {
                    role: Role::Gateway,
                    ..
                }
                | Event::SpawnFailed {
                    role: Role::Gateway,
                    ..
                } => self.may_kill_from(self.now.after(self.plan.grace())),
                _ => {}
            }
            let was_over = self.verdict.is_some();
            let actions = self.machine.step(event, self.now);
            assert!(!was_over || actions.is_empty(), "{actions:?} after exit");
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Preflight => self.events.push_back(Event::PreflightDone),
            Action::Spawn(role) => self.spawn(role),
            Action::SignalMain(signal) | Action::SignalGroup(signal) => {
                assert_ne!(signal, libc::SIGKILL, "main is killed with the others");
                if self.nature == Nature::Cooperative && signal == libc::SIGTERM && self.gateway {
                    self.gateway_ends(Ended::Exited(0));
                }
            }
            Action::SignalDescendants(signal) => self.signal_descendants(signal),
            Action::SignalHelper(Role::Restorer, signal) if self.restorer => {
                let ends = match self.nature {
                    Nature::Cooperative => true,
                    Nature::Deaf => signal == libc::SIGKILL,
                    Nature::Stuck => false,
                };
                if ends {
                    self.restorer = false;
                    self.child_exited(Role::Restorer, Ended::Killed(signal));
                }
            }
            Action::SignalHelper(Role::Watcher, libc::SIGCONT) => self.stopped = None,
            // Said of each kill, also where the helper was about to end by itself.
            Action::Note(Note::HelperKilled(_)) => self.kills += 1,
            Action::SignalHelper(Role::Watcher, libc::SIGKILL)
                if self.watcher && self.nature != Nature::Stuck =>
            {
                self.watcher = false;
                self.child_exited(Role::Watcher, Ended::Killed(libc::SIGKILL));
            }
            Action::CountDescendants => self.events.push_back(match self.descendants() {
                0 => Event::DescendantsGone,
                count => Event::DescendantsLeft {
                    count: count as usize,
                },
            }),
            Action::SendFlush { deadline } => {
                assert_eq!(self.descendants(), 0, "a flush while the gateway is alive");
                let most = self
                    .plan
                    .total
                    .max(self.plan.flush)
                    .max(super::ending::FLUSH_LEAST);
                assert!(deadline <= self.now.after(most));
                self.flush_tried = true;
                if self.nature == Nature::Cooperative && self.watcher {
                    self.events
                        .push_back(Event::Control(ToInit::Flushed { seq: 3 }));
                    self.watcher = false;
                    self.child_exited(Role::Watcher, Ended::Exited(0));
                }
            }
            Action::Exit(verdict) => {
                assert!(self.verdict.is_none(), "two exits");
                let excused = verdict.code == exit::FENCED
                    || self.descendants() > 0
                    || self.plan.mode == Mode::InitOnly;
                assert!(
                    !self.gateway_ran || self.flush_tried || excused,
                    "exit without a flush: {verdict:?}"
                );
                self.verdict = Some(verdict);
            }
            _ => {}
        }
    }

    /// A lease that nobody renews is one, shortly before it ends.
    fn lease_is_a_reason_to_kill(&mut self) {
        if let (Some(ends), Some(margin)) = (self.lease_ends, self.plan.lease_margin) {
            self.may_kill_from(ends.before(margin.max(Duration::from_millis(500))));
        }
    }

    fn spawn(&mut self, role: Role) {
        if role == Role::Gateway {
            assert!(
                self.restored || self.plan.mode != Mode::Store,
                "not restored"
            );
            assert_eq!(
                self.descendants(),
                0,
                "a gateway while another one is alive"
            );
            assert_eq!(self.stop_signals, 0, "a gateway after a stop signal");
            self.gateway_ran = true;
            self.flush_tried = false;
            self.kill_from = None;
        } else {
            assert_ne!(self.plan.mode, Mode::InitOnly, "{role} without a session");
            let other = match role {
                Role::Restorer => self.watcher,
                _ => self.restorer,
            };
            assert!(!other, "{role} beside the other helper");
        }
        if role == Role::Restorer {
            assert_eq!(self.descendants(), 0, "a restore under a gateway");
            self.restored = false;
        }
        if let Some((count, error)) = self.failing {
            self.failing = (count > 1).then_some((count - 1, error));
            self.events.push_back(Event::SpawnFailed { role, error });
            return;
        }
        let alive = match role {
            Role::Restorer => &mut self.restorer,
            Role::Watcher => &mut self.watcher,
            Role::Gateway => &mut self.gateway,
        };
        assert!(!*alive, "two of {role}");
        *alive = true;
        match role {
            Role::Watcher => {
                self.stopped = None;
                self.heard_by = self.now.after(Duration::from_secs(30));
            }
            // Nothing holds the lease that one before had.
            Role::Restorer => (self.lease_ends, self.gone_by) = (None, None),
            Role::Gateway => self.lease_is_a_reason_to_kill(),
        }
    }

    fn signal_descendants(&mut self, signal: i32) {
        if signal == libc::SIGKILL {
            let from = self.kill_from.expect("a kill without any reason");
            assert!(self.now >= from, "a kill {:?} early", from.until(self.now));
        }
        let ends = match self.nature {
            Nature::Cooperative => matches!(signal, libc::SIGTERM | libc::SIGKILL),
            Nature::Deaf => signal == libc::SIGKILL,
            Nature::Stuck => false,
        };
        if !ends {
            return;
        }
        if self.gateway {
            self.gateway_ends(Ended::Killed(signal));
        }
        if self.leftovers > 0 {
            let count = std::mem::take(&mut self.leftovers);
            self.events.push_back(Event::OrphansReaped { count });
        }
    }

    fn child_exited(&mut self, role: Role, how: Ended) {
        self.events.push_back(Event::ChildExited { role, how });
    }

    fn gateway_ends(&mut self, how: Ended) {
        self.gateway = false;
        self.child_exited(Role::Gateway, how);
    }

    fn nudge(&mut self, nudge: Nudge) {
        match nudge {
            Nudge::RestorerEnds(how) if self.restorer => {
                self.restorer = false;
                self.restored |= how == Ended::Exited(0);
                self.child_exited(Role::Restorer, how);
            }
            Nudge::WatcherEnds(how) if self.watcher => {
                self.watcher = false;
                self.child_exited(Role::Watcher, how);
            }
            Nudge::GatewayEnds(how, left) if self.gateway => {
                self.leftovers += u32::from(left);
                self.gateway_ends(how);
            }
            Nudge::LeftoverEnds if self.leftovers > 0 => {
                self.leftovers -= 1;
                self.events.push_back(Event::OrphansReaped { count: 1 });
            }
            Nudge::WatcherStops if self.watcher => {
                self.stopped = Some(self.now);
                self.events.push_back(Event::HelperStopped(Role::Watcher));
            }
            Nudge::Alive { within, lease } if self.watcher => {
                self.heard_by = self.now.after(Duration::from_millis(within));
                let ends = lease.map(|ms| self.now.after(Duration::from_millis(ms)));
                self.lease_ends = ends.or(self.lease_ends);
                // A lease that is nearly over leaves no time to end in.
                let in_time = |at: &MonotonicMs| {
                    let margin = self.plan.lease_margin.unwrap_or_default();
                    *at >= self.now.after(margin.max(Duration::from_secs(1)))
                };
                self.gone_by = self.lease_ends.filter(in_time);
                self.lease_is_a_reason_to_kill();
                self.events.push_back(Event::Control(ToInit::Alive {
                    next_by: self.heard_by,
                    lease_ends: ends,
                }));
            }
            Nudge::Signal(signal) => self.events.push_back(Event::Signal(signal)),
            Nudge::Control(message) => self.events.push_back(Event::Control(message)),
            Nudge::SpawnsFail(count, error) => self.failing = Some((count, error)),
            Nudge::Jump(ms) => {
                self.now = self.now.after(Duration::from_millis(ms));
                // What should have happened meanwhile happens from here on.
                self.stopped = self.stopped.map(|_| self.now);
                self.heard_by = self.heard_by.max(self.now);
                self.gone_by = None;
                // Nobody could act meanwhile, so the budget counts from here at the earliest.
                self.exit_by = self.exit_by.map(|at| at.max(self.now));
                self.events.push_back(Event::DeadlineReached);
            }
            Nudge::Nonsense(which) => {
                let absent = |alive: bool, role| {
                    (!alive).then_some(Event::ChildExited {
                        role,
                        how: Ended::Exited(0),
                    })
                };
                // The restorer's end is believed while it is awaited, so that one is no lie.
                let event = match which % 10 {
                    8 => Some(Event::GatewayStopped(Resumer::Shell)),
                    9 => Some(Event::GatewayStopped(Resumer::Nobody)),
                    0 => Some(Event::Started),
                    1 => Some(Event::PreflightDone),
                    2 => Some(Event::PreflightFailed { code: 78 }),
                    3 => Some(Event::OrphansReaped { count: 9 }),
                    4 => Some(Event::DescendantsLeft { count: 2 }),
                    5 => Some(Event::DeadlineReached),
                    6 => absent(self.gateway, Role::Gateway),
                    _ => absent(self.watcher, Role::Watcher),
                };
                self.events.extend(event);
            }
            _ => {}
        }
        self.settle();
    }

    /// Lets time pass as an executor does: deadlines are kept to the millisecond.
    fn pass(&mut self, span: Duration) {
        let until = self.now.after(span);
        let mut at_once = 0;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            at_once = if at <= self.now { at_once + 1 } else { 0 };
            assert!(
                at_once < 10,
                "a deadline that does not pass: {:?}",
                self.machine
            );
            self.now = self.now.max(at);
            self.events.push_back(Event::DeadlineReached);
            self.settle();
            self.check_liveness();
        }
        self.now = until;
        self.check_liveness();
    }

    /// What is stopped goes on, what is silent is killed, and no gateway outlives its lease where it is
    /// not to. To be called when time has passed as an executor sees it.
    fn check_liveness(&self) {
        if self.verdict.is_some() {
            return;
        }
        if let (true, Some(since)) = (self.watcher, self.stopped) {
            let limit = since.after(Duration::from_millis(100));
            assert!(self.now <= limit, "stopped for long: {:?}", self.machine);
        }
        if self.watcher && self.nature != Nature::Stuck {
            let doubled = 2_u32.pow(self.kills.min(5));
            let limit = self.heard_by.after(self.plan.patience * doubled);
            assert!(self.now <= limit, "silent for long: {:?}", self.machine);
        }
        if let (Some(by), Some(_)) = (self.gone_by, self.plan.lease_margin) {
            let gone = !self.gateway || self.nature == Nature::Stuck;
            let on_time = gone || self.now <= by;
            assert!(on_time, "beyond its lease: {:?}", self.machine);
        }
    }
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        Just(Nature::Cooperative),
        Just(Nature::Deaf),
        Just(Nature::Stuck)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_sequence_of_events_breaks_the_rules(
        plan in plan(),
        nature in nature(),
        nudges in prop::collection::vec((0u64..3000, nudge()), 0..200),
    ) {
        let mut world = World::new(plan, nature);
        for (ms, nudge) in nudges {
            world.pass(Duration::from_millis(ms));
            world.nudge(nudge);
            if let (None, Some(by)) = (&world.verdict, world.exit_by) {
                prop_assert!(world.now <= by.after(SLACK), "still {:?}", world.machine);
            }
        }
    }

    #[test]
    fn a_stop_signal_ends_any_world_within_its_budget(
        plan in plan(),
        nature in nature(),
        nudges in prop::collection::vec((0u64..3000, nudge()), 0..40),
        signal in prop_oneof![Just(libc::SIGTERM), Just(libc::SIGINT)],
    ) {
        let mut world = World::new(plan, nature);
        for (ms, nudge) in nudges {
            world.pass(Duration::from_millis(ms));
            world.nudge(nudge);
        }
        world.failing = None;
        if world.verdict.is_none() {
            world.nudge(Nudge::Signal(signal));
            let left = world.exit_by.map_or(Duration::ZERO, |by| by.until(world.now));
            world.pass(left + SLACK);
        }
        let over = world.verdict.is_some();
        prop_assert!(over, "still {:?} at the end of the budget", world.machine);
    }
}
