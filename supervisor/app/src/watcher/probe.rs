//! Asks the gateway whether it is up.

use std::time::Duration;

use http_body_util::Empty;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked until it has answered.
const STARTING_EVERY: Duration = Duration::from_millis(250);
/// How often it is asked from then on.
const RUNNING_EVERY: Duration = Duration::from_secs(10);

/// What the gateway said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether it answered.
    pub(super) up: bool,
    /// Whether that was the first time.
    pub(super) first: bool,
}

/// Asks again and again, in a task of its own: a gateway that is slow to answer holds nothing up.
/// Dropping it ends the asking.
#[derive(Debug)]
pub(super) struct Probe {
    answers: mpsc::Receiver<Answer>,
    task: JoinHandle<()>,
}

impl Probe {
    /// Begins to ask at `url`.
    #[must_use]
    pub(super) fn start(url: String) -> Self {
        let (send, answers) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut answered = false;
            loop {
                let up = is_up(&url).await;
                let first = up && !answered;
                answered |= up;
                if send.send(Answer { up, first }).await.is_err() {
                    return;
                }
                tokio::time::sleep(if answered {
                    RUNNING_EVERY
                } else {
                    STARTING_EVERY
                })
                .await;
            }
        });
        Self { answers, task }
    }

    /// The next answer.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the gateway answers at `url`. Any answer but a server's error is one: a 401 means that
/// it is up and wants a key.
async fn is_up(url: &str) -> bool {
    match tokio::time::timeout(PATIENCE, ask(url)).await {
        Ok(Ok(status)) => !status.is_server_error(),
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn ask(url: &str) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("the probe's URL names no host")?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(
            hyper::header::HOST,
            uri.authority().map_or("localhost", |a| a.as_str()),
        )
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())?;
    let status = sender
        .send_request(request)
        .await
        .map(|answer| answer.status());
    driver.abort();
    Ok(status?)
}
