//! Records as the user sees them: what a container wrote to standard error goes to standard error.

use crate::logs::LogStream;
use crate::logs::record::decode;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

/// A line that never ends is printed in pieces of this size, in bytes.
const LINE_MAX: usize = 1 << 20;

/// Prints records.
pub(super) struct Printer {
    /// Lines begin with the name of their container.
    named: bool,
    since: Option<SystemTime>,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Lines whose end has not come yet, where lines have names.
    begun: BTreeMap<(String, bool), String>,
}

impl Printer {
    /// To this process's standard output and standard error.
    pub fn new(named: bool, since: Option<SystemTime>) -> Self {
        Self::to(named, since, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    fn to(named: bool, since: Option<SystemTime>, out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self { named, since, out, err, begun: BTreeMap::new() }
    }

    /// One line of a json-file log. One that is no record (a crash cut it, it can't be read) goes to
    /// standard error as it is.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn line(&mut self, container: &str, line: &str) -> io::Result<()> {
        let Some(record) = decode(line.as_bytes()) else { return writeln!(self.err, "{line}") };
        let at = humantime::parse_rfc3339(&record.time).ok();
        if let (Some(since), Some(at)) = (self.since, at)
            && at < since
        {
            return Ok(());
        }
        let is_err = record.stream == LogStream::Stderr;
        if !self.named {
            return self.write(is_err, &record.text);
        }
        let key = (container.to_owned(), is_err);
        let begun = self.begun.entry(key.clone()).or_default();
        begun.push_str(&record.text);
        if !begun.ends_with('\n') && begun.len() < LINE_MAX {
            return Ok(());
        }
        let line = self.begun.remove(&key).unwrap_or_default();
        self.named_line(container, is_err, &line)
    }

    /// Prints what has no end yet.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn end(mut self) -> io::Result<()> {
        for ((container, is_err), line) in std::mem::take(&mut self.begun) {
            self.named_line(&container, is_err, &line)?;
        }
        Ok(())
    }

    fn named_line(&mut self, container: &str, is_err: bool, line: &str) -> io::Result<()> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        self.write(is_err, &format!("{container} | {line}\n"))
    }

    fn write(&mut self, is_err: bool, text: &str) -> io::Result<()> {
        let to = if is_err { &mut self.err } else { &mut self.out };
        to.write_all(text.as_bytes())?;
        // Half a line must be seen, too.
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(named: bool, since: Option<&str>, lines: &[(&str, &str)]) -> (String, String) {
        let (out, err) = (Shared::default(), Shared::default());
        let since = since.map(|text| humantime::parse_rfc3339(text).unwrap());
        let mut printer = Printer::to(named, since, Box::new(out.clone()), Box::new(err.clone()));
        for (container, line) in lines {
            printer.line(container, line).unwrap();
        }
        printer.end().unwrap();
        let text = |shared: Shared| String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        (text(out), text(err))
    }

    fn record(text: &str, stream: &str, second: u32) -> String {
        let time = format!("2026-01-02T03:04:{second:02}.5Z");
        serde_json::json!({"log": text, "stream": stream, "time": time}).to_string()
    }

    #[test]
    fn text_is_as_the_container_wrote_it_and_streams_stay_apart() {
        let (a, b, c) =
            (record("one, ", "stdout", 1), record("two\n", "stderr", 2), record("three", "stdout", 3));
        let lines = [("web", a.as_str()), ("web", &b), ("web", &c), ("web", "{\"cut")];
        assert_eq!(printed(false, None, &lines), ("one, three".into(), "two\n{\"cut\n".into()));
        let since = Some("2026-01-02T03:04:02Z");
        assert_eq!(printed(false, since, &lines), ("three".into(), "two\n{\"cut\n".into()));
    }

    #[test]
    fn lines_of_several_containers_are_named_and_whole() {
        let (a, b) = (record("half a ", "stdout", 1), record("line\n", "stdout", 1));
        let (other, open) = (record("its own\n", "stdout", 1), record("no end", "stderr", 1));
        let lines = [("web", a.as_str()), ("db", &other), ("web", &b), ("db", &open)];
        let expected = ("db | its own\nweb | half a line\n".into(), "db | no end\n".into());
        assert_eq!(printed(true, None, &lines), expected);
        let endless = record(&"x".repeat(LINE_MAX / 2), "stdout", 1);
        let (out, _) = printed(true, None, &[("web", &endless), ("web", &endless), ("web", &endless)]);
        assert_eq!(out.lines().count(), 2, "in pieces");
    }
}
