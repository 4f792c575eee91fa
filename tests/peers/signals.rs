//! What is sent to the container reaches the main process.

use super::container::{Container, FOR_EVER, Life};
use super::inits::{Ask, Init};
use super::verdict::{Case, Miss, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case(
        "TERM reaches the command, whose handler sets the code",
        |init| stop_by(init, "TERM", libc::SIGTERM),
    ),
    case(
        "INT reaches the command, whose handler sets the code",
        |init| stop_by(init, "INT", libc::SIGINT),
    ),
    case(
        "QUIT reaches the command, whose handler sets the code",
        |init| stop_by(init, "QUIT", libc::SIGQUIT),
    ),
    case(
        "RTMIN+3 reaches the command, whose handler sets the code",
        |init| stop_by(init, "37", 37),
    ),
    case("HUP is forwarded", |init| forwards(init, &[libc::SIGHUP])),
    case("USR1 and USR2 are forwarded", |init| {
        forwards(init, &[libc::SIGUSR1, libc::SIGUSR2])
    }),
    case("WINCH is forwarded", |init| {
        forwards(init, &[libc::SIGWINCH])
    }),
    case("ALRM is forwarded", |init| forwards(init, &[libc::SIGALRM])),
    case("VTALRM and PROF are forwarded", |init| {
        forwards(init, &[libc::SIGVTALRM, libc::SIGPROF])
    }),
    case("PIPE is forwarded", |init| forwards(init, &[libc::SIGPIPE])),
    case("IO, URG and PWR are forwarded", |init| {
        forwards(init, &[libc::SIGIO, libc::SIGURG, libc::SIGPWR])
    }),
    case("XCPU, XFSZ and STKFLT are forwarded", |init| {
        forwards(init, &[libc::SIGXCPU, libc::SIGXFSZ, libc::SIGSTKFLT])
    }),
    case("CONT is forwarded", |init| forwards(init, &[libc::SIGCONT])),
    case("every real-time signal is forwarded", |init| {
        let all: Vec<i32> = (libc::SIGRTMIN()..=libc::SIGRTMAX())
            .filter(|s| *s != 37)
            .collect();
        forwards(init, &all)
    }),
    case(
        "signals arrive in the order in which they were sent",
        in_order,
    ),
    case("20 real-time signals sent at once are 20 signals", queued),
    case("1,000 USR1 in a burst do no harm", burst),
    case("CHLD is not forwarded", no_chld),
    case("TERM while the command is being started ends it", |init| {
        for _ in 0..20 {
            early(init)?;
        }
        Ok(())
    }),
    case("TSTP suspends the command, CONT resumes it", suspends),
    case(
        "a signal reaches the whole process group where asked",
        group,
    ),
    case("a signal is exchanged for another where asked", rewritten),
    case("a signal is dropped where asked", dropped),
];

fn recording(init: Init) -> Result<Life, Miss> {
    let life = Container::of(init).subject("record")?;
    life.until_up()?;
    Ok(life)
}

