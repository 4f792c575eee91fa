//! A model of who owns a session: leases, appends, barriers and handovers of several instances over a
//! store that loses requests and answers, and delivers requests late or twice. All that can happen
//! within its bounds is tried, state by state.
//!
//! The lease is the real one ([`LeaseState`]), which the stores that judge in this program use, and to
//! which the contract holds the others. The rest is what the program does, step by step, as small as
//! it can be said.
//!
//! In every state that can be reached:
//! - **fence**: epochs never fall along the log, so that nothing of a stale owner's comes after the
//!   barrier of the next;
//! - **nothing acknowledged is lost**: what a writer was told is stored is what stands there;
//! - **the newest is restored**: an owner begins with the very log that its barrier closes, and so with
//!   all that was ever acknowledged to anybody before;
//! - **one gateway**: no two gateways run, unless one of their owners could not renew for as long as
//!   its lease ran and was told to go on all the same (`store.outage: keep-running`), or stood still.
//!   That holds, too, where the store's clock is set forward or back, as long as owners can renew.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::lapse::RenewalWatch;
use super::lease::LeaseState;
use super::{LeaseClaim, LeaseMark, LeaseOutcome, Otherwise};
use sessionkeep_core::boot_time::BootInstant;
use sessionkeep_core::record::InstanceId;

/// By how many ticks the store's clock is set: more than the whole world takes.
const CLOCK_STEP: u64 = 500;
/// How long a tick is.
const TICK: Duration = Duration::from_secs(1);

/// Of larger worlds only the nearer states are tried: breadth first, so that what takes the fewest
/// steps to go wrong is found. `MODEL_STATES` tries more, at about 2 kB a state.
const STATES_MAX: usize = 60_000;

/// What is tried, and how much of it.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    instances: usize,
    /// Ticks until the end of the world.
    ticks: u64,
    /// Records that the log may have.
    records: usize,
    /// Requests that may be on their way at a time without anybody waiting for them any more.
    late: usize,
    /// Lives that may end by a kill, or stand still for a while.
    accidents: u8,
    /// Whether a gateway is stopped when its lease runs out, or goes on.
    outage_stops: bool,
    /// A lease's time, in ticks. Waiters keep their place for five.
    ttl: u64,
    /// How often the store's clock may be set. Where it is, no answer is lost, and holders renew every
    /// third of the lease's time.
    clock_steps: u8,
}

/// A record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    writer: u8,
    epoch: u64,
    /// Tells a record from every other.
    id: u16,
}

