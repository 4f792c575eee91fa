//! The QR code that a phone scans, fetched from WAHA when somebody looks at it.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Site;
use crate::integrations::waha::{NoPicture, SCAN};

/// The picture, while the session of that name waits for it to be scanned.
pub(super) async fn qr(State(site): State<Site>, Path(name): Path<String>) -> Response {
    let Some(waha) = &site.0.waha else {
        let words = "there is no WAHA here to ask for a QR code\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let status = site.0.shared.read();
    let waits = status
        .sessions
        .values()
        .any(|of| of.name == name && of.gateway_status.as_deref() == Some(SCAN));
    if !waits {
        let words = "no session of this name waits for a QR code to be scanned\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    }
    match waha.qr(&name).await {
        Ok((kind, picture)) => ([(header::CONTENT_TYPE, kind)], picture).into_response(),
        Err(error @ NoPicture::Unavailable(_)) => {
            (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response()
        }
        Err(error @ NoPicture::Key) => {
            (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response()
        }
    }
}
