use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("ecsd-roll-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn log(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    /// Names and contents, in order.
    fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().replace("agent.log", "log");
                (name, fs::read_to_string(&path).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
}

fn by_size(max_bytes: u64, keep: u32) -> Rolling {
    Rolling { when: Rollover::Size, max_bytes, keep }
}

#[test]
fn by_size_the_highest_number_is_the_newest_and_the_oldest_go() {
    let dir = Dir::new();
    // Not turned over by us, whatever it looks like.
    for name in ["agent.log.old", "agent.log.+7", "agent.log.2006-01-02-15"] {
        fs::write(dir.0.join(name), "").unwrap();
    }
    let mut log = RollingFile::new(&dir.log(), by_size(4, 2));
    for line in ["a\n", "b\n", "c\n", "ddddddd\n", "e\n", "f\n"] {
        log.write(line).unwrap();
    }
    let others = [("log.+7", ""), ("log.2006-01-02-15", ""), ("log.old", "")];
    let mut expected = files(&[("log", "e\nf\n"), ("log.1", "a\nb\n"), ("log.2", "c\nddddddd\n")]);
    expected.extend(files(&others));
    expected.sort();
    assert_eq!(dir.files(), expected);
    // Another life goes on where this one was, and counts past nine.
    fs::rename(dir.0.join("agent.log.2"), dir.0.join("agent.log.10")).unwrap();
    RollingFile::new(&dir.log(), by_size(4, 2)).write("g\n").unwrap();
    let mut expected = files(&[("log", "g\n"), ("log.10", "c\nddddddd\n"), ("log.11", "e\nf\n")]);
    expected.extend(files(&others));
    expected.sort();
    assert_eq!(dir.files(), expected);
}

#[test]
fn nothing_is_removed_where_all_are_to_be_kept() {
    let dir = Dir::new();
    let mut log = RollingFile::new(&dir.log(), by_size(1, 0));
    (0..30).for_each(|_| log.write("x\n").unwrap());
    assert_eq!(dir.files().len(), 30);
}

#[test]
fn by_the_hour_files_are_named_in_local_time() {
    let dir = Dir::new();
    let now = Arc::new(AtomicU64::new(0));
    let clock = now.clone();
    let mut log = RollingFile::by_clock(
        &dir.log(),
        Rolling { when: Rollover::Hourly, max_bytes: 1, keep: 3 },
        LocalTime::posix("HST10"),
        Box::new(move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed))),
    );
    let mut write = |hour: u64, minute: u64, line: &str| {
        now.store(hour * 3600 + minute * 60, Ordering::Relaxed);
        log.write(line).unwrap();
    };
    write(10, 0, "a\n");
    write(10, 59, "b\n");
    write(11, 0, "c\n");
    assert_eq!(dir.files(), files(&[("log", "c\n"), ("log.1970-01-01-00", "a\nb\n")]));
    write(35, 1, "d\n");
    // The clock goes back: that hour's file is there already.
    write(10, 30, "e\n");
    write(11, 30, "f\n");
    let kept = [
        ("log", "f\n"),
        ("log.1970-01-01-00.001", "e\n"),
        ("log.1970-01-01-01", "c\n"),
        ("log.1970-01-02-01", "d\n"),
    ];
    assert_eq!(dir.files(), files(&kept));
}

#[test]
fn a_file_of_an_hour_gone_by_is_turned_over_at_the_start() {
    let dir = Dir::new();
    fs::write(dir.log(), "before\n").unwrap();
    let before = UNIX_EPOCH + Duration::from_secs(50 * 3600);
    File::options().append(true).open(dir.log()).unwrap().set_modified(before).unwrap();
    let rolling = Rolling { when: Rollover::Hourly, max_bytes: 1, keep: 9 };
    let clock = Box::new(|| UNIX_EPOCH + Duration::from_secs(60 * 3600));
    RollingFile::by_clock(&dir.log(), rolling, LocalTime::posix("UTC0"), clock).write("now\n").unwrap();
    assert_eq!(dir.files(), files(&[("log", "now\n"), ("log.1970-01-03-02", "before\n")]));
}

#[test]
fn what_was_moved_or_removed_is_made_anew() {
    let dir = Dir::new();
    let path = dir.0.join("sub/agent.log");
    let mut log = RollingFile::plain(&path);
    log.write("a\n").unwrap();
    fs::rename(&path, dir.log()).unwrap();
    log.write("b\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
    assert_eq!(dir.files(), files(&[("log", "a\n")]));
    fs::remove_dir_all(dir.0.join("sub")).unwrap();
    log.write("c\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
}

#[test]
fn a_device_without_room_is_an_error_and_no_more() {
    let mut log = RollingFile::plain(Path::new("/dev/full"));
    for _ in 0..2 {
        assert_eq!(log.write("x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
