//! The way from TERM, or from the command's own end, to the end of the container.

use std::time::{Duration, Instant};

use super::container::{Container, FOR_EVER, Life};
use super::inits::Init;
use super::verdict::{Case, Miss, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case(
        "the command's last write is there, however it ends",
        |init| {
            let script = format!("trap 'sleep 0.5; echo late > last; exit 0' TERM; {FOR_EVER}");
            stopped(init, &script, 0)
        },
    ),
    case(
        "a wrapper shell dies of TERM at once: its child, which needs 3 s, gets them",
        |init| {
            // Not a background job of the shell: those are deaf to INT and QUIT, not to TERM.
            let child = format!("trap 'sleep 3; echo late > last; exit 0' TERM; {FOR_EVER}");
            stopped(init, &format!("({child}) & wait"), 143)
        },
    ),
    case(
        "a wrapper shell dies of TERM at once: its child in another session gets 2 s",
        |init| {
            let child = format!("trap 'sleep 2; echo late > last; exit 0' TERM; {FOR_EVER}");
            stopped(init, &format!("setsid sh -c \"{child}\" & wait"), 143)
        },
    ),
    case(
        "a background process that needs 1 s after the command's end gets it",
        |init| {
            let child = format!("trap 'sleep 1; echo late > last; exit 0' TERM; {FOR_EVER}");
            left_behind(init, &format!("({child}) &"), 3)
        },
    ),
    case(
        "a background process that is deaf to TERM and needs 1 s gets it",
        |init| {
            let child = "trap '' TERM; echo up > ready; sleep 1; echo late > last";
            left_behind(init, &format!("({child}) &"), 3)
        },
    ),
    case(
        "a detached daemon in a session of its own is told to end, and gets 1 s",
        |init| {
            let child = format!("trap 'sleep 1; echo late > last; exit 0' TERM; {FOR_EVER}");
            left_behind(init, &format!("setsid -f sh -c \"{child}\""), 0)
        },
    ),
    case(
        "what the command leaves behind ends at once if it can",
        |init| {
            let mut life = Container::of(init).sh("sleep 1000 & sleep 1000 & exit 4")?;
            let began = Instant::now();
            life.ends_with(4)?;
            let took = began.elapsed();
            ensure!(took < Duration::from_secs(3), "it takes {took:.1?}");
            Ok(())
        },
    ),
    case("the stop takes no longer than the command", |init| {
        let mut life = Container::of(init).sh(&format!("trap 'exit 0' TERM; {FOR_EVER}"))?;
        life.until_up()?;
        let began = Instant::now();
        life.signal(libc::SIGTERM)?;
        life.ends_with(0)?;
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(1), "it takes {took:.1?}");
        Ok(())
    }),
    case(
        "a command that is deaf to TERM is killed at the deadline, not before",
        |init| killed_in_time(init, &format!("trap '' TERM; {FOR_EVER}")),
    ),
    case(
        "a background process that is deaf to TERM is killed at the deadline, not before",
        |init| {
            let deaf = "trap '' TERM; echo up > ready; while :; do sleep 0.05; done";
            killed_in_time(
                init,
                &format!(
                    "(exec setsid sh -c \"{deaf}\") & trap 'exit 0' TERM; while :; do sleep 0.05; done"
                ),
            )
        },
    ),
    case(
        "a command that is suspended is ended by the deadline all the same",
        |init| {
            let container = Container::of(init).kill_after(Duration::from_secs(1));
            let mut life = container.sh("echo up > ready; kill -STOP $$; exit 0")?;
            life.until_up()?;
            life.until("suspended", |life| {
                life.descendants()
                    .iter()
                    .any(|p| p.name == "sh" && p.state == 'T')
            })?;
            life.signal(libc::SIGTERM)?;
            life.code().map(|_| ())
        },
    ),
    case("a second TERM ends a deaf command at once", |init| {
        let container = Container::of(init).kill_after(Duration::from_secs(25));
        let mut life = container.sh(&format!("trap '' TERM; {FOR_EVER}"))?;
        life.until_up()?;
        life.signal(libc::SIGTERM)?;
        // Two that are pending at one moment are one to the kernel.
        life.until("taken", |life| !has_pending(life))?;
        let began = Instant::now();
        life.signal(libc::SIGTERM)?;
        let code = life.code()?;
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(5), "it takes {took:.1?}");
        ensure!(code == 137, "it exits with {code}");
        Ok(())
    }),
    case(
        "the code is the command's, not that of what it left behind",
        |init| {
            let child = format!("trap 'exit 0' TERM; {FOR_EVER}");
            let wait = "until [ -s ready ]; do sleep 0.02; done";
            Container::of(init)
                .sh(&format!("({child}) & {wait}; exit 12"))?
                .ends_with(12)
        },
    ),
    case(
        "a process that is started during the stop is waited for",
        |init| {
            let late = "(trap \"\" TERM; setsid -f sh -c \"sleep 1; echo late > last\")";
            stopped(init, &format!("trap '{late}; exit 0' TERM; {FOR_EVER}"), 0)
        },
    ),
    case(
        "TERM that comes in the moment of the command's own end does no harm",
        |init| {
            for _ in 0..5 {
                let mut life = Container::of(init).sh("echo up > ready; exit 11")?;
                life.until_up()?;
                // It may have ended already: then there is nobody to send to.
                let _ = life.signal(libc::SIGTERM);
                let code = life.code()?;
                ensure!([11, 143].contains(&code), "it exits with {code}");
            }
            Ok(())
        },
    ),
];

fn has_pending(life: &Life) -> bool {
    let Ok(pid) = life.pid() else { return false };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| {
        let set = line.strip_prefix("ShdPnd:");
        set.is_some_and(|set| {
            u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & (1 << 14) != 0)
        })
    })
}

/// TERM, and then the last write of whoever had to say it.
fn stopped(init: Init, script: &str, code: i32) -> Verdict {
    let mut life = Container::of(init).sh(script)?;
    life.until_up()?;
    life.signal(libc::SIGTERM)?;
    let ended = life.code()?;
    last_word(&life)?;
    ensure!(ended == code, "it exits with {ended}, not {code}");
    Ok(())
}

/// The command leaves somebody behind and ends.
fn left_behind(init: Init, who: &str, code: i32) -> Verdict {
    let wait = "until [ -s ready ]; do sleep 0.02; done";
    let mut life = Container::of(init).sh(&format!("{who}\n{wait}; exit {code}"))?;
    let ended = life.code()?;
    last_word(&life)?;
    ensure!(ended == code, "it exits with {ended}, not {code}");
    Ok(())
}

fn last_word(life: &Life) -> Result<(), Miss> {
    ensure!(life.file("last") == "late\n", "the last write is not there");
    Ok(())
}

fn killed_in_time(init: Init, script: &str) -> Verdict {
    let grace = Duration::from_secs(1);
    let mut life = Container::of(init).kill_after(grace).sh(script)?;
    life.until_up()?;
    let began = Instant::now();
    life.signal(libc::SIGTERM)?;
    life.code()?;
    let took = began.elapsed();
    ensure!(
        took >= grace - Duration::from_millis(20),
        "it is ended after {took:.1?}"
    );
    ensure!(
        took < grace + Duration::from_secs(3),
        "it is ended after {took:.1?} only"
    );
    Ok(())
}
