//! Executes a command under a seccomp profile that answers `clone3` with an error, as container
//! engines do whose profile is older than the call.
//!
//! ```text
//! confine ERRNO COMMAND ARGUMENT…
//! ```

use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let errno = arguments.next().unwrap_or_default();
    let errno: u32 = errno.to_str().unwrap_or_default().parse()?;
    let Some(command) = arguments.next() else {
        anyhow::bail!("no command");
    };
    refuse_clone3(errno)?;
    Err(Command::new(command).args(arguments).exec().into())
}

fn refuse_clone3(errno: u32) -> std::io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("codes are short"),
        jt,
        jf,
        k,
    };
    let clone3 = u32::try_from(libc::SYS_clone3).expect("a number of a call");
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, clone3),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives through the call, and has as many steps as it says.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            ) != 0
    };
    match refused {
        true => Err(std::io::Error::last_os_error()),
        false => Ok(()),
    }
}
