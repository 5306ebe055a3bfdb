//! After a task was cleaned up nothing of it is left anywhere on the host.

use crate::support::host::{container, family, with_agent};
use serde_json::json;

#[test]
fn nothing_is_left_of_tasks_that_ended_in_any_way() {
    with_agent(|host| async move {
        let one =
            |name: &str, script: &str, more| host.run_task(family(name, [container("main", script, more)]));
        let port = json!({"portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]});
        let stopped = one("stopped", "sleep 3600", port);
        let killed = one("killed", "sleep 3600", json!({}));
        let ended = [
            one("ended", "touch /root/file; exit 1", json!({})),
            one("command", "", json!({"command": ["/no/such/program"]})),
            one("user", "exit 0", json!({"user": "nobody-at-all"})),
            one("image", "exit 0", json!({"image": "127.0.0.1:9/no/registry:1"})),
            one("forked", "sleep 3600 & sleep 3600 & exit 0", json!({})),
        ];
        for arn in [&stopped, &killed] {
            host.until_status(arn, "RUNNING").await;
        }
        host.control.stop_task(&stopped, "test").unwrap();
        let pid = nix::unistd::Pid::from_raw(host.container_pid(&killed, "main").unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        for arn in ended.iter().chain([&stopped, &killed]) {
            host.until_status(arn, "STOPPED").await;
        }
        host.until_nothing_is_left().await;
    });
}
