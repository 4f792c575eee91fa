//! A supervisor whose restorer and watcher do as a test tells them, so that init can be driven
//! with real processes and without a store. Init executes itself again for its helpers, so the
//! three are one program here too. It is also a gateway that writes down which signals it gets.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use sessionkeep::config::Settings;
use sessionkeep::control::{
    CONTROL_FD_ENV, Decoder, HTTP_FD_ENV, Lifecycle, PREDECESSOR_ENV, SETTINGS_ENV, ToInit,
    ToWatcher, encode,
};
use sessionkeep::init::{self, Options};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let part = arguments.next().unwrap_or_default();
    match part.to_str() {
        Some("run") => {
            let settings = std::env::var("HARNESS_SETTINGS").expect("the test sets it");
            let settings: Settings = serde_json::from_str(&settings).expect("settings");
            sessionkeep::log::init(&settings.log);
            ExitCode::from(init::run(
                &settings,
                &Options::default(),
                arguments.collect(),
            ))
        }
        Some("restore") => restore(),
        Some("watch") => watch(),
        Some("catch") => catch(),
        other => panic!("what is {other:?}?"),
    }
}

fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn record(line: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(told("HARNESS_RECORD"))
        .expect("record");
    file.write_all(format!("{line}\n").as_bytes())
        .expect("record");
}

/// A gateway that takes every signal and writes down their numbers, until TERM.
fn catch() -> ExitCode {
    let write = |name: &str, line: &str| {
        let path = std::path::Path::new(&told("SESSION")).join(name);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the session directory is there");
        file.write_all(format!("{line}\n").as_bytes())
            .expect("written");
    };
    // SAFETY: the set is filled before it is used, and both calls get valid places.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        write("ready", "up");
        loop {
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
            write("got", &signal.to_string());
            if signal == libc::SIGTERM {
                return ExitCode::from(7);
            }
        }
    }
}

fn restore() -> ExitCode {
    record(&format!("restore {}", std::process::id()));
    match told("HARNESS_RESTORE").as_str() {
        "" => ExitCode::SUCCESS,
        "hang" => sleep_for_ever(),
        code => ExitCode::from(code.parse::<u8>().expect("a code")),
    }
}

fn watch() -> ExitCode {
    let settings: Settings = serde_json::from_str(&told(SETTINGS_ENV)).expect("settings");
    let fd = told(CONTROL_FD_ENV).parse().expect("a descriptor");
    // SAFETY: init opened it for this process, and nothing else here uses it.
    let mut control = unsafe { UnixStream::from_raw_fd(fd) };
    record(&format!(
        "watch {} predecessor={} http={}",
        std::process::id(),
        told(PREDECESSOR_ENV),
        told(HTTP_FD_ENV),
    ));
    let say = |message: ToInit, to: &mut UnixStream| {
        to.write_all(&encode(&message)).expect("init is there");
    };
    if told("HARNESS_WATCH") == "crash" {
        return ExitCode::from(9);
    }
    say(ToInit::Ready, &mut control);
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        let got = control.read(&mut buffer).expect("read");
        assert!(got > 0, "init went away");
        for message in decoder.feed::<ToWatcher>(&buffer[..got]) {
            match message.expect("a message") {
                ToWatcher::Lifecycle {
                    state,
                    gateway_pid,
                    restarts,
                } => {
                    record(&format!(
                        "lifecycle {state:?} {} {restarts}",
                        gateway_pid.unwrap_or(0)
                    ));
                    if state == Lifecycle::Starting {
                        say(ToInit::GatewayReady, &mut control);
                    }
                    if state == Lifecycle::Running && told("HARNESS_WATCH") == "fenced" {
                        return ExitCode::from(sessionkeep::exit::FENCED);
                    }
                }
                ToWatcher::Flush { .. } => {
                    let last = std::fs::read_to_string(settings.dir.join("last"));
                    record(&format!("flush {}", last.unwrap_or_default().trim()));
                    match told("HARNESS_WATCH").as_str() {
                        "fail" => say(
                            ToInit::FlushFailed {
                                reason: "told to".to_owned(),
                            },
                            &mut control,
                        ),
                        "hang" => sleep_for_ever(),
                        _ => say(ToInit::Flushed { seq: 5 }, &mut control),
                    }
                    return ExitCode::SUCCESS;
                }
            }
        }
    }
}
