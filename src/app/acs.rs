//! From ACS to the engine: each message's tasks are handed over, and the message is answered for once
//! they are durable.

use super::attach;
use super::doctor::Doctor;
use crate::control::CredentialsStore;
use crate::control::acs::AcsEvent;
use crate::engine::{EngineHandle, WantedTask};
use crate::model::{DesiredStatus, TaskArn};
use crate::ports::{Store, StoreChange, TasksView};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};

/// Key of the newest task manifest, as the original names it.
pub const MANIFEST_SEQUENCE: &str = "task-manifest-seq-num";

/// Why there are no more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The session is gone.
    Session,
    /// A staged agent is to be started.
    Update,
}

/// Whom events concern besides the engine.
pub struct Listeners {
    /// Network interfaces.
    pub attachments: mpsc::Sender<attach::Announcement>,
    /// Heartbeats set it to work.
    pub doctor: Arc<Doctor>,
    /// Told when the instance is not registered any more.
    pub drop_telemetry: Arc<Notify>,
}

/// Takes events until there are no more.
pub async fn serve(
    mut events: mpsc::Receiver<AcsEvent>,
    engine: EngineHandle,
    store: Arc<dyn Store>,
    listeners: Listeners,
) -> Ended {
    let tasks = engine.view();
    while let Some(event) = events.recv().await {
        match event {
            AcsEvent::Payload { message_id, tasks, rejected, respond } => {
                tracing::debug!(message = message_id, tasks = tasks.len(), "payload");
                for (arn, reason) in &rejected {
                    tracing::warn!(task = %arn, reason, "task can't be taken");
                }
                let wanted =
                    tasks.into_iter().map(|(desired, spec, source)| WantedTask { spec, desired, source });
                let durable = engine.submit(wanted.collect(), rejected).await;
                // The session may be gone: then the message comes again.
                let _ = respond.send(durable.then_some(()).ok_or(()));
            }
            AcsEvent::Credentials { task, role, respond, .. } => {
                let known = tasks.borrow().contains_key(&task.id());
                tracing::debug!(%task, ?role, known, "role credentials");
                let _ = respond.send(known.then_some(()).ok_or(()));
            }
            AcsEvent::Manifest { timeline, respond } => {
                let stored = store_sequence(&store, timeline).await;
                let _ = respond.send(stored.then(|| running(&tasks)).ok_or(()));
            }
            AcsEvent::Attachments { attachments, respond } => {
                // Where nobody takes it, `respond` is dropped, and the message comes again.
                drop(listeners.attachments.send((attachments, respond)).await);
            }
            AcsEvent::Update => return Ended::Update,
            AcsEvent::StopTasks(arns) => stop(&engine, &tasks, arns).await,
            AcsEvent::Heartbeat => listeners.doctor.ask(),
            AcsEvent::Deregistered => {
                listeners.drop_telemetry.notify_one();
                tracing::error!(
                    "this container instance was deregistered; tasks go on, nothing new is taken"
                );
            }
        }
    }
    Ended::Session
}

/// Forgets the credentials of tasks that are gone. Those of a task that is yet to come are safe: only
/// what was once seen can go.
pub async fn forget_credentials(mut tasks: watch::Receiver<TasksView>, roles: CredentialsStore) {
    let mut before = BTreeSet::new();
    loop {
        let now: BTreeSet<TaskArn> =
            tasks.borrow_and_update().values().map(|task| task.spec.arn.clone()).collect();
        before.difference(&now).for_each(|gone| roles.forget(gone));
        before = now;
        if tasks.changed().await.is_err() {
            return;
        }
    }
}

async fn store_sequence(store: &Arc<dyn Store>, timeline: i64) -> bool {
    let store = store.clone();
    let change = StoreChange::PutMeta(MANIFEST_SEQUENCE, timeline.to_string());
    let written = tokio::task::spawn_blocking(move || store.commit(&[change])).await;
    matches!(written, Ok(Ok(())))
}

fn running(tasks: &watch::Receiver<TasksView>) -> Vec<TaskArn> {
    let view = tasks.borrow();
    let wanted = view.values().filter(|task| task.progress.desired == DesiredStatus::Running);
    wanted.map(|task| task.spec.arn.clone()).collect()
}

async fn stop(engine: &EngineHandle, tasks: &watch::Receiver<TasksView>, arns: Vec<TaskArn>) {
    let view = tasks.borrow().clone();
    let known = arns.iter().filter_map(|arn| view.get(&arn.id()));
    let wanted = known.map(|task| WantedTask {
        spec: task.spec.clone(),
        desired: DesiredStatus::Stopped,
        // The store has it already: a task that is known is never written anew.
        source: Arc::from(""),
    });
    engine.submit(wanted.collect(), Vec::new()).await;
}

#[cfg(test)]
#[path = "acs_tests.rs"]
mod tests;
