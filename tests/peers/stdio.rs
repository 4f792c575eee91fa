//! Input and output pass by the init, untouched.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::container::{Container, FOR_EVER};
use super::inits::Init;
use super::verdict::{Case, Miss, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case(
        "a megabyte of all byte values comes out of stdout as it is",
        |init| spoken(init, "stdout"),
    ),
    case(
        "a megabyte of all byte values comes out of stderr as it is",
        |init| spoken(init, "stderr"),
    ),
    case("nothing is added to what a quiet command says", |init| {
        let mut life = Container::of(init).sh("printf out; printf err >&2; exit 3")?;
        life.ends_with(3)?;
        let both = [life.output("stdout"), life.output("stderr")]
            .map(|text| String::from_utf8_lossy(&text).into_owned());
        ensure!(both == ["out", "err"], "it says {both:?}");
        Ok(())
    }),
    case("output without an end of line is there at once", |init| {
        let life = Container::of(init).sh("printf partial; while :; do sleep 0.05; done")?;
        life.until("written", |life| life.output("stdout") == b"partial")
    }),
    case(
        "stdout and stderr are the very pipes that the container was given",
        same_pipe,
    ),
    case(
        "a closed reader ends the command as it would without an init",
        closed_reader,
    ),
    case("what is sent to stdin is read by the command", |init| {
        let (theirs, mut ours) = std::io::pipe().expect("pipe");
        let mut life = Container::of(init).stdin(theirs).run(&["cat"])?;
        ours.write_all(b"\x00\xffline\n").expect("write");
        drop(ours);
        life.ends_with(0)?;
        ensure!(life.output("stdout") == b"\x00\xffline\n", "it is not");
        Ok(())
    }),
    case("closed stdin, stdout and stderr are no trouble", closed),
    case(
        "a reader that has stopped reading cannot hold up the stop",
        full_pipe,
    ),
    case(
        "no descriptor of the init's own reaches the command",
        |init| {
            let mut life = Container::of(init).run(&["ls", "-l", "/proc/self/fd"])?;
            life.ends_with(0)?;
            let listed = life.output("stdout");
            let listed = String::from_utf8_lossy(&listed).into_owned();
            // All but the three, and what `ls` reads.
            let odd: Vec<&str> = listed
                .lines()
                .filter_map(|line| line.split_once(" -> "))
                .filter(|(fd, target)| {
                    let known = [" 0", " 1", " 2"].iter().any(|known| fd.ends_with(known));
                    !known && !target.starts_with("/proc/")
                })
                .map(|(_, target)| target)
                .collect();
            ensure!(odd.is_empty(), "{odd:?}");
            Ok(())
        },
    ),
    case(
        "a descriptor that the container was given is passed on",
        |init| {
            let container = Container::of(init).prepare("echo seven > seven; exec 7< seven");
            let mut life = container.sh("cat <&7 > got")?;
            life.ends_with(0)?;
            ensure!(life.file("got") == "seven\n", "it is not");
            Ok(())
        },
    ),
];

fn spoken(init: Init, name: &str) -> Verdict {
    let mut life = Container::of(init).subject("speak")?;
    life.ends_with(0)?;
    let got = life.output(name);
    let wanted: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    ensure!(got == wanted, "{} bytes come out, or others", got.len());
    Ok(())
}

fn same_pipe(init: Init) -> Verdict {
    let (ours, theirs) = std::io::pipe().expect("pipe");
    let inode = fs::read_link(format!("/proc/self/fd/{}", ours.as_raw_fd())).expect("a pipe");
    let container = Container::of(init)
        .stdout(theirs.try_clone().expect("clone"))
        .stderr(theirs);
    let mut life = container.sh("cp -P /proc/$$/fd/1 1; cp -P /proc/$$/fd/2 2; exit 0")?;
    life.ends_with(0)?;
    for name in ["1", "2"] {
        let seen = fs::read_link(life.work().join(name)).unwrap_or_default();
        ensure!(seen == inode, "{name} is {}", seen.display());
    }
    Ok(())
}

fn closed_reader(init: Init) -> Verdict {
    let (mut ours, theirs) = std::io::pipe().expect("pipe");
    let mut life = Container::of(init).stdout(theirs).run(&["yes"])?;
    ours.read_exact(&mut [0; 2]).expect("it says something");
    drop(ours);
    life.ends_with(141)
}

fn closed(init: Init) -> Verdict {
    let container = Container::of(init).prepare("exec <&- >&- 2>&-");
    let script = "for fd in 0 1 2; do cp -P /proc/$$/fd/$fd $fd; done; exit 5";
    let mut life = container.sh(script)?;
    life.ends_with(5)?;
    for fd in ["0", "1", "2"] {
        if let Ok(target) = fs::read_link(life.work().join(fd)) {
            ensure!(
                target == Path::new("/dev/null"),
                "{fd} is {}",
                target.display()
            );
        }
    }
    Ok(())
}

/// Standard error is a full pipe from the start, and stays full.
fn full_pipe(init: Init) -> Verdict {
    let (ours, theirs) = std::io::pipe().expect("pipe");
    let filler = OwnedFd::from(theirs.try_clone().expect("clone"));
    let path = format!("/proc/self/fd/{}", filler.as_raw_fd());
    let mut filling = {
        use std::os::unix::fs::OpenOptionsExt;
        // A description of its own: the container's must not become non-blocking.
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .expect("open")
    };
    while filling.write(&[b'x'; 4096]).is_ok() {}
    while filling.write(b"x").is_ok() {}
    let container = Container::of(init)
        .stderr(Stdio::from(theirs))
        .stdin(Stdio::null());
    // A shell would say that TERM has ended what it waits for, and wait for that itself.
    let script = format!("exec 2>/dev/null; trap 'exit 6' TERM; {FOR_EVER}");
    let mut life = container.kill_after(Duration::from_secs(5)).sh(&script)?;
    life.until_up()?;
    life.signal(libc::SIGTERM)?;
    let ended = life.ends_with(6);
    drop(ours);
    ended.map_err(|miss| match miss {
        Miss::Fails(why) => Miss::Fails(format!("with a full log, {why}")),
        other => other,
    })
}
