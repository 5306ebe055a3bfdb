//! The ACS payload of one task.

use crate::control::acs::wire::{PayloadMessage, encode};
use crate::local::instance::Frame;
use crate::local::roles::Held;
use crate::local::shared::now_ms;
use crate::local::state::State;
use crate::local::task::Task;
use uuid::Uuid;

/// Message id and frame of the payload that carries this task as it is wanted now.
pub fn payload(state: &State, task: &Task, sequence: i64, credentials: Option<&Held>) -> (String, Frame) {
    let id = Uuid::new_v4().to_string();
    let cluster_arn = state.names.cluster(&task.cluster);
    let message = PayloadMessage {
        tasks: vec![task.wire(&cluster_arn, &state.names.account, &state.names.region, credentials)],
        cluster_arn,
        container_instance_arn: task.instance_arn.clone(),
        generated_at: now_ms(),
        message_id: id.clone(),
        seq_num: sequence,
        timeline: sequence,
    };
    (id, Frame(encode(&message)))
}
