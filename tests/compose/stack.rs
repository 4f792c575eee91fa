//! The shipped stack as a test subject: a copy of the repository's files, byte for byte, with an
//! `.env` of its own, under a project name of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::container::Container;
use super::gateway::Gateway;
use super::journal::{Journal, last};
use super::run::{self, Said};
use super::told::say;
use super::tree::{copy_tracked, repository};

/// For a command of Docker or Compose that has nothing to build.
const COMMAND: Duration = Duration::from_secs(180);
/// For building everything from nothing, the program included.
const BUILD: Duration = Duration::from_secs(1800);
/// How much of one command's output is told when a case fails.
const TOLD: usize = 6000;

/// One stack. Whatever is left of it when this is dropped is removed, and nothing else.
pub(crate) struct Stack {
    root: TempDir,
    project: String,
    journal: Mutex<Journal>,
}

/// The tag of the images that all stacks share; run.sh takes them away.
const TEST_TAG: &str = "sktest";

impl Stack {
    /// A stack that is ready for `up`: settings written by `make env`, image built.
    #[track_caller]
    pub(crate) fn new(case: &str) -> Self {
        let root = tempfile::Builder::new()
            .prefix(&format!("sessionkeep-{case}-"))
            .tempdir()
            .expect("make a directory");
        let stack = Self {
            root,
            project: format!("sktest-{case}-{}", std::process::id()),
            journal: Mutex::default(),
        };
        copy_tracked(&repository(), &stack.tree());
        stack.make(&["env"]);
        stack.set("COMPOSE_PROJECT_NAME", &stack.project);
        // Any free one; `docker compose port` tells which.
        stack.set("WAHA_PORT", "0");
        stack.set("DASHBOARD_PORT", "0");
        // What is built here must not pass for the user's own image.
        stack.set("IMAGE_TAG", TEST_TAG);
        // Where the original's name stands for the original, the stand-in has another one. And
        // these tests may be asked about another version of the database.
        for name in ["WAHA_IMAGE", "WAHA_VERSION", "MONGO_VERSION"] {
            if let Ok(value) = std::env::var(name) {
                stack.set(name, &value);
            }
        }
        stack.build_once();
        stack
    }

    /// The first stack builds the image for all: their files are the same.
    #[track_caller]
    fn build_once(&self) {
        static BUILT: OnceLock<()> = OnceLock::new();
        BUILT.get_or_init(|| {
            let begun = Instant::now();
            let said = self.run(self.command("docker").args(["compose", "build"]), BUILD);
            assert!(said.code == 0, "the image does not build:\n{}", said.text());
            say(&format!("built in {:.0} s", begun.elapsed().as_secs_f64()));
        });
    }

    /// Builds an image for this stack alone, which goes when what is returned is dropped.
    #[track_caller]
    pub(crate) fn build<'a>(&'a self, service: &str, image: &'a str) -> Tag<'a> {
        let said = self.run(
            self.command("docker").args(["compose", "build", service]),
            BUILD,
        );
        assert!(said.code == 0, "{image} does not build:\n{}", said.text());
        Tag {
            stack: self,
            name: image,
        }
    }

    /// From here on, this stack's images have a name of their own: for one that builds another
    /// image than the rest. It goes when what is returned is dropped.
    pub(crate) fn own_image<'a>(&'a self, name: &'a str) -> Tag<'a> {
        let (_, tag) = name.rsplit_once(':').expect("an image with a tag");
        self.set("IMAGE_TAG", tag);
        Tag { stack: self, name }
    }

    /// Gives an image another name, until what is returned is dropped.
    #[track_caller]
    pub(crate) fn tag<'a>(&'a self, image: &str, name: &'a str) -> Tag<'a> {
        self.docker(&["tag", image, name]);
        Tag { stack: self, name }
    }

    /// Where the copy of the repository is.
    pub(crate) fn tree(&self) -> PathBuf {
        self.root.path().join("tree")
    }

