//! Accepts connections, and keeps slow and idle ones from taking the place of others.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{Site, router};

/// So many connections are kept; for one more, the oldest ends. A request takes less than a millisecond,
/// so that the oldest is one that waits, is slow, or watches (and then comes again).
const CONNECTIONS: usize = 256;
/// How long a request may take to arrive.
const HEADER: Duration = Duration::from_secs(10);
/// How much of it.
const HEADER_MAX: usize = 16 << 10;
/// After a failure to accept, which is nearly always a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on these sockets for as long as it runs. They share one bound on the number of connections.
pub(crate) async fn serve(listeners: Vec<TcpListener>, site: Site) {
    let app = router(&site);
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    let mut failing = false;
    loop {
        let (stream, from) = match accept(&listeners).await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !failing {
                    warn!(target: "http", %error, "cannot accept; retrying");
                }
                failing = true;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        failing = false;
        if connections.len() >= CONNECTIONS {
            connections.retain(|one| !one.is_finished());
        }
        if connections.len() >= CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let task = tokio::spawn(connection(stream, from, app.clone()));
        connections.push_back(task.abort_handle());
    }
}

/// The next connection on any of them.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        listeners
            .iter()
            .map(|listener| listener.poll_accept(context))
            .find(Poll::is_ready)
            .unwrap_or(Poll::Pending)
    })
    .await
}

async fn connection(stream: TcpStream, from: SocketAddr, app: axum::Router) {
    // Answers are small, and not to wait for more.
    let _ = stream.set_nodelay(true);
    let app = app.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        request.map(axum::body::Body::new)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await;
    if let Err(error) = served {
        debug!(target: "http", %error, "a connection ended early");
    }
}
