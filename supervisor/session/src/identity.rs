//! Whose login a file holds: what tells one linked device from another, and whether an account is
//! linked at all.
//!
//! A login is kept in a file of its own (`creds.json`, Baileys) or in a database (whatsmeow's table
//! `whatsmeow_device`; the table `creds` of Baileys' SQLite login). What it is known by is its Noise
//! key, which is made once for each login and never changes; where there is none, the account, or the
//! registration's number.
//!
//! Nothing of a key is kept: only a hash of it, under a random key that lives as long as this process.
//! It can be compared, and is never written down or logged.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::Deserialize;
use serde_json::Value;

use sessionkeep_core::entry::RelPath;

use super::sqlite::{self, Snapshot, SnapshotError};
use super::unlocked::{Quiet, Stillness};
use super::{Directory, ReadError, stable};
use sessionkeep_core::beneath::Place;

/// The file that is a Baileys login.
pub const CREDENTIALS: &[u8] = b"creds.json";
/// Names of databases that may hold a login end like this.
const DATABASES: [&[u8]; 3] = [b".db", b".sqlite", b".sqlite3"];
/// `creds.json` has a few kilobytes.
const CREDENTIALS_MAX: u64 = 256 << 10;
/// How long a database's lock is waited for.
const BUSY: Duration = Duration::from_millis(500);
/// How often, and how far apart, it is looked whether nobody writes a database.
const LOOKS: usize = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// More rows than this are not looked at: nobody keeps so many logins in one database.
const ROWS_MAX: usize = 1000;

/// Whether a file of this name is a login, or may be one: a database is not known by its name.
#[must_use]
pub fn may_be_login(path: &RelPath) -> bool {
    path.name() == CREDENTIALS || is_database_name(path)
}

/// Whether a file of this name may be a database with a login.
#[must_use]
pub fn is_database_name(path: &RelPath) -> bool {
    DATABASES.iter().any(|end| path.name().ends_with(end))
}

/// What one file says about logins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// What it is known by; more than one where a database keeps several, none where nothing tells.
    ids: BTreeSet<LoginId>,
    /// Whether an account is linked by it.
    pub linked: bool,
}

/// What a login is known by: of use for comparing within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LoginId(u64);

impl LoginId {
    fn of(kind: &str, bytes: &[u8]) -> Self {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        Self(KEY.get_or_init(RandomState::new).hash_one((kind, bytes)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(default)]
    noise_key: Value,
    #[serde(default)]
    registration_id: Value,
    #[serde(default)]
    me: Value,
}

impl Login {
    /// What the content of a `creds.json` says; `None` where it is not whole.
    #[must_use]
    pub fn of_credentials(content: &[u8]) -> Option<Self> {
        let credentials: Credentials = match serde_json::from_slice(content) {
            Ok(credentials) => credentials,
            // Whole, and no object: a login that we know nothing of.
            Err(error) if error.is_data() => return Some(Self::default()),
            Err(_) => return None,
        };
        let Credentials {
            noise_key,
            registration_id,
            me,
        } = credentials;
        let account = match &me {
            Value::Object(me) => me.get("id").cloned().unwrap_or_default(),
            other => other.clone(),
        };
        let known_by = [
            ("noise", noise_key),
            ("account", account.clone()),
            ("registration", registration_id),
        ];
        let id = known_by.into_iter().find(|(_, value)| !value.is_null());
        Some(Self {
            ids: id
                .map(|(kind, value)| LoginId::of(kind, value.to_string().as_bytes()))
                .into_iter()
                .collect(),
            linked: me.is_object() && !account.is_null(),
        })
    }

    /// What the database of an open read transaction says; `None` where it keeps no login.
    pub(super) fn of_database(connection: &Connection) -> Option<Self> {
        // Neither table is in most databases, which a name that is not found tells at once.
        of_whatsmeow(connection)
            .or_else(|| of_baileys(connection))
            .filter(|login| !login.ids.is_empty())
    }

    /// Whether nothing tells whose it is.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether both are of one login.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        !self.ids.is_disjoint(&other.ids)
    }
}

fn of_whatsmeow(connection: &Connection) -> Option<Login> {
    let mut statement = connection.prepare("SELECT * FROM whatsmeow_device").ok()?;
    let column = |name| statement.column_index(name).ok();
    let (key, account) = (column("noise_key"), column("jid"));
    let mut rows = statement.query([]).ok()?;
    let mut login = Login::default();
    while let (Ok(Some(row)), true) = (rows.next(), login.ids.len() < ROWS_MAX) {
        let bytes = |column: Option<usize>| match row.get_ref(column?).ok()? {
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) if !bytes.is_empty() => Some(bytes),
            _ => None,
        };
        login.linked |= bytes(account).is_some();
        let known_by = [("noise", bytes(key)), ("account", bytes(account))];
        let id = known_by
            .into_iter()
            .find_map(|(kind, value)| Some(LoginId::of(kind, value?)));
        login.ids.extend(id);
    }
    Some(login)
}

