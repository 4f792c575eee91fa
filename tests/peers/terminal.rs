//! As with `docker run -it`: the init leads a session with a controlling terminal.

use std::os::fd::AsRawFd;

use super::container::{Container, FOR_EVER, Life};
use super::inits::Init;
use super::verdict::{Case, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case("the command can open /dev/tty", |init| {
        let container = Container::of(init).on_a_terminal();
        container
            .sh("exec 3<>/dev/tty && exit 5; exit 6")?
            .ends_with(5)
    }),
    case("the command is the terminal's foreground job", |init| {
        let container = Container::of(init).on_a_terminal();
        let look = "read -r a b c d group session tty foreground rest < /proc/$$/stat; \
                    echo $group $foreground > groups";
        let mut life = container.sh(look)?;
        life.code()?;
        let groups = life.file("groups");
        let (own, foreground) = groups.trim().split_once(' ').unwrap_or_default();
        ensure!(
            !own.is_empty() && own == foreground,
            "its group is {own}, in front is {foreground}"
        );
        Ok(())
    }),
    case("^C interrupts the command", |init| {
        let mut life = started(init, "trap 'exit 9' INT")?;
        life.types(b"\x03");
        life.ends_with(9)
    }),
    case("^\\ quits the command", |init| {
        let mut life = started(init, "trap 'exit 10' QUIT")?;
        life.types(b"\x1c");
        life.ends_with(10)
    }),
    case("a new window size is told to the command", |init| {
        let mut life = started(init, "trap 'exit 11' WINCH")?;
        let size = libc::winsize {
            ws_row: 50,
            ws_col: 132,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is a terminal's, and the structure lives through the call.
        unsafe {
            libc::ioctl(
                life.terminal().as_raw_fd(),
                libc::TIOCSWINSZ,
                &raw const size,
            )
        };
        life.ends_with(11)
    }),
    case("TERM ends a command on a terminal", |init| {
        let mut life = started(init, "trap 'exit 12' TERM")?;
        life.signal(libc::SIGTERM)?;
        life.ends_with(12)
    }),
    case(
        "an interactive shell has job control: ^Z, fg, ^C",
        job_control,
    ),
];

fn started(init: Init, trap: &str) -> Result<Life, super::verdict::Miss> {
    let life = Container::of(init)
        .on_a_terminal()
        .sh(&format!("{trap}; {FOR_EVER}"))?;
    life.until_up()?;
    Ok(life)
}

fn job_control(init: Init) -> Verdict {
    let mut life = Container::of(init).on_a_terminal().run(&["sh", "-i"])?;
    let job = |life: &Life| {
        life.descendants()
            .into_iter()
            .find(|p| p.name == "sleep")
            .map(|p| p.state)
    };
    life.types(b"echo $- > flags\n");
    life.until("at its prompt", |life| !life.file("flags").is_empty())?;
    ensure!(life.file("flags").contains('m'), "job control is off");
    life.types(b"sleep 1000\n");
    life.until("running its job", |life| job(life) == Some('S'))?;
    life.types(b"\x1a");
    life.until("suspending its job", |life| job(life) == Some('T'))?;
    life.types(b"fg\n");
    life.until("resuming its job", |life| job(life) == Some('S'))?;
    life.types(b"\x03");
    life.until("without its job", |life| job(life).is_none())?;
    life.types(b"exit 4\n");
    life.ends_with(4)
}
