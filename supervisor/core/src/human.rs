//! Figures as people read them: sizes, time spans, moments.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A number of bytes, shown as `812B`, `1.2KiB`, `31MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{}B", self.0);
        }
        let (mut shift, mut unit) = (10, 0);
        // A figure that would round up to 1024 belongs to the next unit.
        while unit + 1 < UNITS.len() && (self.0 >> shift) >= 1023 {
            shift += 10;
            unit += 1;
        }
        let tenths = ((u128::from(self.0) * 10) + (1 << (shift - 1))) >> shift;
        if tenths < 100 {
            write!(f, "{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
        } else {
            write!(f, "{}{}", (tenths + 5) / 10, UNITS[unit])
        }
    }
}

/// A time span, shown as `350us`, `7ms`, `1.25s`, `2m05s`, `3h07m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (micros, millis, secs) = (self.0.as_micros(), self.0.as_millis(), self.0.as_secs());
        match secs {
            _ if micros < 1000 => write!(f, "{micros}us"),
            0 => write!(f, "{millis}ms"),
            1..60 => write!(f, "{secs}.{:02}s", self.0.subsec_millis() / 10),
            60..3600 => write!(f, "{}m{:02}s", secs / 60, secs % 60),
            _ => write!(f, "{}h{:02}m", secs / 3600, secs % 3600 / 60),
        }
    }
}

/// A moment, shown in UTC as `2026-11-21T07:00:00.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(
    /// Milliseconds since 1970.
    pub u64,
);

impl Timestamp {
    /// Now, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        // A clock before 1970 is shown as 1970: a log line with a wrong time beats none.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, millis) = (self.0 / 1000, self.0 % 1000);
        let (days, of_day) = (secs / 86_400, secs % 86_400);
        // Days are counted from 0000-03-01, so that the leap day is the last of its year; 400
        // years have 146,097 days whichever they are.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

/// An error with its causes, in one line; a cause whose words the line already ends with is not
/// said twice.
#[derive(Debug, Clone, Copy)]
pub struct Causes<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.to_string();
        f.write_str(&words)?;
        let mut cause = self.0.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !words.ends_with(&text) {
                write!(f, ": {text}")?;
                words = text;
            }
            cause = inner.source();
        }
        match is_out_of_descriptors(self.0.source()) {
            true => write!(f, "; {MORE_DESCRIPTORS}"),
            false => Ok(()),
        }
    }
}

/// What to do where there are too few file descriptors.
pub const MORE_DESCRIPTORS: &str =
    "raise the limit of open files: `ulimit -n 4096`, or `docker run --ulimit nofile=4096`";

/// Whether one of these causes is that this process, or the machine, has too many files open.
#[must_use]
pub fn is_out_of_descriptors(mut cause: Option<&(dyn std::error::Error + 'static)>) -> bool {
    while let Some(inner) = cause {
        let code = inner
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if matches!(code, Some(libc::EMFILE | libc::ENFILE)) {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits_and_a_unit() {
        for (bytes, shown) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1229, "1.2KiB"),
            (10 * 1024, "10KiB"),
            (1024 * 1024 - 1, "1.0MiB"),
            (31 * 1024 * 1024, "31MiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown, "{bytes}");
        }
    }

    #[test]
    fn spans_are_shown_at_the_scale_that_matters() {
        for (span, shown) in [
            (Duration::ZERO, "0us"),
            (Duration::from_micros(350), "350us"),
            (Duration::from_millis(7), "7ms"),
            (Duration::from_millis(1250), "1.25s"),
            (Duration::from_secs(125), "2m05s"),
            (Duration::from_secs(3 * 3600 + 7 * 60), "3h07m"),
        ] {
            assert_eq!(Took(span).to_string(), shown);
        }
    }

    #[test]
    fn a_chain_of_causes_is_one_line_without_repetition() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Link(&'static str, #[source] Option<Box<Link>>);
        let chain = Link(
            "failed to save",
            Some(Box::new(Link(
                "no space",
                Some(Box::new(Link("no space", None))),
            ))),
        );
        assert_eq!(Causes(&chain).to_string(), "failed to save: no space");
    }

    #[test]
    fn too_few_descriptors_are_told_with_the_next_step() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to open it")]
        struct Open(#[source] std::io::Error);
        let told = |code| Causes(&Open(std::io::Error::from_raw_os_error(code))).to_string();
        assert!(told(libc::EMFILE).contains("; raise the limit of open files"));
        assert!(!told(libc::ENOENT).contains("raise"));
    }

    #[test]
    fn moments_are_right_around_leap_days_and_centuries() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_795_244_400_123, "2026-11-21T07:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), shown);
        }
    }
}
