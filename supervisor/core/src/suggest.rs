//! "Did you mean": the nearest known name to one that is not known.

/// The known name nearest to `wanted`, if it is near enough to be what was meant: a third of its
/// letters may be wrong, at most four. Dashes count as underscores, and case does not count.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let wanted = plain(wanted);
    // The distance takes quadratic time, and no name is that long.
    if wanted.len() > 80 {
        return None;
    }
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&wanted, &plain(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = [
        "store.wait",
        "store.timeout",
        "stop.total",
        "sync.max_delay",
    ];

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        for (wanted, meant) in [
            ("store.wiat", "store.wait"),
            ("stop.totl", "stop.total"),
            ("sync.max-delay", "sync.max_delay"),
            ("STORE.TIMEOUT", "store.timeout"),
        ] {
            assert_eq!(nearest(wanted, KNOWN), Some(meant));
        }
    }

    #[test]
    fn something_else_altogether_finds_nothing() {
        for wanted in ["", "x", "colour", &"store.wait".repeat(100)] {
            assert_eq!(nearest(wanted, KNOWN), None, "{wanted}");
        }
    }
}
