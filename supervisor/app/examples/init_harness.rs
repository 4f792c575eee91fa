//! A supervisor whose restorer and watcher do as a test tells them, so that init can be driven
//! with real processes and without a store. It is also a gateway that writes down which signals it
//! gets.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sessionkeep::config::{LogFormat, LogLevel, LogSettings};
use sessionkeep_core::control::{
    Decoder, Handover, Helpers, Lifecycle, MonotonicMs, ToInit, ToWatcher, encode,
};
use sessionkeep_init::{AtLeaseEnd, Listen, Options, RestartPolicy, Setup, Storage};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let part = arguments.next().unwrap_or_default();
    match part.to_str() {
        Some("run") => {
            sessionkeep::log::init(&LogSettings {
                level: LogLevel::Info,
                format: LogFormat::Text,
            });
            ExitCode::from(sessionkeep_init::run(
                &setup(),
                &Options::default(),
                &AsTold,
                arguments.collect(),
            ))
        }
        Some("catch") => catch(),
        other => panic!("what is {other:?}?"),
    }
}

/// As `tests/init/life.rs` writes it.
fn setup() -> Setup {
    let settings: serde_json::Value =
        serde_json::from_str(&told("HARNESS_SETTINGS")).expect("the test sets it");
    let text = |name: &str| settings[name].as_str().expect("a text").to_owned();
    let number = |name: &str| settings[name].as_u64().expect("a number");
    Setup {
        archive: "default".parse().expect("a name"),
        dir: text("dir").into(),
        dir_owner: None,
        storage: Storage::Store { file: None },
        has_probe: true,
        stop_total: Duration::from_millis(number("stop_total_ms")),
        stop_flush: Duration::from_millis(number("stop_flush_ms")),
        restart: match text("restart").as_str() {
            "no" => RestartPolicy::No,
            "on-failure" => RestartPolicy::OnFailure,
            "always" => RestartPolicy::Always,
            other => panic!("what is {other}?"),
        },
        attempts: 5,
        stagger: Duration::ZERO,
        lease_ttl: Duration::from_secs(15),
        at_lease_end: AtLeaseEnd::GoOn,
        http: Listen {
            port: number("port").try_into().expect("a port"),
            bind: None,
            is_protected: false,
            guessable: Vec::new(),
            unguessable_len: 16,
        },
        secret_argument: |_, _| None,
    }
}

struct AsTold;

impl Helpers for AsTold {
    fn restore(&self, _: Handover) -> u8 {
        restore()
    }

    fn watch(&self, handover: Handover) -> u8 {
        watch(handover)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        sessionkeep::log::descriptor().into_iter().collect()
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

fn restore() -> u8 {
    record(&format!("restore {}", std::process::id()));
    match told("HARNESS_RESTORE").as_str() {
        "" => 0,
        "hang" => sleep_for_ever(),
        code => code.parse().expect("a code"),
    }
}

fn watch(handover: Handover) -> u8 {
    let mut control = UnixStream::from(handover.control);
    let predecessor = handover.predecessor.map(String::from);
    let http: Vec<String> = handover
        .http
        .iter()
        .map(|socket| socket.as_raw_fd().to_string())
        .collect();
    record(&format!(
        "watch {} predecessor={} http={}",
        std::process::id(),
        predecessor.unwrap_or_default(),
        http.join(","),
    ));
    let say = |message: ToInit, to: &mut UnixStream| {
        to.write_all(&encode(&message)).expect("init is there");
    };
    if told("HARNESS_WATCH") == "crash" {
        return 9;
    }
    let alive = || ToInit::Alive {
        next_by: MonotonicMs::now().after(Duration::from_secs(3600)),
        lease_ends: None,
    };
    say(alive(), &mut control);
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
                        return sessionkeep_core::exit::FENCED;
                    }
                }
                ToWatcher::Stalled { how } => record(&format!("stalled {how:?}")),
                ToWatcher::Flush { .. } => {
                    say(alive(), &mut control);
                    let last = std::fs::read_to_string(Path::new(&told("SESSION")).join("last"));
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
                    return 0;
                }
            }
        }
    }
}
