//! Server-sent events for the dashboard (the `EventSource` of the HTML standard): the status, whenever it
//! has changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Site;
use crate::status::Shared;

/// How often the status is looked at while somebody watches.
const EVERY: Duration = Duration::from_secs(1);
/// So many watch at a time.
const SEATS: usize = 32;
/// A line now and then, so that whatever is in between does not take the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Seats(Arc<Semaphore>);

impl Default for Seats {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SEATS)))
    }
}

struct Watching {
    shared: Shared,
    /// What was sent last, apart from the time.
    sent: Option<blake3::Hash>,
    _seat: OwnedSemaphorePermit,
}

pub(super) async fn events(State(site): State<Site>) -> Response {
    let Ok(seat) = site.0.live.0.clone().try_acquire_owned() else {
        let words = "too many are watching already\n";
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    let watching = Watching {
        shared: site.0.shared.clone(),
        sent: None,
        _seat: seat,
    };
    // It is asked for the next event only when the last one is on its way: who reads slowly gets
    // fewer, and nothing piles up.
    let events = stream::unfold(watching, |mut watching| async move {
        if watching.sent.is_some() {
            tokio::time::sleep(EVERY).await;
        }
        loop {
            let mut status = watching.shared.read();
            let json = serde_json::to_vec(&status).expect("it has string keys only");
            status.time_ms = 0;
            let apart = serde_json::to_vec(&status).expect("it has string keys only");
            let hash = blake3::hash(&apart);
            if watching.sent.replace(hash) != Some(hash) {
                let text = String::from_utf8(json).expect("JSON is text");
                let event = Event::default().event("status").data(text);
                return Some((Ok::<_, Infallible>(event), watching));
            }
            tokio::time::sleep(EVERY).await;
        }
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}
