//! What it costs: memory beside the gateway, time at a start, bytes in the image.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::container::Container;
use crate::stack::Stack;
use crate::told::{case, figure, until, yes};

/// The supervisor's share of the container.
const MEMORY: u64 = 20 * 1000 * 1000;
/// Of the binary and everything that comes with it.
const IMAGE: u64 = 12 * 1000 * 1000;
const SESSION: u64 = 50 * 1024 * 1024;
/// The goal for a start with a session of that size.
const START: Duration = Duration::from_millis(1500);
/// Other stacks run beside it on the same two cores.
const SLACK: u32 = 3;

#[test]
fn it_is_small_and_starts_fast() {
    let stack = Stack::new("footprint");
    stack.up(&[]);
    let gateway = stack.gateway();
    gateway.log_in();
    let waha = stack.waha();

    case(
        "image size",
        "what is put on top of the gateway's image stays under 12 MB",
        || {
            let base = format!("{}:{}", stack.get("WAHA_IMAGE"), stack.get("WAHA_VERSION"));
            let ours = size(&stack, &waha.inspect(".Image").to_string().replace('"', ""));
            let added = ours - size(&stack, &base);
            figure(
                "image on top of its base",
                &format!("{:.1} MB", megabytes(added)),
            );
            assert!(added <= IMAGE, "{added} bytes");
        },
    );

    case(
        "memory",
        "all of sessionkeep in the container takes under 20 MB, under load and after",
        || {
            gateway.load(20);
            gateway.until_more(gateway.state().messages, 100);
            let busy = memory(&stack, &waha);
            gateway.load(0);
            waha.until_saved();
            let idle = memory(&stack, &waha);
            figure(
                "sessionkeep's memory (PSS) under load, and after",
                &format!("{:.1} MB, {:.1} MB", megabytes(busy), megabytes(idle)),
            );
            assert!(busy <= MEMORY && idle <= MEMORY, "{busy} and {idle} bytes");
        },
    );

    case(
        "50 MB session",
        "an empty disk is filled and the gateway started within seconds",
        || {
            gateway.grow(SESSION);
            let before = stack.gateway().state();
            waha.until_saved();
            let held = waha.status()["bytes"].as_u64().unwrap_or_default();
            assert!(
                held >= SESSION,
                "the committed session has {held} bytes only"
            );
            let grown = memory(&stack, &waha);
            figure(
                "sessionkeep's memory (PSS) after a 50 MB session's upload",
                &format!("{:.1} MB", megabytes(grown)),
            );
            let mut best = Duration::MAX;
            for _ in 0..2 {
                waha.stop();
                stack.wipe("session");
                let asked = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("a clock");
                waha.start();
                until("the gateway is started", || {
                    yes(spawned(&stack, &waha, asked).is_some())
                });
                let took = spawned(&stack, &waha, asked).expect("just seen");
                figure(
                    "from `docker start` to the gateway's spawn, 50 MB session, empty disk",
                    &format!(
                        "{:.2} s (goal {:.1} s)",
                        took.as_secs_f64(),
                        START.as_secs_f64()
                    ),
                );
                best = best.min(took);
                stack.gateway().until_up();
                stack.gateway().expect_kept(&before);
            }
            assert!(best <= START * SLACK, "it took {best:?}");
        },
    );
}

/// From `asked` until the gateway of the life that began then was started, by the engine's clock
/// for the log, which is this machine's.
fn spawned(stack: &Stack, waha: &Container<'_>, asked: Duration) -> Option<Duration> {
    let log = stack.docker(&["logs", "--timestamps", &waha.id]).text();
    log.lines()
        .filter(|line| line.contains("role=gateway"))
        .filter_map(|line| since_1970(line.split(' ').next()?))
        .find_map(|at| at.checked_sub(asked))
}

/// Reads `2026-11-21T08:00:00.123456789Z`.
fn since_1970(text: &str) -> Option<Duration> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    // Days since 1970, with years that begin in March so that the leap day comes last.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    let mut time = time.splitn(3, ':');
    let hours: u64 = time.next()?.parse().ok()?;
    let minutes: u64 = time.next()?.parse().ok()?;
    let seconds: f64 = time.next()?.parse().ok()?;
    let whole = u64::try_from(days).ok()? * 86_400 + hours * 3600 + minutes * 60;
    Some(Duration::from_secs(whole) + Duration::from_secs_f64(seconds))
}

/// The proportional share of all of sessionkeep's processes, read inside the container with rights
/// that nobody has there by himself: they cannot be looked into.
#[track_caller]
fn memory(stack: &Stack, waha: &Container<'_>) -> u64 {
    let script = "for p in /proc/[0-9]*; do case $(readlink $p/exe) in */sessionkeep) grep ^Pss: $p/smaps_rollup;; esac; done";
    let said = stack
        .docker(&["exec", "--privileged", &waha.id, "sh", "-c", script])
        .text();
    let shares: Vec<u64> = said
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect();
    assert_eq!(shares.len(), 2, "not init and watcher:\n{said}");
    shares.iter().sum::<u64>() * 1024
}

fn size(stack: &Stack, image: &str) -> u64 {
    let said = stack.docker(&["image", "inspect", "--format", "{{.Size}}", image]);
    said.line().parse().expect("a size")
}

#[expect(clippy::cast_precision_loss, reason = "for a figure with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
