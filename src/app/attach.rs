//! Network interfaces from announcement to confirmation: carries out what
//! [`crate::core::attach::Attachments`] decides. While none is awaited, nothing is watched.

use crate::core::ReportOutcome;
use crate::core::attach::{AttachEffect, AttachEvent, Attachments};
use crate::model::{Attachment, MacAddress, Wall};
use crate::ports::{AttachmentReporter, Links, Store, StoreChange, TasksView};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Links are looked at so often even where the kernel told of no change (spec/control-plane.md 3.7).
pub const RECONCILE: Duration = Duration::from_secs(30);

/// Announced interfaces, and who wants to know that they are durable.
pub type Announcement = (Vec<Attachment>, oneshot::Sender<Result<(), ()>>);

/// What it takes.
pub struct Service {
    /// Where they are kept.
    pub store: Arc<dyn Store>,
    /// The host.
    pub links: Arc<dyn Links>,
    /// The control plane.
    pub reporter: Arc<dyn AttachmentReporter>,
    /// The tasks: what was told stays known for as long as its task.
    pub tasks: watch::Receiver<TasksView>,
    /// [`RECONCILE`]; shortened by tests.
    pub reconcile: Duration,
}

impl Service {
    /// Runs until nobody announces any more.
    pub async fn run(mut self, stored: Vec<Attachment>, mut inbox: mpsc::Receiver<Announcement>) {
        let mut state = Attachments::restored(stored);
        let mut telling: JoinSet<(MacAddress, bool)> = JoinSet::new();
        let mut watching: Option<BoxStream<'static, ()>> = None;
        let mut reconcile = tokio::time::interval(self.reconcile);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut event = self.tasks_now();
        loop {
            self.step(&mut state, &mut telling, event).await;
            if !state.awaits_links() {
                watching = None;
            } else if watching.is_none() {
                watching = self
                    .links
                    .watch()
                    .inspect_err(|error| tracing::warn!(%error, "links can't be watched"))
                    .ok();
                if watching.is_some() {
                    // What was there before the watch began.
                    event = self.links_now().await;
                    continue;
                }
                // Refused: the timer has the links looked at, and whatever comes next tries again.
            }
            let expiry = state.next_expiry();
            // Every arm waits on what stays where it is: channels, the stream, the set; a timer that
            // lost the race is set again from the same moment.
            event = tokio::select! {
                announced = inbox.recv() => match announced {
                    Some(announcement) => self.announce(&mut state, &mut telling, announcement).await,
                    None => return,
                },
                changed = next(&mut watching) => {
                    if changed.is_none() {
                        watching = None;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    self.links_now().await
                }
                _ = reconcile.tick(), if state.awaits_links() => self.links_now().await,
                () = until(expiry), if expiry.is_some() => AttachEvent::Tick,
                Some(done) = telling.join_next(), if !telling.is_empty() => match done {
                    Ok((mac, accepted)) => AttachEvent::Told { mac, accepted },
                    Err(error) => {
                        tracing::error!(%error, "an attachment could not be told");
                        AttachEvent::Tick
                    }
                },
                // What is not looked at now is still news when there is an attachment.
                changed = self.tasks.changed(), if !state.is_empty() => {
                    if changed.is_err() {
                        return;
                    }
                    self.tasks_now()
                }
            };
        }
    }

    /// Each is made durable before it is answered for. What comes too much is not taken at all.
    async fn announce(
        &self,
        state: &mut Attachments,
        telling: &mut JoinSet<(MacAddress, bool)>,
        (announced, respond): Announcement,
    ) -> AttachEvent {
        let mut durable = state.can_take(&announced);
        if !durable {
            tracing::error!(announced = announced.len(), "no more attachments can be taken now");
        }
        for attachment in announced {
            if !durable {
                break;
            }
            let mac = attachment.mac;
            tracing::info!(attachment = attachment.arn, %mac, "a network interface is announced");
            durable = self.step(state, telling, AttachEvent::Announced(attachment)).await;
            if !durable {
                state.take_back(mac);
            }
        }
        // The session may be gone: then the message comes again.
        let _ = respond.send(durable.then_some(()).ok_or(()));
        AttachEvent::Tick
    }

    /// Answers whether all of it is durable.
    async fn step(
        &self,
        state: &mut Attachments,
        telling: &mut JoinSet<(MacAddress, bool)>,
        event: AttachEvent,
    ) -> bool {
        let is_new = matches!(event, AttachEvent::Announced(_));
        let mut changes = Vec::new();
        let mut to_tell = Vec::new();
        for effect in state.step(event, SystemTime::now().into()) {
            match effect {
                AttachEffect::Store(attachment) => changes.push(StoreChange::PutAttachment(attachment)),
                AttachEffect::Forget(mac) => changes.push(StoreChange::RemoveAttachment(mac)),
                AttachEffect::Tell(attachment) => to_tell.push(attachment),
            }
        }
        let durable = changes.is_empty() || self.commit(changes).await;
        // An announcement that is not durable is taken back, and so not told.
        for attachment in to_tell.into_iter().filter(|_| durable || !is_new) {
            let reporter = Arc::clone(&self.reporter);
            telling.spawn(async move {
                let accepted = reporter.attached(&attachment).await == ReportOutcome::Accepted;
                tracing::info!(attachment = attachment.arn, accepted, "a network interface is here");
                (attachment.mac, accepted)
            });
        }
        durable
    }

    async fn commit(&self, changes: Vec<StoreChange>) -> bool {
        let store = Arc::clone(&self.store);
        let written = tokio::task::spawn_blocking(move || store.commit(&changes)).await;
        match written {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "attachments could not be stored");
                false
            }
            Err(_) => false,
        }
    }

    fn tasks_now(&mut self) -> AttachEvent {
        let view = self.tasks.borrow_and_update();
        AttachEvent::Tasks(view.values().map(|task| task.spec.arn.clone()).collect())
    }

    async fn links_now(&self) -> AttachEvent {
        match self.links.list().await {
            Ok(links) => AttachEvent::Links(links),
            Err(error) => {
                tracing::warn!(%error, "the host's links can't be listed");
                AttachEvent::Tick
            }
        }
    }
}

async fn next(watching: &mut Option<BoxStream<'static, ()>>) -> Option<()> {
    match watching {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// At most a day at a time: the wall clock may be set.
async fn until(moment: Option<Wall>) {
    let left = moment.map(|at| at.since(SystemTime::now().into())).unwrap_or_default();
    tokio::time::sleep(left.min(Duration::from_secs(24 * 3600))).await;
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
