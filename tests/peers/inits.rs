//! The inits, and how each is put before a command.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::built;
use super::verdict::Miss;

/// An init under trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Init {
    /// `sessionkeep run` without a store: its watcher and its session directory are there.
    FileMode,
    /// `sessionkeep run --init-only`.
    Plain,
    Tini,
    TiniGroup,
    Dumb,
    Catatonit,
    /// `s6-svscan` with one service. Its service directory is written for each trial.
    S6,
    /// `broken_init` with this fault.
    Broken(&'static str),
}

/// What an init can be asked for, each in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    MapExit {
        from: u8,
        to: u8,
    },
    /// By number; 0 drops the signal.
    Rewrite {
        from: i32,
        to: i32,
    },
    Group,
    WarnOnReap,
    /// To adopt orphans without being PID 1.
    Subreaper,
    /// To get TERM when the parent dies.
    ParentDeath,
}

/// How long a stop may take, of which how much is kept for saving.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) total: Duration,
    pub(crate) flush: Duration,
}

impl Init {
    /// Ours.
    pub(crate) fn ours() -> Vec<Self> {
        let mut ours = vec![Self::FileMode];
        if our_help().contains("--init-only") {
            ours.push(Self::Plain);
        }
        ours
    }

    /// The others, as far as they are installed.
    pub(crate) fn peers() -> Vec<Self> {
        let all = [
            Self::Tini,
            Self::TiniGroup,
            Self::Dumb,
            Self::Catatonit,
            Self::S6,
        ];
        all.into_iter().filter(|init| init.is_installed()).collect()
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::FileMode | Self::Plain)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FileMode => "sessionkeep",
            Self::Plain => "sessionkeep --init-only",
            Self::Tini => "tini",
            Self::TiniGroup => "tini -g",
            Self::Dumb => "dumb-init",
            Self::Catatonit => "catatonit",
            Self::S6 => "s6",
            Self::Broken(fault) => fault,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::FileMode | Self::Plain => env!("CARGO_BIN_EXE_sessionkeep"),
            Self::Tini | Self::TiniGroup => "tini",
            Self::Dumb => "dumb-init",
            Self::Catatonit => "catatonit",
            Self::S6 => "s6-svscan",
            Self::Broken(_) => "broken_init",
        }
    }

    fn is_installed(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(self.program()).is_file())
    }

    /// What was tried, for the table.
    pub(crate) fn version(self) -> String {
        match self {
            Self::FileMode => concat!("sessionkeep ", env!("CARGO_PKG_VERSION")).to_owned(),
            Self::Plain | Self::TiniGroup => String::new(),
            Self::Broken(fault) => fault.to_owned(),
            Self::Tini | Self::Dumb | Self::Catatonit | Self::S6 => {
                let package = if self == Self::S6 {
                    "s6"
                } else {
                    self.program()
                };
                let asked = Command::new("dpkg-query")
                    .args(["--show", "--showformat", "${Version}", package])
                    .output();
                let version = asked.map(|answer| answer.stdout).unwrap_or_default();
                format!("{package} {}", String::from_utf8_lossy(&version))
            }
        }
    }

    /// How long it is waited for that something happens. Ours must do it, however slow the
    /// machine is; of the others most waits that end here are for what they never do.
    pub(crate) fn patience(self) -> Duration {
        Duration::from_secs(if self.is_ours() { 30 } else { 6 })
    }

    /// The command line that runs `command` under this init. `scratch` is a directory for what it
    /// needs besides, and `directory` the one that the command starts in.
    pub(crate) fn before(
        self,
        command: &[OsString],
        options: &[Ask],
        budget: Budget,
        scratch: &Path,
        directory: &Path,
    ) -> Result<Vec<OsString>, Miss> {
        if self == Self::S6 {
            if !options.is_empty() {
                return Err(Miss::NotApplicable("it has no such option"));
            }
            return Ok(s6(command, budget, scratch, directory));
        }
        let mut line: Vec<OsString> = match self {
            Self::Broken(_) => vec![built::example(self.program()).into()],
            _ => vec![self.program().into()],
        };
        match self {
            Self::FileMode | Self::Plain => line.push("run".into()),
            Self::TiniGroup => line.push("-g".into()),
            Self::Broken(fault) => line.push(fault.into()),
            _ => {}
        }
        for option in options {
            line.extend(self.spell(*option)?.into_iter().map(OsString::from));
        }
        if self.is_ours() {
            let level = if options.contains(&Ask::WarnOnReap) {
                "warn"
            } else {
                "error"
            };
            line.extend(["--log-level", level].map(OsString::from));
            for (key, span) in [("total", budget.total), ("flush", budget.flush)] {
                line.push("--set".into());
                line.push(format!("stop.{key}={}ms", span.as_millis()).into());
            }
        }
        match self {
            Self::FileMode => {
                let session = scratch.join("session");
                line.extend(["--store", "none", "--profile", "generic"].map(OsString::from));
                line.extend(["--set", "http.port=off", "--dir"].map(OsString::from));
                line.push(session.into());
            }
            Self::Plain => line.push("--init-only".into()),
            _ => {}
        }
        if !matches!(self, Self::Broken(_)) {
            line.push("--".into());
        }
        line.extend(command.iter().cloned());
        Ok(line)
    }

    fn spell(self, option: Ask) -> Result<Vec<String>, Miss> {
        let words: Option<Vec<String>> = match (self, option) {
            (Self::FileMode | Self::Plain, _) => Some(match option {
                Ask::MapExit { from, to } => vec!["--map-exit".into(), format!("{from}={to}")],
                Ask::Rewrite { from, to } => vec!["--rewrite".into(), format!("{from}={to}")],
                Ask::Group => vec!["--signal-group".into()],
                Ask::WarnOnReap => vec!["--warn-on-reap".into()],
                Ask::Subreaper => vec![],
                Ask::ParentDeath => vec!["--pdeathsig".into(), "TERM".into()],
            }),
            (Self::Tini | Self::TiniGroup, _) => match option {
                Ask::MapExit { from, to: 0 } => Some(vec!["-e".into(), from.to_string()]),
                Ask::MapExit { .. } | Ask::Rewrite { .. } => None,
                Ask::Group => Some(vec!["-g".into()]),
                Ask::WarnOnReap => Some(vec!["-w".into()]),
                Ask::Subreaper => Some(vec!["-s".into()]),
                Ask::ParentDeath => Some(vec!["-p".into(), "SIGTERM".into()]),
            },
            (Self::Dumb, Ask::Rewrite { from, to }) => {
                Some(vec!["-r".into(), format!("{from}:{to}")])
            }
            (Self::Dumb, Ask::Group) => Some(vec![]),
            (Self::Catatonit, Ask::Group) => Some(vec!["-g".into()]),
            _ => None,
        };
        let words = words.ok_or(Miss::NotApplicable("it has no such option"))?;
        if self.is_ours()
            && let Some(flag) = words.first()
            && !our_help().contains(flag.as_str())
        {
            return Err(Miss::Fails(format!("there is no {flag} yet")));
        }
        Ok(words)
    }
}

