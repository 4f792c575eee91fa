//! What lies in and beside the session directory: marker, journal, write-ahead logs, JSON, paths.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Decoder, about, assert_inside, joined, parts};
use sessionkeep_archive::blocks::{BlockChange, BlockReader};
use sessionkeep_core::entry::{Digest, Meta, Owner, RelPath, symlink_stays_inside};
use sessionkeep_init::lock::predecessor_in;
use sessionkeep_session::install::Journal;
use sessionkeep_session::marker::{Marker, Mode, VERSION};
use sessionkeep_session::{Form, JsonReader, json, wal};

pub(super) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "marker",
        decode: marker,
        seeds: markers,
        memory: |input| about(input, 64),
    },
    Decoder {
        name: "journal",
        decode: journal,
        seeds: journals,
        memory: |input| about(input, 128),
    },
    Decoder {
        name: "wal",
        decode: write_ahead_log,
        seeds: write_ahead_logs,
        // A page's number for each frame, and the buffer that the log is read through.
        memory: |input| about(input, 64) + (192 << 10),
    },
    Decoder {
        name: "json",
        decode: whole_json,
        seeds: || vec![br#"{"me":{"id":"1@s.whatsapp.net"},"n":[1,-2.5e3,null,true]}"#.to_vec()],
        memory: |input| about(input, 128),
    },
    Decoder {
        name: "path",
        decode: path,
        seeds: || vec![joined(["a/b/c", "../../d/./e"]), joined(["creds.json", ""])],
        memory: |input| about(input, 16),
    },
    Decoder {
        name: "blocks",
        decode: blocks,
        seeds: || vec![joined([[7; 900], [8; 900], [9; 900]])],
        memory: |input| about(input, 8),
    },
];

fn some_marker() -> Marker {
    Marker {
        version: VERSION,
        archive: "default".into(),
        instance: "host-0011223344".into(),
        epoch: 3,
        seq: 41,
        root: Digest::of(b"tree"),
        mode: Mode::Store,
        history: "01".repeat(16),
        updated_ms: 1_800_000_000_000,
        unjudged: false,
    }
}

fn markers() -> Vec<Vec<u8>> {
    let marker = serde_json::to_vec(&some_marker()).expect("string keys only");
    vec![marker]
}

fn marker(input: &[u8]) -> bool {
    let predecessor = predecessor_in(input);
    let Ok(marker) = Marker::decode(input) else {
        return false;
    };
    let again = serde_json::to_vec(&marker).expect("string keys only");
    assert_eq!(Marker::decode(&again).as_ref().ok(), Some(&marker));
    // Init looks at less of it, and where it is in doubt waits for the lease.
    assert!(
        predecessor.is_none_or(|name| name == marker.instance),
        "init and restorer read another name"
    );
    true
}

fn journals() -> Vec<Vec<u8>> {
    let journal = serde_json::json!({
        "version": 1,
        "phase": "clearing",
        "marker": some_marker(),
        "label": "2027-01-15T08:00:00Z",
        "replaced_entries": 3,
        "late_modes": [[b"d", 0o500], [b"d/e", 0o555]],
    });
    let mut with_mounts = journal.clone();
    with_mounts["version"] = 2.into();
    with_mounts["mounts"] = serde_json::json!([b"d/e"]);
    let meta = Meta {
        mode: 0o750,
        mtime_ns: 1,
        owner: Owner { uid: 1, gid: 2 },
    };
    with_mounts["staying"] = serde_json::json!([[b"d/e", meta]]);
    vec![
        journal.to_string().into_bytes(),
        with_mounts.to_string().into_bytes(),
    ]
}

fn journal(input: &[u8]) -> bool {
    let Ok(journal) = Journal::decode(input) else {
        return false;
    };
    if let Some(label) = &journal.label() {
        let path = RelPath::new(label.as_bytes()).expect("a name that may be joined");
        assert_eq!(path.parent(), None, "more than a name");
    }
    journal.paths().for_each(assert_inside);
    let again = serde_json::to_vec(&journal).expect("string keys only");
    let again = Journal::decode(&again).expect("a journal");
    assert_eq!(format!("{again:?}"), format!("{journal:?}"));
    true
}

