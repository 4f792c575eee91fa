//! Nobody has more rights than they need: not the database's user, not the gateway, not its
//! container.

use serde_json::Value;

use crate::stack::Stack;
use crate::told::case;

/// What the application's user must not be able to do. Each prints the error's name, or `done`.
const FORBIDDEN: &str = "
const other = db.getSiblingDB('other');
const admin = db.getSiblingDB('admin');
const tries = {
    'read another database': () => other.things.findOne(),
    'write another database': () => other.things.insertOne({ a: 1 }),
    'drop another database': () => other.dropDatabase(),
    'list its collections': () => other.runCommand({ listCollections: 1 }),
    'drop its own database': () => db.dropDatabase(),
    'change the rules of a collection': () => db.runCommand({ collMod: 'commits', validator: {} }),
    'read the users': () => admin.system.users.findOne(),
    'make a user': () => db.createUser({ user: 'mallory', pwd: 'x', roles: [] }),
    'give itself a role': () => admin.grantRolesToUser(process.env.MONGO_APP_USERNAME, ['root']),
    'make a role': () => db.createRole({ role: 'r', privileges: [], roles: [] }),
    'read the server\\'s log': () => admin.runCommand({ getLog: 'global' }),
    'set a parameter': () => admin.runCommand({ setParameter: 1, logLevel: 1 }),
    'shut the server down': () => admin.runCommand({ shutdown: 1, force: true }),
};
const told = {};
for (const [what, attempt] of Object.entries(tries)) {
    try {
        const answer = attempt();
        told[what] = answer && answer.ok === 0 ? answer.codeName : 'done';
    } catch (error) {
        told[what] = error.codeName || error.code === 13 && 'Unauthorized' || String(error.message);
    }
}
told.databases = admin.runCommand({ listDatabases: 1, nameOnly: true }).databases.map(one => one.name).join();
print(JSON.stringify(told));
";

/// Documents that an archive's reader could not make sense of. All are refused by rule 121.
const MALFORMED: &str = "
const rows = {
    'commits': [
        { _id: { a: 'x', s: 1 } },
        { _id: 'x', format: 1 },
        { _id: { a: 'x', s: 1 }, format: 1, kind: 'change' },
        { _id: { a: 'x', s: -1 }, format: 1 },
    ],
    'leases': [{ _id: 'x', format: 1 }, { _id: 7, format: 1, instance: 'a', epoch: 1, since: new Date(), expires: new Date() }],
    'packs.files': [{ _id: 'x', length: 1 }],
    'packs.chunks': [{ files_id: 'x' }],
};
const told = [];
for (const [name, documents] of Object.entries(rows)) {
    for (const document of documents) {
        try {
            db.getCollection(name).insertOne(document);
            told.push(`${name} took ${JSON.stringify(document)}`);
        } catch (error) {
            if (error.code !== 121) told.push(`${name}: ${error.message}`);
        }
    }
}
print(JSON.stringify(told));
";

/// All that `mongo-init` makes, and how much there is in it.
const MADE: &str = "
const users = db.getSiblingDB('admin').system.users.find({}, { user: 1, roles: 1 }).sort({ _id: 1 }).toArray();
const collections = db.getCollectionInfos().map(one => [one.name, one.options, db.getCollection(one.name).getIndexes()]).sort();
print(EJSON.stringify({ users, collections, leases: db.leases.find().toArray().map(one => one._id) }));
";

#[test]
fn nobody_has_more_rights_than_they_need() {
    let stack = Stack::new("rights");
    stack.up(&[]);
    stack.gateway().log_in();
    let before = stack.gateway().send(5);

    case(
        "the database's user",
        "it may read and write its own database, and do nothing else",
        || {
            let mine = stack.try_mongo_as_app("print(db.commits.countDocuments() > 0)");
            assert_eq!(mine.line(), "true", "{}", mine.text());
            let said = stack.try_mongo_as_app(FORBIDDEN);
            let told: Value = serde_json::from_str(said.line())
                .unwrap_or_else(|_| panic!("no answer; is the server gone? {}", said.text()));
            let told = told.as_object().expect("an object");
            assert!(told.len() > 10, "{told:?}");
            for (what, answer) in told {
                if what == "databases" {
                    assert_eq!(
                        answer,
                        &stack.get("MONGO_DATABASE"),
                        "databases that it sees"
                    );
                } else {
                    assert_eq!(answer, "Unauthorized", "{what}");
                }
            }
        },
    );

    case(
        "validated collections",
        "a document that no reader would understand is refused by the database itself",
        || {
            let said = stack.try_mongo_as_app(MALFORMED);
            assert_eq!(said.line(), "[]", "{}", said.text());
        },
    );

    case(
        "mongo-init twice",
        "it runs again without harm, and changes nothing",
        || {
            let made = stack.mongo(MADE);
            stack.make(&["mongo-init"]);
            stack.make(&["mongo-init"]);
            assert_eq!(stack.mongo(MADE), made);
            stack.gateway().send(1);
            stack.waha().until_saved();
        },
    );

    case(
        "the gateway's environment",
        "no process of the gateway knows the database's address, or the key in clear",
        || {
            let waha = stack.waha();
            // Not those of this very command, which has all of the container's variables.
            let script = "for p in /proc/[0-9]*; do case $(cat $p/comm) in node|python3) echo process; tr '\\0' '\\n' <$p/environ;; esac; done";
            let told = waha.exec(&["sh", "-c", script]);
            assert!(
                told.matches("process").count() >= 2,
                "node and its child:\n{told}"
            );
            assert!(
                told.contains("WAHA_WORKER_ID="),
                "not the gateway's environment"
            );
            assert!(
                !told.contains("mongodb://"),
                "the gateway knows the database"
            );
            for name in ["MONGO_APP_PASSWORD", "MONGO_ROOT_PASSWORD", "WAHA_API_KEY"] {
                assert!(!told.contains(&stack.get(name)), "the gateway knows {name}");
            }
        },
    );

    case(
        "a read-only container",
        "with a read-only root and /tmp in memory, as a user's own overlay sets it, nothing is missing",
        || {
            stack.overlay(
                "read-only.yml",
                "services:\n  waha:\n    read_only: true\n    tmpfs: [/tmp]\n",
            );
            stack.up(&[]);
            stack.gateway().until_up();
            assert_eq!(stack.waha().inspect(".HostConfig.ReadonlyRootfs"), true);
            let wrote = stack.waha().try_exec(&["touch", "/app/written"]);
            assert_ne!(wrote.code, 0, "the root can be written");
            stack.gateway().expect_kept_to_the_last_word(&before);
            let before = stack.gateway().send(5);
            stack.down();
            stack.wipe("session");
            stack.up(&[]);
            stack.gateway().until_up();
            stack.gateway().expect_kept_to_the_last_word(&before);
        },
    );
}
