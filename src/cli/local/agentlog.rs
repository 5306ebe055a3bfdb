//! Reads the agent's own log lines (`level=info time=... msg="..." key=value`): pulls, launch phases
//! and errors are worth showing.

use std::collections::BTreeMap;

/// The phases of a launch, in their order.
pub const PHASES: [&str; 6] = ["payload", "pull", "create", "network", "start", "report"];

/// One line that is worth showing.
#[derive(Debug, Clone, PartialEq)]
pub enum Notable {
    /// Progress of a pull, ready to print.
    Pull(String),
    /// A task was launched: its id, and the phases of [`PHASES`] in ms where they were measured.
    Launched {
        /// Task id.
        task: String,
        /// By phase.
        phases: Vec<Option<f64>>,
    },
    /// The agent says that something failed.
    Error(String),
}

/// What is notable in a line, if anything.
pub fn notable(line: &str) -> Option<Notable> {
    let fields = fields(line);
    let get = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let message = get("msg").or(get("message")).unwrap_or_default();
    if message == "task launched" {
        let by_key: BTreeMap<_, _> = fields.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let ms = |phase: &&str| by_key.get(format!("{phase}_ms").as_str())?.parse().ok();
        let task = get("task").unwrap_or_default();
        let task = task.rsplit('/').next().unwrap_or_default().to_owned();
        return Some(Notable::Launched { task, phases: PHASES.iter().map(ms).collect() });
    }
    let source = ["target", "module", "logger"].iter().find_map(|key| get(key)).unwrap_or_default();
    if source.starts_with("ecsd::pull") {
        return Some(Notable::Pull(told(message, &fields)));
    }
    matches!(get("level"), Some("error" | "critical" | "ERROR"))
        .then(|| Notable::Error(told(message, &fields)))
}

fn told(message: &str, fields: &[(String, String)]) -> String {
    let technical = ["level", "time", "ts", "msg", "message", "target", "module", "logger", "task"];
    let rest = fields.iter().filter(|(key, _)| !technical.contains(&key.as_str()));
    rest.fold(message.to_owned(), |text, (key, value)| format!("{text} {key}={value}"))
}

/// `key=value` pairs; values may be quoted, with `\"`, `\\` and `\n` inside.
pub fn fields(line: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = line.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.rsplit(' ').next().unwrap_or(key).to_owned();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, tail) = after.split_once(' ').unwrap_or((after, ""));
                (value.to_owned(), tail)
            }
        };
        out.push((key, value));
        rest = tail.trim_start();
    }
    out
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, other)) => value.push(other),
                None => break,
            },
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_read() {
        let line = r#"level=info time=2026-11-23T22:00:00Z msg="task launched" task=0a1b payload_ms=3 pull_ms=12.5 create_ms=40 network_ms=7 start_ms=20 report_ms=2 module=engine"#;
        let Some(Notable::Launched { task, phases }) = notable(line) else { panic!() };
        assert_eq!(task, "0a1b");
        assert_eq!(phases, [Some(3.0), Some(12.5), Some(40.0), Some(7.0), Some(20.0), Some(2.0)]);
        let Some(Notable::Launched { phases, .. }) = notable(r#"msg="task launched" task=a pull_ms=-"#)
        else {
            panic!()
        };
        assert_eq!(phases, [None; 6]);
    }

    #[test]
    fn pulls_and_errors_are_read_and_the_rest_is_not() {
        let line = r#"level=info msg="layer fetched" target=ecsd::pull image="a b" bytes=12"#;
        assert_eq!(notable(line), Some(Notable::Pull("layer fetched image=a b bytes=12".into())));
        let line = r#"level=error time=x msg="no \"good\"" err=no"#;
        assert_eq!(notable(line), Some(Notable::Error("no \"good\" err=no".into())));
        for line in ["", "=", "level=info msg=x", "plain words", "a=\"", "\\"] {
            assert_eq!(notable(line), None, "{line}");
        }
    }
}
