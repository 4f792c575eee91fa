//! Certificates for tests, made by the `openssl` command: a CA, what it signed, and what it did not.
//! And a TLS server that keeps what it was told.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// How to make a key of the kind that is quick to make.
const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// A CA.
pub(crate) struct Authority {
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let authority = Self { dir };
        let mut words = vec!["req", "-x509", "-days", "2", "-subj", "/CN=A test's CA"];
        words.extend(KEY);
        words.extend(["-addext", "keyUsage=critical,keyCertSign"]);
        words.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
        authority.openssl(&words);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file for `tlsCAFile`.
    pub(crate) fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    #[track_caller]
    fn openssl(&self, words: &[&str]) {
        let output = Command::new("openssl")
            .args(words)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("the `openssl` command: on Debian, apt install openssl");
        assert!(output.status.success(), "openssl {words:?}: {output:?}");
    }

    /// The key and certificate of a server, in one file, that this CA signed for `host` (`IP:…` or
    /// `DNS:…`).
    pub(crate) fn sign(&self, host: &str) -> PathBuf {
        let mut words = vec!["req", "-subj", "/CN=a server"];
        words.extend(KEY);
        words.extend(["-keyout", "server.key", "-out", "server.csr"]);
        self.openssl(&words);
        fs::write(self.path("names"), format!("subjectAltName={host}\n")).expect("write");
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.crt",
        ]);
        self.joined(host)
    }

    /// The same for a server that signed its certificate itself.
    pub(crate) fn self_signed(&self, host: &str) -> PathBuf {
        let name = format!("subjectAltName={host}");
        let mut words = vec!["req", "-x509", "-days", "2", "-subj", "/CN=a server"];
        words.extend(KEY);
        words.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
        words.extend(["-addext", &name]);
        words.extend(["-keyout", "server.key", "-out", "server.crt"]);
        self.openssl(&words);
        self.joined("self")
    }

    fn joined(&self, name: &str) -> PathBuf {
        let read = |name| fs::read(self.path(name)).expect("openssl has made it");
        let joined = self.path(&format!("{}.pem", name.replace(':', "-")));
        fs::write(&joined, [read("server.key"), read("server.crt")].concat()).expect("write");
        joined
    }
}

/// A server that speaks TLS, answers nothing, and keeps what it was told once TLS stood.
pub(crate) struct Listener {
    process: Child,
    port: u16,
    told: PathBuf,
    _dir: TempDir,
}

impl Listener {
    /// With the key and certificate in this file.
    pub(crate) fn start(pem: &Path, port: u16) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let told = dir.path().join("told");
        let process = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-accept",
                &format!("127.0.0.1:{port}"),
            ])
            .arg("-cert")
            .arg(pem)
            .arg("-key")
            .arg(pem)
            // It ends when its input does.
            .stdin(Stdio::piped())
            .stdout(File::create(&told).expect("create"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the `openssl` command");
        Self {
            process,
            port,
            told,
            _dir: dir,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it was told, decrypted.
    pub(crate) fn told(&self) -> Vec<u8> {
        fs::read(&self.told).expect("it is there")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
