//! The gateway outlives trouble in the database, and everyone can see it.

use std::time::Duration;

use crate::container::Container;
use crate::run::text;
use crate::stack::Stack;
use crate::told::{case, figure, until, until_within, yes};

const LOAD: u32 = 10;
/// Changes wait for a minute before sessionkeep calls itself unhealthy; then Docker has to ask
/// often enough.
const UNHEALTHY: Duration = Duration::from_secs(180);
/// The volume in which mongod runs out of space. mongod takes 300 MB for its journal.
const VOLUME_MIB: u32 = 448;
/// Until mongod has nothing left to write into, and says so or dies.
const NO_SPACE: Duration = Duration::from_secs(180);
/// Incompressible, so that it takes the room it seems to.
const TAKE_ALL_ROOM: &str = "const crypto = require('crypto'); \
    db.getSiblingDB('ballast').ballast.insertOne({bytes: Binary.createFromBase64(crypto.randomBytes(4 << 20).toString('base64'))}); \
    db.adminCommand({fsync: 1})";

#[test]
fn the_database_dies_under_load_and_comes_back() {
    let stack = Stack::new("outage");

    case(
        "health of a start",
        "health is `starting` until the gateway answers, then `ok`, and Docker says healthy",
        || {
            stack.up(&["--no-deps", "waha"]);
            let waha = stack.waha();
            until("it waits for the database", || {
                yes(waha.logs().contains("waiting for the store"))
            });
            assert_eq!(text(&waha.told_health()["status"]), "starting");
            assert_eq!(waha.status()["gateway_pid"], serde_json::Value::Null);
            stack.up(&[]);
            stack.gateway().until_up();
            stack.waha().until_health("healthy");
            until("health says ok", || {
                yes(text(&stack.waha().told_health()["status"]) == "ok")
            });
        },
    );

    let begun = stack.gateway().log_in();
    let waha = stack.waha();
    let life = (waha.started_at(), gateway_pid(&waha));
    let mongodb = stack.container("mongodb");

    case(
        "docker kill mongodb",
        "the gateway goes on without its database, and log and health say so",
        || {
            stack.gateway().load(LOAD);
            let before = stack.gateway().until_more(begun.messages, 20);
            mongodb.kill();
            until("health knows that the store is away", || {
                yes(waha.told_health()["store_reachable"] == false)
            });
            until("the log says so", || {
                yes(waha
                    .logs()
                    .contains("changes cannot be saved now; the gateway goes on"))
            });
            stack.gateway().until_more(before.messages, 20);
            assert_eq!((waha.started_at(), gateway_pid(&waha)), life);
        },
    );

    case(
        "unhealthy",
        "after a minute without a commit Docker says unhealthy, and the check tells why",
        || {
            until_within(UNHEALTHY, "Docker says unhealthy", || {
                yes(waha.health() == "unhealthy")
            });
            let said = waha.health_said();
            assert!(
                said.contains("changes have been waiting to be saved"),
                "{said}"
            );
            assert_eq!((waha.started_at(), gateway_pid(&waha)), life);
        },
    );

    case(
        "docker start mongodb",
        "what had to wait is saved at once, and all is healthy again",
        || {
            mongodb.start();
            stack.gateway().load(0);
            let before = stack.gateway().state();
            waha.until_saved();
            assert!(waha.logs().contains("changes can be saved again"));
            waha.until_health("healthy");
            assert_eq!((waha.started_at(), gateway_pid(&waha)), life);
            waha.kill();
            stack.wipe("session");
            waha.start();
            stack.gateway().until_up();
            stack.gateway().expect_kept(&before);
        },
    );

    case(
        "docker stop without a database",
        "exit code 74 and the last line say that the directory is to be kept; the next start saves it",
        || {
            mongodb.kill();
            let before = stack.gateway().send(10);
            waha.stop();
            assert_eq!(waha.exit_code(), 74);
            let log = waha.logs();
            let last = log.lines().last().unwrap_or_default();
            let told = "stopped; the last changes are NOT saved, keep the directory";
            assert!(last.contains(told), "{last}");
            mongodb.start();
            waha.start();
            stack.gateway().until_up();
            let before = stack.gateway().expect_kept_to_the_last_word(&before);
            waha.until_saved();
            waha.kill();
            stack.wipe("session");
            waha.start();
            stack.gateway().until_up();
            stack.gateway().expect_kept(&before);
        },
    );
}

#[test]
fn the_databases_volume_is_full() {
    let stack = Stack::new("full");
    // In memory, so that it can be full without filling the machine's disk. A volume in memory
    // goes with its last container, so `ballast` holds it while mongod is down; and fills it.
    stack.overlay(
        "full.yml",
        &format!(
            "services:\n  ballast:\n    image: mongo:${{MONGO_VERSION:-7.0}}\n    entrypoint: [sleep, infinity]\n    stop_signal: SIGKILL\n    network_mode: none\n    volumes: [\"mongodb-data:/data/db\"]\n\
             volumes:\n  mongodb-data:\n    driver: local\n    driver_opts: {{type: tmpfs, device: tmpfs, o: \"size={VOLUME_MIB}m\"}}\n"
        ),
    );
    case(
        "a full volume",
        "the gateway goes on while the database has no space, and all is saved once it has",
        || {
            stack.up(&["ballast"]);
            stack.up(&[]);
            let begun = stack.gateway().log_in();
            let waha = stack.waha();
            waha.until_saved();
            let life = (waha.started_at(), gateway_pid(&waha));
            let ballast = stack.container("ballast");
            // Until there is no space, which is how `dd` ends here.
            let fill = || {
                let file = "of=/data/db/ballast";
                let more = ["oflag=append", "conv=notrunc"];
                ballast.try_exec(&[&["dd", "if=/dev/zero", file, "bs=64K"], &more[..]].concat())
            };
            let filled = fill();
            assert!(filled.err.contains("No space left"), "{}", filled.err);
            stack.gateway().load(LOAD);
            // mongod writes into room that it has already, and looks for more every minute: take
            // that room, and have it look now. What mongosh says of it differs: mongod may die, and
            // its next start lets go of room, a hundred megabytes of its journal for one.
            until_within(NO_SPACE, "changes cannot be saved", || {
                let _ = fill();
                let _ = stack.try_mongo_as_root(TAKE_ALL_ROOM);
                yes(waha
                    .logs()
                    .contains("changes cannot be saved now; the gateway goes on"))
            });
            stack.gateway().until_more(begun.messages, 50);
            assert_eq!((waha.started_at(), gateway_pid(&waha)), life);
            let mongodb = stack.container("mongodb");
            let restarts = mongodb.inspect(".RestartCount");
            figure(
                "mongod's restarts while its volume was full",
                &restarts.to_string(),
            );
            ballast.exec(&["rm", "/data/db/ballast"]);
            stack.gateway().load(0);
            let before = stack.gateway().state();
            waha.until_saved();
            assert_eq!((waha.started_at(), gateway_pid(&waha)), life);
            waha.kill();
            stack.wipe("session");
            waha.start();
            stack.gateway().until_up();
            stack.gateway().expect_kept(&before);
        },
    );
}

/// The gateway's main process, as sessionkeep knows it.
#[track_caller]
fn gateway_pid(waha: &Container<'_>) -> i64 {
    let status = waha.status();
    status["gateway_pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("no gateway runs: {status}"))
}
