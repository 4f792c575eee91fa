//! A browser profile as WAHA's WEBJS engine keeps it: most of it is cache, and of the rest only
//! IndexedDB and Local Storage hold the login.

use std::fs;
use std::path::Path;

use super::random::Random;

/// Where the profile lies in the session directory.
const USER_DATA: &str = "webjs/default/session-default";

/// Directories with how many files and how many megabytes in each, for 1,500 files and 180 MB.
/// The first three are cache, 120 MB of it.
const PARTS: [(&str, &str, u64, u64); 8] = [
    ("Default/Cache/Cache_Data", "f_", 700, 70),
    (
        "Default/Service Worker/CacheStorage/4f/7c",
        "entry_",
        300,
        35,
    ),
    ("Default/Code Cache/js", "script_", 300, 15),
    (
        "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb",
        "table_",
        40,
        44,
    ),
    (
        "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.blob/1/00",
        "blob_",
        30,
        6,
    ),
    ("Default/Local Storage/leveldb", "table_", 10, 2),
    ("Default/Session Storage", "table_", 20, 1),
    ("component_store", "component_", 100, 7),
];

/// Writes the profile below `root`, at a `part` of its size. Returns files and bytes.
pub(crate) fn profile(root: &Path, part: u64) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    for (number, (dir, prefix, count, megabytes)) in PARTS.iter().enumerate() {
        let dir = root.join(USER_DATA).join(dir);
        fs::create_dir_all(&dir).expect("create a profile's directory");
        let count = (count / part).max(1);
        let size = megabytes * 1_000_000 / part / count;
        for n in 0..count {
            let seed = (number as u64) << 32 | n;
            // Half random and half text, in small pieces: tables and media are compressed already,
            // scripts and records are not.
            let random = &mut Random::new("chrome", seed);
            let mut content = Vec::with_capacity(size as usize + 4096);
            while (content.len() as u64) < size {
                content.extend(random.bytes(2048));
                content.extend(RECORD.repeat(16).bytes().take(2048));
            }
            content.truncate(size as usize);
            bytes += size;
            files += 1;
            fs::write(dir.join(format!("{prefix}{n:06}")), content).expect("write");
        }
    }
    (files, bytes)
}

const RECORD: &str = "{\"id\":\"false_4915100000001@c.us_3EB0\",\"ack\":3,\"type\":\"chat\",\"body\":\"On my way, see you at the station at eight.\",\"t\":1795775361,\"from\":\"4915100000001@c.us\"}";
