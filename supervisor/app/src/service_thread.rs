//! The thread in which everything runs that faces the outside: the HTTP pages and what goes out, with a
//! runtime of its own. Whatever happens there, however many ask and however slow somebody answers,
//! commits do not wait for it.
//!
//! ```text
//!   commits ──▶ status::Shared ──▶ observe ──▶ incidents ──▶ webhook
//!                 ▲    │    ▲                                heartbeat
//!                 │    ▼    └─────── waha ◀── gateway's API
//!                 │   http ──▶ whoever asks
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::warn;

use crate::config::Settings;
use crate::http;
use crate::integrations::{Client, heartbeat, observe, waha, webhook};
use crate::status::Shared;

/// What the thread needs: TLS takes most of it.
const STACK: usize = 1 << 20;
/// How long whoever ends waits for news of its end to be told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The thread.
#[derive(Debug)]
pub(crate) struct ServiceThread {
    shared: Shared,
    tells: bool,
    end: Option<oneshot::Sender<Instant>>,
    thread: Option<JoinHandle<()>>,
}

impl ServiceThread {
    /// Starts it. `sockets` are the inherited listening sockets, if there are any.
    ///
    /// # Errors
    /// If there is no thread to be had, or a descriptor is no socket.
    pub(crate) fn start(
        settings: &Settings,
        shared: &Shared,
        sockets: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let listeners: Vec<_> = sockets
            .into_iter()
            .map(std::net::TcpListener::from)
            .collect();
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()?;
        let (end, ended) = oneshot::channel();
        let (settings, inside) = (settings.clone(), shared.clone());
        let tells = settings.webhook.url.is_some();
        let thread = std::thread::Builder::new()
            .name("outside".into())
            .stack_size(STACK)
            .spawn(move || runtime.block_on(run(settings, inside, listeners, ended)))?;
        Ok(Self {
            shared: shared.clone(),
            tells,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Ends it, and waits a little where news is still to be told; what is not told is told by the
    /// next process.
    pub(crate) fn finish(mut self) {
        let waits = self.tells && self.shared.ledger().untold().is_some();
        let limit = Instant::now() + if waits { LAST_WORDS } else { Duration::ZERO };
        if let Some(end) = self.end.take() {
            let _ = end.send(limit);
        }
        if waits && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.ledger().save();
    }
}

async fn run(
    settings: Settings,
    shared: Shared,
    listeners: Vec<std::net::TcpListener>,
    ended: oneshot::Receiver<Instant>,
) {
    let client = Client::new();
    let gateway = waha::Waha::new(&settings, &client);
    let usable = listeners.into_iter().filter_map(|listener| {
        tokio::net::TcpListener::from_std(listener)
            .inspect_err(
                |error| warn!(target: "http", %error, "the listening socket cannot be used"),
            )
            .ok()
    });
    let usable: Vec<_> = usable.collect();
    if !usable.is_empty() {
        let site = http::Site::new(&settings, shared.clone(), gateway.clone());
        tokio::spawn(http::serve(usable, site));
    }
    if let Some(gateway) = gateway {
        tokio::spawn(waha::follow(gateway, shared.clone()));
    }
    if let Some(url) = settings.heartbeat.url.clone() {
        let every = settings.heartbeat.every;
        tokio::spawn(heartbeat::beat(client.clone(), url, every, shared.clone()));
    }
    tokio::spawn(observe::observe(settings.clone(), shared.clone()));
    let telling = webhook::tell(&client, &settings, &shared);
    tokio::pin!(telling);
    let limit = tokio::select! {
        () = &mut telling => return,
        limit = ended => limit.unwrap_or_else(|_| Instant::now()),
    };
    let all_told = async {
        while shared.ledger().untold().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = &mut telling => {}
        () = all_told => {}
        () = tokio::time::sleep_until(limit.into()) => {}
    }
}
