//! Places at which a test has the agent die: before and after each thing that it does to the world.
//!
//! `ECSD_CRASH_FILE` names a file, read once from the environment. Each visit of a place is appended to
//! `<file>.visits`; at the visit that the file itself names (`after-create:2`, counted since it was
//! written) the process sends itself SIGKILL, so that nothing more of it is done. The tests are in
//! `tests/agent/crash_matrix.rs`. While there is a file `<file>.full`, no commit finds room: a store that
//! reuses its own free pages goes on for a while on a disk that is full, and a test can't wait for that.
//!
//! It is there in builds with debug assertions alone, which are those that the tests are built with
//! anyway: a cargo feature would have every test build the crate once more. Of the released programs
//! nothing of it is a part; `tests/architecture.rs` compiles this file as they are and looks.

/// Of what a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Nothing of it was done.
    Before,
    /// It was done, and nobody was told.
    After,
}

/// The agent comes by a place.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn pass(_moment: Moment, _what: &str) {}

/// A test wants the state's disk to be full.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn disk_is_full() -> bool {
    false
}

#[cfg(debug_assertions)]
pub(crate) use armed::{disk_is_full, pass};

#[cfg(debug_assertions)]
mod armed {
    use super::Moment;
    use nix::sys::signal::{Signal, kill};
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// What was asked for, and how often the agent has come by there since.
    #[derive(Default)]
    struct Wish {
        text: String,
        visits: usize,
    }

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static WISH: Mutex<Wish> = Mutex::new(Wish { text: String::new(), visits: 0 });

    /// The agent comes by a place, and may end there.
    pub(crate) fn pass(moment: Moment, what: &str) {
        let Some(file) = file() else { return };
        let place = match moment {
            Moment::Before => format!("before-{what}"),
            Moment::After => format!("after-{what}"),
        };
        let mut wish = WISH.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = std::fs::read_to_string(file).unwrap_or_default();
        if wish.text != asked {
            *wish = Wish { text: asked, visits: 0 };
        }
        let wanted = wish.text.trim().rsplit_once(':').filter(|(wanted, _)| *wanted == place);
        let at = wanted.and_then(|(_, visit)| visit.parse::<usize>().ok());
        wish.visits += usize::from(at.is_some());
        note(file, &place);
        if at == Some(wish.visits) {
            let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
        }
    }

    /// A test wants the state's disk to be full.
    pub(crate) fn disk_is_full() -> bool {
        file().is_some_and(|file| beside(file, ".full").exists())
    }

    fn file() -> Option<&'static Path> {
        FILE.get_or_init(|| std::env::var_os("ECSD_CRASH_FILE").map(PathBuf::from)).as_deref()
    }

    fn beside(file: &Path, suffix: &str) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    fn note(file: &Path, place: &str) {
        if let Ok(mut visits) =
            std::fs::File::options().create(true).append(true).open(beside(file, ".visits"))
        {
            let _ = writeln!(visits, "{place}");
        }
    }
}