/// Index headers of two moments, and the log: as SQLite writes them.
fn write_ahead_logs() -> Vec<Vec<u8>> {
    let dir = std::env::temp_dir().join(format!("sessionkeep-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let path = dir.join("seed.db");
    let beside = |end: &str| fs::read(dir.join(format!("seed.db{end}"))).expect("it is there");
    let db = rusqlite::Connection::open(&path).expect("a database");
    let run = |statements: &str| db.execute_batch(statements).expect("SQLite runs it");
    run("PRAGMA page_size = 512; PRAGMA journal_mode = WAL; CREATE TABLE t (x);");
    let header = || beside("-shm")[..48].to_vec();
    let one = header();
    run("INSERT INTO t VALUES (randomblob(600)); INSERT INTO t VALUES (1);");
    let (grown, log) = (header(), beside("-wal"));
    // The log begins anew, over what it held.
    run("PRAGMA wal_checkpoint; INSERT INTO t VALUES (2);");
    let (anew, overwritten) = (header(), beside("-wal"));
    drop(db);
    let _ = fs::remove_dir_all(&dir);
    vec![
        joined([&one, &grown, &log]),
        joined([&[][..], &grown, &log]),
        joined([&grown, &anew, &overwritten]),
    ]
}

fn write_ahead_log(input: &[u8]) -> bool {
    thread_local! {
        static LOG: RefCell<Option<File>> = const { RefCell::new(None) };
    }
    let mut parts = parts(input);
    let mut next = || parts.next().unwrap_or_default();
    let (before, now, log) = (next(), next(), next());
    let Ok(now) = <&[u8; 48]>::try_from(now) else {
        return false;
    };
    let before = <&[u8; 48]>::try_from(before).ok();
    let pages = LOG.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| {
            memfd_create("log", MFdFlags::MFD_CLOEXEC).map_or_else(|e| panic!("{e}"), File::from)
        });
        file.set_len(0).expect("cut");
        file.write_all_at(log, 0).expect("write");
        wal::told_between(before, now, file).expect("a file in memory is readable")
    });
    let count = u32::from_ne_bytes(now[20..24].try_into().expect("four bytes"));
    let Some(pages) = pages else {
        return false;
    };
    assert!(pages.is_sorted_by(|one, other| one < other));
    assert!(pages.iter().all(|page| (1..=count).contains(page)));
    true
}

/// What another reader takes is committed, and what is cut off is not.
fn whole_json(input: &[u8]) -> bool {
    let is_whole = json::is_whole(input);
    let mut reader = JsonReader::default();
    for piece in input.chunks(input.len() / 3 + 1) {
        reader.feed(piece);
    }
    let piecewise = reader.finish() == Form::Whole;
    let marked = input.starts_with("\u{feff}".as_bytes());
    // It follows no deeper than 65,536 containers.
    let too_deep = input.len() > 1 << 16;
    assert!(
        piecewise == is_whole || marked || too_deep,
        "{piecewise} {is_whole}"
    );
    match serde_json::from_slice::<serde_json::Value>(input) {
        Ok(value) => {
            assert!(is_whole);
            if value.is_object() {
                let text = value.to_string();
                assert!(json::is_whole(text.as_bytes()));
                let cut = input.len() % text.len();
                assert!(!json::is_whole(&text.as_bytes()[..cut]));
            }
        }
        // What is not torn may still be beyond another reader: a number that is too large for it,
        // half of a surrogate pair, a byte that is no text. Those who wrote it read it again.
        Err(error) => assert!(!is_whole || !error.is_eof(), "{error}"),
    }
    is_whole
}

/// A path, and the target of a link there.
fn path(input: &[u8]) -> bool {
    let mut parts = parts(input);
    let Ok(at) = RelPath::new(parts.next().unwrap_or_default()) else {
        return false;
    };
    assert_inside(&at);
    let (dir, name) = at.split();
    assert_eq!(RelPath::join(dir, name).as_ref(), Ok(&at));
    assert!(at.parent().is_none_or(|above| at.is_within(&above)));
    let encoded = postcard::to_stdvec(&at).expect("paths always encode");
    assert_eq!(postcard::from_bytes(&encoded).as_ref(), Ok(&at));

    let target = parts.next().unwrap_or_default();
    if symlink_stays_inside(&at, target) {
        // From a directory as deep as the link's, no part of the way is above the top.
        let mut way: Vec<&[u8]> = dir
            .split(|b| *b == b'/')
            .filter(|d| !d.is_empty())
            .collect();
        for part in target.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => assert!(way.pop().is_some(), "it leads outside"),
                name => way.push(name),
            }
        }
        assert!(!target.starts_with(b"/") && !target.contains(&0));
    }
    true
}

/// A file that comes in portions, mapped in blocks.
fn blocks(input: &[u8]) -> bool {
    let mut reader = BlockReader::new(1024, None);
    let mut content = Vec::new();
    let mut seen = Vec::new();
    let mut each = |offset: u64, block: &[u8], change| {
        assert_eq!(
            (offset, change),
            (seen.len() as u64, BlockChange::Different)
        );
        seen.extend_from_slice(block);
        Ok::<(), ()>(())
    };
    for portion in parts(input) {
        content.extend_from_slice(portion);
        reader.feed(portion, &mut each).expect("no errors");
    }
    let map = reader.finish(&mut each).expect("no errors");
    assert_eq!(seen, content);
    assert_eq!(map.hash(), Digest::of(&content));
    !content.is_empty()
}
