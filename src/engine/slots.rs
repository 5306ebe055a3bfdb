//! How many effects run at once, and who may hold up whom.
//!
//! Each class has its slots, given in order. Two rules keep what hangs from holding up anything but its
//! own task:
//!
//! 1. **A share.** No task has more than a quarter of a class's slots. So a task of which everything
//!    hangs, however many containers it has, leaves three quarters to the others.
//! 2. **A time.** An effect that runs for longer than [`Limits::patience`] gives its slot back and goes
//!    on without one. So hanging tasks, however many, hold up the others for that long at the most. What
//!    bounds the effects that have no slot is their deadline.
//!
//! What pulls use (memory, disk, the network) is as real after ten seconds as before, but is bounded
//! where it is used: by places for transfers, which a registry that falls silent does not keep
//! (`containerd::image::gate`), and by the number of layers that are unpacked. Looking up a digest is no
//! pull.
//!
//! The deadline of an effect counts the wait for its slot too: one whose turn does not come in time is
//! never begun.

use crate::core::EffectClass;
use crate::model::TaskId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many effects of a class run at once; the rest wait in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Look-ups of digests: they mostly wait.
    pub resolve: usize,
    /// Pulls.
    pub pull: usize,
    /// Creating and starting.
    pub launch: usize,
    /// Signals, kills, releases.
    pub stop: usize,
    /// Clean-ups.
    pub cleanup: usize,
    /// Reports: they mostly wait, for their turn or to be tried again. How many are sent at once is the
    /// reporter's business.
    pub report: usize,
    /// How long an effect has its slot; reports have it to their end.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let patience = Duration::from_secs(10);
        Self { resolve: 64, pull: 32, launch: 16, stop: 64, cleanup: 4, report: 4096, patience }
    }
}

/// The slots of all classes.
#[derive(Debug)]
pub(super) struct Slots {
    resolve: Arc<Class>,
    pull: Arc<Class>,
    launch: Arc<Class>,
    stop: Arc<Class>,
    cleanup: Arc<Class>,
    report: Arc<Class>,
}

/// The slots of one class.
#[derive(Debug)]
pub(super) struct Class {
    all: Arc<Semaphore>,
    /// What one task may have of them.
    share: usize,
    tasks: Mutex<BTreeMap<TaskId, Weak<Semaphore>>>,
    patience: Option<Duration>,
}

impl Slots {
    pub fn new(limits: &Limits) -> Self {
        let (some, none) = (Some(limits.patience), None);
        Self {
            resolve: Class::new(limits.resolve, some),
            pull: Class::new(limits.pull, some),
            launch: Class::new(limits.launch, some),
            stop: Class::new(limits.stop, some),
            cleanup: Class::new(limits.cleanup, some),
            report: Class::new(limits.report, none),
        }
    }

    pub fn of(&self, class: EffectClass) -> Arc<Class> {
        match class {
            EffectClass::Resolve => self.resolve.clone(),
            EffectClass::Pull => self.pull.clone(),
            EffectClass::Launch => self.launch.clone(),
            EffectClass::Stop => self.stop.clone(),
            EffectClass::Cleanup => self.cleanup.clone(),
            EffectClass::Report => self.report.clone(),
        }
    }
}

impl Class {
    fn new(slots: usize, patience: Option<Duration>) -> Arc<Self> {
        let slots = slots.max(1);
        let (all, share) = (Arc::new(Semaphore::new(slots)), slots.div_ceil(4));
        Arc::new(Self { all, share, tasks: Mutex::default(), patience })
    }

    /// Runs `work` in a slot.
    pub async fn run<T>(&self, task: &TaskId, work: impl Future<Output = T>) -> T {
        let slot = self.enter(task).await;
        let Some(patience) = self.patience else { return work.await };
        tokio::pin!(work);
        match tokio::time::timeout(patience, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                drop(slot);
                work.await
            }
        }
    }

    /// First one of the task's own, so that who waits for these waits in nobody's way. A semaphore that
    /// is never closed always answers.
    async fn enter(&self, task: &TaskId) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let own = self.own(task).acquire_owned().await.ok();
        (own, self.all.clone().acquire_owned().await.ok())
    }

    fn own(&self, task: &TaskId) -> Arc<Semaphore> {
        // Nothing below panics while it is held.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = tasks.get(task).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(self.share));
        tasks.insert(task.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskArn;
    use futures_util::poll;
    use std::future::pending;

    fn task(name: &str) -> TaskId {
        TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{name}")).unwrap().id()
    }

    #[tokio::test]
    async fn a_task_of_which_everything_hangs_leaves_room_for_others() {
        let class = Class::new(8, Some(Duration::from_secs(3600)));
        let (hangs, other) = (task("hangs"), task("other"));
        let mut hanging: Vec<_> = (0..20).map(|_| Box::pin(class.run(&hangs, pending::<()>()))).collect();
        for one in &mut hanging {
            assert!(poll!(one).is_pending());
        }
        assert_eq!(class.all.available_permits(), 6);
        class.run(&other, async {}).await;
        // Who left makes room for the next one of the same task.
        drop(hanging);
        class.run(&hangs, async {}).await;
        assert_eq!(class.all.available_permits(), 8);
        class.run(&other, async {}).await;
        assert_eq!(class.tasks.lock().unwrap().len(), 1, "tasks that are gone are forgotten");
    }

    #[tokio::test]
    async fn who_takes_too_long_goes_on_without_a_slot() {
        let class = Class::new(1, Some(Duration::from_millis(10)));
        let (hangs, other) = (task("hangs"), task("other"));
        let (finish, finished) = tokio::sync::oneshot::channel();
        let slow = async { class.run(&hangs, async { finished.await.is_ok() }).await };
        let next = async {
            class.run(&other, async {}).await;
            finish.send(()).unwrap();
        };
        // The second one ends first, though there is but one slot.
        assert!(futures_util::join!(slow, next).0);
    }

    #[tokio::test]
    async fn pulls_from_a_dead_registry_do_not_keep_their_slots() {
        let limits = Limits { pull: 1, patience: Duration::from_millis(10), ..Limits::default() };
        let class = Slots::new(&limits).of(EffectClass::Pull);
        let (hangs, other) = (task("hangs"), task("other"));
        let mut pull = Box::pin(class.run(&hangs, pending::<()>()));
        assert!(poll!(&mut pull).is_pending());
        let next = class.run(&other, async {});
        tokio::select! {
            () = &mut pull => panic!("it hangs"),
            () = next => {}
        }
    }
}
