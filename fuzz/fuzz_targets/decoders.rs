//! One target for all decoders: `FUZZ_DECODER` names the one that is fed, and `FUZZ_CORPUS` the
//! directory that its honest input is written to before libFuzzer reads it.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sessionkeep::fuzzing::{self, Decoder};

static DECODER: OnceLock<&Decoder> = OnceLock::new();

fn begin() {
    let name = std::env::var("FUZZ_DECODER").expect("FUZZ_DECODER names a decoder");
    let decoder = fuzzing::decoder(&name);
    if let Some(corpus) = std::env::var_os("FUZZ_CORPUS") {
        for (number, seed) in (decoder.seeds)().iter().enumerate() {
            let path = Path::new(&corpus).join(format!("honest-{number}"));
            std::fs::write(path, seed).expect("write a seed");
        }
    }
    DECODER.set(decoder).expect("begun once");
}

fuzz_target!(
    init: begin(),
    |input: &[u8]| {
        (DECODER.get().expect("begun").decode)(input);
    }
);
