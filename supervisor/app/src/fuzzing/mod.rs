//! Every decoder of bytes that come from outside, as a function of bytes: what the fuzzers in
//! `tests/faults/decoders.rs` and in `fuzz/` feed.
//!
//! Such a function panics where the decoder does, and where what was decoded breaks a promise: it
//! does not survive being encoded again, or names a path outside of the session directory. That
//! the bytes are refused is always well.

mod archive;
mod chains;
mod processes;
mod session;
mod settings;
mod store;

/// A decoder.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Its name, in one word.
    pub name: &'static str,
    /// Decodes, and checks what came of it.
    pub decode: fn(&[u8]) -> bool,
    /// Honest input.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The most memory that decoding an input may take at any one time, checks included, in bytes.
    pub memory: fn(&[u8]) -> usize,
}

/// All of them.
pub const ALL: &[&[Decoder]] = &[
    archive::DECODERS,
    chains::DECODERS,
    store::DECODERS,
    session::DECODERS,
    settings::DECODERS,
    processes::DECODERS,
];

/// The decoder of this name.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn decoder(name: &str) -> &'static Decoder {
    let found = ALL.iter().copied().flatten().find(|one| one.name == name);
    found.unwrap_or_else(|| panic!("there is no decoder {name}"))
}

/// Some kilobytes for error messages and buffers, and so many bytes for each of the input.
const fn about(input: &[u8], each: usize) -> usize {
    (16 << 10) + input.len() * each
}

/// Input of several parts, each behind its length.
fn joined<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        let part = part.as_ref();
        let len = u16::try_from(part.len()).expect("seeds are short");
        all.extend_from_slice(&len.to_le_bytes());
        all.extend_from_slice(part);
    }
    all
}

/// The parts of [`joined`] input. A length beyond the end stands for what there is.
fn parts(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = input.split_first_chunk()?;
        let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        input = rest;
        Some(part)
    })
}

/// What every path that is believed must be: relative, downwards, and such as a file system takes.
fn assert_inside(path: &sessionkeep_core::entry::RelPath) {
    use std::path::Component;
    let bytes = path.as_bytes();
    assert!(!bytes.contains(&0), "a NUL in {path:?}");
    let mut names = path.as_path().components();
    assert!(
        names.all(|part| matches!(part, Component::Normal(_))) && !bytes.is_empty(),
        "{path:?} may lead outside"
    );
}
