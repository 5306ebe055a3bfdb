//! One line of the log.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

/// `ECS_LOG_OUTPUT_FORMAT`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `level=info time=... msg="..." key=value`
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The format of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "logfmt" => Some(Self::Logfmt),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A field's value: texts are quoted, the rest is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Plain(String),
    /// A number or a truth value, as JSON writes it.
    Json(String),
}

/// Longer values are cut: one field must not fill the disk.
const MAX_VALUE: usize = 16 * 1024;

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(shorten(text.into()))
    }

    /// What was formatted by `Debug` or `Display`: as it is where that is unmistakable.
    pub(super) fn formatted(text: String) -> Self {
        let unmistakable = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        if !text.is_empty() && text.chars().all(unmistakable) {
            Self::Plain(shorten(text))
        } else {
            Self::text(text)
        }
    }
}

fn shorten(mut text: String) -> String {
    if text.len() > MAX_VALUE {
        let mut end = MAX_VALUE;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The word for a level. `tracing` has none above error: what ends the agent, or what somebody asked
/// to see whatever the level, goes by its target.
pub(super) fn word(metadata: &tracing::Metadata<'_>) -> &'static str {
    match *metadata.level() {
        tracing::Level::ERROR if metadata.target() == super::CRITICAL => "critical",
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

/// The line, with its newline. Line breaks inside values are escaped, so that nobody can write lines
/// of his own into the log.
pub(super) fn line(
    format: LogFormat,
    level: &str,
    now: SystemTime,
    message: &str,
    fields: &[(String, Value)],
) -> String {
    let time = humantime::format_rfc3339_seconds(now);
    let mut out = String::with_capacity(128 + message.len());
    // Writing to a String can't fail.
    match format {
        LogFormat::Logfmt => {
            let _ = write!(out, "level={level} time={time} msg={}", quoted(message));
            for (name, value) in fields {
                let _ = match value {
                    Value::Text(text) => write!(out, " {name}={}", quoted(text)),
                    Value::Plain(text) | Value::Json(text) => write!(out, " {name}={text}"),
                };
            }
        }
        LogFormat::Json => {
            let string = |text: &str| serde_json::Value::from(text).to_string();
            let _ = write!(out, "{{\"level\":\"{level}\",\"time\":\"{time}\",\"msg\":{}", string(message));
            // One member a name: the innermost comes first and stays. What would repeat a name of our
            // own is dropped.
            let mut members = BTreeMap::new();
            for (name, value) in
                fields.iter().filter(|(n, _)| !matches!(n.as_str(), "level" | "time" | "msg"))
            {
                members.entry(name).or_insert(value);
            }
            for (name, value) in members {
                let _ = match value {
                    Value::Text(text) | Value::Plain(text) => {
                        write!(out, ",{}:{}", string(name), string(text))
                    }
                    Value::Json(text) => write!(out, ",{}:{text}", string(name)),
                };
            }
            out.push('}');
        }
    }
    out.push('\n');
    out
}

/// Like Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn lines_have_the_originals_layout() {
        let now = UNIX_EPOCH + Duration::from_millis(1_136_214_245_999);
        let fields = [
            ("cluster".to_owned(), Value::text("a \"b\"")),
            ("n".to_owned(), Value::Json("3".into())),
            ("e".to_owned(), Value::formatted("x\nlevel=error".into())),
            ("id".to_owned(), Value::formatted("7".into())),
            ("n".to_owned(), Value::Json("4".into())),
        ];
        assert_eq!(
            line(LogFormat::Logfmt, "info", now, "It\n runs", &fields),
            "level=info time=2006-01-02T15:04:05Z msg=\"It\\n runs\" cluster=\"a \\\"b\\\"\" n=3 e=\"x\\nlevel=error\" id=7 n=4\n"
        );
        assert_eq!(
            line(LogFormat::Json, "critical", now, "It\n runs", &fields),
            "{\"level\":\"critical\",\"time\":\"2006-01-02T15:04:05Z\",\"msg\":\"It\\n runs\",\"cluster\":\"a \\\"b\\\"\",\"e\":\"x\\nlevel=error\",\"id\":\"7\",\"n\":3}\n"
        );
    }

    #[test]
    fn long_values_are_cut() {
        let Value::Text(text) = Value::text("é".repeat(MAX_VALUE)) else { panic!() };
        assert!(text.len() < MAX_VALUE + 4);
    }
}
