//! Signals by name, as people write them: `TERM`, `sigterm`, `15`, `RTMIN+3`.

/// The first real-time signal that a program may use: the C library keeps the two before it. It is
/// what shells and service managers mean by `RTMIN`.
pub(super) const RTMIN: i32 = 34;
/// The last one.
pub(super) const RTMAX: i32 = 64;

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of a signal.
pub fn parse(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    let number = if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()?
    } else {
        let name = text.strip_prefix("SIG").unwrap_or(&text);
        let by_name = NAMES.iter().find(|(known, _)| *known == name);
        match by_name {
            Some((_, number)) => *number,
            None => real_time(name)?,
        }
    };
    (1..=RTMAX).contains(&number).then_some(number)
}

fn real_time(name: &str) -> Option<i32> {
    let (base, rest, sign) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (RTMIN, rest, '+')
    } else {
        (RTMAX, name.strip_prefix("RTMAX")?, '-')
    };
    if rest.is_empty() {
        return Some(base);
    }
    let digits = rest.strip_prefix(sign)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let away: i32 = digits.parse().ok()?;
    let number = if sign == '+' {
        base.checked_add(away)?
    } else {
        base.checked_sub(away)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_number_and_distance() {
        for (text, number) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX-1", 63),
            ("64", 64),
            (" usr1 ", 10),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "TERMX",
            "SIG",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMIN+",
            "+3",
            "RTMIN++3",
            "99999999999",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
