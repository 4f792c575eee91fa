//! Time spans as they are written in settings: `500ms`, `3s`, `2m`, `1h`.

use std::time::Duration;

use sessionkeep_core::invalid::Invalid;

/// Longer than anything that makes sense here, and short enough that adding spans to a clock
/// cannot overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Largest first, so that the first which divides a span without rest is the one to show it in.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a span. A bare number is refused: nobody knows whether it means seconds. Zero needs no
/// unit.
pub(crate) fn parse(text: &str) -> Result<Duration, Invalid> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let factor = UNITS.iter().find(|(name, _)| *name == unit);
    let (Ok(number), Some((_, factor))) = (number.parse::<u64>(), factor) else {
        return Err(explain(number, unit));
    };
    let span = number.checked_mul(*factor).map(Duration::from_millis);
    match span {
        Some(span) if span <= LONGEST => Ok(span),
        _ => Err(Invalid::new("is longer than a year", "write less")),
    }
}

fn explain(number: &str, unit: &str) -> Invalid {
    if number.is_empty() || number.len() > 9 {
        return Invalid::new(
            "is no time span",
            "write a whole number and a unit: `500ms`, `3s`, `2m` or `1h`",
        );
    }
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "" => {
            return Invalid::new(
                "has no unit",
                format!("write `{number}s` for seconds or `{number}ms` for milliseconds"),
            );
        }
        "msec" | "msecs" | "millis" | "milliseconds" | "ms" => "ms",
        "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hr" | "hrs" | "hour" | "hours" | "h" => "h",
        _ => {
            return Invalid::new(
                "has a unit that is not known",
                "write a whole number and `ms`, `s`, `m` or `h`",
            );
        }
    };
    Invalid::new(
        "is not written as a time span",
        format!("write `{number}{meant}`"),
    )
}

/// Writes a span so that [`parse`] reads it again: a whole number of the largest unit that fits.
/// Below milliseconds nothing is kept.
pub(crate) fn show(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(_, factor)| millis.is_multiple_of(*factor))
        .map_or_else(
            || format!("{millis}ms"),
            |(name, factor)| format!("{}{name}", millis / factor),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_units_are_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("3s", 3000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_nearly_a_span_is_refused_with_the_right_spelling() {
        for (text, remedy) in [
            ("60", "`60s`"),
            ("5 s", "`5s`"),
            ("5S", "`5s`"),
            ("2min", "`2m`"),
            ("10 seconds", "`10s`"),
            ("1.5s", "whole number"),
            ("1m30s", "whole number"),
            ("soon", "whole number"),
            ("-3s", "whole number"),
            ("", "whole number"),
            ("99999999999999999999h", "whole number"),
            ("9999999h", "write less"),
        ] {
            let invalid = parse(text).expect_err(text);
            assert!(invalid.remedy.contains(remedy), "{text}: {invalid:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(millis in 0..=31_622_400_000_u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(span)), Ok(span));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
