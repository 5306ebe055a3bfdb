//! The whole agent on real parts: containerd, runc, the kernel's network, against the embedded control
//! plane over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use serde_json::json;
use support::host::{BUSYBOX, Host, on_own_network};

#[test]
fn one_task_runs_and_stops() {
    on_own_network(|| async {
        let mut host = Host::new().await;
        host.load_busybox().await;
        host.start().await;
        let arn = host.run_task(json!({
            "family": "one",
            "containerDefinitions": [{
                "name": "main", "image": BUSYBOX, "memory": 64, "cpu": 10,
                "command": ["sh", "-c", "echo hello; trap 'exit 7' TERM; while :; do sleep 1; done"],
            }],
        }));
        host.until_status(&arn, "RUNNING").await;
        host.until("the log is written", |host| host.logs(&arn, "main").contains("hello")).await;
        host.control.stop_task(&arn, "test").unwrap();
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(7));
    });
}
