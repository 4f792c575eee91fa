//! One container of a stack.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::run::{Said, text};
use super::stack::Stack;
use super::told::{until, yes};

/// A container by its id: it stays the same one through stops and starts.
pub(crate) struct Container<'a> {
    pub(super) stack: &'a Stack,
    pub(crate) id: String,
}

impl Container<'_> {
    /// One field of `docker inspect`, for example `.State`.
    #[track_caller]
    pub(crate) fn inspect(&self, field: &str) -> Value {
        let format = format!("{{{{json {field}}}}}");
        let said = self
            .stack
            .docker(&["inspect", "--format", &format, &self.id]);
        serde_json::from_str(&said.out).expect("JSON of docker inspect")
    }

    /// Docker's word for its health.
    pub(crate) fn health(&self) -> String {
        text(&self.inspect(".State.Health.Status"))
    }

    /// What the last health check printed.
    pub(crate) fn health_said(&self) -> String {
        let log = self.inspect(".State.Health.Log");
        let last = log.as_array().and_then(|log| log.last());
        last.map(|check| text(&check["Output"])).unwrap_or_default()
    }

    /// Waits for Docker's word.
    #[track_caller]
    pub(crate) fn until_health(&self, word: &str) {
        until(&format!("the health is {word}"), || {
            yes(self.health() == word)
        });
    }

    /// The exit code of the last life.
    pub(crate) fn exit_code(&self) -> i64 {
        self.inspect(".State.ExitCode").as_i64().unwrap_or(-1)
    }

    /// When its process was started, as Docker writes it: another life has another one.
    pub(crate) fn started_at(&self) -> String {
        text(&self.inspect(".State.StartedAt"))
    }

    /// Everything logged in all its lives.
    pub(crate) fn logs(&self) -> String {
        self.stack.docker(&["logs", &self.id]).text()
    }

    /// A command inside, whatever comes of it.
    pub(crate) fn try_exec(&self, args: &[&str]) -> Said {
        let args: Vec<&str> = ["exec", self.id.as_str()]
            .iter()
            .chain(args)
            .copied()
            .collect();
        self.stack.try_docker(&args)
    }

    /// A command inside, which must succeed.
    #[track_caller]
    pub(crate) fn exec(&self, args: &[&str]) -> String {
        let said = self.try_exec(args);
        assert!(said.code == 0, "{args:?} inside: {}", said.text());
        said.out
    }

    /// What `sessionkeep status --json` tells of the running instance; `null` before it answers.
    pub(crate) fn status(&self) -> Value {
        let said = self.try_exec(&["sessionkeep", "status", "--json"]);
        let all: Value = serde_json::from_str(&said.out).unwrap_or_default();
        all["running"].clone()
    }

    /// What `sessionkeep health --json` tells, in good and bad times.
    pub(crate) fn told_health(&self) -> Value {
        let said = self.try_exec(&["sessionkeep", "health", "--json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// Waits until nothing waits to be committed.
    #[track_caller]
    pub(crate) fn until_saved(&self) {
        until("everything is saved", || {
            let status = self.status();
            let reachable = status["store_reachable"] == true;
            yes(reachable && status["lag_seconds"].as_f64() == Some(0.0))
        });
    }

    /// Waits until what the session holds now is committed, while it goes on changing.
    #[track_caller]
    pub(crate) fn until_committed(&self) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        until("what is there is committed", || {
            let newest = self.status()["head"]["time_ms"].as_u64()?;
            // Read before it was committed, and at most so long before.
            yes(Duration::from_millis(newest) > now + Duration::from_secs(1))
        });
    }

    /// `docker stop`, with the time that the container itself asks for.
    #[track_caller]
    pub(crate) fn stop(&self) -> Duration {
        self.stack.docker(&["stop", &self.id]).took
    }

    /// `docker kill -s KILL`: a crash.
    #[track_caller]
    pub(crate) fn kill(&self) {
        self.stack.docker(&["kill", "-s", "KILL", &self.id]);
    }

    /// `docker start`.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.stack.docker(&["start", &self.id]);
    }
}
