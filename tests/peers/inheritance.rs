//! The command gets what it would have got without an init.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::container::{Container, Life};
use super::inits::Init;
use super::verdict::{Case, Miss, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case("the environment arrives byte for byte", environment),
    case("64 KiB in one variable arrive", |init| {
        let long = "x".repeat(64 * 1024);
        let container = Container::of(init).env("LONG", long);
        let mut life = container.sh("echo ${#LONG} > length")?;
        life.ends_with(0)?;
        ensure!(
            life.file("length") == "65536\n",
            "{} arrive",
            life.file("length").trim()
        );
        Ok(())
    }),
    case("a megabyte of variables arrives", |init| {
        let mut container = Container::of(init);
        for n in 0..100 {
            container = container.env(format!("V{n}"), "x".repeat(10_000));
        }
        let mut life = container.sh("echo $V0$V50$V99 | wc -c > length")?;
        life.ends_with(0)?;
        ensure!(
            life.file("length").trim() == "30001",
            "{} arrive",
            life.file("length").trim()
        );
        Ok(())
    }),
    case("the working directory is kept", |init| {
        let mut life = Container::of(init).run(&["sh", "-c", "pwd -P > here"])?;
        life.ends_with(0)?;
        let here = life.file("here");
        ensure!(
            here.trim() == life.work().to_string_lossy(),
            "it is {}",
            here.trim()
        );
        Ok(())
    }),
    case("the umask is kept", |init| {
        let mut life = Container::of(init)
            .prepare("umask 027")
            .sh("umask > umask")?;
        life.ends_with(0)?;
        ensure!(
            life.file("umask").trim() == "0027",
            "it is {}",
            life.file("umask").trim()
        );
        Ok(())
    }),
    case("resource limits are kept", |init| {
        let container = Container::of(init).prepare("ulimit -S -n 777; ulimit -c 0");
        let mut life = container.sh("ulimit -S -n > n; ulimit -c > c")?;
        life.ends_with(0)?;
        let both = [life.file("n"), life.file("c")];
        ensure!(both == ["777\n", "0\n"], "they are {both:?}");
        Ok(())
    }),
    case(
        "the command starts with no signal blocked, ignored or caught",
        |init| {
            let life = status(Container::of(init))?;
            for field in ["SigBlk:", "SigIgn:", "SigCgt:"] {
                let set = signals(&life, field)?;
                ensure!(set == 0, "{field} {set:x}");
            }
            Ok(())
        },
    ),
    case(
        "signals that the container was started with ignored stay ignored",
        |init| {
            let container = Container::of(init).under(&["env", "--ignore-signal=HUP,USR1,PIPE"]);
            let set = signals(&status(container)?, "SigIgn:")?;
            let wanted = mask(&[libc::SIGHUP, libc::SIGUSR1, libc::SIGPIPE]);
            ensure!(set == wanted, "ignored are {set:x}, not {wanted:x}");
            Ok(())
        },
    ),
    case(
        "a TERM that the container was started with ignored stays ignored",
        |init| {
            let container = Container::of(init).under(&["env", "--ignore-signal=TERM"]);
            let set = signals(&status(container)?, "SigIgn:")?;
            ensure!(set == mask(&[libc::SIGTERM]), "ignored are {set:x}");
            Ok(())
        },
    ),
    case(
        "signals that the container was started with blocked stay blocked",
        |init| {
            let container = Container::of(init).under(&["env", "--block-signal=USR2,WINCH"]);
            let set = signals(&status(container)?, "SigBlk:")?;
            let wanted = mask(&[libc::SIGUSR2, libc::SIGWINCH]);
            ensure!(set == wanted, "blocked are {set:x}, not {wanted:x}");
            Ok(())
        },
    ),
    case(
        "a signal that was ignored from the start still reaches a handler",
        |init| {
            let container = Container::of(init).under(&["env", "--ignore-signal=USR1"]);
            let life = container.subject("record")?;
            life.until_up()?;
            life.signal(libc::SIGUSR1)?;
            life.until("there", |life| life.file("got").contains("10"))
        },
    ),
    case("the command leads a process group of its own", |init| {
        let mut life = Container::of(init).sh("cat /proc/$$/stat > stat; echo $$ > pid")?;
        life.ends_with(0)?;
        let stat = life.file("stat");
        let group = stat.split_whitespace().nth(4).unwrap_or_default();
        ensure!(group == life.file("pid").trim(), "its group is {group}");
        Ok(())
    }),
];

fn environment(init: Init) -> Verdict {
    let given: [(&[u8], &[u8]); 5] = [
        (b"EMPTY", b""),
        (b"LINES", b"a\nb"),
        (b"BYTES", b"\xff\xfe="),
        (b"SPACES", b"  a  "),
        (b"QUOTES", b"'\"`$x"),
    ];
    let mut container = Container::of(init);
    for (name, value) in given {
        container = container.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    let mut life = container.run(&["env", "-0"])?;
    life.ends_with(0)?;
    let seen = life.output("stdout");
    for (name, value) in given {
        let wanted = [name, b"=", value].concat();
        let found = seen.split(|b| *b == 0).any(|variable| variable == wanted);
        ensure!(found, "{} does not", String::from_utf8_lossy(name));
    }
    Ok(())
}

fn status(container: Container) -> Result<Life, Miss> {
    let mut life = container.run(&["cat", "/proc/self/status"])?;
    life.ends_with(0)?;
    Ok(life)
}

fn signals(life: &Life, field: &str) -> Result<u64, Miss> {
    let status = life.output("stdout");
    let status = String::from_utf8_lossy(&status);
    let set = status.lines().find_map(|line| line.strip_prefix(field));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        // 32 and 33 belong to the C library, which lets nobody change them.
        .map(|set| set & !(mask(&[32, 33])))
        .ok_or_else(|| Miss::Fails(format!("no {field}")))
}

fn mask(signals: &[i32]) -> u64 {
    signals.iter().map(|signal| 1 << (signal - 1)).sum()
}
