//! What the stores hand out: documents of MongoDB, columns of SQLite.

use std::time::Duration;

use mongodb::bson::raw::RawDocument;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, doc};

use super::chains::{archive, header};
use super::{Decoder, about};
use sessionkeep_archive::store::lease::{LeaseState, Place, Term};
use sessionkeep_archive::store::{LeaseClaim, LeaseOutcome, Otherwise};
use sessionkeep_archive::tree::Tree;
use sessionkeep_archive::version::check_record;
use sessionkeep_core::human::{Bytes, Timestamp};
use sessionkeep_core::record::{ArchiveName, CommitId, FORMAT, InstanceId, PackId, Record};
use sessionkeep_stores::mongo::{commits, lease, packs};
use sessionkeep_stores::sqlite;

pub(super) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "mongo_commit",
        decode: mongo_commit,
        seeds: mongo_commits,
        memory: |input| about(input, 24),
    },
    Decoder {
        name: "mongo_lease",
        decode: mongo_lease,
        seeds: mongo_leases,
        // The driver's documents are maps of maps.
        memory: |input| about(input, 512),
    },
    Decoder {
        name: "mongo_pack",
        decode: mongo_pack,
        seeds: mongo_packs,
        memory: |input| about(input, 512),
    },
    Decoder {
        name: "mongo_chunks",
        decode: mongo_chunks,
        seeds: mongo_answers,
        memory: |input| about(input, 64),
    },
    Decoder {
        name: "sqlite_header",
        decode: sqlite_header,
        seeds: sqlite_headers,
        memory: |input| about(input, 24),
    },
    Decoder {
        name: "sqlite_queue",
        decode: sqlite_queue,
        seeds: sqlite_queues,
        memory: |input| about(input, 64),
    },
    Decoder {
        name: "names",
        decode: names,
        seeds: some_names,
        memory: |input| about(input, 8),
    },
];

fn encoded(document: &Document) -> Vec<u8> {
    document.to_vec().expect("documents always encode")
}

/// The bytes as a document: its length and its end, which no server gets wrong, are put right.
fn framed(input: &[u8]) -> Vec<u8> {
    let mut framed = input.to_vec();
    if let (Ok(len), Some((first, rest))) =
        (i32::try_from(input.len()), framed.split_first_chunk_mut())
    {
        *first = len.to_le_bytes();
        if let Some(last) = rest.last_mut() {
            *last = 0;
        }
    }
    framed
}

fn record() -> Record {
    let body = b"a body".to_vec();
    let header = header(7, &body, &Tree::new());
    Record { header, body }
}

fn mongo_commits() -> Vec<Vec<u8>> {
    let mut barrier = record();
    barrier.header.packs.clear();
    [record(), barrier]
        .iter()
        .map(|record| encoded(&commits::encode(record).expect("small numbers")))
        .collect()
}

fn mongo_commit(input: &[u8]) -> bool {
    let framed = framed(input);
    let read = |bytes: &[u8]| {
        let raw = RawDocument::from_bytes(bytes).ok()?;
        commits::decode_record(raw, &archive()).ok()
    };
    let Some(mut record) = read(&framed) else {
        return false;
    };
    let again = commits::encode(&record).expect("it came from such a document");
    assert_eq!(read(&encoded(&again)).as_ref(), Some(&record));
    let _ = check_record(&record);
    record.header.digest = record.header.seal();
    if check_record(&record).is_ok() {
        let of_its_body = sessionkeep_core::entry::Digest::of(&record.body);
        assert_eq!(record.header.body_hash, of_its_body);
    }
    true
}

fn mongo_leases() -> Vec<Vec<u8>> {
    let at = |ms: i64| DateTime::from_millis(1_800_000_000_000 + ms);
    let place = |who: &str, asks: Option<i64>| {
        doc! { "instance": who, "since": at(-500), "seen": at(-100), "asks": asks }
    };
    [vec![], vec![place("b-1", Some(3)), place("c-1", None)]]
        .into_iter()
        .map(|waiting| {
            encoded(&doc! {
                "_id": "default",
                "format": 1_i64,
                "instance": "host-0011223344",
                "epoch": 3_i64,
                "since": at(-9000),
                "expires": at(15_000),
                "waiting": waiting,
                "term": { "epoch": 3_i64, "ttl": 15_000_i64 },
                "now": at(0),
            })
        })
        .collect()
}

fn document(input: &[u8]) -> Option<Document> {
    let framed = framed(input);
    let raw = RawDocument::from_bytes(&framed).ok()?;
    Document::try_from(raw).ok()
}

fn mongo_lease(input: &[u8]) -> bool {
    let document = document(input);
    let lease = document.and_then(|document| lease::decode(&archive(), &document).ok());
    lease.is_some_and(|lease| {
        let asked_by = lease.asked_by();
        assert!(asked_by.is_none() || asked_by == lease.next());
        assert_eq!(lease.next().is_none(), lease.waiting.is_empty());
        true
    })
}

