//! The store's password, the admin token and every other secret are nowhere but where they were given: not in what is
//! said, in no file, in no core dump, and not to be read by the gateway out of our processes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use super::keeper::{
    IDLE, Life, Setup, World, free_port, is_alive, program, send, wait_until, with_descendants,
};
use super::mongod::{Mongod, Rights, User};

/// Part of every secret here. It needs no encoding, so that it is the same wherever it turns up.
const CANARY: &str = "c4n4ry7d1e";
/// Somebody who is not root.
const NOBODY: u32 = 65534;

/// A mongod that wants this password, and its address without one.
fn guarded() -> (Mongod, String, impl Fn(&str) -> String) {
    let password = format!("{CANARY}-/p@ss");
    let user = User {
        name: "keeper".into(),
        password,
        database: "wa".into(),
        rights: Rights::ReadWrite,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mongod = runtime.block_on(Mongod::start_with_login(&user));
    let port = mongod.port();
    let url = move |password: &str| format!("mongodb://keeper:{password}@127.0.0.1:{port}/wa");
    (mongod, format!("{CANARY}-%2Fp%40ss"), url)
}

/// Every other secret there is. Nobody listens at these addresses.
fn others() -> [(&'static str, String); 6] {
    let address = |name: &str| format!("http://127.0.0.1:9/{name}/{CANARY}?key={CANARY}");
    [
        ("ADMIN_TOKEN", format!("{CANARY}-token")),
        ("SESSIONKEEP_HTTP_PASSWORD", format!("{CANARY}-password")),
        ("SESSIONKEEP_GATEWAY_API_KEY", format!("{CANARY}-key")),
        ("SESSIONKEEP_WEBHOOK_URL", address("hook")),
        ("SESSIONKEEP_WEBHOOK_SECRET", format!("{CANARY}-signs")),
        ("HEARTBEAT_URL", address("beat")),
    ]
}

fn with_secrets<'a>(setup: Setup<'a>, world: &World) -> Setup<'a> {
    others()
        .into_iter()
        .fold(setup, |setup, (name, value)| setup.env(name, value))
        .env("WHATSAPP_SESSIONS_MONGO_URL", &world.url)
        .env("LOG_LEVEL", "trace")
}

/// What a command says to a store at `url`, with all secrets set and everything logged.
fn told(world: &World, url: &str, args: &[&str]) -> Output {
    Command::new(program())
        .args(args)
        .current_dir(world.path("."))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("MONGO_URL", url)
        .envs(others())
        .env("SESSIONKEEP_DIR", world.dir())
        .env("SESSIONKEEP_STORE_WAIT", "100ms")
        .env("SESSIONKEEP_STORE_TIMEOUT", "500ms")
        .env("LOG_LEVEL", "trace")
        .env("RUST_BACKTRACE", "full")
        .stdin(Stdio::null())
        .output()
        .expect("run the program")
}

#[track_caller]
fn assert_silent(what: &str, said: impl AsRef<[u8]>) {
    let said = said.as_ref();
    let at = said
        .windows(CANARY.len())
        .position(|part| part == CANARY.as_bytes());
    if let Some(at) = at {
        let around = &said[at.saturating_sub(300)..(at + 100).min(said.len())];
        panic!("{what} tells a secret: {}", String::from_utf8_lossy(around));
    }
}

/// No file below `dir` holds a secret, whatever it is.
#[track_caller]
fn assert_silent_below(dir: &Path) {
    for entry in fs::read_dir(dir).expect("list").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("its kind"));
        if kind.is_dir() {
            assert_silent_below(&path);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            assert_silent(&path.display().to_string(), content);
        }
    }
}

/// Every command that reads settings or a store.
const COMMANDS: &[&[&str]] = &[
    &["config"],
    &["config", "--json"],
    &["doctor"],
    &["completions", "bash"],
    &["doctor", "--json"],
    &["excluded"],
    &["excluded", "--json"],
    &["health"],
    &["lease"],
    &["lease", "--json"],
    &["log", "--json"],
    &["restore", "--dry-run"],
    &["run", "--", "true"],
    &["show", "1"],
    &["status"],
    &["status", "--json"],
    &["usage"],
    &["usage", "--json"],
    &["verify"],
    &["verify", "--all", "--json"],
    &["watch", "--no-such-flag"],
];

