//! What machines poll. Open to all, so that it says how things stand and nothing that is secret.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::Site;
use crate::status::{CheckState, Checks, HealthVerdict, Status};
use sessionkeep_core::human::Timestamp;

/// 200 while all is well or on its way there, 503 with the reason else.
pub(super) async fn health(State(site): State<Site>) -> Response {
    let status = site.0.shared.read();
    let checks = Checks::of(&status);
    let code = match checks.verdict() {
        HealthVerdict::Unhealthy(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    (code, Json(told(&status, &checks))).into_response()
}

/// 200 for as long as this answers at all.
pub(super) async fn livez() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// 200 where the gateway can be used, 503 else.
pub(super) async fn readyz(State(site): State<Site>) -> Response {
    let status = site.0.shared.read();
    let checks = Checks::of(&status);
    let code = match checks.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(told(&status, &checks))).into_response()
}

fn told(status: &Status, checks: &Checks) -> Value {
    let database = match checks.store.status {
        CheckState::Off => "none",
        CheckState::Ok => "connected",
        CheckState::Waiting | CheckState::Warn => "connecting",
        CheckState::Fail => "disconnected",
    };
    json!({
        "status": checks.verdict().word(),
        "reason": checks.verdict().reason(),
        "component": "sessionkeep",
        "version": status.version,
        "timestamp": Timestamp(status.time_ms).to_string(),
        "state": status.state,
        "database": database,
        "store_reachable": status.store_reachable,
        "lag_seconds": status.lag_seconds,
        "checks": checks,
        "restore": status.restore,
        "data": {
            "sessions": {
                "count": status.sessions.len(),
                "total_size_bytes": status.bytes,
            },
        },
    })
}
