//! How many messages a logger lost, in a small file beside its configuration, which the agent reads
//! for the introspection endpoint: `{"dropped":3}`. There is none where nothing was lost.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Behind the name of the configuration.
const SUFFIX: &str = ".counters";
/// The file is written no more often.
const BETWEEN: Duration = Duration::from_secs(1);

/// Messages lost so far, by this logger and those before it.
#[derive(Debug)]
pub struct Counters {
    file: PathBuf,
    dropped: AtomicU64,
    written: Mutex<(u64, Option<Instant>)>,
}

impl Counters {
    /// Goes on where the loggers of the container's earlier processes ended.
    pub fn beside(config: &Path) -> Self {
        let file = with_suffix(config, SUFFIX);
        let before = dropped(config);
        Self { file, dropped: AtomicU64::new(before), written: Mutex::new((before, None)) }
    }

    /// Messages were lost.
    pub fn add(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
        self.write_if(|last| last.is_none_or(|last| last.elapsed() >= BETWEEN));
    }

    /// When the file should be written, where it is not up to date.
    pub fn due(&self) -> Option<Instant> {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = written.0 != self.dropped.load(Ordering::Relaxed);
        stale.then(|| written.1.map_or_else(Instant::now, |last| last + BETWEEN))
    }

    /// Brings the file up to date.
    pub fn write(&self) {
        self.write_if(|_| true);
    }

    fn write_if(&self, due: impl FnOnce(Option<Instant>) -> bool) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped == written.0 || !due(written.1) {
            return;
        }
        // Whole at any time, for whoever reads it. On a full disk it is tried again.
        let new = with_suffix(&self.file, ".new");
        let text = serde_json::json!({ "dropped": dropped }).to_string();
        let done = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.file));
        *written = (if done.is_ok() { dropped } else { written.0 }, Some(Instant::now()));
    }
}

/// How many messages were lost, by the file beside a logger's configuration.
pub fn dropped(config: &Path) -> u64 {
    let text = std::fs::read_to_string(with_suffix(config, SUFFIX)).unwrap_or_default();
    let value = serde_json::from_str::<serde_json::Value>(&text).ok();
    value.and_then(|value| value.get("dropped")?.as_u64()).unwrap_or(0)
}

/// A name with something behind it.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_add_up_over_loggers() {
        let config = std::env::temp_dir().join(format!("ecsd-counters-{}", std::process::id()));
        let file = with_suffix(&config, ".counters");
        let counters = Counters::beside(&config);
        counters.write();
        assert!(!file.exists(), "nothing was lost");
        counters.add(2);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), r#"{"dropped":2}"#);
        assert_eq!(counters.due(), None);
        counters.add(1);
        assert!(counters.due().is_some());
        counters.write();
        Counters::beside(&config).add(4);
        assert_eq!(dropped(&config), 7);
        std::fs::remove_file(file).unwrap();
    }
}
