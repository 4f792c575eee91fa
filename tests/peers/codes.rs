//! How the main process ended is how the container ends.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::container::Container;
use super::inits::{Ask, Init, subject};
use super::verdict::{Case, Miss, Verdict, case, ensure};

pub(crate) const CASES: &[Case] = &[
    case("exit code 0 is passed on", |init| ends(init, "exit 0", 0)),
    case("exit code 1 is passed on", |init| ends(init, "exit 1", 1)),
    case("exit code 127 of the command itself is passed on", |init| {
        ends(init, "exit 127", 127)
    }),
    case("exit code 255 is passed on", |init| {
        ends(init, "exit 255", 255)
    }),
    case("death by TERM becomes 143", |init| {
        ends(init, "kill -TERM $$", 143)
    }),
    case("death by KILL becomes 137", |init| {
        ends(init, "kill -KILL $$", 137)
    }),
    case("death by SEGV becomes 139", |init| {
        ends(init, "kill -SEGV $$", 139)
    }),
    case(
        "death by a real-time signal becomes 128 + its number",
        |init| ends(init, "kill -40 $$", 168),
    ),
    case("a command that is not there is 127", |init| {
        Container::of(init)
            .run(&["/no/such/command"])?
            .ends_with(127)
    }),
    case("a name that is not in PATH is 127", |init| {
        Container::of(init)
            .run(&["no-such-command"])?
            .ends_with(127)
    }),
    case("a file that is not executable is 126", |init| {
        Container::of(init).run(&["/etc/passwd"])?.ends_with(126)
    }),
    case("a directory is 126", |init| {
        Container::of(init).run(&["/etc"])?.ends_with(126)
    }),
    case(
        "a script whose interpreter is not there fails with 126 or 127",
        |init| {
            let container = Container::of(init)
                .prepare("printf '#!/no/such/shell\\n' > script; chmod +x script");
            let code = container.run(&["./script"])?.code()?;
            ensure!([126, 127].contains(&code), "it exits with {code}");
            Ok(())
        },
    ),
    case("arguments arrive byte for byte", arguments_arrive),
    case(
        "an orphan's exit code is not taken for the command's",
        |init| {
            let orphan =
                "(exec sh -c 'echo x > orphan; exit 9' &); until [ -s orphan ]; do :; done";
            ends(init, &format!("{orphan}; sleep 0.2; exit 4"), 4)
        },
    ),
    case("a code is exchanged for 0 where asked", |init| {
        let container = Container::of(init).ask(Ask::MapExit { from: 143, to: 0 });
        container.sh("kill -TERM $$")?.ends_with(0)
    }),
    case("a code is exchanged for another where asked", |init| {
        let container = Container::of(init).ask(Ask::MapExit { from: 5, to: 6 });
        container.sh("exit 5")?.ends_with(6)
    }),
];

fn ends(init: Init, script: &str, code: i32) -> Verdict {
    Container::of(init).sh(script)?.ends_with(code)
}

fn arguments_arrive(init: Init) -> Verdict {
    let words: [&[u8]; 8] = [
        b"",
        b"two words",
        b"--",
        b"-x",
        b"'\"$HOME`\\",
        b"line\nline",
        b"\xff\xfe",
        b"*",
    ];
    let mut line = vec![subject().into_os_string(), OsString::from("arguments")];
    line.extend(words.iter().map(|word| OsStr::from_bytes(word).to_owned()));
    let mut life = Container::of(init).run(&line)?;
    life.ends_with(0)?;
    let got = life.bytes("arguments");
    let wanted: Vec<u8> = words
        .iter()
        .flat_map(|w| [w, &b"\0"[..]].concat())
        .collect();
    if got != wanted {
        let got = String::from_utf8_lossy(&got).into_owned();
        return Err(Miss::Fails(format!("got {got:?}")));
    }
    Ok(())
}
