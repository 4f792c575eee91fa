//! What `/proc` shows of this process to others: its arguments, and to some its environment.
//!
//! Both stay where the kernel put them, for as long as the process lives, also when they have been
//! read. Here secrets are taken out of them, and a helper gets a name of its own.

use std::ops::Range;

use super::child::is_ours;

/// Where in an argument, which follows another, something secret begins.
type SecretArgument = fn(before: &[u8], word: &[u8]) -> Option<usize>;

/// Where the kernel has put the arguments and the environment of this process.
#[derive(Debug, Clone)]
struct Areas {
    arguments: Range<usize>,
    environment: Range<usize>,
}

impl Areas {
    /// Asks the kernel. Where `/proc` does not show them to us, it shows them to nobody.
    fn find() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<usize> = after_name
            .split_whitespace()
            // The state comes first, which is no number.
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // Numbers 48 to 51 in proc_pid_stat(5), of which two come before these.
        let [arguments, arguments_end, environment, environment_end] =
            *fields.get(45..49)?.first_chunk()?;
        let known = arguments != 0
            && arguments < arguments_end
            && arguments_end <= environment
            && environment <= environment_end;
        known.then_some(Self {
            arguments: arguments..arguments_end,
            environment: environment..environment_end,
        })
    }
}

/// The bytes of an area.
///
/// # Safety
/// It must be one of [`Areas`], of this process, while it has one thread.
unsafe fn bytes<'a>(area: &Range<usize>) -> &'a mut [u8] {
    // SAFETY: the kernel maps these readable and writable at the top of the stack for as long as
    // the process lives, and nobody else has a reference to them: the standard library has copies,
    // and `environ` is a list of pointers, which are only followed by calls that are not running.
    unsafe { std::slice::from_raw_parts_mut(area.start as *mut u8, area.len()) }
}

/// Takes secrets out of what others may see of this process: the values of variables that are ours
/// become empty, and secret arguments become `x`. To be called while there is one thread, and when
/// all have been read.
pub(super) fn wipe(secret_argument: SecretArgument) {
    let Some(areas) = Areas::find() else {
        return;
    };
    // SAFETY: they were just found, and there is one thread.
    let (arguments, environment) = unsafe { (bytes(&areas.arguments), bytes(&areas.environment)) };
    wipe_arguments(arguments, secret_argument);
    wipe_environment(environment);
}

fn wipe_environment(area: &mut [u8]) {
    for entry in area.split_mut(|byte| *byte == 0) {
        let Some(equals) = entry.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = entry.split_at_mut(equals);
        if is_ours(name) {
            value[1..].fill(0);
        }
    }
}

fn wipe_arguments(area: &mut [u8], secret_argument: SecretArgument) {
    let mut before: Vec<u8> = Vec::new();
    for word in area.split_mut(|byte| *byte == 0) {
        // From here on they are the gateway's.
        if word == b"--" {
            return;
        }
        if let Some(at) = secret_argument(&before, word) {
            before.clear();
            word[at..].fill(b'x');
        } else {
            before = word.to_vec();
        }
    }
}

/// Gives this process these words as its arguments, as far as there is room.
pub(super) fn rename(words: &[&str]) {
    let Some(areas) = Areas::find() else {
        return;
    };
    // SAFETY: as in `wipe`.
    let area = unsafe { bytes(&areas.arguments) };
    area.fill(0);
    // A zero has to stay at the end, which tells the kernel that the words end there.
    let room = area.len() - 1;
    let mut text = words.join("\0").into_bytes();
    text.truncate(room);
    area[..text.len()].copy_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wiped(mut area: Vec<u8>, wipe: fn(&mut [u8])) -> String {
        wipe(&mut area);
        String::from_utf8(area).expect("text")
    }

    #[test]
    fn of_the_environment_only_what_is_ours_loses_its_values() {
        let area = b"PATH=/bin\0MONGO_URL=mongodb://h\0X\0SESSIONKEEP_A=b\0=\0\0".to_vec();
        assert_eq!(
            wiped(area, wipe_environment),
            "PATH=/bin\0MONGO_URL=\0\0\0\0\0\0\0\0\0\0\0\0X\0SESSIONKEEP_A=\0\0=\0\0"
        );
    }

    /// Stands for what the settings know.
    fn after_equals(before: &[u8], word: &[u8]) -> Option<usize> {
        match before {
            b"--key" => Some(0),
            _ => word.strip_prefix(b"--key=").map(|_| b"--key=".len()),
        }
    }

    #[test]
    fn of_the_arguments_only_secrets_are_wiped_and_none_of_the_gateways() {
        for (before, after) in [
            ("sk run --key abc --dir d", "sk run --key xxx --dir d"),
            ("sk run --key=abc --key d", "sk run --key=xxx --key x"),
            ("sk run -- x --key abc", "sk run -- x --key abc"),
            ("sk run --key", "sk run --key"),
        ] {
            let mut area = (before.replace(' ', "\0") + "\0").into_bytes();
            wipe_arguments(&mut area, after_equals);
            let got = String::from_utf8(area).expect("text");
            assert_eq!(got, after.replace(' ', "\0") + "\0", "{before}");
        }
    }

    #[test]
    fn the_areas_of_this_process_are_found() {
        let areas = Areas::find().expect("/proc is there");
        // SAFETY: only read, and before anybody could change it.
        let arguments = unsafe { bytes(&areas.arguments) };
        let first = std::env::args().next().expect("a name");
        assert!(arguments.starts_with(first.as_bytes()));
    }
}
