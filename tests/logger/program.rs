//! The logger program as a child of a test, and waiting for what it does.

use ecsd::logs::LogStream;
use ecsd::logs::reader::follower;
use ecsd::logs::record::{LogLine, decode};
use serde_json::json;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Longer than anything takes.
pub const LONG: Duration = Duration::from_secs(30);

pub const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < limit, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A logger's file for any driver.
pub fn config(driver: &str, options: serde_json::Value) -> serde_json::Value {
    json!({
        "driver": driver, "options": options, "tag": "the-tag",
        "attributes": {"STAGE": "prod", "com.example.team": "core"},
        "container": {
            "id": ID, "name": "ecs-web-3-app-00", "image_name": "web:1", "image_id": "sha256:fe",
            "command": "sh -c x", "created_ms": 1_700_000_000_123_u64,
        },
    })
}

/// The records of a log that is written no more, rotated files first.
pub fn read(path: &Path) -> Vec<LogLine> {
    let (mut files, follower) = follower().unwrap();
    files.add_rotated("log", path.to_owned());
    drop(files);
    let mut lines = Vec::new();
    follower
        .run(|line| {
            lines.extend(decode(line.text.as_bytes()));
            true
        })
        .unwrap();
    lines
}

/// A running logger and the container's ends of its pipes.
pub struct Logger {
    pub child: Child,
    pub stdout: Option<PipeWriter>,
    pub stderr: Option<PipeWriter>,
    ready: PipeReader,
    pub directory: PathBuf,
}

impl Logger {
    /// Starts the program in a directory of its own, with `config` in its configuration file.
    pub fn start(name: &str, config: impl FnOnce(PathBuf) -> String) -> Self {
        Self::start_with(name, &[], config)
    }

    /// With more in its environment.
    pub fn start_with(
        name: &str,
        environment: &[(&str, &str)],
        config: impl FnOnce(PathBuf) -> String,
    ) -> Self {
        let directory = std::env::temp_dir().join(format!("ecsd-logger-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("log")).unwrap();
        fs::write(directory.join("config"), config(directory.join("log/out.log"))).unwrap();
        // The shell moves the pipes where the shim would have them.
        let ((out, stdout), (err, stderr), (ready, said)) =
            (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
        let script = "exec 3<&0 4<&1 5>&2 0</dev/null 1>/dev/null 2>\"$0/complaints\"; exec \"$1\" --x y --config \"$0/config\"";
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(&directory)
            .arg(env!("CARGO_BIN_EXE_ecsd-logger"))
            .env("CONTAINER_ID", "c1")
            .envs(environment.iter().copied())
            .stdin(out)
            .stdout(err)
            .stderr(said)
            .spawn()
            .unwrap();
        Self { child, stdout: Some(stdout), stderr: Some(stderr), ready, directory }
    }

    /// With a driver, and a container that all drivers have something to tell of.
    pub fn driver(name: &str, driver: &str, options: serde_json::Value) -> Self {
        let mut logger = Self::start(name, |_| config(driver, options).to_string());
        logger.wait_ready();
        assert_eq!(logger.failure(), None);
        logger
    }

    /// Why the container's start fails.
    pub fn failure(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("config.failed")).ok()
    }

    /// How many messages are lost, as far as it says.
    pub fn dropped(&self) -> u64 {
        let text = fs::read_to_string(self.directory.join("config.counters")).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&text).map_or(0, |value| value["dropped"].as_u64().unwrap())
    }

    /// The container ends, and then the logger; answers how many messages were lost.
    pub fn end(mut self) -> u64 {
        (self.stdout, self.stderr) = (None, None);
        assert!(self.child.wait().unwrap().success());
        let dropped = self.dropped();
        fs::remove_dir_all(&self.directory).unwrap();
        dropped
    }

    pub fn json_file(name: &str, max_size: Option<u64>, max_files: u32) -> Self {
        Self::start(name, |path| {
            let mut options = json!({"max-file": max_files.to_string()});
            if let Some(size) = max_size {
                options["max-size"] = json!(size.to_string());
            }
            json!({"driver": "json-file", "options": options, "path": path}).to_string()
        })
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join("log/out.log")
    }

    pub fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stdout.as_ref().unwrap().write_all(text.as_ref()).unwrap();
    }

    pub fn complain(&mut self, text: &str) {
        self.stderr.as_ref().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The byte and the end of the ready pipe.
    pub fn wait_ready(&mut self) {
        let mut said = Vec::new();
        self.ready.read_to_end(&mut said).unwrap();
        assert_eq!(said, [0]);
    }

    /// The container ends; so does the logger.
    pub fn finish(mut self) -> Vec<(LogStream, String)> {
        (self.stdout, self.stderr) = (None, None);
        assert!(self.child.wait().unwrap().success());
        let lines = read(&self.path()).into_iter().map(|l| (l.stream, l.text)).collect();
        fs::remove_dir_all(&self.directory).unwrap();
        lines
    }
}
