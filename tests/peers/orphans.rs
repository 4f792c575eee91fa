//! Who loses a parent is adopted, and nobody stays a zombie.

use super::container::{Container, Life, send};
use super::inits::{Ask, Init};
use super::verdict::{Case, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case("an orphan is reaped", |init| reaps(init, 1)),
    case("1,000 orphans are reaped", |init| reaps(init, 1000)),
    case("200 orphans that die at one moment are reaped", coalesced),
    case("orphans are reaped while the command is stopped", |init| {
        let orphans = "for i in 1 2 3; do (sleep 0.2 &); done";
        let life = Container::of(init).sh(&format!("{orphans}; echo up > ready; kill -STOP $$"))?;
        life.until_up()?;
        clean(&life, "sleep")
    }),
    case(
        "an orphan that the command's child left is reaped",
        |init| {
            let script = "sh -c 'sh -c \"sleep 0.1 & sleep 0.1 & exit 0\" & wait'; \
                      echo up > ready; exec tail -f /dev/null";
            let life = Container::of(init).sh(script)?;
            life.until_up()?;
            clean(&life, "sleep")
        },
    ),
    case(
        "a daemon that forked twice lives on, and is reaped in the end",
        |init| {
            let daemon = "setsid -f sh -c 'echo up > ready; until [ -e go ]; do sleep 0.05; done'";
            let script = format!("{daemon}; while :; do sleep 0.05; done");
            let life = Container::of(init).sh(&script)?;
            life.until_up()?;
            let daemons = |life: &Life| {
                let all = life.descendants();
                all.iter().filter(|p| p.name == "sh").count()
            };
            let before = daemons(&life);
            ensure!(before >= 2, "{before} shells are there, not 2");
            std::fs::write(life.work().join("go"), "").expect("write");
            life.until("without it", |life| {
                daemons(life) < before && !life.has_zombies()
            })
        },
    ),
    case("reaping is told where asked", |init| {
        let container = Container::of(init).ask(Ask::WarnOnReap);
        let script = "(sh -c 'echo $$ > pid' &); until [ -s pid ]; do sleep 0.02; done; \
                      echo up > ready; while :; do sleep 0.05; done";
        let life = container.sh(script)?;
        life.until_up()?;
        let pid = life.file("pid");
        life.until("told", |life| {
            let said = life.output("stderr");
            String::from_utf8_lossy(&said).contains(pid.trim())
        })
    }),
    case("orphans are adopted where it is not PID 1", |init| {
        let container = Container::of(init).behind_a_shell().ask(Ask::Subreaper);
        let script = "(sleep 1000 &); echo up > ready; exec tail -f /dev/null";
        let life = container.sh(script)?;
        life.until_up()?;
        life.until("below it", |life| {
            let own = life.pid().unwrap_or(0);
            let all = life.descendants();
            all.iter().any(|p| p.name == "sleep" && p.parent == own)
        })
    }),
];

fn reaps(init: Init, count: u32) -> Verdict {
    let script = format!(
        "for i in $(seq {count}); do (sleep 0.01 &); done; echo up > ready; \
         exec tail -f /dev/null"
    );
    let life = Container::of(init).sh(&script)?;
    life.until_up()?;
    clean(&life, "sleep")
}

/// No zombie, and nothing of that name either.
fn clean(life: &Life, name: &str) -> Verdict {
    life.until("clean", |life| {
        !life.descendants().iter().any(|p| p.name == name)
    })
}

fn coalesced(init: Init) -> Verdict {
    let script = "setsid -f sh -c 'for i in $(seq 200); do sleep 1000 & done; echo up > ready; wait'; \
                  exec tail -f /dev/null";
    let life = Container::of(init).sh(script)?;
    life.until_up()?;
    let mut sleeping = Vec::new();
    life.until("200 of them", |life| {
        sleeping = life.descendants();
        sleeping.retain(|p| p.name == "sleep");
        sleeping.len() == 200
    })?;
    let shell = sleeping[0].parent;
    // The shell first, so that it reaps none of them.
    send(shell, libc::SIGKILL);
    for process in &sleeping {
        send(process.pid, libc::SIGKILL);
    }
    clean(&life, "sleep")
}
