//! The store's own thread. Commits are what everything else relies on, so they never wait for one of the
//! runtime's threads for blocking work: those may all hang, on a volume of a file server that went away.

use crate::ports::{Store, StoreChange};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

type Answer = Result<(), String>;

/// Writes, one commit after the other. The thread begins with the first and ends with the writer.
pub(super) struct Writer {
    store: Arc<dyn Store>,
    thread: Option<mpsc::Sender<Commit>>,
}

struct Commit {
    changes: Vec<StoreChange>,
    done: oneshot::Sender<Answer>,
}

impl Writer {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, thread: None }
    }

    /// Makes changes durable.
    ///
    /// # Errors
    /// The store's words, or why there is no thread; the next commit begins a new one.
    pub async fn commit(&mut self, changes: Vec<StoreChange>) -> Answer {
        let (done, answer) = oneshot::channel();
        let sent = self.thread()?.send(Commit { changes, done });
        let answer = match sent {
            Ok(()) => answer.await.map_err(|_| ()),
            Err(_) => Err(()),
        };
        answer.unwrap_or_else(|()| {
            self.thread = None;
            Err("the thread of the store ended: a panic, see above".to_owned())
        })
    }

    fn thread(&mut self) -> Result<&mpsc::Sender<Commit>, String> {
        if self.thread.is_none() {
            let (sender, commits) = mpsc::channel::<Commit>();
            let store = self.store.clone();
            let work = move || {
                for Commit { changes, done } in commits {
                    let written = store.commit(&changes).map_err(|error| error.to_string());
                    // Who asked may have been told to end.
                    let _ = done.send(written);
                }
            };
            let begun = thread::Builder::new().name("store".to_owned()).spawn(work);
            begun.map_err(|error| format!("no thread for the store: {error}"))?;
            self.thread = Some(sender);
        }
        self.thread.as_ref().ok_or_else(|| "no thread for the store".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Loaded, StoreError};
    use std::sync::Mutex;

    /// Keeps what is written; panics at an empty commit.
    #[derive(Default)]
    struct Kept(Mutex<Vec<StoreChange>>);

    impl Store for Kept {
        fn load(&self) -> Result<Loaded, StoreError> {
            Ok(Loaded::default())
        }

        fn commit(&self, changes: &[StoreChange]) -> Result<(), StoreError> {
            assert!(!changes.is_empty(), "scripted");
            self.0.lock().unwrap().extend_from_slice(changes);
            Ok(())
        }
    }

    fn change(value: &str) -> Vec<StoreChange> {
        vec![StoreChange::PutMeta("key", value.to_owned())]
    }

    #[test]
    fn commits_do_not_wait_for_threads_that_hang() {
        let (release, hang) = mpsc::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let hanging = tokio::task::spawn_blocking(move || hang.recv());
            let store = Arc::new(Kept::default());
            let mut writer = Writer::new(store.clone());
            assert_eq!(writer.commit(change("1")).await, Ok(()));
            assert_eq!(writer.commit(change("2")).await, Ok(()));
            assert_eq!(*store.0.lock().unwrap(), [change("1"), change("2")].concat());
            drop(release);
            assert!(hanging.await.unwrap().is_err());
        });
    }

    #[tokio::test]
    async fn a_panic_of_the_store_is_an_error_and_the_next_commit_works() {
        let store = Arc::new(Kept::default());
        let mut writer = Writer::new(store.clone());
        assert!(writer.commit(Vec::new()).await.unwrap_err().contains("panic"));
        assert_eq!(writer.commit(change("1")).await, Ok(()));
        assert_eq!(*store.0.lock().unwrap(), change("1"));
    }
}