fn of_baileys(connection: &Connection) -> Option<Login> {
    let sql = "SELECT value FROM creds";
    let mut statement = connection.prepare(sql).ok()?;
    let mut rows = statement.query([]).ok()?;
    let mut login = Login::default();
    let mut left = ROWS_MAX;
    while let (Ok(Some(row)), true) = (rows.next(), left > 0) {
        left -= 1;
        if let Ok(ValueRef::Text(text) | ValueRef::Blob(text)) = row.get_ref(0)
            && let Some(one) = Login::of_credentials(text)
        {
            login.linked |= one.linked;
            login.ids.extend(one.ids);
        }
    }
    Some(login)
}

/// Why it could not be told what a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRead {
    /// There is no such file, or it keeps no login.
    NoLogin,
    /// It is not whole, or locked; later it may be told.
    NotNow,
}

/// Reads the login that the file `path` of the session directory keeps.
///
/// # Errors
/// [`NotRead`].
pub fn read(directory: &Directory, path: &RelPath) -> Result<Login, NotRead> {
    match Place::below(directory.fd(), path.as_bytes()) {
        Ok(place) => read_at(&place, path),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Err(NotRead::NoLogin),
        Err(_) => Err(NotRead::NotNow),
    }
}

/// As [`read`], of the file at `place`, which is, or is a copy of, the one with this path.
///
/// # Errors
/// [`NotRead`].
pub fn read_at(place: &Place, path: &RelPath) -> Result<Login, NotRead> {
    if path.name() != CREDENTIALS {
        return match sqlite::is_database(place.dir(), place.name()) {
            Ok(true) => match login_of(place) {
                Ok(login) => login.ok_or(NotRead::NoLogin),
                Err(_) => Err(NotRead::NotNow),
            },
            _ => Err(NotRead::NoLogin),
        };
    }
    match stable::read_once(place.dir(), place.name(), CREDENTIALS_MAX) {
        Ok(read) => Login::of_credentials(&read.bytes).ok_or(NotRead::NotNow),
        Err(ReadError::Vanished | ReadError::NotAFile) => Err(NotRead::NoLogin),
        Err(ReadError::Changed | ReadError::Io(_)) => Err(NotRead::NotNow),
    }
}

