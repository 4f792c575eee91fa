//! What a test ran, and what came of it, for the case that it fails.

use std::time::Duration;

/// What was run, in order.
#[derive(Default)]
pub(super) struct Journal(Vec<(String, Duration, u32)>);

impl Journal {
    /// What is asked again and again, and answered alike, becomes one entry.
    pub(super) fn add(&mut self, entry: String, took: Duration) {
        match self.0.last_mut() {
            Some((last, _, times)) if *last == entry => *times += 1,
            _ => self.0.push((entry, took, 1)),
        }
    }
}

impl std::fmt::Display for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (entry, took, times) in &self.0 {
            write!(f, "{entry} after {:.1} s", took.as_secs_f64())?;
            if *times > 1 {
                write!(f, ", {times} times")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The end of a text, at most so many bytes of it.
pub(super) fn last(text: &str, bytes: usize) -> String {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}
