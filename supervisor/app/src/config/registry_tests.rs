//! The table of settings against itself.

use super::*;

#[test]
fn every_default_is_readable_and_shown_as_it_is_documented() {
    let settings = defaults();
    for setting in ALL {
        if let Default::Is(text) = setting.default {
            let shown = (setting.show)(&settings);
            let same = shown == text
                || duration::parse(text).is_ok_and(|span| duration::show(span) == shown);
            assert!(same, "{}: {shown} is not {text}", setting.key);
        }
    }
}

#[test]
fn every_value_that_the_documentation_names_is_taken() {
    for setting in ALL {
        for value in setting.takes.split('`').skip(1).step_by(2) {
            let value = match value {
                "mongodb://…" => "mongodb://h/db",
                "mongodb+srv://…" => "mongodb+srv://h/db",
                "http://" => "http://h/",
                "https://" => "https://h/",
                "UID:GID" => "1000:1001",
                value => value,
            };
            let result = (setting.set)(&mut defaults(), value);
            assert_eq!(result, Ok(()), "{} = {value}", setting.key);
        }
    }
}

#[test]
fn every_variable_is_named_after_its_key_and_none_twice() {
    let mut names: Vec<&str> = ALL.iter().flat_map(env_names).collect();
    for setting in ALL {
        let derived = format!(
            "SESSIONKEEP_{}",
            setting.key.to_uppercase().replace('.', "_")
        );
        assert!(
            env_names(setting).any(|name| name == derived),
            "{} has no {derived}",
            setting.key
        );
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn owners_are_two_numbers_and_nothing_else() {
    let told = owners("1000:1001").map(owners_shown);
    assert_eq!(told, Ok("1000:1001".to_owned()));
    for wrong in [
        "1000",
        "node",
        "node:node",
        "1000:",
        ":1000",
        "-1:0",
        "4294967295:0",
        "1:2:3",
        "as-is",
    ] {
        assert!(owners(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_probe_has_no_password_and_its_query_is_not_shown() {
    assert!(probe("http://u:p@127.0.0.1/ping").is_err());
    assert!(probe("https://127.0.0.1/ping").is_err());
    assert!(probe("http://:80/").is_err());
    assert_eq!(probe("OFF"), Ok(None));
    assert_eq!(probe_shown("http://h/?key=canary"), "http://h/?[redacted]");
}
