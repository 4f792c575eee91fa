//! What form a file has that is called JSON, found out piece by piece in constant memory: a file need
//! not be in memory for it, and is read once with all else that is done with its bytes.

use super::form::Form;

/// Containers may be nested so deep; a file in which they are nested deeper counts as no JSON. One bit
/// each: 8 KiB.
const DEPTH_MAX: usize = 1 << 16;
const BYTE_ORDER_MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// What is to come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first bytes, of which so many were those of a byte order mark.
    Start(u8),
    Value,
    /// After `{`: a key, or its end.
    FirstKey,
    Key,
    Colon,
    /// After `[`: a value, or its end.
    FirstValue,
    /// After a value in a container.
    Next,
    /// After a whole value outside of any.
    Between,
    Text,
    Escape,
    /// Of the four digits after `\u` so many are to come.
    Hex(u8),
    /// So many bytes of it have come.
    Word(Word, u8),
    Number(Number),
    /// This is no JSON, whatever comes.
    Broken,
}

/// A value that is a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    True,
    False,
    Null,
}

impl Word {
    fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

/// What has come of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// Takes a file's bytes in order, and tells what they are at the end.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// Of each open container whether it is an object.
    open: Vec<u64>,
    depth: usize,
    /// The text under way is a key.
    is_key: bool,
    is_empty: bool,
    /// Whole values so far, and whether a line has ended since the last one.
    values: u64,
    new_line: bool,
    /// All values so far are objects or arrays.
    containers: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Start(0),
            open: Vec::new(),
            depth: 0,
            is_key: false,
            is_empty: true,
            values: 0,
            new_line: false,
            containers: true,
        }
    }
}