fn got(life: &Life) -> Vec<i32> {
    let text = life.file("got");
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn forwards(init: Init, signals: &[i32]) -> Verdict {
    let life = recording(init)?;
    let mut missed = Vec::new();
    for signal in signals {
        life.signal(*signal)?;
        let arrived = life.until("there", |life| got(life).contains(signal));
        if arrived.is_err() {
            missed.push(*signal);
            // One that is not forwarded costs patience; what is left is not much to learn from.
            break;
        }
    }
    ensure!(missed.is_empty(), "{missed:?} never arrives");
    Ok(())
}

fn stop_by(init: Init, name: &str, signal: i32) -> Verdict {
    let script = format!("trap 'echo bye > last; exit 9' {name}; {FOR_EVER}");
    let mut life = Container::of(init).sh(&script)?;
    life.until_up()?;
    life.signal(signal)?;
    life.ends_with(9)?;
    ensure!(life.file("last") == "bye\n", "its handler did not end");
    Ok(())
}

fn in_order(init: Init) -> Verdict {
    let life = recording(init)?;
    let sent = [
        libc::SIGUSR2,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGWINCH,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        libc::SIGHUP,
    ];
    for (before, signal) in sent.iter().enumerate() {
        life.signal(*signal)?;
        life.until("there", |life| got(life).len() > before)?;
    }
    ensure!(got(&life) == sent, "sent {sent:?}, got {:?}", got(&life));
    Ok(())
}

fn queued(init: Init) -> Verdict {
    let life = recording(init)?;
    for _ in 0..20 {
        life.signal(libc::SIGRTMIN() + 6)?;
    }
    life.until("there 20 times", |life| got(life).len() >= 20)
}

fn burst(init: Init) -> Verdict {
    let life = recording(init)?;
    let pid = life.pid()?;
    for _ in 0..1000 {
        super::container::send(pid, libc::SIGUSR1);
    }
    life.signal(libc::SIGUSR2)?;
    life.until("alive after it", |life| got(life).contains(&libc::SIGUSR2))
}

fn no_chld(init: Init) -> Verdict {
    let life = recording(init)?;
    life.signal(libc::SIGCHLD)?;
    // What comes after it has arrived, so it would have, too.
    life.signal(libc::SIGUSR1)?;
    life.until("there", |life| got(life).contains(&libc::SIGUSR1))?;
    ensure!(!got(&life).contains(&libc::SIGCHLD), "it was");
    Ok(())
}

/// The signal is sent as soon as the init takes it at all: before that, the kernel drops what is
/// sent to PID 1.
fn early(init: Init) -> Verdict {
    let mut life = Container::of(init).run(&["sleep", "1000"])?;
    life.until("taking TERM", |life| {
        life.pid().is_ok_and(takes_term) || !life.descendants().is_empty()
    })?;
    life.signal(libc::SIGTERM)?;
    let code = life.code()?;
    // An init that had not started its command yet has none to die of the signal.
    ensure!([143, 0].contains(&code), "it exits with {code}");
    Ok(())
}

fn takes_term(pid: i32) -> bool {
    let own = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    if own == b"unshare\n" {
        return false;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ["SigBlk:", "SigCgt:"].iter().any(|name| {
        let set = status.lines().find_map(|line| line.strip_prefix(name));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_some_and(|set| set & (1 << (libc::SIGTERM - 1)) != 0)
    })
}

fn suspends(init: Init) -> Verdict {
    let life =
        Container::of(init).sh("echo up > ready; while :; do sleep 0.02; date +%N > now; done")?;
    life.until("running", |life| !life.file("now").is_empty())?;
    life.signal(libc::SIGTSTP)?;
    let stopped = |life: &Life| {
        let all = life.descendants();
        all.iter().any(|p| p.name == "sh" && p.state == 'T')
    };
    life.until("suspended", stopped)?;
    let then = life.file("now");
    life.signal(libc::SIGCONT)?;
    life.until("resumed", |life| {
        !stopped(life) && life.file("now") != then && !life.file("now").is_empty()
    })
}

fn group(init: Init) -> Verdict {
    let child = "trap 'echo child >> got' USR1; echo up >> ready; while :; do sleep 0.05; done";
    let main = format!("trap 'echo main >> got' USR1; ({child}) & while :; do wait; done");
    let life = Container::of(init).ask(Ask::Group).sh(&main)?;
    life.until_up()?;
    life.signal(libc::SIGUSR1)?;
    life.until("at both", |life| {
        let got = life.file("got");
        got.contains("main") && got.contains("child")
    })
}

fn rewritten(init: Init) -> Verdict {
    let (from, to) = (libc::SIGTERM, libc::SIGINT);
    let container = Container::of(init).ask(Ask::Rewrite { from, to });
    let script = format!("trap 'exit 7' INT; trap 'exit 8' TERM; {FOR_EVER}");
    let mut life = container.sh(&script)?;
    life.until_up()?;
    life.signal(libc::SIGTERM)?;
    life.ends_with(7)
}

fn dropped(init: Init) -> Verdict {
    let (from, to) = (libc::SIGHUP, 0);
    let container = Container::of(init).ask(Ask::Rewrite { from, to });
    let script = format!("trap 'exit 7' HUP; trap 'exit 8' USR1; {FOR_EVER}");
    let mut life = container.sh(&script)?;
    life.until_up()?;
    life.signal(libc::SIGHUP)?;
    life.signal(libc::SIGUSR1)?;
    life.ends_with(8)
}
