//! Two hundred tasks at once leave nothing: on the real agent, containerd and kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use support::host::with_agent;
use support::load::{Baseline, Load, descriptors};

const TASKS: usize = 200;
/// Connections that come and go by themselves.
const SOME: usize = 6;

#[test]
fn two_hundred_tasks_start_run_stop_and_leave_nothing() {
    with_agent(|host| async move {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.agent_pid())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let [soft, hard] = [3, 4].map(|n| files.split_whitespace().nth(n).unwrap());
        assert_eq!(soft, hard, "a mapped port takes two descriptors");
        let (before, files) = (Baseline::of(&host), descriptors(&host));
        let load = Load::start(&host, TASKS);
        load.is_up(&host).await;
        // One shim and one logger each; a shim is also the program that ends one, for a moment.
        host.until("one shim a task", |host| host.containerd.shims().len() == load.long.len()).await;
        assert_eq!(host.loggers().len(), load.long.len());
        load.stop(&host).await;
        host.until_nothing_is_left().await;
        host.until("its descriptors are closed", |host| descriptors(host) <= files + SOME).await;
        assert_eq!(Baseline::of(&host), before);
    });
}
