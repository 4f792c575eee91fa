//! A person at a terminal: `docker run -it`, or a shell's job.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::life::{As, Life, Setup, both, children, state};

/// A gateway that waits and starts nothing meanwhile. A shell that is caught between `vfork` and
/// `exec` of a child that the terminal stops does not stop itself, and then nobody learns of it.
const UP: &str = "sleep 1000 & echo up > ready; while :; do wait; done";

/// A pseudo-terminal, and what was shown on it.
pub(crate) struct Pty {
    keys: fs::File,
    slave: fs::File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    fn new() -> Self {
        let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        let open = |fd: OwnedFd| {
            // Else each process that is started meanwhile by another test would hold it, too.
            // SAFETY: it touches no memory.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
            fs::File::from(fd)
        };
        let (keys, slave) = (open(pty.master), open(pty.slave));
        let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut screen, seen) = (keys.try_clone().expect("master"), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got @ 1..) = screen.read(&mut buffer) {
                let mut seen = seen.lock().expect("no panic");
                seen.extend_from_slice(&buffer[..got]);
            }
        });
        Self { keys, slave, shown }
    }

    pub(crate) fn slave(&self) -> fs::File {
        self.slave.try_clone().expect("slave")
    }

    fn press(&self, keys: &str) {
        (&self.keys).write_all(keys.as_bytes()).expect("written");
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no panic")).into_owned()
    }

    fn resize(&self, rows: u16) {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the size lives through the call.
        unsafe { libc::ioctl(self.keys.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}

/// The gateway, where there is no helper.
/// Whether the terminal's keys go to a process, which has become the program that it is to be.
fn is_in_foreground(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((name, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    // Its state, parent, group, session and terminal, and the terminal's foreground group:
    // proc_pid_stat(5).
    let fields: Vec<&str> = fields.split(' ').collect();
    name.ends_with("(sleep") && fields.get(2) == fields.get(5)
}

fn gateway(life: &Life) -> i32 {
    *children(life.pid()).first().expect("the gateway")
}

#[test]
fn the_interrupt_key_reaches_the_gateway_itself() {
    for run_as in both() {
        let pty = Pty::new();
        let mut life = Setup::init_only(*run_as)
            .at(&pty)
            .script(&format!("trap 'exit 9' INT; {UP}"));
        life.until_up();
        pty.press("\x03");
        assert_eq!(life.code(), 9, "{}", life.log());
        assert!(!life.log().contains("signal 2"), "{}", life.log());
    }
}

#[test]
fn the_gateway_has_the_terminal_and_learns_of_its_size() {
    for run_as in both() {
        let pty = Pty::new();
        pty.resize(20);
        let script = format!("trap 'stty size < /dev/tty > size; exit 8' WINCH; {UP}");
        let mut life = Setup::init_only(*run_as).at(&pty).script(&script);
        life.until_up();
        pty.resize(33);
        assert_eq!(life.code(), 8, "{}", life.log());
        assert_eq!(life.file("size"), "33 80\n");
    }
}

#[test]
fn a_shell_as_the_gateway_has_job_control() {
    for run_as in both() {
        let pty = Pty::new();
        let mut life = Setup::init_only(*run_as).at(&pty).start(&["sh", "-i"]);
        let until = |what: &str| life.until(what, |_| pty.shown().contains(what));
        let sleeps = |states: &[char]| {
            let shell = gateway(&life);
            let jobs = children(shell);
            jobs.iter()
                .any(|job| state(*job).is_some_and(|s| states.contains(&s)))
        };
        let has_foreground = || children(gateway(&life)).into_iter().any(is_in_foreground);
        pty.press("echo sh-is-$((40+2))\n");
        until("sh-is-42");
        pty.press("sleep 100\n");
        // The key must find the job, and not the shell, in the foreground.
        life.until("a job", |_| sleeps(&['S']) && has_foreground());
        pty.press("\x1a");
        life.until("stopped", |_| sleeps(&['T']));
        pty.press("echo after-$((1+1))\n");
        until("after-2");
        pty.press("fg\n");
        life.until("going on", |_| sleeps(&['S']) && has_foreground());
        pty.press("\x03");
        life.until("ended", |_| children(gateway(&life)).is_empty());
        pty.press("exit 4\n");
        assert_eq!(life.code(), 4, "{}", life.log());
        assert!(
            !pty.shown().contains("job control turned off"),
            "{}",
            pty.shown()
        );
    }
}

#[test]
fn without_a_shell_above_the_suspend_key_stops_nothing_for_good() {
    for run_as in both() {
        let pty = Pty::new();
        let script = format!("trap 'exit 9' INT; trap 'echo on > on' CONT; {UP}");
        let mut life = Setup::init_only(*run_as).at(&pty).script(&script);
        life.until_up();
        pty.press("\x1a");
        life.until("let go on", |life| life.file("on") == "on\n");
        pty.press("\x03");
        assert_eq!(life.code(), 9, "{}", life.log());
    }
}

#[test]
fn a_shell_above_takes_over_on_the_suspend_key_and_gives_back_on_fg() {
    let pty = Pty::new();
    let script = format!("trap 'echo cont > on' CONT; trap 'exit 9' INT; {UP}");
    let mut life = Setup::init_only(As::Subreaper)
        .at(&pty)
        .around(
            "cd \"$SESSION\"; set -m; \"$@\"; echo $? > stopped; \
             while [ ! -s go ]; do sleep 0.05; done; fg; echo $? > ended",
        )
        .script(&script);
    life.until("up", |life| life.file("ready").contains("up"));
    pty.press("\x1a");
    life.until("the shell's turn", |life| !life.file("stopped").is_empty());
    assert_eq!(life.file("stopped"), "147\n", "128 and STOP");
    // The shell has the terminal: the key is not the gateway's.
    fs::write(life.setup.settings.dir.join("go"), "go").expect("written");
    life.until("going on", |life| life.file("on") == "cont\n");
    std::thread::sleep(Duration::from_millis(200));
    pty.press("\x03");
    life.until("ended", |life| !life.file("ended").is_empty());
    assert_eq!(life.file("ended"), "9\n", "{}", life.log());
    assert!(
        !life.log().contains("signal 2"),
        "the key was the gateway's: {}",
        life.log()
    );
    life.code();
}

#[test]
fn after_the_end_the_terminal_belongs_to_who_had_it_before() {
    for script in ["exit 3", "sleep 100 & kill -9 $$"] {
        let pty = Pty::new();
        let mut life = Setup::init_only(As::Subreaper)
            .at(&pty)
            .around(
                "cd \"$SESSION\"; \"$@\"; echo over > over; read line < /dev/tty; \
                 echo \"read $line\" > read; exit 0",
            )
            .script(script);
        life.until("over", |life| !life.file("over").is_empty());
        pty.press("something\n");
        assert_eq!(life.code(), 0);
        assert_eq!(life.file("read"), "read something\n", "{}", life.log());
    }
}
