//! A TCP proxy that stands between a client and a server and makes trouble, switchable while it
//! runs.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What the proxy does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Pass,
    /// Passes everything on, each piece this much later, at whatever rate it comes: a long line
    /// and not a narrow one. Half a round trip, since it is in both directions.
    Delay(Duration),
    /// Takes everything, in both directions, and passes nothing on, until the mode changes.
    BlackHole,
    /// Passes requests on; cuts the connection where the answer would come back.
    CutAnswers,
    /// Cuts every connection, and every new one at once.
    Refuse,
    /// Passes on this many bytes a second in each direction of each connection.
    Bandwidth(u32),
    /// Passes on no more than this many bytes of the next piece, in either direction, and resets
    /// the connection at both ends: in the middle of a message, where the piece was longer.
    ResetAfter(usize),
    /// The server loses the connection, and the client is told nothing: for it, it stays open.
    HalfOpen,
}

/// A running proxy. Dropping it ends it with its connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    forwarded: Arc<AtomicU64>,
    listening: JoinHandle<()>,
}

/// Largest piece that is passed on at once.
const PIECE: usize = 16 * 1024;
/// Most pieces that are on their way in one direction of a connection. 64 MiB: a delay of 50 ms
/// limits nothing below 1.3 GB a second.
const ON_THE_WAY: usize = 4096;

/// What was read, and when it is to be passed on.
type Piece = (Instant, Vec<u8>);

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes on to `target`.
    pub(crate) async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("a bound socket").port();
        let (mode, watched) = watch::channel(Mode::Pass);
        let forwarded = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&forwarded);
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, target, watched.clone(), Arc::clone(&count)));
            }
        });
        Proxy {
            port,
            mode,
            forwarded,
            listening,
        }
    }

    /// The port on 127.0.0.1 that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, also for connections that are open.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many bytes of requests have been passed on to the server.
    pub(crate) fn requested(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

async fn serve(
    client: TcpStream,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    forwarded: Arc<AtomicU64>,
) {
    if *mode.borrow() == Mode::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // Small pieces are passed on as they come, as if nobody stood in between.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let held = Held::of(&client, &server);
    // Not halves that end the connection when they are dropped: that is for `held` to say.
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let requests = pump(
        from_client,
        to_server,
        mode.clone(),
        Direction::Request,
        Some(forwarded),
    );
    let answers = pump(
        from_server,
        to_client,
        mode.clone(),
        Direction::Answer,
        None,
    );
    // Either end cuts both: half-closed connections are no use to a request protocol.
    tokio::select! {
        () = requests => {}
        () = answers => {}
        _ = mode.wait_for(|mode| matches!(mode, Mode::Refuse | Mode::HalfOpen)) => {}
    }
    let now = *mode.borrow();
    match now {
        Mode::ResetAfter(_) => held.reset(),
        Mode::HalfOpen => {
            drop(held.server);
            let _ = mode.wait_for(|mode| *mode != Mode::HalfOpen).await;
        }
        _ => {}
    }
}

/// Keeps both ends of a connection open until it is said how they end.
struct Held {
    client: OwnedFd,
    server: OwnedFd,
}

impl Held {
    fn of(client: &TcpStream, server: &TcpStream) -> Self {
        let copy = |end: &TcpStream| end.as_fd().try_clone_to_owned().expect("a descriptor");
        Self {
            client: copy(client),
            server: copy(server),
        }
    }

    /// Closes both at once, without a word of farewell.
    fn reset(self) {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        for end in [self.client, self.server] {
            let _ = setsockopt(&end, sockopt::Linger, &at_once);
        }
    }
}

async fn pump(
    from: ReadHalf<TcpStream>,
    to: WriteHalf<TcpStream>,
    mode: watch::Receiver<Mode>,
    direction: Direction,
    count: Option<Arc<AtomicU64>>,
) {
    let (line, arriving) = mpsc::channel(ON_THE_WAY);
    tokio::select! {
        // What was cut is cut at once, with all that was on its way.
        () = take(from, line, mode, direction) => {}
        () = pass_on(arriving, to, count) => {}
    }
}

/// Reads, and says of each piece when it is due. Returns where the connection is to be cut.
async fn take(
    mut from: ReadHalf<TcpStream>,
    line: mpsc::Sender<Piece>,
    mut mode: watch::Receiver<Mode>,
    direction: Direction,
) {
    loop {
        let mut piece = vec![0; PIECE];
        match from.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => piece.truncate(length),
        }
        let now = *mode.borrow_and_update();
        let mut due = Instant::now();
        match now {
            Mode::Pass => {}
            Mode::Delay(delay) => due += delay,
            Mode::BlackHole => {
                // What was swallowed stays swallowed, so this connection is good for nothing
                // more; it is kept open until the hole closes, and then cut.
                let _ = mode.wait_for(|mode| *mode != Mode::BlackHole).await;
                return;
            }
            Mode::CutAnswers if direction == Direction::Answer => return,
            Mode::CutAnswers => {}
            Mode::Refuse => return,
            Mode::HalfOpen => return,
            Mode::ResetAfter(bytes) => {
                piece.truncate(bytes);
                let _ = line.send((due, piece)).await;
                break;
            }
            Mode::Bandwidth(rate) => {
                let seconds = piece.len() as f64 / f64::from(rate.max(1));
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
        }
        if line.send((due, piece)).await.is_err() {
            return;
        }
    }
    // The end is passed on after all that came before it.
    drop(line);
    std::future::pending::<()>().await;
}

/// Writes each piece when it is due, in the order in which they came.
async fn pass_on(
    mut arriving: mpsc::Receiver<Piece>,
    mut to: WriteHalf<TcpStream>,
    count: Option<Arc<AtomicU64>>,
) {
    while let Some((due, piece)) = arriving.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
        if let Some(count) = &count {
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
}
