//! `docker run -it`: what a person at a terminal expects of an init.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::stack::Stack;
use crate::told::{case, until, yes};

/// A `docker run -it` at a terminal of its own, which `script` makes.
struct Terminal<'a> {
    stack: &'a Stack,
    container: &'a str,
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
    read: usize,
}

impl<'a> Terminal<'a> {
    fn start(stack: &'a Stack, container: &'a str, docker: &str) -> Self {
        let mut child = stack
            .command("script")
            .args(["--quiet", "--return", "--command", docker, "/dev/null"])
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start script");
        let mut out = child.stdout.take().expect("piped");
        let shown = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&shown);
        thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(length @ 1..) = out.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..length]);
                let mut shown = writer.lock().unwrap_or_else(PoisonError::into_inner);
                shown.push_str(&text);
            }
        });
        let keys = child.stdin.take().expect("piped");
        Self {
            stack,
            container,
            child,
            keys,
            shown,
            read: 0,
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("press keys");
        self.keys.flush().expect("press keys");
    }

    /// Where it has ended, there is nothing to wait for.
    #[track_caller]
    fn has_not_ended(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("it has ended with {status}");
        }
    }

    /// Waits until this is on the screen, below all that was waited for before.
    #[track_caller]
    fn sees(&mut self, text: &str) {
        let read = self.read;
        let at = until(&format!("the terminal shows {text:?}"), || {
            self.has_not_ended();
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown[read..].find(text)
        });
        self.read += at + text.len();
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("---- the screen ----\n{shown}\n----");
        }
        // The container does not end with the terminal.
        self.stack.try_docker(&["rm", "--force", self.container]);
    }
}

#[test]
fn at_a_terminal_it_is_out_of_the_way() {
    let stack = Stack::new("terminal");
    let name = format!("{}-shell", stack.project());
    case(
        "docker run -it",
        "an interactive shell has job control, ^C and ^Z reach what runs in it, and its code comes out",
        || {
            let image = format!("sessionkeep-waha:{}", stack.get("IMAGE_TAG"));
            let docker = format!(
                "docker run --rm --interactive --tty --network none --name {name} --env PS1=ready: \
                 --env SESSIONKEEP_LOG_LEVEL=error --entrypoint sessionkeep {image} run --init-only -- bash --norc --noprofile"
            );
            let mut terminal = Terminal::start(&stack, &name, &docker);
            terminal.sees("ready:");
            // What is typed is shown, too: so the answers differ from the questions.
            terminal.press("sleep 1000 || echo code $((100 + 30))\n");
            until("sleep runs", || {
                terminal.has_not_ended();
                let said = stack.try_docker(&["top", &name, "-o", "pid,comm"]);
                yes(said.out.lines().any(|line| line.trim().ends_with(" sleep")))
            });
            terminal.press("\u{1a}");
            terminal.sees("Stopped");
            terminal.press("jobs | wc -l | sed 's/^/jobs: /'\n");
            terminal.sees("jobs: 1");
            terminal.press("fg\n");
            terminal.sees("sleep 1000");
            terminal.press("\u{3}");
            terminal.press("echo still $((40 + 2))\n");
            terminal.sees("still 42");
            terminal.press("exit 7\n");
            let code = until("the container ends", || {
                terminal.child.try_wait().expect("wait")
            });
            assert_eq!(code.code(), Some(7));
        },
    );
}
