use super::*;
use std::sync::mpsc;

const STDOUT: Targets = Targets { stdout: true, file: false, audit: false };

/// Shows what is written; a write waits, or fails, as it is told to.
struct Gate {
    answers: mpsc::Receiver<Result<(), io::ErrorKind>>,
    written: mpsc::Sender<String>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // No more answers: everything passes.
        self.answers.recv().unwrap_or(Ok(())).map_err(io::Error::from)?;
        self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Opened = (Writer, mpsc::Sender<Result<(), io::ErrorKind>>, mpsc::Receiver<String>);

fn gate() -> Opened {
    let (answer, answers) = mpsc::channel();
    let (written, lines) = mpsc::channel();
    let sinks = Sinks { stdout: Some(Box::new(Gate { answers, written })), ..Sinks::default() };
    (Writer::start(sinks, LogFormat::Logfmt).unwrap(), answer, lines)
}

#[test]
fn a_sink_that_is_stuck_costs_lines_that_are_counted_and_no_time() {
    let (writer, answer, lines) = gate();
    writer.write(STDOUT, "first\n".into());
    // The thread has that one, and waits in the sink; the next fill the queue.
    while !writer.0.lock().lines.is_empty() {
        std::thread::yield_now();
    }
    for _ in 0..QUEUE_MAX / 1024 {
        writer.write(STDOUT, "x".repeat(1024));
    }
    for _ in 0..3 {
        writer.write(STDOUT, "too much".into());
    }
    drop(answer);
    assert!(writer.flush());
    let lines: Vec<String> = lines.try_iter().collect();
    assert_eq!(lines.len(), 1 + QUEUE_MAX / 1024 + 1);
    assert!(lines.last().unwrap().ends_with("lines were dropped\" lines=3\n"), "{:?}", lines.last());
}

#[test]
fn lines_that_fail_are_told_once_lines_pass_again() {
    let (writer, answer, lines) = gate();
    for _ in 0..2 {
        answer.send(Err(io::ErrorKind::StorageFull)).unwrap();
    }
    drop(answer);
    for text in ["a\n", "b\n", "c\n", "d\n"] {
        writer.write(STDOUT, text.into());
    }
    assert!(writer.flush());
    let lines: Vec<String> = lines.try_iter().collect();
    assert_eq!((lines.len(), &*lines[1], &*lines[2]), (3, "c\n", "d\n"));
    assert!(lines[0].contains("lost\" lines=2 error=\""), "{lines:?}");
}

#[test]
fn a_line_goes_to_its_targets_alone() {
    let path = std::env::temp_dir().join(format!("ecsd-writer-{}", uuid::Uuid::new_v4()));
    let sinks = Sinks { audit: Some(RollingFile::plain(&path)), ..Sinks::default() };
    let writer = Writer::start(sinks, LogFormat::Json).unwrap();
    writer.write(Targets { file: true, ..STDOUT }, "not there\n".into());
    writer.write(Targets { audit: true, ..STDOUT }, "there\n".into());
    assert!(writer.flush());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "there\n");
    std::fs::remove_file(&path).unwrap();
}