impl Reader {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.is_empty &= bytes.is_empty();
        let mut at = 0;
        while at < bytes.len() && self.state != State::Broken {
            // Most of a key file is text and numbers.
            let rest = &bytes[at..];
            let plain = match self.state {
                State::Text => rest
                    .iter()
                    .position(|byte| matches!(byte, b'"' | b'\\' | ..b' ')),
                State::Number(Number::Digits | Number::Fraction | Number::ExponentDigits) => {
                    rest.iter().position(|byte| !byte.is_ascii_digit())
                }
                _ => Some(0),
            };
            match plain {
                Some(plain) => at += plain,
                None => return,
            }
            self.byte(bytes[at]);
            at += 1;
        }
    }

    /// What all of it is.
    #[must_use]
    pub fn finish(mut self) -> Form {
        if self.is_empty {
            return Form::Empty;
        }
        // A number at the very end is ended by it.
        self.byte(b' ');
        match (self.state, self.values) {
            (State::Between, 1) => Form::Whole,
            (State::Between, _) => Form::Lines,
            _ => Form::Broken,
        }
    }

    fn byte(&mut self, byte: u8) {
        self.state = match self.state {
            State::Start(nth @ 0..3) if byte == BYTE_ORDER_MARK[usize::from(nth)] => {
                State::Start(nth + 1)
            }
            State::Start(0 | 3) => {
                self.state = State::Value;
                return self.byte(byte);
            }
            State::Start(_) | State::Broken => State::Broken,
            State::Text => match byte {
                b'"' if self.is_key => {
                    self.is_key = false;
                    State::Colon
                }
                b'"' => self.ended(),
                b'\\' => State::Escape,
                b' '.. => State::Text,
                _ => State::Broken,
            },
            State::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                b'u' => State::Hex(4),
                _ => State::Broken,
            },
            State::Hex(left) => match left {
                _ if !byte.is_ascii_hexdigit() => State::Broken,
                1 => State::Text,
                left => State::Hex(left - 1),
            },
            State::Word(word, at) => match word.as_bytes()[usize::from(at)..] {
                [last] if last == byte => self.ended(),
                [next, ..] if next == byte => State::Word(word, at + 1),
                _ => State::Broken,
            },
            State::Number(number) => return self.number(number, byte),
            State::Between => match byte {
                b'\n' => {
                    self.new_line = true;
                    State::Between
                }
                b' ' | b'\t' | b'\r' => State::Between,
                // One value a line. Only of containers: what is left of a longer file that was written
                // over begins with all sorts of things.
                b'{' | b'[' if self.new_line && self.containers => self.value(byte),
                _ => State::Broken,
            },
            state if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => state,
            State::Value => self.value(byte),
            State::FirstValue => match byte {
                b']' => self.close(),
                _ => self.value(byte),
            },
            State::FirstKey if byte == b'}' => self.close(),
            State::FirstKey | State::Key => match byte {
                b'"' => {
                    self.is_key = true;
                    State::Text
                }
                _ => State::Broken,
            },
            State::Colon => match byte {
                b':' => State::Value,
                _ => State::Broken,
            },
            State::Next => match (byte, self.in_object()) {
                (b',', true) => State::Key,
                (b',', false) => State::Value,
                (b'}', true) | (b']', false) => self.close(),
                _ => State::Broken,
            },
        };
    }

    /// A value begins.
    fn value(&mut self, byte: u8) -> State {
        if self.depth == 0 {
            self.containers &= matches!(byte, b'{' | b'[');
        }
        match byte {
            b'{' | b'[' if self.depth == DEPTH_MAX => State::Broken,
            b'{' => self.push(true, State::FirstKey),
            b'[' => self.push(false, State::FirstValue),
            b'"' => State::Text,
            b't' => State::Word(Word::True, 1),
            b'f' => State::Word(Word::False, 1),
            b'n' => State::Word(Word::Null, 1),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            _ => State::Broken,
        }
    }

    fn number(&mut self, number: Number, byte: u8) {
        use Number::{
            Digits, Exponent, ExponentDigits, ExponentSign, Fraction, Minus, Point, Zero,
        };
        let next = match (number, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Zero, b'0'..=b'9') | (Minus | Point | Exponent | ExponentSign, _) => {
                self.state = State::Broken;
                return;
            }
            (Zero | Digits | Fraction | ExponentDigits, _) => {
                self.state = self.ended();
                return self.byte(byte);
            }
        };
        self.state = State::Number(next);
    }

    /// A value has ended.
    fn ended(&mut self) -> State {
        if self.depth > 0 {
            return State::Next;
        }
        self.values += 1;
        self.new_line = false;
        State::Between
    }

    fn push(&mut self, is_object: bool, next: State) -> State {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.open.len() {
            self.open.push(0);
        }
        self.open[word] = (self.open[word] & !(1 << bit)) | (u64::from(is_object) << bit);
        self.depth += 1;
        next
    }

    fn close(&mut self) -> State {
        self.depth -= 1;
        self.ended()
    }

    fn in_object(&self) -> bool {
        let Some(last) = self.depth.checked_sub(1) else {
            return false;
        };
        (self.open[last / 64] >> (last % 64)) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn form(bytes: &[u8], piece: usize) -> Form {
        let mut reader = Reader::default();
        bytes
            .chunks(piece.max(1))
            .for_each(|bytes| reader.feed(bytes));
        reader.finish()
    }

    /// Pieces of JSON and of what is none, put together at random.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        const WORDS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"a\"",
            "\"",
            "\\",
            "\\u00e9",
            "\\u0g",
            "true",
            "tru",
            "false",
            "null",
            "-",
            "0",
            "12",
            ".",
            "5",
            "e",
            "E+",
            "1.5e-3",
            " ",
            "\n",
            "\t",
            "\r",
            "\u{feff}",
            "\0",
            "\"k\":",
            "{\"k\":1}",
            "[1,2]",
            "NaN",
            "'",
            "//",
        ];
        prop::collection::vec(prop::sample::select(WORDS), 0..12)
            .prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn one_whole_value_is_what_serde_takes_for_one(text in text(), piece in 1..9_usize) {
            let text = text.strip_prefix(&BYTE_ORDER_MARK[..]).unwrap_or(&text);
            // A mark before a mark is taken for one, and is no JSON without it either.
            prop_assume!(!text.starts_with(&BYTE_ORDER_MARK));
            let whole = serde_json::from_slice::<IgnoredAny>(text).is_ok();
            prop_assert_eq!(form(text, piece) == Form::Whole, whole, "{:?}", text);
        }

        #[test]
        fn how_it_is_cut_changes_nothing(text in text(), piece in 1..9_usize) {
            prop_assert_eq!(form(&text, piece), form(&text, usize::MAX));
        }
    }

    #[test]
    fn forms_are_told_apart() {
        let deep = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
        for (content, wanted) in [
            (&b""[..], Form::Empty),
            (b"{}", Form::Whole),
            (b"\xef\xbb\xbf{\"a\":1}\r\n", Form::Whole),
            (b"\"caf\xe9\"", Form::Whole),
            (b"{\"a\":1}\n{\"a\":2}\n", Form::Lines),
            (b"[1]\n\n{\"a\":2}", Form::Lines),
            (b"{\"a\":1}{\"a\":2}", Form::Broken),
            (b"{\"a\":1}\n{\"a\":", Form::Broken),
            (b"{\"a\":1}\n5", Form::Broken),
            (b"5\n{}", Form::Broken),
            (b"{\"a\":NaN}", Form::Broken),
            (b"{'a':1}", Form::Broken),
            (b"{} // c", Form::Broken),
            (b"{}\0\0", Form::Broken),
            (b"\n", Form::Broken),
            (b"\xef\xbb", Form::Broken),
            (b"eyJhIjoxfQ==", Form::Broken),
        ] {
            let shown = String::from_utf8_lossy(content);
            assert_eq!(form(content, 3), wanted, "{shown:?}");
        }
        assert_eq!(form(&deep(DEPTH_MAX), 4096), Form::Whole);
        assert_eq!(form(&deep(DEPTH_MAX + 1), 4096), Form::Broken);
    }

    #[test]
    fn every_cut_of_an_object_is_broken() {
        let whole = br#" {"noiseKey":{"private":"a\\\"b","n":[1,-2.5e3,true,null]},"x":{}} "#;
        assert_eq!(form(whole, 5), Form::Whole);
        let end = whole
            .iter()
            .rposition(|byte| *byte == b'}')
            .expect("an object");
        for cut in 1..=end {
            assert_eq!(form(&whole[..cut], 5), Form::Broken, "{cut}");
        }
    }
}