fn mongo_packs() -> Vec<Vec<u8>> {
    vec![encoded(&doc! {
        "_id": PackId([7; 16]).to_string(),
        "length": 1_800_000_i64,
        "chunkSize": 524_288,
        "uploadDate": DateTime::from_millis(1_800_000_000_000),
        "filename": "default/07070707",
        "metadata": { "archive": "default", "format": 1_i64, "size": 1_800_000_i64 },
    })]
}

/// The numbers of those that do not come are listed.
const CHUNKS_MAX: usize = 1 << 17;

fn mongo_pack(input: &[u8]) -> bool {
    let document = document(input);
    let listed = document.and_then(|found| packs::Listed::read(PackId([7; 16]), &found).ok());
    listed.is_some_and(|listed| {
        assert!(listed.chunks() <= CHUNKS_MAX, "{} chunks", listed.chunks());
        true
    })
}

fn mongo_answers() -> Vec<Vec<u8>> {
    let chunk = |n: i32| {
        let data = Binary {
            subtype: BinarySubtype::Generic,
            bytes: vec![n as u8; 40],
        };
        doc! { "_id": n, "files_id": "07", "n": n, "data": data }
    };
    let batch = vec![chunk(0), chunk(1), chunk(2)];
    vec![
        encoded(&doc! { "cursor": { "firstBatch": &batch, "id": 0_i64 }, "ok": 1.0 }),
        encoded(&doc! { "cursor": { "nextBatch": batch }, "ok": 1.0 }),
    ]
}

fn mongo_chunks(input: &[u8]) -> bool {
    let reply = bytes::Bytes::from(framed(input));
    let mut chunks = packs::Chunks::new();
    let read = packs::read_chunks(&reply, &mut chunks);
    let all: usize = chunks.values().flatten().map(bytes::Bytes::len).sum();
    assert!(all <= reply.len(), "chunks overlap");
    read.is_ok()
}

fn sqlite_headers() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec(&record().header).expect("headers always encode")]
}

fn sqlite_header(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let read = |text: &str| sqlite::commits::read_header(&archive(), 7, FORMAT, text).ok();
    let Some(header) = read(text) else {
        return false;
    };
    let figures = (Timestamp(header.time_ms), Bytes(header.live_bytes));
    let _ = format!("{} {}", figures.0, figures.1);
    let again = serde_json::to_string(&header).expect("headers always encode");
    assert_eq!(read(&again), Some(header));
    true
}

fn sqlite_queues() -> Vec<Vec<u8>> {
    let place = |who: &str, asks| Place {
        instance: who.parse().expect("a name"),
        since_ms: 1_800_000_000_000,
        seen_ms: 1_800_000_000_500,
        asks,
    };
    let queue = [place("b-1", Some(3)), place("c-1", None)];
    vec![serde_json::to_vec(&queue).expect("places are plain data")]
}

/// A queue, and who gets a lease that has run out.
fn sqlite_queue(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let name = |text: &str| text.parse::<InstanceId>().expect("a name");
    let lease = LeaseState {
        instance: name("a-1"),
        epoch: 3,
        expires_ms: 1_800_000_000_600,
        since_ms: 1_800_000_000_000,
        queue: sqlite::lease::read_queue(text).unwrap_or_default(),
        queue_damaged: false,
        term: Term::default(),
    };
    let now = 1_800_000_001_000;
    let claim = LeaseClaim {
        instance: name("d-1"),
        predecessor: None,
        floor: 2,
        ttl: Duration::from_secs(15),
        lapsed: lease.told_at(now).mark,
        otherwise: Otherwise::Ask(3),
    };
    let waits = lease.told_at(now).next().is_some();
    let (_, outcome) = LeaseState::claim(Some(&lease), &claim, now);
    let is_read = !lease.queue.is_empty();
    match outcome {
        LeaseOutcome::Granted { epoch } => assert_eq!(epoch, 4),
        LeaseOutcome::Held(lease) => assert!(waits && !lease.waiting.is_empty()),
    }
    is_read
}

fn some_names() -> Vec<Vec<u8>> {
    let id = PackId([0xab; 16]).to_string();
    ["default", "host-0011223344", &id]
        .map(|name| name.as_bytes().to_vec())
        .into()
}

/// Names and ids as they stand in columns, files and flags.
fn names(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    if let Ok(name) = text.parse::<ArchiveName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<InstanceId>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(id) = text.parse::<PackId>() {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    if let Ok(id) = text.parse::<CommitId>() {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    let id = InstanceId::generate(text);
    assert_eq!(id.as_str().parse(), Ok(id.clone()));
    text.parse::<ArchiveName>().is_ok()
}
