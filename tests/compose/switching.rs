//! Going back to plain files and forth again, and changing the image under a session.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::stack::Stack;
use crate::told::case;

#[test]
fn rollback_and_forward_keep_the_newest_state() {
    let stack = Stack::new("rollback");
    stack.make(&["up"]);
    stack.gateway().log_in();

    case(
        "make rollback",
        "the gateway goes on from plain files with the newest state, and without the database",
        || {
            let before = stack.gateway().send(10);
            stack.make(&["rollback"]);
            assert_eq!(stack.get("MONGO_ENABLED"), "False");
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
            let head = |stack: &Stack| stack.mongo("print(db.commits.countDocuments())");
            let commits = head(&stack);
            let before = stack.gateway().send(10);
            stack.make(&["restart"]);
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
            assert_eq!(
                head(&stack),
                commits,
                "file mode has written to the database"
            );
        },
    );

    case(
        "make backup in file mode",
        "the files are saved and not the old database, they come back, and prune removes what was put away",
        || {
            let before = stack.gateway().send(10);
            let said = stack.make(&["backup"]);
            let saved = names(&stack, "backups");
            assert_eq!(saved.len(), 1, "{saved:?}: {}", said.text());
            assert!(saved[0].starts_with("session-waha-"), "{saved:?}");
            let kept = fs::metadata(stack.path(&format!("backups/{}", saved[0])));
            let mode = kept.expect("stat").permissions().mode();
            assert_eq!(mode & 0o077, 0, "mode of the backup: {mode:o}");
            let listed = stack.make(&["list-backups"]);
            assert!(listed.out.contains(&saved[0]), "{}", listed.text());
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);

            stack.gateway().send(10);
            stack.make(&["restore-backup", &format!("FILE=backups/{}", saved[0])]);
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);

            let away = |stack: &Stack| {
                let all = names(stack, ".");
                all.iter()
                    .filter(|name| name.starts_with("session.before-"))
                    .count()
            };
            assert_eq!(away(&stack), 1);
            assert_ne!(stack.try_make(&["prune"]).code, 0, "it did not ask");
            assert_eq!(away(&stack), 1);
            stack.make(&["prune", "YES=yes"]);
            assert_eq!(away(&stack), 0);
            stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );

    case(
        "make forward",
        "what happened in file mode is in the database afterwards",
        || {
            let before = stack.gateway().send(10);
            stack.make(&["forward"]);
            assert_eq!(stack.get("MONGO_ENABLED"), "True");
            stack.gateway().until_up();
            let before = stack.gateway().expect_kept_to_the_last_word(&before);
            stack.waha().until_saved();
            stack.compose(&["rm", "-s", "-f", "waha"]);
            stack.wipe("session");
            stack.up(&[]);
            stack.gateway().until_up();
            stack.gateway().expect_kept(&before);
        },
    );
}

#[test]
fn an_upgrade_with_another_engine_keeps_both_logins() {
    let stack = Stack::new("upgrade");
    let ours = format!("sessionkeep-waha:{}", stack.project());
    let _ours = stack.own_image(&ours);
    stack.make(&["up"]);
    let gows = stack.gateway().log_in();
    assert_eq!(gows.engine, "GOWS");
    let gows = stack.gateway().send(10);

    let image = format!("{}:{}", stack.get("WAHA_IMAGE"), stack.get("WAHA_VERSION"));
    let newer = stack.project().to_owned();
    let tag = format!("{}:{newer}", stack.get("WAHA_IMAGE"));
    let _tag = stack.tag(&image, &tag);
    let mut noweb = None;

    case(
        "image upgrade and another engine",
        "a changed engine asks for a scan of its own, and its login is kept like the first",
        || {
            stack.set("WAHA_VERSION", &newer);
            stack.set("WHATSAPP_DEFAULT_ENGINE", "NOWEB");
            stack.make(&["upgrade"]);
            stack.gateway().until_up();
            let other = stack.gateway().log_in();
            assert_eq!(other.engine, "NOWEB");
            assert_ne!(other.identity, gows.identity);
            let before = stack.gateway().send(10);
            stack.down();
            stack.wipe("session");
            stack.up(&[]);
            stack.gateway().until_up();
            noweb = Some(stack.gateway().expect_kept_to_the_last_word(&before));
        },
    );

    case(
        "back to the first engine",
        "the first login is there again, and so is the second after that",
        || {
            stack.set("WAHA_VERSION", image.rsplit(':').next().expect("a tag"));
            stack.set("WHATSAPP_DEFAULT_ENGINE", "GOWS");
            stack.make(&["upgrade"]);
            stack.gateway().until_up();
            stack.gateway().expect_kept(&gows);
            stack.down();
            stack.wipe("session");
            stack.set("WHATSAPP_DEFAULT_ENGINE", "NOWEB");
            stack.up(&[]);
            stack.gateway().until_up();
            let noweb = noweb.as_ref().expect("the case before has set it");
            stack.gateway().expect_kept(noweb);
        },
    );
}

#[test]
fn a_wrapper_that_dies_at_once_does_not_cut_off_the_last_words() {
    let stack = Stack::new("webjs");
    stack.set("WHATSAPP_DEFAULT_ENGINE", "WEBJS");
    stack.up(&[]);
    case(
        "WEBJS",
        "the wrapper of WAHA's browser engine dies of TERM at once; what the rest writes after it is saved",
        || {
            let begun = stack.gateway().log_in();
            assert_eq!(begun.engine, "WEBJS");
            let before = stack.gateway().send(10);
            let waha = stack.waha();
            waha.stop();
            let log = waha.logs();
            assert!(
                log.contains("waiting for processes that the gateway left behind"),
                "{log}"
            );
            assert!(log.contains("all is saved"), "{log}");
            assert_eq!(waha.exit_code(), 143, "the wrapper's end by TERM");
            stack.wipe("session");
            waha.start();
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );

    case(
        "WEBJS, killed, in a new container",
        "the lock that the browser left in ./session does not keep it from starting",
        || {
            let before = stack.gateway().send(5);
            let waha = stack.waha();
            waha.until_saved();
            waha.kill();
            stack.compose(&["up", "--detach", "--force-recreate", "waha"]);
            stack.gateway().until_up();
            stack.gateway().expect_kept(&before);
            assert!(
                stack
                    .logs("waha")
                    .contains("a lock that a browser had left behind was removed")
            );
        },
    );
}

/// What is in a directory of the copy.
fn names(stack: &Stack, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(stack.path(dir)).expect("read the directory");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
