//! Settings: the file, the environment, spans, addresses, and what init hands on.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use super::{Decoder, about};
use crate::config::sources::{resolve, resolve_init_only};
use crate::config::{Flags, Loaded, duration, store_url};
use sessionkeep_stores::{MongoStore, StoreChoice};

pub(super) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "settings_file",
        decode: file,
        seeds: files,
        // Events, a tree of values, and every problem in words.
        memory: |input| about(input, 2048) + (256 << 10),
    },
    Decoder {
        name: "environment",
        decode: environment,
        seeds: environments,
        memory: |input| about(input, 64) + (64 << 10),
    },
    Decoder {
        name: "span",
        decode: span,
        seeds: || texts(&["500ms", "3s", "2m", "1h", "0", "31622400000ms"]),
        memory: |input| about(input, 8),
    },
    Decoder {
        name: "store_url",
        decode: url,
        seeds: urls,
        memory: |input| about(input, 64),
    },
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn files() -> Vec<Vec<u8>> {
    texts(&[
        "store: mongodb://user:password@db.example/sessionkeep\nstop:\n  total: 55s\n  flush: 10s\nlog.level: debug\n",
        "dir: /data\nstore:\n  url: sqlite:/var/a.db\n  wait: 2m\nhttp: {port: 0, bind: 127.0.0.1, token: \"x\"}\nprofile: baileys\n",
        "archive: &name one\nstore: none\nlease:\n  ttl: 15s\n  renew: 5s\n  conflict: wait # or refuse\nsync: ~\n",
    ])
}

thread_local! {
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn file(input: &[u8]) -> bool {
    FILE.replace(input.to_vec());
    let read = resolve(&Flags::default(), Vec::new(), Path::new("/work"), |_, _| {
        Ok(Some(("sessionkeep.yaml".into(), FILE.take())))
    });
    check(read)
}

/// What is in force is sound, and what is wrong can be told.
fn check(read: Result<Loaded, crate::config::ConfigErrors>) -> bool {
    match read {
        Ok(loaded) => {
            assert!(loaded.settings.dir.is_absolute());
            assert!(loaded.settings.stop.flush < loaded.settings.stop.total);
            true
        }
        Err(errors) => {
            let told = errors.to_string();
            assert!(
                !errors.problems.is_empty() && !told.contains('\0'),
                "{told}"
            );
            false
        }
    }
}

fn environments() -> Vec<Vec<u8>> {
    texts(&[
        "MONGO_URL=mongodb://u:p@h:27017/db?tls=true\0SESSIONKEEP_DIR=/data\0PORT=3000\0LOG_LEVEL=verbose",
        "MONGO_ENABLED=false\0SESSIONS_PATH=/app/.sessions\0SESSIONKEEP_STOP_TOTAL=20s\0SESSIONKEEP_HTTP_PORT=off",
        "SESSIONKEEP_STORE=sqlite:a.db\0SESSIONKEEP_RESTART_POLICY=always\0SESSIONKEEP_GATEWAY_PROBE=http://127.0.0.1:1/x\0ADMIN_TOKEN=t",
    ])
}

/// Variables as the kernel hands them over, one after the other.
fn variables(input: &[u8]) -> Vec<(OsString, OsString)> {
    let pair = |line: &[u8]| {
        let at = line.iter().position(|b| *b == b'=')?;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&line[..at]), text(&line[at + 1..])))
    };
    input.split(|b| *b == 0).filter_map(pair).collect()
}

fn loaded(input: Vec<u8>) -> Result<Loaded, crate::config::ConfigErrors> {
    let none = |_: Option<(&str, &Path)>, _: &Path| Ok(None);
    resolve(
        &Flags::default(),
        variables(&input),
        Path::new("/work"),
        none,
    )
}

fn environment(input: &[u8]) -> bool {
    let none = |_: Option<(&str, &Path)>, _: &Path| Ok(None);
    let flags = Flags::default();
    let _ = resolve_init_only(&flags, variables(input), Path::new("/work"), none);
    check(loaded(input.to_vec()))
}

fn span(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let read = duration::parse(text);
    read.inspect(|span| {
        assert_eq!(duration::parse(&duration::show(*span)).as_ref(), Ok(span));
        assert!(*span <= Duration::from_secs(366 * 24 * 3600));
    })
    .is_ok()
}

fn urls() -> Vec<Vec<u8>> {
    texts(&[
        "mongodb://user:p%40ss@a.example:27017,b.example/db?replicaSet=rs&tls=true&authSource=admin",
        "mongodb+srv://user:pass@cluster.example.net/db?retryWrites=true&w=majority&appName=x",
        "mongodb://[::1]:27017/?tlsCAFile=/ca.pem&tlsInsecure=false&maxPoolSize=9",
        "sqlite:///data/archive.db",
        "none",
    ])
}

/// An address: as a setting, and as far as the driver takes it apart.
fn url(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let Ok(choice) = store_url::parse(text) else {
        return false;
    };
    let shown = store_url::show(&choice);
    if let StoreChoice::Mongo(url) = &choice {
        let (_, rest) = text.split_once("://").expect("it has a scheme");
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            let password = user.rsplit(':').next().unwrap_or_default();
            assert!(password.len() < 8 || !shown.contains(password), "{shown}");
        }
        // Whatever it says, it is said without a word of the address.
        return MongoStore::connect(url, Duration::from_secs(1), "fuzz").is_ok();
    }
    true
}