/// What the database at `place` says. A lock would fail its writer, so one is taken only where no quiet
/// moment comes: of a database that is read at once after it was written, or holds what a writer that
/// died left.
fn login_of(place: &Place) -> Result<Option<Login>, SnapshotError> {
    for _ in 0..LOOKS {
        match Quiet::look(place) {
            Ok(Stillness::Quiet(quiet)) => {
                match Snapshot::unlocked(place, quiet).and_then(|snapshot| snapshot.login()) {
                    Err(SnapshotError::Moved) => {}
                    read => return read,
                }
            }
            Ok(Stillness::Written | Stillness::Held) => sleep(LOOK_AGAIN),
            Ok(Stillness::Left(_) | Stillness::Other) | Err(_) => break,
        }
    }
    Snapshot::begin(place, BUSY)?.login()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    fn of(text: &str) -> Login {
        Login::of_credentials(text.as_bytes()).expect("whole")
    }

    #[test]
    fn a_login_is_known_by_its_noise_key_whatever_else_changes() {
        let unlinked = of(r#"{"noiseKey":{"private":"A"},"registrationId":7,"me":null}"#);
        let linked = of(r#"{"me":{"id":"49:1@s.whatsapp.net"},"noiseKey":{"private":"A"},"x":1}"#);
        assert!(unlinked.is_same(&linked));
        assert!(!unlinked.linked && linked.linked);
        let again = of(r#"{"me":{"id":"49:1@s.whatsapp.net"},"noiseKey":{"private":"B"}}"#);
        assert!(!linked.is_same(&again), "the same account, linked anew");
    }

    #[test]
    fn without_a_noise_key_the_account_counts_and_without_that_the_number() {
        assert!(of(r#"{"me":"OLD"}"#).is_same(&of(r#"{"me":"OLD","n":2}"#)));
        assert!(!of(r#"{"me":"OLD"}"#).is_same(&of(r#"{"me":"NEW"}"#)));
        assert!(of(r#"{"registrationId":7}"#).is_same(&of(r#"{"registrationId":7}"#)));
        for nothing in ["{}", "[]", "null", r#"{"me":null}"#] {
            assert!(of(nothing).is_unknown(), "{nothing}");
            assert!(!of(nothing).is_same(&of(nothing)), "{nothing}");
        }
        for torn in ["", "{", r#"{"me":"#] {
            assert_eq!(Login::of_credentials(torn.as_bytes()), None, "{torn}");
        }
    }

    #[test]
    fn a_database_is_a_login_by_its_device_row() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = RelPath::new("gows.db").expect("a path");
        let file = dir.path().join("gows.db");
        let place = Place::of(&file).expect("a place");
        let run = |sql: &str| {
            let db = Connection::open(&file).expect("open");
            db.execute_batch(sql).expect("run");
        };
        assert_eq!(read_at(&place, &path), Err(NotRead::NoLogin));
        run("CREATE TABLE whatsmeow_device (jid TEXT PRIMARY KEY, noise_key BLOB)");
        assert_eq!(
            read_at(&place, &path),
            Err(NotRead::NoLogin),
            "nobody is linked"
        );
        run("INSERT INTO whatsmeow_device VALUES ('49:1@s.whatsapp.net', x'0102')");
        let first = read_at(&place, &path).expect("a login");
        assert!(first.linked);
        run("UPDATE whatsmeow_device SET jid = '49:2@s.whatsapp.net'");
        assert!(read_at(&place, &path).expect("a login").is_same(&first));
        run("UPDATE whatsmeow_device SET noise_key = x'0103'");
        assert!(!read_at(&place, &path).expect("a login").is_same(&first));

        // A lock on its first byte keeps every reader away that asks for one, as a writer's does that
        // waits for the readers to go. Those of open files are told apart in one process too.
        const PENDING: libc::off_t = 0x4000_0000;
        let locked = fs::OpenOptions::new().write(true).open(&file);
        let locked = locked.expect("open");
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: PENDING,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&locked, FcntlArg::F_OFD_SETLK(&lock)).expect("lock");
        assert!(read_at(&place, &path).is_ok(), "it took a lock");
        drop(locked);

        let file = dir.path().join("auth.db");
        let place = Place::of(&file).expect("a place");
        let db = Connection::open(&file).expect("open");
        db.execute_batch(
            "CREATE TABLE creds (key TEXT PRIMARY KEY, value TEXT NOT NULL);
             INSERT INTO creds VALUES ('__creds__', '{\"noiseKey\":{\"private\":\"A\"},\"me\":{\"id\":\"49\"}}')",
        )
        .expect("run");
        let login = read_at(&place, &path).expect("a login");
        assert!(login.linked);
        assert!(login.is_same(&of(r#"{"noiseKey":{"private":"A"}}"#)));
    }
}
