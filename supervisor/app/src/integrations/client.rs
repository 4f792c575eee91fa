//! Asking others by HTTP and HTTPS: bounded in time and in size, without redirects.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// How long an answer may take, all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(20);

/// Why there is no answer. The words name no address: those of webhooks are secrets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address cannot be used.
    #[error("the address cannot be used")]
    Address,
    /// It took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The other side is not reached, or broke off.
    #[error("{0}")]
    Unreachable(String),
    /// It answered more than anybody wants.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its content.
    pub body: Bytes,
}

/// Asks. Cheap to clone; connections are shared.
#[derive(Debug, Clone)]
pub(crate) struct Client(
    hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
);

impl Client {
    /// One that trusts the CAs that browsers know.
    #[must_use]
    pub(crate) fn new() -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .build();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Self(client)
    }

    /// Asks `address`, and takes at most `max` bytes of content.
    ///
    /// # Errors
    /// [`ClientError`]; an answer of whatever code is none.
    pub(crate) async fn ask(
        &self,
        method: Method,
        address: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        max: usize,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(address)
            .body(Full::new(body))
            .map_err(|_| ClientError::Address)?;
        let agent = concat!("sessionkeep/", env!("CARGO_PKG_VERSION"));
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(agent));
        request.headers_mut().extend(headers);
        let asking = async {
            let answer = self.0.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                ClientError::Unreachable(cause.unwrap_or_else(|| error.to_string()))
            })?;
            let (head, body) = answer.into_parts();
            let collected = Limited::new(body, max).collect().await;
            let body = collected.map_err(|_| ClientError::TooLong(max))?.to_bytes();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientError::TimedOut),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}
