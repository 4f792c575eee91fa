//! A MongoDB that answers and takes no writes: what stands before the real one passes everything on, and
//! answers writes by itself, as one over its quota would.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mongodb::bson::{Document, doc};

use super::keeper::World;

/// What a write is answered with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) words: &'static str,
}

/// As Atlas says it.
pub(crate) const QUOTA: Refusal = Refusal {
    code: 8000,
    words: "you are over your space quota, using 513 MB of 512 MB",
};
pub(crate) const DISK_FULL: Refusal = Refusal {
    code: 14031,
    words: "available disk space of 400000000 bytes is less than required minimum of 524288000",
};
pub(crate) const BLOCKED: Refusal = Refusal {
    code: 371,
    words: "User writes blocked",
};

/// What adds something. Deleting is allowed where there is no room.
const WRITES: [&str; 5] = [
    "insert",
    "update",
    "findAndModify",
    "createIndexes",
    "create",
];

/// Stands before a mongod.
pub(crate) struct Refusing {
    pub(crate) url: String,
    refuses: Arc<AtomicBool>,
    refusal: Arc<Mutex<Refusal>>,
}

impl Refusing {
    /// Before the mongod of `world`, at the same database.
    pub(crate) fn before(world: &World) -> Self {
        let rest = world.url.strip_prefix("mongodb://").expect("a MongoDB");
        let (host, database) = rest.split_once('/').expect("a database");
        let target: SocketAddr = host.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let refuses = Arc::new(AtomicBool::new(false));
        let refusal = Arc::new(Mutex::new(QUOTA));
        let (does, with) = (Arc::clone(&refuses), Arc::clone(&refusal));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (does, with) = (Arc::clone(&does), Arc::clone(&with));
                // A connection that ends is no failure.
                thread::spawn(move || serve(client, target, &does, &with));
            }
        });
        Self {
            url: format!("mongodb://127.0.0.1:{port}/{database}"),
            refuses,
            refusal,
        }
    }

    /// From now on writes are refused so.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        self.refuses.store(true, Ordering::SeqCst);
    }

    /// From now on they are not.
    pub(crate) fn allow(&self) {
        self.refuses.store(false, Ordering::SeqCst);
    }
}

fn message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes)?;
    let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    bytes.resize(length, 0);
    from.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}

/// The name of the command, where it is one of `OP_MSG`.
fn command(message: &[u8]) -> Option<String> {
    const OP_MSG: i32 = 2013;
    let code = i32::from_le_bytes(message.get(12..16)?.try_into().ok()?);
    if code != OP_MSG || *message.get(20)? != 0 {
        return None;
    }
    let document = Document::from_reader(&message[21..]).ok()?;
    document.keys().next().cloned()
}

fn answer(to: &[u8], refusal: Refusal) -> Vec<u8> {
    let document = doc! { "ok": 0.0, "errmsg": refusal.words, "code": refusal.code };
    let mut body = Vec::new();
    document.to_writer(&mut body).expect("in memory");
    let length = u32::try_from(body.len() + 21).expect("short");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(1_i32.to_le_bytes());
    bytes.extend_from_slice(&to[4..8]);
    bytes.extend(2013_i32.to_le_bytes());
    bytes.extend([0; 5]);
    bytes.extend(body);
    bytes
}

fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    refuses: &AtomicBool,
    refusal: &Mutex<Refusal>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    loop {
        let request = message(&mut client)?;
        let is_write = command(&request).is_some_and(|name| WRITES.contains(&name.as_str()));
        if is_write && refuses.load(Ordering::SeqCst) {
            let refusal = *refusal.lock().unwrap_or_else(PoisonError::into_inner);
            client.write_all(&answer(&request, refusal))?;
            continue;
        }
        server.write_all(&request)?;
        client.write_all(&message(&mut server)?)?;
    }
}
