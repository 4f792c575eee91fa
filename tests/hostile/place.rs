//! What the attacks share: a session directory of another user's, files that only root may read
//! beside it, and what must be so when the attack is over.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::built;
use super::keeper::{Ended, Life, Setup, World};

/// For how long each attack is tried. The tests run side by side.
pub(crate) const TRIES_FOR: Duration = Duration::from_secs(30);
/// The attacker's user and group: nobody's else.
pub(crate) const ATTACKER: u32 = 4321;
/// What no commit may hold.
const SECRET: &str = "only root may read this";

/// Where an attack takes place.
pub(crate) struct Place {
    pub(crate) world: World,
}

impl Place {
    /// `None`, and a word, where the test does not run as root: then there is no other user.
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: it takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            crate::policy::cannot_run("there is no other user to attack with: it is not root");
            return None;
        }
        let world = World::sqlite();
        // Others may pass through, and not read.
        set_mode(&world.path(""), 0o711);
        fs::create_dir(world.dir()).expect("make the session directory");
        chown(world.dir(), Some(ATTACKER), Some(ATTACKER)).expect("give it away");
        let place = Self { world };
        let secrets = place.secrets();
        fs::create_dir(&secrets).expect("make a directory");
        set_mode(&secrets, 0o700);
        for name in ["secret", "program", "creds.json"] {
            fs::write(secrets.join(name), SECRET).expect("write");
            set_mode(&secrets.join(name), 0o600);
        }
        Some(place)
    }

    /// A directory that only root may look into, with files that only root may read.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.world.path("secrets")
    }

    /// Prepares a life whose gateway is the attacker, as another user. `arguments` follow after the
    /// session directory.
    pub(crate) fn attacked_by(&self, attack: &str, arguments: &[&Path]) -> Setup<'_> {
        let dir = self.world.dir();
        let attacker = built::example("attacker");
        let seconds = TRIES_FOR.as_secs().to_string();
        let mut command: Vec<String> = as_attacker();
        command.extend([text(&attacker), attack.to_owned(), seconds, text(&dir)]);
        command.extend(arguments.iter().map(|path| text(path)));
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.world.gateway(&words)
    }

    /// Waits until the attack is over, and says how often the attacker had it its way.
    #[track_caller]
    pub(crate) fn achieved(&self, life: &mut Life) -> u64 {
        score(life)
    }

    /// What only root may read is as it was, in content, mode and owner.
    #[track_caller]
    pub(crate) fn secrets_are_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.secrets())
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["creds.json", "program", "secret"]);
        assert_eq!(mode(&self.secrets()), 0o700);
        for name in names {
            let path = self.secrets().join(name);
            let meta = fs::symlink_metadata(&path).expect("it is there");
            assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", path.display());
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            assert_eq!(fs::read_to_string(&path).expect("it is text"), SECRET);
        }
    }

    /// Every commit is whole, can be restored, and holds nothing that only root may read.
    #[track_caller]
    pub(crate) fn commits_are_clean(&self) {
        let verified = self.world.command(&["verify", "--all"]);
        assert!(verified.status.success(), "{verified:?}");
        for seq in self.world.changes() {
            let to = self.world.path(&format!("commit-{seq}"));
            let seq = seq.to_string();
            let restored =
                self.world
                    .command(&["restore", "--seq", &seq, "--to", to.to_str().expect("text")]);
            assert!(restored.status.success(), "commit {seq}: {restored:?}");
            assert!(
                !holds_secret(&to),
                "commit {seq} holds what only root may read"
            );
            fs::remove_dir_all(to).expect("remove the copy");
        }
    }

    /// All of the above, once the life has ended.
    #[track_caller]
    pub(crate) fn withstood(&self, ended: &Ended) {
        self.secrets_are_untouched();
        self.commits_are_clean();
        assert!(!ended.log.contains("panicked"), "{}", ended.log);
    }
}

/// What stands before a command that the attacker's user runs.
pub(crate) fn as_attacker() -> Vec<String> {
    let (user, group) = (format!("--reuid={ATTACKER}"), format!("--regid={ATTACKER}"));
    let words = ["setpriv", &user, &group, "--clear-groups"];
    words.map(str::to_owned).to_vec()
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths here are text").to_owned()
}

/// The permission bits.
#[track_caller]
pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").mode() & 0o7777
}

#[track_caller]
pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set a mode");
}

/// Whether a file below, our own included, holds the secret.
fn holds_secret(dir: &Path) -> bool {
    fs::read_dir(dir).expect("list").flatten().any(|entry| {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            return holds_secret(&path);
        }
        kind.is_file()
            && fs::read(&path)
                .expect("read")
                .windows(SECRET.len())
                .any(|bytes| bytes == SECRET.as_bytes())
    })
}

/// Waits until the attack is over, and says how often the attacker had it its way.
#[track_caller]
pub(crate) fn score(life: &mut Life) -> u64 {
    std::thread::sleep(TRIES_FOR);
    life.wait_for("is over: tried=");
    let log = life.log();
    let (_, after) = log.rsplit_once("achieved=").expect("it says");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A gateway of the very user that sessionkeep runs as, which is what most containers have.
#[derive(Debug)]
pub(crate) struct Neighbour {
    /// What stands before the program.
    pub(crate) before: &'static [&'static str],
    user: u32,
}

impl Neighbour {
    /// Gives everything of a world to the user.
    #[track_caller]
    pub(crate) fn own(&self, world: &World) {
        // SAFETY: it takes nothing and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            chown(world.path("."), Some(self.user), Some(self.user)).expect("give it away");
        }
    }
}

/// Each kind of them: root with the capabilities that Docker leaves it, and another user.
pub(crate) fn neighbours() -> Vec<Neighbour> {
    const NOBODY: u32 = 65534;
    // SAFETY: it takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    if user != 0 {
        return vec![Neighbour { before: &[], user }];
    }
    let root: &[&str] = &[
        "setpriv",
        "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid",
    ];
    let other: &[&str] = &[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    vec![
        Neighbour { before: root, user },
        Neighbour {
            before: other,
            user: NOBODY,
        },
    ]
}

/// Prepares a life whose gateway is the attacker, as our own user.
pub(crate) fn tried_by<'a>(world: &'a World, attack: &str, arguments: &[&Path]) -> Setup<'a> {
    let attacker = built::example("attacker");
    let seconds = TRIES_FOR.as_secs().to_string();
    let mut command = vec![text(&attacker), attack.to_owned(), seconds];
    command.extend(arguments.iter().map(|path| text(path)));
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    world.gateway(&words)
}