#[test]
fn no_command_and_no_error_tells_a_secret() {
    let (mongod, password, url) = guarded();
    let world = World::at(url(&password));
    let port = free_port();
    let life = with_secrets(
        world.script(&format!("echo '{{}}' > creds.json; {IDLE}")),
        &world,
    )
    .set(&format!("http.port={port}"))
    .ready();
    world.wait_until_stored("creds.json", "{}\n");

    let elsewhere = free_port();
    let right = url(&password);
    let urls = [
        right.clone(),
        // Another password, no server, a server without TLS, and addresses that are none.
        url(&format!("{CANARY}-wrong")),
        format!("mongodb://keeper:{password}@127.0.0.1:{elsewhere}/wa"),
        format!("{right}?tls=true"),
        format!("{right}?authMechanism={CANARY}"),
        format!("{right}?no={CANARY}&{CANARY}=1"),
        format!("mongodb://keeper:{CANARY}/p@ss@127.0.0.1/wa"),
        format!("mongodb://keeper:{CANARY}%zz@127.0.0.1/wa"),
        format!("mongodb://keeper:{CANARY}@[127.0.0.1/wa"),
        format!("mongodb+srv://keeper:{CANARY}@127.0.0.1:27017/wa"),
        format!("mongdb://keeper:{CANARY}@127.0.0.1/wa"),
        format!("postgres://keeper:{CANARY}@127.0.0.1/wa"),
        CANARY.to_owned(),
    ];
    // Most of it is waiting for servers that do not answer.
    thread::scope(|scope| {
        for url in &urls {
            let world = &world;
            scope.spawn(move || {
                for args in COMMANDS {
                    let output = told(world, url, args);
                    assert_silent(&format!("{args:?}"), &output.stdout);
                    assert_silent(&format!("{args:?}"), &output.stderr);
                }
            });
        }
    });
    let output = told(&world, &right, &["status", "--json"]);
    assert!(output.status.success(), "{output:?}");

    // An outage, in the middle of a commit or not.
    mongod.stop();
    world.write("creds.json", "{\"me\":2}");
    wait_for(&life, "changes cannot be saved now");
    mongod.start_again();
    world.wait_until_saved();
    let ended = life.stop();
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(ended.log.contains("event=Started"), "{}", ended.log);
    assert_silent_below(&world.path("."));
}

#[test]
fn a_settings_file_that_is_wrong_is_told_of_without_its_secrets() {
    let world = World::sqlite();
    for text in [
        format!("store:\n  url: mongodb://u:{CANARY}@h:port/\n"),
        format!("http:\n  token: [{CANARY}]\n"),
        format!("http:\n  token: {CANARY}\n  tokn: {CANARY}\n"),
        format!("store: {{url: \"mongodb://u:{CANARY}@h\n"),
        format!("http: {{token: \"{CANARY}\""),
    ] {
        fs::write(world.path("sessionkeep.yaml"), &text).expect("write");
        for args in [&["config"][..], &["doctor"], &["run", "--", "true"]] {
            let output = Command::new(program())
                .args(args)
                .current_dir(world.path("."))
                .env_clear()
                .output()
                .expect("run the program");
            assert!(!output.status.success(), "{text}: {output:?}");
            assert_silent(&text, &output.stdout);
            assert_silent(&text, &output.stderr);
        }
    }
}

#[test]
fn an_address_in_the_wrong_variable_is_not_told() {
    let world = World::sqlite();
    let address = format!("mongodb://keeper:{CANARY}@127.0.0.1/wa");
    for name in [
        "ADMIN_TOKEN",
        "LOG_LEVEL",
        "MONGO_ENABLED",
        "PORT",
        "SESSIONKEEP_ARCHIVE",
        "SESSIONKEEP_HTTP_PORT",
        "SESSIONKEEP_PROFILE",
        "SESSIONKEEP_STORE_WAIT",
    ] {
        for args in [&["config"][..], &["doctor"], &["run", "--", "true"]] {
            let output = Command::new(program())
                .args(args)
                .current_dir(world.path("."))
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("MONGO_URL", &world.url)
                .env(name, &address)
                .output()
                .expect("run the program");
            assert_silent(&format!("{args:?} of {name}"), &output.stdout);
            assert_silent(&format!("{args:?} of {name}"), &output.stderr);
        }
    }
}

#[track_caller]
fn wait_for(life: &Life, text: &str) {
    wait_until(text, || life.log().contains(text));
}

/// How a gateway comes to have no right to trace: as another user than root, and as root in a
/// container.
fn without_the_right_to_trace(world: &World) -> Vec<Vec<&'static str>> {
    // SAFETY: it only asks for our own id.
    if unsafe { libc::geteuid() } != 0 {
        return vec![vec![]];
    }
    std::os::unix::fs::chown(world.path("."), Some(NOBODY), Some(NOBODY)).expect("chown");
    let words = [
        "setpriv --reuid=65534 --regid=65534 --clear-groups",
        "setpriv --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid",
    ];
    words
        .iter()
        .map(|words| words.split(' ').collect())
        .collect()
}

