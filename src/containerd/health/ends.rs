//! How runs of health checks ended, as the event stream tells it: it tells of them anyway, so a call that
//! waits is spared for most. The stream may lose an event, so whoever waits here asks, too, after a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Process and exit status of a run.
type End = (u32, u32);

/// Who waits for the ends of a container's runs.
#[derive(Debug, Default)]
pub(in crate::containerd) struct Ends(Mutex<HashMap<String, watch::Sender<Option<End>>>>);

/// The newest end in one container.
#[derive(Debug)]
pub(super) struct EndsOf(watch::Receiver<Option<End>>);

impl Ends {
    /// From now on the ends of the runs in that container are kept, for as long as the answer is.
    pub(super) fn of(&self, container: &str) -> EndsOf {
        let (told, ends) = watch::channel(None);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, told| !told.is_closed());
        all.insert(container.to_owned(), told);
        EndsOf(ends)
    }

    /// The stream told of one.
    pub(in crate::containerd) fn note(&self, container: &str, pid: u32, status: u32) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = all.get(container) {
            told.send_replace(Some((pid, status)));
        }
    }
}

impl EndsOf {
    /// The exit status of that process, once it is told; never where it is not.
    pub(super) async fn told(&mut self, pid: u32) -> u32 {
        let of_it = |end: &Option<End>| end.is_some_and(|(ended, _)| ended == pid);
        match self.0.wait_for(of_it).await.map(|end| *end) {
            Ok(Some((_, status))) => status,
            // Nobody is left to tell.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn each_end_is_its_own_process_and_nobody_who_left_is_kept() {
        let ends = Ends::default();
        let (mut one, two) = (ends.of("one"), ends.of("two"));
        ends.note("one", 7, 3);
        assert_eq!(one.told(8).now_or_never(), None);
        assert_eq!(one.told(7).now_or_never(), Some(3));
        ends.note("one", 8, 0);
        assert_eq!(one.told(8).now_or_never(), Some(0));
        ends.note("nobody", 9, 0);
        drop(two);
        let _again = ends.of("one");
        assert_eq!(ends.0.lock().unwrap().len(), 1);
        assert_eq!(one.told(9).now_or_never(), None, "its place was taken");
    }
}
