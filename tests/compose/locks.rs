//! Images by digest: `make upgrade` asks a registry, a real one on this machine, and nothing else moves them.

use std::fs;

use crate::stack::Stack;
use crate::told::{case, until, yes};

#[test]
fn images_are_locked_to_what_upgrade_fetched() {
    let stack = Stack::new("locks");
    let registry = Registry::start(&stack);
    registry.push(&format!("mongo:{}", stack.get("MONGO_VERSION")));
    stack.set("MONGO_IMAGE", &registry.image());
    stack.make(&["up"]);
    assert_eq!(stack.get("MONGO_DIGEST"), "");

    let mut first = String::new();
    case(
        "make upgrade",
        "what the registry says that the tag stands for is in .env and in images.lock, and is what runs",
        || {
            stack.make(&["upgrade", "BACKUP=no"]);
            first = stack.get("MONGO_DIGEST");
            assert_eq!(
                first,
                format!("@{}", registry.digest(&stack.get("MONGO_VERSION")))
            );
            let lock = fs::read_to_string(stack.path("images.lock")).expect("a lock file");
            assert!(lock.contains(first.trim_start_matches('@')), "{lock}");
            let image = stack.container("mongodb").inspect(".Config.Image");
            assert!(image.to_string().contains(&first), "{image}");
        },
    );

    case(
        "a tag that was moved",
        "make up runs the image of before; make upgrade moves to the new one",
        || {
            registry.push_another();
            stack.make(&["up"]);
            let image = stack.container("mongodb").inspect(".Config.Image");
            assert!(image.to_string().contains(&first), "{image}");
            stack.make(&["upgrade", "BACKUP=no"]);
            let second = stack.get("MONGO_DIGEST");
            assert_ne!(second, first);
            let image = stack.container("mongodb").inspect(".Config.Image");
            assert!(image.to_string().contains(&second), "{image}");
        },
    );

    case(
        "another version in .env",
        "make up says that it does nothing before make upgrade",
        || {
            stack.set("MONGO_VERSION", "7.0.1");
            let said = stack.make(&["up"]);
            assert!(
                said.text().contains("make upgrade moves it"),
                "{}",
                said.text()
            );
        },
    );
}

/// A registry in a container of its own, on a port of this machine.
struct Registry<'a> {
    stack: &'a Stack,
    name: String,
    port: String,
}

impl<'a> Registry<'a> {
    fn start(stack: &'a Stack) -> Self {
        let name = format!("{}-registry", stack.project());
        let label = format!("com.docker.compose.project={}", stack.project());
        // With the project's label it is removed with the rest.
        stack.docker(&[
            "run",
            "-d",
            "--name",
            &name,
            "--label",
            &label,
            "-p",
            "127.0.0.1::5000",
            "registry:2",
        ]);
        let port = stack.docker(&["port", &name, "5000"]);
        let port = port
            .line()
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        Self { stack, name, port }
    }

    fn image(&self) -> String {
        format!("127.0.0.1:{}/mongo", self.port)
    }

    fn tagged(&self) -> String {
        format!("{}:{}", self.image(), self.stack.get("MONGO_VERSION"))
    }

    fn push(&self, image: &str) {
        self.stack.docker(&["tag", image, &self.tagged()]);
        until("the registry takes the image", || {
            yes(self.stack.try_docker(&["push", "-q", &self.tagged()]).code == 0)
        });
    }

    /// Moves the tag to an image that differs by a label.
    fn push_another(&self) {
        let container = format!("{}-other", self.name);
        let before = format!("mongo:{}", self.stack.get("MONGO_VERSION"));
        self.stack
            .docker(&["create", "--name", &container, &before]);
        let changed = self
            .stack
            .docker(&["commit", "-c", "LABEL other=yes", &container]);
        self.stack.docker(&["rm", "-v", &container]);
        self.push(changed.line());
    }

    /// What the registry itself says that the tag stands for.
    fn digest(&self, tag: &str) -> String {
        let image = format!("{}:{tag}", self.image());
        let said = self
            .stack
            .docker(&["buildx", "imagetools", "inspect", &image]);
        let line = said
            .out
            .lines()
            .find_map(|line| line.strip_prefix("Digest:"));
        line.expect("a digest").trim().to_owned()
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        self.stack.try_docker(&["rm", "-f", "-v", &self.name]);
        // By their names alone: one of them is the image that other stacks use under another.
        let format = "{{.Repository}}:{{.Tag}}";
        let args = ["image", "ls", "--format", format, &self.image()];
        for name in self.stack.try_docker(&args).out.lines() {
            self.stack.try_docker(&["rmi", "--no-prune", name]);
        }
    }
}
