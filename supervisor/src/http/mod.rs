//! Health and status over HTTP, on the socket that init holds and its children answer.

use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tracing::warn;

use crate::config::Secret;
use crate::control::Lifecycle;
use crate::watcher::status::{Shared, Status};

/// With changes waiting for longer than this, the state is not healthy.
const LAG_MAX_SECONDS: f64 = 60.0;

#[derive(Clone)]
struct Served {
    shared: Shared,
    token: Option<Secret>,
}

/// Answers on the inherited socket until the runtime ends.
///
/// # Errors
/// If the descriptor is no listening socket.
pub fn serve(socket: OwnedFd, shared: Shared, token: Option<Secret>) -> std::io::Result<()> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let app = Router::new()
        .route("/health", get(health))
        .route("/status", get(status))
        .with_state(Served { shared, token });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            warn!(target: "http", %error, "no longer answering");
        }
    });
    Ok(())
}

/// Whether all is well, and if not, why.
///
/// # Errors
/// What is wrong, in words.
pub fn verdict(status: &Status) -> Result<&'static str, String> {
    match status.state {
        Lifecycle::Fenced => return Err("another instance took the session over".into()),
        Lifecycle::Standby => return Ok("standby"),
        Lifecycle::Preflight | Lifecycle::Restoring => return Ok("starting"),
        _ => {}
    }
    if status.lag_seconds > LAG_MAX_SECONDS {
        return Err(format!(
            "changes have been waiting to be saved for {:.0} s; {}",
            status.lag_seconds, status.problem
        ));
    }
    if status.state == Lifecycle::Running && status.gateway_answers == Some(false) {
        return Err("the gateway does not answer".into());
    }
    Ok(if status.state == Lifecycle::Starting {
        "starting"
    } else {
        "ok"
    })
}

async fn health(State(served): State<Served>) -> Response {
    let status = served.shared.read();
    let (code, word, reason) = match verdict(&status) {
        Ok(word) => (StatusCode::OK, word, String::new()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", reason),
    };
    let body = json!({
        "status": word,
        "reason": reason,
        "state": status.state,
        "store_reachable": status.store_reachable,
        "lag_seconds": status.lag_seconds,
    });
    (code, Json(body)).into_response()
}

async fn status(State(served): State<Served>, headers: HeaderMap) -> Response {
    if let Some(token) = &served.token
        && !presents(&headers, token)
    {
        let advice = "present the token: Authorization: Bearer ADMIN_TOKEN\n";
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            advice,
        )
            .into_response();
    }
    Json(served.shared.read()).into_response()
}

/// Compared by hash, so that the time it takes tells nothing about the token.
fn presents(headers: &HeaderMap, token: &Secret) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|given| {
            blake3::hash(given.as_bytes()) == blake3::hash(token.expose().as_bytes())
        })
}
