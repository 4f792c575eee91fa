//! The sidecar that is usually written: each file by itself into GridFS, watched and debounced.
//! It is the one of the benchmarks, which is written to be good at it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::io::AsyncWriteExt as _;
use mongodb::bson::{DateTime, Document, doc};

use super::keeper::{Tree, World};
use super::node;
use super::raw::on_mongo;

/// A directory, and a database that a sidecar keeps it in.
pub(crate) struct Sidecar {
    pub(crate) world: World,
}

impl Sidecar {
    pub(crate) fn new() -> Self {
        let world = World::mongo();
        fs::create_dir_all(world.dir()).expect("mkdir");
        Self { world }
    }

    /// Everything there is, once.
    pub(crate) fn upload(&self) {
        let done = self.command("upload", &self.world.dir()).status();
        assert!(done.expect("run node").success(), "the upload failed");
    }

    /// The same, and killed when some of the files are up, and some are not.
    pub(crate) fn cut_upload_off(&self, files: u64) {
        let new = doc! { "uploadDate": { "$gte": DateTime::now() } };
        let mut command = self.command("upload", &self.world.dir());
        let uploading = Running(command.env("CONCURRENCY", "1").spawn().expect("run node"));
        on_mongo(&self.world.url, async |database| {
            let bucket = database.collection::<Document>("fs.files");
            let up = async || {
                let count = bucket.count_documents(new.clone()).await;
                count.expect("answers")
            };
            while up().await < files / 20 {
                tokio::task::yield_now().await;
            }
        });
        drop(uploading);
    }

    /// By two sidecars, as from two containers.
    pub(crate) fn upload_twice_at_once(&self) {
        let begin = || self.command("upload", &self.world.dir()).spawn();
        let both = [begin(), begin()].map(|child| Running(child.expect("run node")));
        for mut one in both {
            one.0.wait().expect("it ends");
        }
    }

    /// A file under a name that no directory of ours gave it.
    pub(crate) fn store(&self, name: &str, content: &[u8]) {
        on_mongo(&self.world.url, async |database| {
            let bucket = database.gridfs_bucket(None);
            let mut sink = bucket.open_upload_stream(name).await.expect("a stream");
            sink.write_all(content).await.expect("write");
            sink.close().await.expect("close");
        });
    }

    /// Into an empty directory. Whether the sidecar was content with it, and what is there now.
    pub(crate) fn restore(&self) -> (bool, Tree) {
        let to = self.world.path("restored");
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).expect("mkdir");
        self.restore_into(&to)
    }

    /// Over whatever is there.
    pub(crate) fn restore_into(&self, to: &Path) -> (bool, Tree) {
        let done = self.command("restore", to).status().expect("run node");
        (done.success(), Tree::of(to))
    }

    /// From now on, in this directory; it has begun to watch when this returns.
    pub(crate) fn watch(&self, dir: &Path) -> Running {
        let mut running = self.begin_watch(dir);
        running.until_watching();
        running
    }

    /// The same, and has hardly been started when this returns.
    pub(crate) fn begin_watch(&self, dir: &Path) -> Running {
        let child = self.command("watch", dir).stdout(Stdio::piped()).spawn();
        Running(child.expect("run node"))
    }

    /// Under the start script that is usually written, with this gateway; as PID 1 of a container.
    pub(crate) fn container(&self, gateway: &str) -> Command {
        let words = ["sh", "-c", gateway];
        let mut command = node::start_script("start.sh", &self.world.url, &self.world.dir(), words);
        command.env("S", self.world.dir());
        command.env("P", self.world.path("."));
        command
    }

    /// One file, as the sidecar has it now.
    pub(crate) fn has(&self, name: &str) -> Option<Vec<u8>> {
        let (_, tree) = self.restore();
        tree.content(name).map(<[u8]>::to_vec)
    }

    /// Where [`Sidecar::restore`] restores to.
    pub(crate) fn restored(&self) -> PathBuf {
        self.world.path("restored")
    }

    fn command(&self, action: &str, dir: &Path) -> Command {
        let mut command = node::sidecar(&self.world.url, dir, action, 16);
        command
            .env("DEBOUNCE_MS", "200")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// A sidecar at work; killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn until_watching(&mut self) {
        let out = self.0.stdout.take().expect("a pipe");
        let line = BufReader::new(out).lines().next();
        assert_eq!(line.and_then(Result::ok).as_deref(), Some("watching"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
