//! What other processes say: control messages, health answers, `/proc`, and flags of an init.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Decoder, about};
use crate::cli::health;
use sessionkeep_core::control::{self, LINE_MAX, Lifecycle, MonotonicMs, ToInit, ToWatcher};
use sessionkeep_core::human::Took;
use sessionkeep_init::descendants::parent;
use sessionkeep_init::{ExitMapping, ParentDeath, Rewrite, signal_names};
use sessionkeep_session::freeze::Proc;

pub(super) const DECODERS: &[Decoder] = &[
    Decoder {
        name: "control",
        decode: messages,
        seeds: some_messages,
        memory: |input| about(input, 64) + 2 * LINE_MAX,
    },
    Decoder {
        name: "health",
        decode: answer,
        seeds: answers,
        memory: |input| about(input, 128),
    },
    Decoder {
        name: "proc_stat",
        decode: proc_stat,
        seeds: || vec![b"12 (a) R 1 (x) S 34 12 12 0 -1 4194560 1 2 3\n".to_vec()],
        memory: |input| about(input, 2),
    },
    Decoder {
        name: "init_flag",
        decode: init_flag,
        seeds: init_flags,
        memory: |input| about(input, 16),
    },
];

fn some_messages() -> Vec<Vec<u8>> {
    let running = ToWatcher::Lifecycle {
        state: Lifecycle::Running,
        gateway_pid: Some(17),
        restarts: 2,
    };
    let flush = ToWatcher::Flush {
        deadline: MonotonicMs(123_456),
    };
    let to_init = [
        ToInit::Ready,
        ToInit::Followed,
        ToInit::Standby { waiting: true },
        ToInit::LeaseLost {
            reason: "host-1 \"took\" it".into(),
        },
        ToInit::LeaseEnding {
            by: MonotonicMs(99),
        },
        ToInit::Flushed { seq: 41 },
    ];
    let line = |message: &[u8]| [&[9], message].concat();
    vec![
        line(
            &[running, flush]
                .iter()
                .flat_map(control::encode)
                .collect::<Vec<_>>(),
        ),
        line(&to_init.iter().flat_map(control::encode).collect::<Vec<_>>()),
    ]
}

/// A stream in pieces, of as many bytes as the first one says. Both ends' messages, and messages
/// that are encoded again.
fn messages(input: &[u8]) -> bool {
    fn read<M: DeserializeOwned + Serialize + PartialEq + Debug>(
        piece: usize,
        stream: &[u8],
    ) -> bool {
        let mut decoder = control::Decoder::default();
        let mut got = Vec::new();
        for piece in stream.chunks(piece) {
            got.extend(decoder.feed::<M>(piece).into_iter().flatten());
        }
        let again: Vec<u8> = got.iter().flat_map(control::encode).collect();
        let again = control::Decoder::default().feed::<M>(&again);
        let again: Vec<M> = again.into_iter().map(|m| m.expect("our own")).collect();
        assert_eq!(again, got);
        !got.is_empty()
    }
    let Some((piece, stream)) = input.split_first() else {
        return false;
    };
    let piece = usize::from(*piece).max(1);
    read::<ToInit>(piece, stream) | read::<ToWatcher>(piece, stream)
}

fn answers() -> Vec<Vec<u8>> {
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{\"status\":\"ok\",\"lag_seconds\":0.25}",
        "HTTP/1.1 503 No\r\ncontent-length: 31\r\n\r\n{\"reason\":\"store: no\\n answer\" }",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn answer(input: &[u8]) -> bool {
    let _ = health::is_whole(input);
    let Ok(answer) = health::parse(input) else {
        return false;
    };
    let told = answer.told();
    assert!(!told.contains(char::is_control), "{told:?}");
    assert!(told.chars().count() <= 320, "{told:?}");
    assert!(!answer.is_ready() || told.contains("healthy"));
    if let Ok(status) = serde_json::from_str(&answer.body) {
        let _ = Took(crate::cli::status_text::lag(&status)).to_string();
    }
    true
}

/// Two places read it, for different fields.
fn proc_stat(input: &[u8]) -> bool {
    let Some(process) = Proc::parse(input) else {
        return false;
    };
    assert_eq!(Some(process.parent), parent(input));
    true
}

fn init_flags() -> Vec<Vec<u8>> {
    [
        "TERM=INT",
        "RTMIN+3=15",
        "sighup=0",
        "143=0",
        "SIGTERM",
        "RTMAX-1",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

fn init_flag(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    if let Some(number) = signal_names::parse(text) {
        assert!((1..=64).contains(&number));
        assert_eq!(signal_names::parse(&number.to_string()), Some(number));
    }
    let rewrite = text.parse::<Rewrite>().map(|rewrite| rewrite.from);
    let parent_death = text.parse().map(|ParentDeath(signal)| signal);
    let signals: Vec<i32> = rewrite.into_iter().chain(parent_death).collect();
    assert!(signals.iter().all(|signal| (1..=64).contains(signal)));
    !signals.is_empty() || text.parse::<ExitMapping>().is_ok()
}
