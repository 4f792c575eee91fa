//! Surroundings that hosts and careful operators make.

use std::time::{Duration, Instant};

use super::container::{Container, FOR_EVER};
use super::inits::Ask;
use super::verdict::{Case, Verdict, case, ensure};

/// A user that no image knows.
const NOBODY: &str = "54321";

pub(crate) const CASES: &[Case] = &[
    case("a read-only root", |init| {
        let make = "mount --bind $ROOT $ROOT; cd $ROOT/work; mount -o remount,bind,ro /";
        works(Container::of(init).prepare(make))
    }),
    case("no /proc", |init| {
        works(Container::of(init).prepare("umount -l /proc"))
    }),
    case(
        "no /proc: a background process that needs 1 s gets it",
        |init| {
            let child = format!("trap 'sleep 1; echo late > last; exit 0' TERM; {FOR_EVER}");
            let script = format!("({child}) & until [ -s ready ]; do sleep 0.02; done; exit 3");
            let mut life = Container::of(init).prepare("umount -l /proc").sh(&script)?;
            life.ends_with(3)?;
            ensure!(life.file("last") == "late\n", "the last write is not there");
            Ok(())
        },
    ),
    case("an empty /dev", |init| {
        let make = "mount -t tmpfs -o ro none /dev";
        works(Container::of(init).prepare(make))
    }),
    case("a /dev/shm that cannot be written to", |init| {
        works(Container::of(init).prepare("mount -t tmpfs -o ro none /dev/shm"))
    }),
    case("an unknown user without a home", |init| {
        let container = Container::of(init).prepare(&format!("chown -R {NOBODY} $ROOT"));
        works(container.under(&[
            "setpriv",
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
        ]))
    }),
    case("all capabilities dropped", |init| {
        works(Container::of(init).under(&["setpriv", "--bounding-set=-all", "--inh-caps=-all"]))
    }),
    case("no new privileges", |init| {
        works(Container::of(init).under(&["setpriv", "--no-new-privs"]))
    }),
    case("16 descriptors at most", |init| {
        works(Container::of(init).prepare("ulimit -n 16"))
    }),
    case("no environment at all", |init| {
        works(Container::of(init).under(&["env", "-i"]))
    }),
    case("a working directory that was deleted", |init| {
        let container = Container::of(init).prepare("mkdir gone; cd gone; rmdir ../gone");
        let mut life = container.run(&["sh", "-c", "exit 8"])?;
        life.ends_with(8)
    }),
    case("no process can be forked: it fails, and soon", |init| {
        let container = Container::of(init).prepare(&format!("chown -R {NOBODY} $ROOT"));
        let container = container.under(&[
            "setpriv",
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
        ]);
        let container = container.under(&["prlimit", "--nproc=0:0"]);
        let began = Instant::now();
        let code = container.sh("echo up > ready")?.code()?;
        ensure!(code != 0, "it exits with 0");
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "it takes {:.0?}",
            began.elapsed()
        );
        Ok(())
    }),
    case(
        "parent gone, where it is not PID 1: the command is told, where asked",
        |init| {
            let container = Container::of(init).ask(Ask::ParentDeath);
            // PID 1 is a shell that stays. The init's parent is another, which a KILL takes away.
            let container = container.under(&[
            "sh",
            "-c",
            "sh -c 'echo $$ > parent; \"$@\"; exit $?' sh \"$@\" & while [ ! -e gone ]; do sleep 0.05; done",
            "sh",
        ]);
            let script = format!("trap 'echo told > last; exit 0' TERM; {FOR_EVER}");
            let life = container.sh(&script)?;
            life.until_up()?;
            let parent = life.child("sh")?;
            super::container::send(parent, libc::SIGKILL);
            life.until("told", |life| life.file("last") == "told\n")
        },
    ),
];

/// Starts, forwards, reaps, and passes the code on.
fn works(container: Container) -> Verdict {
    let orphan = "(sleep 0.01 &)";
    let script = format!("trap 'echo bye > last; exit 7' TERM; {orphan}; {FOR_EVER}");
    let mut life = container.sh(&script)?;
    life.until_up()?;
    life.until("without zombies", |life| !life.has_zombies())?;
    life.signal(libc::SIGTERM)?;
    life.ends_with(7)?;
    ensure!(life.file("last") == "bye\n", "its handler did not end");
    Ok(())
}