/// Something that was asked of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Request {
    Claim(u8, Otherwise, Option<LeaseMark>),
    Renew(u8, u64),
    Release(u8, u64),
    Append(usize, Entry),
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// Not started, or dead.
    Off,
    /// Claims the lease; with the epoch that it asks, once it has seen one.
    Claiming { asks: Option<u64>, may_ask: bool },
    /// Has the lease and closes the log with a barrier after `head`.
    Closing {
        epoch: u64,
        head: usize,
        pending: Option<Entry>,
    },
    /// Its barrier stands, and its lease may have run out meanwhile: it asks.
    Checking { epoch: u64, head: usize },
    /// Its gateway runs.
    Running {
        epoch: u64,
        head: usize,
        pending: Option<Entry>,
    },
    /// Its gateway has ended; what is not saved yet is being saved.
    Saving {
        epoch: u64,
        head: usize,
        pending: Option<Entry>,
        hands_over: bool,
    },
    /// All is saved; the lease is let go.
    Releasing { epoch: u64, hands_over: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Instance {
    phase: Phase,
    /// Stands still, as if stopped by SIGSTOP.
    still: bool,
    /// Until then nobody else can have its lease.
    safe_until: u64,
    /// Whether a renewal told that somebody asks.
    asked: bool,
    /// When the store last did what a renewal or a claim of its own asked for.
    renewed: u64,
    /// What it has seen of the renewals of who holds the lease.
    watch: RenewalWatch,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    /// What the store's clock says, beyond what it should.
    ahead: i64,
    clock_steps: u8,
    ttl: u64,
    lease: Option<LeaseState>,
    log: Vec<Entry>,
    /// How long the log was that was ever acknowledged to somebody.
    acknowledged: usize,
    instances: Vec<Instance>,
    late: Vec<Request>,
    accidents: u8,
    next_id: u16,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is done and answered.
    Answered,
    /// It is done, and the answer lost.
    AnswerLost,
    /// It is lost.
    Lost,
    /// Nobody waits for it any more, and it arrives some time.
    Late,
}

const FATES: [Fate; 4] = [Fate::Answered, Fate::AnswerLost, Fate::Lost, Fate::Late];

fn name(who: u8) -> InstanceId {
    ["a", "b", "c"][usize::from(who)].parse().expect("a name")
}

fn ms(ticks: u64, ahead: i64) -> u64 {
    // Not from 0, which means "released".
    (1_000 + ticks).saturating_add_signed(ahead) * u64::try_from(TICK.as_millis()).expect("small")
}

/// What the store answers.
enum Answer {
    Lease(LeaseOutcome),
    /// Whether it is still held, and whether somebody asks for it.
    Renewed(Option<bool>),
    Released,
    /// Whether the record stands at its place.
    Appended(bool),
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        Self {
            now: 0,
            ahead: 0,
            clock_steps: bounds.clock_steps,
            ttl: bounds.ttl,
            lease: None,
            log: Vec::new(),
            acknowledged: 0,
            instances: vec![
                Instance {
                    phase: Phase::Off,
                    still: false,
                    safe_until: 0,
                    asked: false,
                    renewed: 0,
                    watch: RenewalWatch::default(),
                };
                bounds.instances
            ],
            late: Vec::new(),
            accidents: bounds.accidents,
            next_id: 0,
        }
    }

    /// The store does what it was asked for.
    fn carry_out(&mut self, request: &Request) -> Answer {
        let now = ms(self.now, self.ahead);
        let ttl = self.ttl();
        let answer = match request {
            Request::Claim(who, otherwise, lapsed) => {
                let claim = LeaseClaim {
                    instance: name(*who),
                    predecessor: None,
                    floor: self.log.last().map_or(0, |entry| entry.epoch),
                    ttl,
                    lapsed: *lapsed,
                    otherwise: *otherwise,
                };
                let (after, outcome) = LeaseState::claim(self.lease.as_ref(), &claim, now);
                self.lease = after.or(self.lease.take());
                if matches!(outcome, LeaseOutcome::Granted { .. }) {
                    self.instances[usize::from(*who)].renewed = self.now;
                }
                Answer::Lease(outcome)
            }
            Request::Renew(who, epoch) => {
                let renewed = self
                    .lease
                    .as_ref()
                    .and_then(|lease| lease.renewed(&name(*who), *epoch, ttl, now));
                let asked = renewed
                    .as_ref()
                    .map(|lease| lease.told_at(now).asked_by().is_some());
                self.lease = renewed.or(self.lease.take());
                self.instances[usize::from(*who)].renewed = self.now;
                Answer::Renewed(asked)
            }
            Request::Release(who, epoch) => {
                if let Some(lease) = &mut self.lease {
                    lease.release(&name(*who), *epoch);
                }
                Answer::Released
            }
            Request::Append(at, entry) => {
                if *at == self.log.len() {
                    if let Some(last) = self.log.last() {
                        assert!(last.epoch <= entry.epoch, "a stale writer passed a barrier");
                    }
                    self.log.push(*entry);
                }
                Answer::Appended(self.log.get(*at) == Some(entry))
            }
        };
        if let Some(lease) = &mut self.lease {
            // Of no consequence here, and another state at each time.
            (lease.term.written_ms, lease.term.set_back) = (0, None);
        }
        answer
    }

    fn ttl(&self) -> Duration {
        TICK * u32::try_from(self.ttl).expect("small")
    }

    /// Now, by the clocks of the instances, which are right.
    fn boot_time(&self) -> BootInstant {
        BootInstant::at(TICK * u32::try_from(self.now).expect("small"))
    }

    /// Whether somebody who holds the lease, as far as it knows, is about to let its time for a
    /// renewal pass. Where clocks are set, nobody does: see [`super::lapse`] for what is lost then.
    fn owes_a_renewal(&self) -> bool {
        self.instances.iter().any(|instance| {
            let holds = matches!(
                instance.phase,
                Phase::Closing { .. } | Phase::Checking { .. } | Phase::Running { .. }
            );
            holds && instance.renewed + self.ttl / 3 <= self.now
        })
    }

    /// All worlds that may follow.
    fn next(&self, bounds: &Bounds) -> Vec<Self> {
        let mut next = Vec::new();
        for (n, request) in self.late.iter().enumerate() {
            // It arrives; it may also arrive twice.
            for stays in [false, true] {
                let mut world = self.clone();
                world.carry_out(request);
                if !stays {
                    world.late.remove(n);
                }
                next.push(world);
            }
        }
        for who in 0..self.instances.len() {
            self.steps_of(who, bounds, &mut next);
        }
        let in_time = bounds.clock_steps == 0 || !self.owes_a_renewal();
        if self.now < bounds.ticks && in_time {
            next.push(self.tick(bounds));
        }
        if self.clock_steps > 0 {
            for by in [CLOCK_STEP.cast_signed(), -CLOCK_STEP.cast_signed()] {
                let mut world = self.clone();
                world.ahead += by;
                world.clock_steps -= 1;
                next.push(world);
            }
        }
        next
    }

    /// Time passes. Whoever was told to stops its gateway before its lease runs out.
    fn tick(&self, bounds: &Bounds) -> Self {
        let mut world = self.clone();
        world.now += 1;
        for instance in &mut world.instances {
            if let Phase::Running {
                epoch,
                head,
                pending,
            } = instance.phase
                && bounds.outage_stops
                && !instance.still
                && instance.safe_until <= world.now
            {
                instance.phase = Phase::Saving {
                    epoch,
                    head,
                    pending,
                    hands_over: true,
                };
            }
        }
        world
    }

    fn steps_of(&self, who: usize, bounds: &Bounds, next: &mut Vec<Self>) {
        let instance = &self.instances[who];
        if self.accidents > 0 && instance.phase != Phase::Off {
            let mut world = self.clone();
            world.accidents -= 1;
            world.instances[who].phase = Phase::Off;
            world.instances[who].still = false;
            next.push(world);
            if !instance.still {
                let mut world = self.clone();
                world.accidents -= 1;
                world.instances[who].still = true;
                next.push(world);
            }
        }
        if instance.still {
            let mut world = self.clone();
            world.instances[who].still = false;
            next.push(world);
            return;
        }
        let number = u8::try_from(who).expect("few");
        if let Phase::Closing { epoch, .. } = instance.phase
            && bounds.clock_steps > 0
        {
            self.ask(who, bounds, &Request::Renew(number, epoch), next);
        }
        match instance.phase {
            Phase::Off => {
                let mut world = self.clone();
                world.instances[who].watch = RenewalWatch::default();
                world.instances[who].phase = Phase::Claiming {
                    asks: None,
                    may_ask: true,
                };
                next.push(world);
            }
            Phase::Claiming { asks, .. } => {
                let otherwise = asks.map_or(Otherwise::Wait, Otherwise::Ask);
                let lapsed = instance.watch.lapsed(self.ttl(), self.boot_time());
                self.ask(
                    who,
                    bounds,
                    &Request::Claim(number, otherwise, lapsed),
                    next,
                );
            }
            Phase::Closing {
                epoch,
                head,
                pending: None,
            } => self.begin_record(who, bounds, epoch, head, next),
            Phase::Closing {
                head,
                pending: Some(entry),
                ..
            }
            | Phase::Saving {
                head,
                pending: Some(entry),
                ..
            } => self.ask(who, bounds, &Request::Append(head, entry), next),
            Phase::Checking { epoch, .. } => {
                self.ask(who, bounds, &Request::Renew(number, epoch), next);
            }
            Phase::Running {
                epoch,
                head,
                pending,
            } => {
                match pending {
                    Some(entry) => self.ask(who, bounds, &Request::Append(head, entry), next),
                    None => self.begin_record(who, bounds, epoch, head, next),
                }
                self.ask(who, bounds, &Request::Renew(number, epoch), next);
                // Told to stop; or asked, and making way.
                for hands_over in [false, true] {
                    if hands_over && !instance.asked {
                        continue;
                    }
                    let mut world = self.clone();
                    world.instances[who].phase = Phase::Saving {
                        epoch,
                        head,
                        pending,
                        hands_over,
                    };
                    next.push(world);
                }
            }
            Phase::Saving {
                epoch,
                pending: None,
                hands_over,
                ..
            } => {
                let mut world = self.clone();
                world.instances[who].phase = Phase::Releasing { epoch, hands_over };
                next.push(world);
            }
            Phase::Releasing { epoch, .. } => {
                self.ask(who, bounds, &Request::Release(number, epoch), next);
            }
        }
    }

    /// There is something to append.
    fn begin_record(
        &self,
        who: usize,
        bounds: &Bounds,
        epoch: u64,
        head: usize,
        next: &mut Vec<Self>,
    ) {
        if head >= bounds.records || usize::from(self.next_id) > bounds.records + 1 {
            return;
        }
        let mut world = self.clone();
        let entry = Entry {
            writer: u8::try_from(who).expect("few"),
            epoch,
            id: world.next_id,
        };
        world.next_id += 1;
        match &mut world.instances[who].phase {
            Phase::Closing { pending, .. } | Phase::Running { pending, .. } => {
                *pending = Some(entry);
            }
            other => unreachable!("{other:?} appends nothing"),
        }
        next.push(world);
    }

    /// A request, with all that may become of it.
    fn ask(&self, who: usize, bounds: &Bounds, request: &Request, next: &mut Vec<Self>) {
        for fate in FATES {
            let mut world = self.clone();
            match fate {
                Fate::Lost => continue,
                Fate::Late | Fate::AnswerLost if bounds.clock_steps > 0 => continue,
                Fate::Late => {
                    if world.late.len() >= bounds.late || world.late.contains(request) {
                        continue;
                    }
                    world.late.push(request.clone());
                }
                Fate::AnswerLost => drop(world.carry_out(request)),
                Fate::Answered => {
                    let answer = world.carry_out(request);
                    world.hear(who, &answer);
                }
            }
            next.push(world);
        }
    }

    fn hear(&mut self, who: usize, answer: &Answer) {
        let (now, length, ttl) = (self.now, self.log.len(), self.ttl);
        let boot_time = self.boot_time();
        let instance = &mut self.instances[who];
        if let Answer::Lease(LeaseOutcome::Held(lease)) = answer {
            instance.watch.note(lease, boot_time);
        }
        match (answer, instance.phase) {
            (Answer::Lease(LeaseOutcome::Granted { epoch }), _) => {
                // It reads the head now, and closes the log after it.
                instance.safe_until = now + ttl;
                instance.asked = false;
                instance.phase = Phase::Closing {
                    epoch: *epoch,
                    head: length,
                    pending: None,
                };
            }
            (
                Answer::Lease(LeaseOutcome::Held(lease)),
                Phase::Claiming {
                    asks: None,
                    may_ask: true,
                },
            ) => {
                instance.phase = Phase::Claiming {
                    asks: Some(lease.epoch),
                    may_ask: true,
                };
            }
            (Answer::Renewed(Some(asked)), phase) => {
                instance.safe_until = now + ttl;
                instance.asked = *asked;
                if let Phase::Checking { epoch, head } = phase {
                    self.begin_to_run(who, epoch, head);
                }
            }
            // Fenced: nothing is saved, and this life ends.
            (Answer::Renewed(None), _) => instance.phase = Phase::Off,
            (
                Answer::Appended(true),
                Phase::Closing {
                    epoch,
                    head,
                    pending: Some(_),
                },
            ) => {
                let head = head + 1;
                if instance.safe_until > now {
                    self.begin_to_run(who, epoch, head);
                } else {
                    instance.phase = Phase::Checking { epoch, head };
                }
            }
            // A stale writer came before the barrier: read again, and close after that.
            (Answer::Appended(false), Phase::Closing { epoch, head, .. }) => {
                let taken = self.log[head];
                instance.phase = match taken.epoch > epoch {
                    true => Phase::Off,
                    false => Phase::Closing {
                        epoch,
                        head: length,
                        pending: None,
                    },
                };
            }
            (Answer::Appended(true), Phase::Running { epoch, head, .. }) => {
                self.acknowledged = self.acknowledged.max(head + 1);
                instance.phase = Phase::Running {
                    epoch,
                    head: head + 1,
                    pending: None,
                };
            }
            (
                Answer::Appended(true),
                Phase::Saving {
                    epoch,
                    head,
                    hands_over,
                    ..
                },
            ) => {
                self.acknowledged = self.acknowledged.max(head + 1);
                instance.phase = Phase::Saving {
                    epoch,
                    head: head + 1,
                    pending: None,
                    hands_over,
                };
            }
            // Fenced by its number.
            (
                Answer::Appended(false),
                Phase::Saving {
                    hands_over: true, ..
                },
            ) => {
                instance.phase = Phase::Claiming {
                    asks: None,
                    may_ask: false,
                };
            }
            (Answer::Appended(false), _) => instance.phase = Phase::Off,
            (Answer::Released, Phase::Releasing { hands_over, .. }) => {
                instance.phase = match hands_over {
                    true => Phase::Claiming {
                        asks: None,
                        may_ask: false,
                    },
                    false => Phase::Off,
                };
            }
            _ => {}
        }
    }

    /// The barrier at `head - 1` is its own, and the lease, too.
    fn begin_to_run(&mut self, who: usize, epoch: u64, head: usize) {
        assert!(
            head > self.acknowledged,
            "an owner begins without what was acknowledged"
        );
        self.acknowledged = head;
        self.instances[who].phase = Phase::Running {
            epoch,
            head,
            pending: None,
        };
    }

    /// What must hold in every state.
    fn check(&self, bounds: &Bounds) {
        let runs = |instance: &&Instance| {
            matches!(instance.phase, Phase::Running { .. }) && !instance.still
        };
        let covered = |instance: &&Instance| instance.safe_until > self.now;
        let gateways = self.instances.iter().filter(runs);
        assert!(
            gateways.clone().filter(covered).count() <= 1,
            "two gateways run"
        );
        if bounds.outage_stops && self.accidents == bounds.accidents {
            // Nobody ever stood still.
            assert!(gateways.count() <= 1, "a gateway runs on after its lease");
        }
        assert!(
            self.acknowledged <= self.log.len(),
            "what was acknowledged is not there"
        );
    }
}

