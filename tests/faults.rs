//! What hangs or fails delays only its own task: the whole agent on a real containerd, with a proxy in
//! between that holds, fails and cuts what the test says (`support::faulty`). Nothing here looks at a
//! clock: that one task gets on while another's call is still held is the proof.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/failing.rs"]
mod failing;
#[path = "faults/hanging.rs"]
mod hanging;
#[path = "faults/health.rs"]
mod health;
#[path = "faults/looking.rs"]
mod looking;
#[path = "faults/oom.rs"]
mod oom;
#[path = "faults/pulling.rs"]
mod pulling;

use serde_json::json;
use std::future::Future;
use support::faulty::FaultyContainerd;
use support::host::{Host, container, family, on_own_network};

/// Runs until it gets SIGTERM, then exits with 7.
pub const STAYS: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

/// A test on a host whose agent reaches containerd through the proxy, with these variables.
pub fn with_faults<F: Future<Output = ()>>(
    variables: &'static [(&'static str, &'static str)],
    body: impl FnOnce(Host, FaultyContainerd) -> F + Send + 'static,
) {
    on_own_network(move || async move {
        let mut host = Host::new().await;
        host.load_busybox().await;
        let faulty = FaultyContainerd::start(host.containerd.socket());
        host.set("ECS_CONTAINERD_ADDRESS", faulty.socket().to_str().unwrap());
        variables.iter().for_each(|(name, value)| host.set(name, value));
        host.start().await;
        body(host, faulty).await;
    });
}

/// Starts a task of one container that stays.
pub fn run_stays(host: &Host, name: &str) -> String {
    host.run_task(family(name, [container(name, STAYS, json!({}))]))
}

/// Waits until such a task runs and can be stopped.
pub async fn until_ready(host: &Host, arn: &str, name: &str) {
    host.until_status(arn, "RUNNING").await;
    host.until("it is ready", |host| host.logs(arn, name).contains("ready")).await;
}

/// The proof that others are not held up: one starts, runs, is stopped and gone.
pub async fn another_lives(host: &Host) {
    let arn = run_stays(host, "another");
    until_ready(host, &arn, "another").await;
    host.control.stop_task(&arn, "test").unwrap();
    assert_eq!(host.until_status(&arn, "STOPPED").await.containers[0].exit_code, Some(7));
    host.until("it is cleaned up", |host| !host.task_dir(&arn).exists()).await;
}

/// The last status that the control plane was told.
pub fn status(host: &Host, arn: &str) -> String {
    host.control.task(arn).unwrap().last_status
}

/// Stops a task that is ready and waits for its end.
pub async fn stops(host: &Host, arn: &str) {
    host.control.stop_task(arn, "test").unwrap();
    assert_eq!(host.until_status(arn, "STOPPED").await.containers[0].exit_code, Some(7));
}

/// The reason of the first container.
pub fn reason(task: &ecsd::local::Task) -> String {
    task.containers[0].reason.clone().unwrap_or_default()
}
