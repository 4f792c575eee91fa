//! The dashboard: one page with its style and its script, from this program alone.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// Nothing but our own files, nothing inline, nowhere else.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn text(kind: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], content).into_response()
}

pub(super) async fn html() -> Response {
    text("text/html; charset=utf-8", include_str!("page/page.html"))
}

pub(super) async fn css() -> Response {
    text("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(super) async fn js() -> Response {
    text(
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    )
}

pub(super) async fn icon() -> Response {
    text("image/svg+xml", include_str!("page/icon.svg"))
}

/// The description of the JSON answers (OpenAPI 3.1).
pub(super) async fn openapi() -> Response {
    text("application/json", include_str!("page/openapi.json"))
}
