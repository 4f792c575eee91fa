//! Random bytes that are the same at each run.

/// A stream of random bytes that follows from its seed.
pub(crate) struct Random(blake3::OutputReader);

impl Random {
    /// The stream that belongs to a purpose and a number.
    pub(crate) fn new(purpose: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(purpose.as_bytes());
        hasher.update(&number.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    /// The next bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill(&mut bytes);
        bytes
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// The next number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// The next bytes as base64.
    pub(crate) fn base64(&mut self, count: usize) -> String {
        base64(&self.bytes(count))
    }
}

/// Base64 with padding, as Node.js writes it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let group = u32::from_be_bytes([
            0,
            part[0],
            part.get(1).copied().unwrap_or(0),
            part.get(2).copied().unwrap_or(0),
        ]);
        for place in 0..4 {
            let index = (group >> (18 - 6 * place)) & 63;
            text.push(if place <= part.len() {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    text
}