/// Tries everything within `bounds`, and says how many states there are.
fn explore(bounds: &Bounds) -> usize {
    let most = std::env::var("MODEL_STATES").ok();
    let most = most
        .and_then(|most| most.parse().ok())
        .unwrap_or(STATES_MAX);
    // Each state with the one that it was first reached from.
    let begin = World::new(bounds);
    let mut from = HashMap::from([(begin.clone(), None)]);
    let mut queue = VecDeque::from([begin]);
    while let Some(world) = queue.pop_front() {
        if from.len() >= most {
            break;
        }
        let steps = std::panic::catch_unwind(|| {
            world.check(bounds);
            world.next(bounds)
        });
        let Ok(steps) = steps else {
            let mut way = vec![world];
            while let Some(Some(before)) = way.last().and_then(|world| from.get(world)) {
                way.push(World::clone(before));
            }
            for (n, world) in way.iter().rev().enumerate() {
                eprintln!("{n}: {world:?}");
            }
            panic!("the last of these states breaks a rule, or leads to one that does");
        };
        for next in steps {
            if !from.contains_key(&next) {
                from.insert(next.clone(), Some(world.clone()));
                queue.push_back(next);
            }
        }
    }
    from.len()
}

#[test]
fn within_its_bounds_no_order_of_events_breaks_ownership() {
    let all = [
        // Accidents, and late requests.
        Bounds {
            instances: 2,
            ticks: 3,
            records: 3,
            late: 1,
            accidents: 0,
            outage_stops: true,
            ttl: 2,
            clock_steps: 0,
        },
        Bounds {
            instances: 2,
            ticks: 3,
            records: 3,
            late: 0,
            accidents: 1,
            outage_stops: false,
            ttl: 2,
            clock_steps: 0,
        },
        // Three, of which two come to the same owner.
        Bounds {
            instances: 3,
            ticks: 1,
            records: 3,
            late: 0,
            accidents: 0,
            outage_stops: true,
            ttl: 2,
            clock_steps: 0,
        },
        // Clocks that are set.
        Bounds {
            instances: 2,
            ticks: 5,
            records: 2,
            late: 0,
            accidents: 0,
            outage_stops: true,
            ttl: 6,
            clock_steps: 1,
        },
        Bounds {
            instances: 2,
            ticks: 4,
            records: 2,
            late: 0,
            accidents: 0,
            outage_stops: true,
            ttl: 6,
            clock_steps: 2,
        },
    ];
    for bounds in all {
        let states = explore(&bounds);
        eprintln!("figure: {states} states of {bounds:?}");
        assert!(
            states > 10_000,
            "the bounds leave out what matters: {states}"
        );
    }
}
