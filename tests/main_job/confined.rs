//! Where threads cannot be started as usual: a seccomp profile without `clone3`, and a low limit of
//! processes.

use std::process::{Command, Output};

use super::built;
use super::keeper::{IDLE, World, program};

/// Prepares a command of the program, after these words.
fn output(world: &World, before: &[&str], args: &[&str]) -> Output {
    let mut words = before.to_vec();
    words.push(program());
    Command::new(words[0])
        .args(&words[1..])
        .args(args)
        .current_dir(world.path("."))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("MONGO_URL", &world.url)
        .env("SESSIONKEEP_DIR", world.dir())
        .env("SESSIONKEEP_HTTP_PORT", "off")
        .env("SESSIONKEEP_PROFILE", "generic")
        .output()
        .expect("run the program")
}

#[test]
fn a_profile_that_forbids_clone3_is_no_obstacle() {
    let confine = built::example("confine");
    let confine = confine.to_str().expect("text");
    for errno in [libc::EPERM, libc::ENOSYS] {
        let errno = errno.to_string();
        let before = [confine, &errno];
        let world = World::sqlite();
        let life = world
            .script(&format!("echo '{{}}' > creds.json; {IDLE}"))
            .before(&before)
            .ready();
        world.wait_until_stored("creds.json", "{}\n");
        let ended = life.stop();
        assert_eq!(ended.code, 0, "{}", ended.log);
        for command in ["status", "doctor", "verify"] {
            let output = output(&world, &before, &[command]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("panicked"), "{command}: {said}");
            assert_eq!(output.status.code(), Some(0), "{command}: {output:?}");
        }
    }
}

#[test]
fn a_limit_of_processes_that_is_too_low_is_named_and_nothing_panics() {
    // SAFETY: it takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        crate::policy::cannot_run("there is no other user to limit: it is not root");
        return;
    }
    let world = World::sqlite();
    // A user that nothing else on this machine runs as, since processes are counted by user.
    let user = 1_100_000 + std::process::id();
    std::os::unix::fs::chown(world.path("."), Some(user), Some(user)).expect("give it away");
    let (reuid, regid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let mut named = 0;
    for most in 1..=6 {
        let limit = format!("--nproc={most}");
        let before = [
            "setpriv",
            &reuid,
            &regid,
            "--clear-groups",
            "prlimit",
            &limit,
        ];
        for args in [&["doctor"][..], &["status"], &["run", "--", "true"]] {
            let output = output(&world, &before, args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let context = format!("{most} {args:?}: {said}");
            assert!(!said.contains("panicked"), "{context}");
            assert!(!said.contains("this is a bug"), "{context}");
            assert_ne!(output.status.code(), Some(101), "{context}");
            named += usize::from(said.contains("the limit of processes is reached"));
        }
    }
    assert!(named > 2, "the limit was never the reason");
}
