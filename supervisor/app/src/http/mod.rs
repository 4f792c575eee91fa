//! The pages: health, status, metrics, and the dashboard, on the socket that init holds.
//!
//! | path | for | open to all |
//! |---|---|---|
//! | `/health`, `/livez`, `/readyz` | whoever polls: Docker, hosts, Kubernetes | yes |
//! | `/status`, `/history` | JSON with everything there is to know | |
//! | `/metrics` | Prometheus | |
//! | `/` with `/page.css`, `/page.js`, `/events` | a person | |
//! | `/sessions/{name}/qr` | the QR code to scan | |
//! | `/openapi.json` | tools | |
//!
//! Requests only read. Nothing here waits for a commit, and no commit for anything here.

mod access;
mod client;
mod health;
mod live;
mod metrics;
mod page;
mod qr;
mod server;
mod tries;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;

use crate::config::Settings;
use crate::integrations::waha::Waha;
use crate::status::Shared;

use access::Access;
pub(crate) use server::serve;

/// What requests are answered from.
#[derive(Debug, Clone)]
pub(crate) struct Site(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    access: Access,
    waha: Option<Waha>,
    registry: prometheus_client::registry::Registry,
    live: live::Seats,
}

impl Site {
    /// Of these settings; `waha` is asked for QR codes.
    #[must_use]
    pub(crate) fn new(settings: &Settings, shared: Shared, waha: Option<Waha>) -> Self {
        Self(Arc::new(Inner {
            access: Access::new(&settings.http, shared.clone()),
            registry: metrics::registry(&shared),
            shared,
            waha,
            live: live::Seats::default(),
        }))
    }
}

/// All paths.
fn router(site: &Site) -> Router {
    let closed = Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/icon.svg", get(page::icon))
        .route("/openapi.json", get(page::openapi))
        .route("/status", get(status))
        .route("/history", get(history))
        .route("/events", get(live::events))
        .route("/metrics", get(metrics::metrics))
        .route("/sessions/{name}/qr", get(qr::qr))
        .route_layer(middleware::from_fn_with_state(site.clone(), access::guard));
    Router::new()
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .merge(closed)
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(site.clone(), finish))
        .with_state(site.clone())
}

async fn status(State(site): State<Site>) -> Response {
    Json(site.0.shared.read()).into_response()
}

async fn history(State(site): State<Site>) -> Response {
    Json(serde_json::json!({ "samples": site.0.shared.history() })).into_response()
}

async fn nothing_here() -> Response {
    let words = "nothing is here; see / for the dashboard, /health and /status for JSON\n";
    (axum::http::StatusCode::NOT_FOUND, words).into_response()
}

/// What every answer has: nothing of it is kept by a browser or a proxy, or shown inside of another
/// page, and it is counted.
async fn finish(
    State(site): State<Site>,
    request: axum::extract::Request,
    next: middleware::Next,
) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut put = |name, value| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    put(header::CACHE_CONTROL, "no-store");
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::X_FRAME_OPTIONS, "DENY");
    put(header::REFERRER_POLICY, "no-referrer");
    put(header::CONTENT_SECURITY_POLICY, page::POLICY);
    site.0.shared.meters().answered(response.status().as_u16());
    response
}
