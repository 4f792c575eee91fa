//! How figures are written.

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    /// Milliseconds, of a figure in seconds.
    Milliseconds,
    /// Milliseconds, of a figure in milliseconds.
    Millis,
    /// Millions of bytes.
    Megabytes,
    /// Percent of one core.
    Core,
    /// How many times as much.
    Times,
    Count,
}

impl Unit {
    /// A figure with its unit.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 9.995 => format!("{value:.2} s"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds => format!("{:.0} ms", value * 1000.0),
            Self::Millis => format!("{value:.0} ms"),
            Self::Megabytes => format!("{:.1} MB", value / 1e6),
            Self::Core if value < 9.995 => format!("{value:.2} %"),
            Self::Core => format!("{value:.0} %"),
            Self::Times if value < 9.995 => format!("{value:.2} ×"),
            Self::Times => format!("{value:.0} ×"),
            Self::Count if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Count => format!("{value:.2}"),
        }
    }
}

/// A day, from seconds since 1970.
pub(crate) fn date(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// A moment (UTC), from seconds since 1970.
pub(crate) fn moment(seconds: u64) -> String {
    let minutes = seconds / 60;
    format!(
        "{} {:02}:{:02}",
        date(seconds),
        minutes / 60 % 24,
        minutes % 60
    )
}

/// The day that is so many days after 1970-01-01, by Howard Hinnant's algorithm.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}
