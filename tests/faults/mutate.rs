//! Input for decoders: honest input with something changed, and now and then no more than noise.

use fastrand::Rng;

/// Most input is shorter; nothing is longer but for [`DEEP`].
const LONGEST: usize = 8 << 10;
/// How often something is repeated where it is meant to be too much.
const DEEP: usize = 40_000;

/// What lies at the edge of something, as numbers in binary formats.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    3,
    0x7e,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX.unsigned_abs(),
    u64::MAX,
];

/// The same in text formats, and what ends or begins things there.
const WORDS: [&str; 28] = [
    "0",
    "-1",
    "65536",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "null",
    "true",
    "..",
    "/",
    "../../x",
    "\0",
    "\n",
    "\r\n\r\n",
    "=",
    ":",
    "\"",
    "\\u0000",
    "[",
    "{\"a\":",
    "&a",
    "*a",
    "%00",
    "\u{fffd}é",
];

/// Makes input from honest seeds, the same from the same chance.
pub(crate) struct Mutator {
    chance: Rng,
    seeds: Vec<Vec<u8>>,
    input: Vec<u8>,
}

impl Mutator {
    pub(crate) fn new(chance: Rng, seeds: Vec<Vec<u8>>) -> Self {
        Self {
            chance,
            seeds,
            input: Vec::new(),
        }
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> &[u8] {
        match self.chance.u32(..) {
            deep if deep % 20_000 == 0 => self.deep(),
            noise if noise % 16 == 0 => self.noise(),
            // On from the last one, which so strays further.
            on if on % 4 == 0 => self.some_changes(),
            _ => {
                let seed = self.chance.usize(..self.seeds.len());
                self.input.clone_from(&self.seeds[seed]);
                self.some_changes();
            }
        }
        &self.input
    }

    fn noise(&mut self) {
        let len = self.chance.usize(..512);
        self.input.resize(len, 0);
        self.chance.fill(&mut self.input);
    }

    /// A word again and again: what is nested so deep would overflow a stack.
    fn deep(&mut self) {
        let word = WORDS[self.chance.usize(..WORDS.len())].repeat(DEEP);
        let at = self.place();
        self.input.splice(at..at, word.into_bytes());
    }

    fn some_changes(&mut self) {
        self.input.truncate(LONGEST);
        for _ in 0..=self.chance.usize(..5) {
            self.change();
        }
    }

    /// A place in the input, or its end.
    fn place(&mut self) -> usize {
        self.chance.usize(..=self.input.len())
    }

    /// A short stretch of the input.
    fn stretch(&mut self) -> std::ops::Range<usize> {
        let from = self.place();
        let room = (self.input.len() - from).min(1 << self.chance.usize(..8));
        from..from + self.chance.usize(..=room)
    }

    fn change(&mut self) {
        match self.chance.u8(..10) {
            0 | 1 => {
                let (at, bit) = (self.place(), self.chance.u8(..8));
                if let Some(byte) = self.input.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            2 => {
                let (at, byte) = (self.place(), self.chance.u8(..));
                self.input.insert(at, byte);
            }
            3 => {
                let stretch = self.stretch();
                self.input.drain(stretch);
            }
            4 => {
                let at = self.place();
                self.input.truncate(at);
            }
            5 => {
                let (from, at) = (self.stretch(), self.place());
                let copy = self.input[from].repeat(self.chance.usize(1..4));
                self.input.splice(at..at, copy);
            }
            6 => self.edge(),
            7 => {
                let word = WORDS[self.chance.usize(..WORDS.len())];
                let stretch = self.stretch();
                self.input.splice(stretch, word.bytes());
            }
            8 => self.number(),
            _ => {
                let other = self.chance.usize(..self.seeds.len());
                let other = &self.seeds[other];
                let from = self.chance.usize(..=other.len());
                let to = self.chance.usize(from..=other.len());
                let stretch = {
                    let at = self.chance.usize(..=self.input.len());
                    at..self.chance.usize(at..=self.input.len())
                };
                self.input.splice(stretch, other[from..to].iter().copied());
            }
        }
    }

    /// A number at the edge of something, of some width, over what is there.
    fn edge(&mut self) {
        let edge = EDGES[self.chance.usize(..EDGES.len())];
        let near = edge
            .wrapping_add(u64::from(self.chance.u8(..3)))
            .wrapping_sub(1);
        let width = 1 << self.chance.usize(..4);
        let bytes = match self.chance.bool() {
            true => near.to_le_bytes()[..width].to_vec(),
            false => near.to_be_bytes()[8 - width..].to_vec(),
        };
        let at = self.place();
        let end = self.input.len().min(at + width);
        self.input.splice(at..end, bytes);
    }

    /// Another number in place of one that is written in digits.
    fn number(&mut self) {
        let from = self.place();
        let is_digit = |byte: &u8| byte.is_ascii_digit();
        let Some(at) = self.input[from..].iter().position(is_digit) else {
            return self.edge();
        };
        let at = from + at;
        let len = self.input[at..].iter().take_while(|b| is_digit(b)).count();
        let edge = EDGES[self.chance.usize(..EDGES.len())];
        self.input
            .splice(at..at + len, edge.to_string().into_bytes());
    }
}