fn our_help() -> &'static str {
    static HELP: OnceLock<String> = OnceLock::new();
    HELP.get_or_init(|| {
        let asked = Command::new(env!("CARGO_BIN_EXE_sessionkeep"))
            .args(["run", "--help"])
            .output()
            .expect("it was built");
        String::from_utf8_lossy(&asked.stdout).into_owned()
    })
}

/// A scan directory with one service, the usual way to run a container's one command under s6:
/// the service's end ends the scan with its code, signals that s6 can divert are diverted to it.
fn s6(command: &[OsString], budget: Budget, scratch: &Path, directory: &Path) -> Vec<OsString> {
    let scan = scratch.join("s6");
    let service = scan.join("main");
    let own = scan.join(".s6-svscan");
    for dir in [&service, &own] {
        fs::create_dir_all(dir).expect("create");
    }
    let at = scan.display();
    let mut run = b"#!/bin/sh\ncd ".to_vec();
    run.extend(quoted(directory.as_os_str()));
    run.extend(b"\nexec");
    for word in command {
        run.push(b' ');
        run.extend(quoted(word));
    }
    run.push(b'\n');
    let kill = budget.total.saturating_sub(budget.flush).as_millis();
    fs::write(service.join("timeout-kill"), format!("{kill}\n")).expect("write");
    script(&service.join("run"), &run);
    let finish = format!(
        "#!/bin/sh\ncode=$1\n[ \"$1\" != 256 ] || code=$((128 + $2))\necho $code > {at}/code\nexec s6-svscanctl -t {at}\n"
    );
    script(&service.join("finish"), finish.as_bytes());
    let last = format!("#!/bin/sh\nexit $(cat {at}/code)\n");
    script(&own.join("finish"), last.as_bytes());
    for (signal, letter) in [
        ("HUP", 'h'),
        ("INT", 'i'),
        ("QUIT", 'q'),
        ("USR1", '1'),
        ("USR2", '2'),
        ("WINCH", 'y'),
    ] {
        let divert = format!("#!/bin/sh\nexec s6-svc -{letter} {at}/main\n");
        script(&own.join(format!("SIG{signal}")), divert.as_bytes());
    }
    vec!["s6-svscan".into(), "-t0".into(), scan.into()]
}

fn script(path: &Path, text: &[u8]) {
    fs::write(path, text).expect("write");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A word as a shell reads it back, byte for byte.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend(br"'\''"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    out
}

/// Words from anything.
pub(crate) fn words<W: AsRef<OsStr>>(line: &[W]) -> Vec<OsString> {
    let own = |word: &W| OsString::from_vec(word.as_ref().as_bytes().to_vec());
    line.iter().map(own).collect()
}

/// The program that stands for a container's main process.
pub(crate) fn subject() -> PathBuf {
    built::example("init_subject")
}
