//! A backup that was made under load brings the login back, whatever has happened since.

use std::fs;
use std::path::PathBuf;

use crate::stack::Stack;
use crate::told::{case, figure, say, until, yes};

const LOAD: u32 = 20;

#[test]
fn a_backup_under_load_brings_the_login_back() {
    let stack = Stack::new("backup");
    if !has_tools(&stack) {
        say(
            "case: backups · NOT RUN: the MongoDB image here has no mongodump; MONGO_TOOLS_DIR=… puts one into it",
        );
        return;
    }
    stack.make(&["up"]);
    stack.gateway().log_in();
    let mut before = stack.gateway().send(10);
    let mut file = PathBuf::new();

    case(
        "make backup under load",
        "while messages come and go, one file is written that only its owner can read",
        || {
            stack.gateway().load(LOAD);
            before = stack.gateway().until_more(before.messages, 40);
            stack.waha().until_committed();
            let said = stack.make(&["backup"]);
            figure("make backup", &format!("{:.1} s", said.took.as_secs_f64()));
            stack.gateway().load(0);
            let files = backups(&stack);
            assert_eq!(files.len(), 1, "{files:?}");
            file.clone_from(&files[0]);
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).expect("stat"));
            assert_eq!(mode & 0o077, 0, "mode of the backup: {mode:o}");
            let listed = stack.make(&["list-backups"]);
            assert!(listed.out.contains(&name(&file)), "{}", listed.text());
        },
    );

    case(
        "MongoDB's volume and the session directory are lost",
        "`make restore-backup` alone brings login and messages back, verified before the switch",
        || {
            stack.down();
            let volume = format!("{}_mongodb-data", stack.project());
            stack.docker(&["volume", "rm", &volume]);
            stack.wipe("session");
            let database = stack.get("MONGO_DATABASE");
            let said = stack.make(&["restore-backup", &format!("FILE=backups/{}", name(&file))]);
            figure(
                "make restore-backup",
                &format!("{:.1} s", said.took.as_secs_f64()),
            );
            assert_ne!(
                stack.get("MONGO_DATABASE"),
                database,
                "nothing was switched"
            );
            stack.gateway().until_up();
            before = stack.gateway().expect_kept(&before);
            let said = stack.waha().exec(&["sessionkeep", "verify", "--all"]);
            assert!(!said.is_empty());
        },
    );

    case(
        "a damaged backup",
        "it is refused, and the stack stays as it was",
        || {
            let now = stack.gateway().send(5);
            let whole = fs::read(&file).expect("read the backup");
            let bad = file.with_file_name("sessionkeep-20260101T000000Z.tar");
            // In the middle of what it holds, where no structure of the archive would tell.
            let mut torn = whole;
            let middle = torn.len() / 2;
            torn[middle] ^= 1;
            fs::write(&bad, torn).expect("write a damaged backup");
            let env = fs::read(stack.path(".env")).expect("read .env");
            let said = stack.try_make(&["restore-backup", &format!("FILE=backups/{}", name(&bad))]);
            assert_ne!(said.code, 0, "{}", said.text());
            assert!(said.text().contains("damaged"), "{}", said.text());
            assert!(
                said.text().contains("Nothing has been switched"),
                "{}",
                said.text()
            );
            assert!(fs::read(stack.path(".env")).expect("read .env") == env);
            stack.gateway().expect_kept(&now);
            fs::remove_file(&bad).expect("remove the damaged backup");
        },
    );

    case(
        "restore over a stack that works",
        "the backup's state counts then, and the newer one stays in its own database",
        || {
            let newer = stack.gateway().send(20);
            let old = stack.get("MONGO_DATABASE");
            stack.make(&["restore-backup", &format!("FILE=backups/{}", name(&file))]);
            stack.gateway().until_up();
            let now = stack.gateway().state();
            assert_eq!(now.identity, before.identity);
            assert!(now.messages < newer.messages, "{now:?}, before {newer:?}");
            let script = format!("print(db.getSiblingDB('{old}').commits.countDocuments() > 0)");
            assert_eq!(stack.mongo(&script), "true", "{old} is gone");
        },
    );

    case(
        "make prune",
        "it lists what restores have put away, and deletes that and nothing in use",
        || {
            let script =
                "print(db.getMongo().getDBNames().filter(n => n.startsWith('sessionkeep')).length)";
            assert_ne!(stack.mongo(script), "1", "there is nothing to prune");
            let now = stack.gateway().send(5);
            let said = stack.try_make(&["prune"]);
            assert!(
                said.code != 0 && said.out.contains("database"),
                "{}",
                said.text()
            );
            assert_ne!(stack.mongo(script), "1", "it did not ask");
            stack.make(&["prune", "YES=yes"]);
            assert_eq!(stack.mongo(script), "1");
            stack.gateway().expect_kept(&now);
            stack.waha().exec(&["sessionkeep", "verify", "--all"]);
        },
    );

    case(
        "scheduled backups",
        "they are made by themselves; those too many and those too old go, and the newest never",
        || {
            let old = stack.path("backups/sessionkeep-20200101T000000Z.tar");
            fs::copy(&file, &old).expect("an old backup");
            stack.set("BACKUP_KEEP", "50");
            let said = stack.make(&["backup"]);
            assert!(!old.exists(), "too old, but there: {}", said.text());
            stack.set("BACKUP_KEEP", "3");
            stack.set("BACKUP_EVERY", "2s");
            stack.add("compose/backup.yml");
            stack.up(&[]);
            let backup = stack.container("backup");
            until("five backups were made", || {
                yes(backup.logs().matches(" written: ").count() >= 5)
            });
            stack.compose(&["stop", "backup"]);
            let files = backups(&stack);
            assert_eq!(files.len(), 3, "{files:?}");
            let last = backup.logs();
            let last = last.lines().rfind(|line| line.contains(" written: "));
            let newest = name(files.last().expect("three"));
            assert!(last.is_some_and(|line| line.contains(&newest)), "{last:?}");
            let check = ["run", "--rm", "--no-deps", "-T", "backup", "check", &newest];
            stack.compose(&check);
        },
    );
}

fn has_tools(stack: &Stack) -> bool {
    let image = format!("mongo:{}", stack.get("MONGO_VERSION"));
    let look = "command -v mongodump && command -v mongorestore";
    let args = [
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "sh",
        &image,
        "-c",
        look,
    ];
    stack.try_docker(&args).code == 0
}

/// Oldest first: the name is the time.
fn backups(stack: &Stack) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(stack.path("backups"))
        .expect("read ./backups")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "tar"))
        .collect();
    found.sort();
    found
}

fn name(path: &std::path::Path) -> String {
    path.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}
