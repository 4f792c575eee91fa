//! The link between a subject and the server: counted, and as long as one likes.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::proxy::{Mode, Proxy};
use crate::server::block_on;

/// A link to a server of this machine, on a thread of its own.
pub(crate) struct Link {
    port: u16,
    questions: Option<mpsc::UnboundedSender<oneshot::Sender<u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// A link whose round trip takes so long.
    pub(crate) fn start(server: u16, round_trip: Duration) -> Self {
        let (started, port) = std::sync::mpsc::channel();
        let (questions, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<u64>>();
        let thread = thread::spawn(move || {
            block_on(async {
                let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server))).await;
                if !round_trip.is_zero() {
                    proxy.set(Mode::Delay(round_trip / 2));
                }
                started.send(proxy.port()).expect("somebody waits");
                while let Some(answer) = asked.recv().await {
                    let _ = answer.send(proxy.requested());
                }
            });
        });
        Self {
            port: port.recv().expect("the proxy starts"),
            questions: Some(questions),
            thread: Some(thread),
        }
    }

    /// The address of a database behind it.
    pub(crate) fn url(&self, url: &str) -> String {
        let (_, database) = url.rsplit_once('/').expect("a database");
        format!("mongodb://127.0.0.1:{}/{database}", self.port)
    }

    /// How many bytes went to the server so far.
    pub(crate) fn sent(&self) -> u64 {
        let (ask, answer) = oneshot::channel();
        let questions = self.questions.as_ref().expect("it is open until dropped");
        questions.send(ask).expect("the proxy runs");
        answer.blocking_recv().expect("the proxy answers")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.questions.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
