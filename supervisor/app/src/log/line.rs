//! One log line, as text or as JSON.

use std::fmt::{self, Write as _};

use tracing::Level;
use tracing::field::{Field, Visit};

use crate::config::LogFormat;
use sessionkeep_core::human::Timestamp;

/// A pipe takes this much in one piece (`PIPE_BUF`), so that lines of several processes do not mix,
/// and a pipe that is writable at all takes it without blocking.
const LONGEST: usize = 4096;

/// How a value is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// As it is: a number, `true` or `false`.
    Number,
    /// As a text.
    Text,
    /// As a text that its `Debug` may have put into quotes already.
    Debug,
}

/// A line in the making.
#[derive(Debug)]
pub(super) struct Line {
    format: LogFormat,
    head: String,
    message: String,
    fields: String,
}

impl Line {
    pub(super) fn new(format: LogFormat, time: Timestamp, level: Level, area: &str) -> Self {
        let mut head = String::with_capacity(256);
        match format {
            LogFormat::Text => {
                let level = match level {
                    Level::ERROR => "ERROR ",
                    Level::WARN => "WARN ",
                    _ => "",
                };
                let area = match area.to_ascii_uppercase() {
                    upper if super::OURS.contains(&area) => upper,
                    _ => area.to_owned(),
                };
                let _ = write!(head, "{time} {level}[{area}]");
            }
            LogFormat::Json => {
                let level = level.as_str().to_ascii_lowercase();
                let _ = write!(
                    head,
                    "{{\"time\":\"{time}\",\"level\":\"{level}\",\"area\":"
                );
                push_json(&mut head, area);
            }
        }
        Self {
            format,
            head,
            message: String::new(),
            fields: String::new(),
        }
    }

    pub(super) fn message(&mut self, text: &str) {
        text.clone_into(&mut self.message);
    }

    pub(super) fn field(&mut self, name: &str, value: &str, kind: Value) {
        let name = name.strip_prefix("r#").unwrap_or(name);
        match self.format {
            LogFormat::Text => {
                let _ = write!(self.fields, " {name}=");
                let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
                if kind == Value::Debug && quoted {
                    push_escaped(&mut self.fields, value);
                } else if value.is_empty()
                    || value
                        .chars()
                        .any(|c| c == ' ' || c == '"' || c == '=' || c.is_control())
                {
                    let _ = write!(self.fields, "{value:?}");
                } else {
                    self.fields.push_str(value);
                }
            }
            LogFormat::Json => {
                // A field must not pass for one of the line's own.
                let own = ["time", "level", "area", "message"].contains(&name);
                let prefix = if own { "field_" } else { "" };
                let _ = write!(self.fields, ",\"{prefix}{name}\":");
                if kind == Value::Number {
                    self.fields.push_str(value);
                } else {
                    push_json(&mut self.fields, value);
                }
            }
        }
    }

    /// The whole line with its end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut line = self.head;
        match self.format {
            LogFormat::Text => {
                line.push(' ');
                push_escaped(&mut line, &self.message);
                line.push_str(&self.fields);
                shorten(&mut line, LONGEST - 1);
            }
            LogFormat::Json => {
                // Fields that do not fit are left out rather than cut: half an object is none.
                // A text at most doubles, or grows sixfold where it is made of control characters.
                shorten(&mut self.message, LONGEST / 8);
                line.push_str(",\"message\":");
                push_json(&mut line, &self.message);
                if line.len() + self.fields.len() + 2 <= LONGEST {
                    line.push_str(&self.fields);
                } else {
                    line.push_str(",\"shortened\":true");
                }
                line.push('}');
            }
        }
        line.push('\n');
        line.into_bytes()
    }
}

/// Control characters would let a text forge lines, or steer a terminal.
fn push_escaped(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

fn push_json(line: &mut String, text: &str) {
    line.push_str(&serde_json::Value::from(text).to_string());
}

fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - '…'.len_utf8()));
        text.push('…');
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.field(field.name(), &text, Value::Debug);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message(value);
        } else {
            self.field(field.name(), value, Value::Text);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field.name(), &value.to_string(), Value::Number);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field.name(), &value.to_string(), Value::Number);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field.name(), &value.to_string(), Value::Number);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinity.
        let kind = if value.is_finite() {
            Value::Number
        } else {
            Value::Text
        };
        self.field(field.name(), &value.to_string(), kind);
    }

    /// The whole chain of causes: the line is the edge at which an error is told.
    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.field(field.name(), &text, Value::Text);
    }
}