#[test]
fn the_gateway_can_read_no_secret_out_of_our_processes() {
    let (_mongod, password, url) = guarded();
    let world = World::at(url(&password));
    // All of them that it is let to read, once they have begun: between its execution and its
    // first instruction each is still open to all of the same user.
    let nosy = "while ! [ -e \"$P/go\" ]; do sleep 0.02; done; \
                ours=$(cat /proc/$PPID/task/$PPID/children); \
                for p in $PPID $ours; do cat /proc/$p/cmdline /proc/$p/environ; \
                cat /proc/$p/maps /proc/$p/auxv; done > \"$P/seen\" 2> \"$P/refused\"";
    for (number, before) in without_the_right_to_trace(&world).into_iter().enumerate() {
        let _ = fs::remove_dir_all(world.dir());
        let _ = fs::remove_file(world.path("go"));
        let script = format!("{nosy}; echo {number} > looked; {IDLE}");
        let mut life = with_secrets(world.script(&script), &world)
            .before(&before)
            .start();
        life.wait_for("watcher is ready");
        fs::write(world.path("go"), "").expect("write");
        world.wait_until_stored("looked", format!("{number}\n"));
        let seen = fs::read(world.path("seen")).expect("seen");
        let text = String::from_utf8_lossy(&seen);
        assert!(text.contains("--profile"), "it saw nothing of us: {text}");
        // Its own, which shows that it looked.
        assert!(text.contains("PATH="), "it saw no environment: {text}");
        assert_silent(&format!("/proc, to the gateway of {before:?}"), &seen);
        // Not even to one who may see everything in there: the lists of arguments are for all.
        for pid in with_descendants(life.pid()) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            assert_silent(&format!("the arguments of {pid}"), line);
        }
        let gateway = life.process("gateway");
        for pid in with_descendants(gateway) {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(!environment.is_empty(), "{pid} cannot be looked at");
            assert_silent(&format!("the environment of {pid}"), environment);
        }
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{number}: {}", ended.log);
    }
}

/// As an access to wrong memory would end it. The first such signal that is only sent comes to
/// nothing but the end of the handler that the standard library has for it.
fn crash(pid: u32) {
    wait_until("it has crashed", || {
        send(pid, libc::SIGSEGV);
        !is_alive(pid)
    });
}

/// Has a process run into an instruction that there is none of, as damaged memory would have it: the
/// kernel raises the signal. `false` where nobody may write to its memory.
fn run_into_nothing(pid: u32) -> bool {
    use std::os::unix::fs::FileExt as _;
    const NO_INSTRUCTION: &[u8] = if cfg!(target_arch = "x86_64") {
        &[0x0f, 0x0b]
    } else {
        &[0; 4]
    };
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let next = call.split_whitespace().last().unwrap_or_default();
    let next = u64::from_str_radix(next.trim_start_matches("0x"), 16);
    let memory = fs::File::options()
        .write(true)
        .open(format!("/proc/{pid}/mem"));
    let (Ok(next), Ok(memory)) = (next, memory) else {
        return false;
    };
    memory.write_all_at(NO_INSTRUCTION, next).expect("written");
    send(pid, libc::SIGWINCH);
    true
}

#[test]
fn a_crash_of_ours_leaves_no_core_and_one_of_the_gateway_does() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" {
        crate::policy::cannot_run(&format!("core dumps go elsewhere ({})", pattern.trim()));
        return;
    }
    let (_mongod, password, url) = guarded();
    let world = World::at(url(&password));
    let cores = || {
        let names = fs::read_dir(world.path(".")).expect("list").flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("core"))
            .count()
    };
    let begin = || {
        with_secrets(
            world.script(&format!("echo '{{}}' > creds.json; {IDLE}")),
            &world,
        )
        .before(&["prlimit", "--core=unlimited"])
    };
    let mut life = begin().ready();
    crash(life.process("watcher"));
    life.wait_for_count("watcher is ready", 2);
    assert_eq!(cores(), 0, "the watcher left one");
    // To init, one that is only sent is the gateway's, as any other is.
    if run_into_nothing(life.pid()) {
        assert_eq!(life.code(), 128 + libc::SIGILL);
    } else {
        crate::policy::cannot_run(
            "nobody may write to init's memory, so that it cannot be made to crash",
        );
    }
    drop(life);
    assert_eq!(cores(), 0, "init left one");
    assert_silent_below(&world.path("."));

    // With the very same limit the gateway's crash leaves one, as its container wants it, and
    // there is nothing of ours in it.
    let world_path = world.path(".");
    let life = world
        .script("cd \"$P\" && kill -SEGV $$")
        .before(&["prlimit", "--core=unlimited"])
        .env("ADMIN_TOKEN", format!("{CANARY}-token"))
        .run_to_end();
    assert_eq!(life.code, 128 + libc::SIGSEGV, "{}", life.log);
    assert_eq!(cores(), 1, "{}", life.log);
    assert_silent_below(&world_path);
}
