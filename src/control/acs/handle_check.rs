//! What must hold of every decision about every message, whatever a control plane sends. Property tests
//! and the fuzz targets drive it; it is no part of the agent.

use super::{Handled, handle};
use crate::control::acs::event::{AcsEvent, Memory};
use crate::control::acs::wire::{AgentMessage, ServerMessage};
use crate::control::roles::CredentialsStore;
use crate::model::{DesiredStatus, TaskArn};
use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};

/// Decodes and handles frames in order, for an engine that agrees to everything.
///
/// # Panics
/// Where a decision is not consistent.
pub fn take<'a>(frames: impl IntoIterator<Item = &'a str>) {
    let roles = CredentialsStore::default();
    let mut memory = Memory::new(-1, false);
    for frame in frames {
        let Ok(message) = ServerMessage::decode(frame) else { continue };
        let (sequence, known) = (memory.sequence, roles.len());
        let named = match &message {
            ServerMessage::Payload(payload, unreadable) => payload.tasks.len() + unreadable.len(),
            _ => 0,
        };
        let handled = handle(&roles, &mut memory, message);
        assert!(memory.sequence >= sequence, "an older manifest would be taken");
        assert!(roles.len() >= known, "credentials are lost");
        check(handled, named);
    }
}

fn check(handled: Handled, named: usize) {
    let Handled { now, events, later, update } = handled;
    assert!(update.is_none(), "updates are off");
    assert!(events.len() <= 1, "one message, one event");
    now.iter().for_each(|frame| assert!(readable(frame)));
    let mut complete = true;
    let answers = events.len();
    for event in events {
        match event {
            AcsEvent::Payload { tasks, rejected, respond, message_id } => {
                assert!(!message_id.is_empty());
                assert!(tasks.len() + rejected.len() <= named, "tasks out of nothing");
                complete = tasks.len() + rejected.len() == named && rejected.is_empty();
                let first_start =
                    tasks.iter().position(|t| t.0 == DesiredStatus::Running).unwrap_or(tasks.len());
                assert!(
                    tasks.iter().skip(first_start).all(|t| t.0 == DesiredStatus::Running),
                    "stops come first"
                );
                for (_, spec, _) in &tasks {
                    assert!(!spec.containers.is_empty());
                    let names: BTreeSet<_> = spec.containers.iter().map(|c| &c.name).collect();
                    assert_eq!(names.len(), spec.containers.len());
                }
                let _ = respond.send(Ok(()));
            }
            AcsEvent::Credentials { respond, .. } | AcsEvent::Attachments { respond, .. } => {
                let _ = respond.send(Ok(()));
            }
            AcsEvent::Manifest { respond, .. } => {
                let running = TaskArn::parse("arn:aws:ecs:r:1:task/c/running");
                drop(respond.send(Ok(running.into_iter().collect())));
            }
            AcsEvent::StopTasks(_) | AcsEvent::Heartbeat | AcsEvent::Deregistered | AcsEvent::Update => {}
        }
    }
    if let Some(mut acks) = later {
        assert_eq!(answers, 1, "nobody could answer");
        let Poll::Ready(frames) = acks.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the engine has answered, and still the ack waits");
        };
        assert!(frames.iter().all(|frame| readable(frame)));
        assert!(complete || frames.is_empty() || named > 0);
    }
}

/// What is written is a message of an agent.
fn readable(frame: &str) -> bool {
    AgentMessage::decode(frame).is_ok()
}