    /// A file of the copy.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.tree().join(name)
    }

    /// The project's name.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// A line of `.env`; empty where it is not set.
    pub(crate) fn get(&self, name: &str) -> String {
        settings(&self.env_text())
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default()
    }

    /// Sets a line of `.env`, as a user would with an editor: in place, or at the end.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let mut found = false;
        let mut text = String::new();
        for line in self.env_text().lines() {
            let is_it = line
                .split_once('=')
                .is_some_and(|(key, _)| key.trim() == name);
            if is_it && !found {
                found = true;
                let _ = writeln!(text, "{name}={value}");
            } else if !is_it {
                let _ = writeln!(text, "{line}");
            }
        }
        if !found {
            let _ = writeln!(text, "{name}={value}");
        }
        fs::write(self.path(".env"), text).expect("write .env");
    }

    fn env_text(&self) -> String {
        fs::read_to_string(self.path(".env")).expect("read .env, which `make env` wrote")
    }

    /// Adds an overlay to `COMPOSE_FILE`: one that is shipped.
    pub(crate) fn add(&self, overlay: &str) {
        let files = self.get("COMPOSE_FILE");
        let files = if files.is_empty() {
            "docker-compose.yml".to_owned()
        } else {
            files
        };
        self.set("COMPOSE_FILE", &format!("{files}:{overlay}"));
    }

    /// Adds an overlay that a user wrote.
    pub(crate) fn overlay(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("write an overlay");
        self.add(name);
    }

    /// Takes overlays away again.
    pub(crate) fn only(&self, files: &str) {
        self.set("COMPOSE_FILE", files);
    }

    /// A command in the copy. Nothing of the environment reaches it that could change what Compose
    /// reads from `.env`.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.tree()).env_clear();
        for name in [
            "PATH",
            "HOME",
            "XDG_RUNTIME_DIR",
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "DOCKER_CONFIG",
            "DOCKER_BUILDKIT",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs a command and keeps what it said for the case that this test fails.
    #[track_caller]
    fn run(&self, command: &mut Command, limit: Duration) -> Said {
        let said = run::run(command, limit);
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let entry = format!(
            "$ {} {}\n{}  = {}",
            command.get_program().to_string_lossy(),
            args.join(" "),
            last(&said.text(), TOLD),
            said.code,
        );
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(entry, said.took);
        said
    }

    /// `docker …`, whatever comes of it.
    #[track_caller]
    pub(crate) fn try_docker(&self, args: &[&str]) -> Said {
        self.run(self.command("docker").args(args), COMMAND)
    }

    /// `docker …`, which must succeed.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> Said {
        succeeded("docker", args, self.try_docker(args))
    }

    /// `docker compose …`, whatever comes of it.
    #[track_caller]
    pub(crate) fn try_compose(&self, args: &[&str]) -> Said {
        let plain = ["compose", "--ansi", "never"];
        let args: Vec<&str> = plain.iter().chain(args).copied().collect();
        self.try_docker(&args)
    }

    /// `docker compose …`, which must succeed.
    #[track_caller]
    pub(crate) fn compose(&self, args: &[&str]) -> Said {
        succeeded("docker compose", args, self.try_compose(args))
    }

    /// `make …`, whatever comes of it.
    #[track_caller]
    pub(crate) fn try_make(&self, args: &[&str]) -> Said {
        self.run(
            self.command("make").arg("--no-print-directory").args(args),
            BUILD,
        )
    }

    /// `make …`, which must succeed.
    #[track_caller]
    pub(crate) fn make(&self, args: &[&str]) -> Said {
        succeeded("make", args, self.try_make(args))
    }

    /// What the merged files come to.
    #[track_caller]
    pub(crate) fn config(&self) -> Value {
        let said = self.compose(&["config", "--format", "json"]);
        serde_json::from_str(&said.out).expect("the configuration as JSON")
    }

    /// `docker compose up -d` for everything, or for some services.
    #[track_caller]
    pub(crate) fn up(&self, services: &[&str]) {
        let args: Vec<&str> = ["up", "-d"].iter().chain(services).copied().collect();
        self.compose(&args);
    }

    /// `docker compose down`. What was logged until then must hold no secret.
    #[track_caller]
    pub(crate) fn down(&self) {
        self.tells_no_secret();
        self.compose(&["down"]);
    }

    /// The container of a service, running or not.
    #[track_caller]
    pub(crate) fn container(&self, service: &str) -> Container<'_> {
        let said = self.compose(&["ps", "-a", "-q", service]);
        let id = said.line();
        assert!(
            !id.is_empty() && !id.contains('\n'),
            "there is not one container of {service}, but: {id:?}"
        );
        Container {
            stack: self,
            id: id.to_owned(),
        }
    }

    /// The service `waha`.
    #[track_caller]
    pub(crate) fn waha(&self) -> Container<'_> {
        self.container("waha")
    }

    /// The gateway in the service `waha`, by its published port.
    #[track_caller]
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::new(self.port_of("waha"), self.get("WAHA_API_KEY"))
    }

    /// Where the gateway's port is published; it may change when the container is started again.
    #[track_caller]
    pub(crate) fn port_of(&self, service: &str) -> u16 {
        let said = self.compose(&["port", service, "3000"]);
        let port = said.line().rsplit(':').next();
        port.and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("no port in {:?}", said.line()))
    }

    /// What a user reads in `docker compose logs`.
    #[track_caller]
    pub(crate) fn logs(&self, service: &str) -> String {
        self.compose(&["logs", "--no-color", "--no-log-prefix", service])
            .text()
    }

    /// Asks the database as its administrator; what the script prints.
    #[track_caller]
    pub(crate) fn mongo(&self, script: &str) -> String {
        let said = self.try_mongo_as_root(script);
        assert!(said.code == 0, "mongosh: {}", said.text());
        said.line().to_owned()
    }

    /// The same, whatever comes of it.
    #[track_caller]
    pub(crate) fn try_mongo_as_root(&self, script: &str) -> Said {
        self.try_mongo("MONGO_INITDB_ROOT", script)
    }

    /// The same as the application's user, whatever comes of it.
    #[track_caller]
    pub(crate) fn try_mongo_as_app(&self, script: &str) -> Said {
        self.try_mongo("MONGO_APP", script)
    }

    /// The names of the variables with user and password begin with `who`; they are read inside the
    /// container, so that no password is in an argument here.
    fn try_mongo(&self, who: &str, script: &str) -> Said {
        let shell = format!(
            "exec mongosh --quiet --norc --authenticationDatabase admin \
             -u \"${who}_USERNAME\" -p \"${who}_PASSWORD\" \"$MONGO_DATABASE\" --eval \"$0\""
        );
        self.try_compose(&["exec", "-T", "mongodb", "sh", "-c", &shell, script])
    }

    /// Makes a container host's wipe: `./session` is gone.
    #[track_caller]
    pub(crate) fn wipe(&self, dir: &str) {
        self.remove(dir);
        assert!(!self.path(dir).exists(), "{dir} is still there");
    }

    fn remove(&self, dir: &str) {
        if fs::remove_dir_all(self.path(dir)).is_ok() || !self.path(dir).exists() {
            return;
        }
        // Written by root in a container, and this test is not root: so a container removes it.
        let mount = format!("{}:/tree", self.tree().display());
        let inside = format!("/tree/{dir}");
        let image = format!("mongo:{}", self.get("MONGO_VERSION"));
        let alone = ["run", "--rm", "--network", "none", "--entrypoint", "rm"];
        let rest = ["-v", mount.as_str(), image.as_str(), "-rf", inside.as_str()];
        let args: Vec<&str> = alone.iter().chain(&rest).copied().collect();
        self.try_docker(&args);
    }

    /// What must never be told.
    fn secrets(&self) -> Vec<String> {
        let Ok(text) = fs::read_to_string(self.path(".env")) else {
            return Vec::new();
        };
        settings(&text)
            .filter(|(name, value)| {
                let secret = ["PASSWORD", "KEY", "TOKEN"];
                secret.iter().any(|word| name.ends_with(word)) && value.len() > 7
            })
            .map(|(_, value)| value.to_owned())
            .collect()
    }

    /// No generated secret is in any container's log.
    #[track_caller]
    pub(crate) fn tells_no_secret(&self) {
        let logs = self.try_compose(&["logs", "--no-color"]).text();
        if let Some(told) = self.secret_in(&logs) {
            panic!("the logs tell the value of {told}");
        }
    }

    /// The name of a setting whose secret value is in `text`.
    pub(crate) fn secret_in(&self, text: &str) -> Option<String> {
        settings(&self.env_text())
            .filter(|(_, value)| self.secrets().iter().any(|secret| secret == value))
            .find(|(_, value)| text.contains(value))
            .map(|(name, _)| name.to_owned())
    }

    /// Everything with the project's label.
    fn clean_up(&self) {
        let label = format!("label=com.docker.compose.project={}", self.project);
        for (list, remove) in [
            (&["ps", "-aq"][..], &["rm", "-f", "-v"][..]),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["volume", "ls", "-q"], &["volume", "rm", "-f"]),
        ] {
            let filter = ["--filter", label.as_str()];
            let listed: Vec<&str> = list.iter().chain(&filter).copied().collect();
            let found = self.try_docker(&listed).out;
            if !found.trim().is_empty() {
                let gone: Vec<&str> = remove
                    .iter()
                    .copied()
                    .chain(found.split_whitespace())
                    .collect();
                self.try_docker(&gone);
            }
        }
        // What a container made belongs to root, and a test need not be.
        for entry in fs::read_dir(self.tree()).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                self.remove(&entry.file_name().to_string_lossy());
            }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let logs = self
            .try_compose(&["logs", "--no-color", "--timestamps"])
            .text();
        let told = self.secret_in(&logs);
        if failed {
            self.try_compose(&["ps", "-a"]);
        }
        self.clean_up();
        if failed {
            let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let mut text = format!(
                "---- {}: what was run ----\n{journal}\n---- logs ----\n{}",
                self.project,
                last(&without_small_talk(&logs), 10 * TOLD)
            );
            for secret in self.secrets() {
                text = text.replace(&secret, "***");
            }
            say(&text);
        } else if let Some(told) = told {
            panic!("the logs tell the value of {told}");
        }
    }
}

/// The name of an image that is taken away again.
pub(crate) struct Tag<'a> {
    stack: &'a Stack,
    name: &'a str,
}

impl Drop for Tag<'_> {
    fn drop(&mut self) {
        // With `-f`, since a container may still be there.
        self.stack.try_docker(&["rmi", "-f", self.name]);
    }
}

/// The settings in the text of an `.env` file.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
}

#[track_caller]
fn succeeded(what: &str, args: &[&str], said: Said) -> Said {
    assert!(
        said.code == 0,
        "{what} {args:?} ended with {}:\n{}",
        said.code,
        last(&said.text(), TOLD)
    );
    said
}

/// Without what MongoDB tells of every connection.
fn without_small_talk(logs: &str) -> String {
    logs.lines()
        .filter(|line| !line.contains("\"s\":\"I\""))
        .fold(String::new(), |text, line| text + line + "\n")
}
