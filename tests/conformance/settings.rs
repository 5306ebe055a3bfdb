//! Variables whose effect shows on the host. How each is read is held by the table of the configuration.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::Channel;
use crate::support::host::on_own_network;
use serde_json::{Value, json};
use std::path::Path;

const STAYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[test]
fn limits_of_tasks_are_the_kernels() {
    on_own_network(|| async {
        let variables = [("ECS_CGROUP_CPU_PERIOD", "20ms"), ("ECS_TASK_PIDS_LIMIT", "50")];
        let mut scripted = Scripted::start_with(&variables).await;
        let id = fresh_id();
        let mut wanted = task(&id, STAYS);
        // In CPUs.
        wanted["cpu"] = json!(0.25);
        scripted.send(json!([wanted])).await;
        scripted.reported(&id, "RUNNING").await;
        let limit = |file: &str| scripted.host.cgroup_file(&arn(&id), None, file);
        if Path::new("/sys/fs/cgroup/cpu").is_dir() {
            assert_eq!(
                (limit("cpu.cfs_period_us"), limit("cpu.cfs_quota_us")),
                ("20000".into(), "5000".into())
            );
        } else {
            assert_eq!(limit("cpu.max"), "5000 20000");
        }
        assert_eq!(limit("pids.max"), "50");
    });
}

#[test]
fn the_availability_zone_can_be_kept_from_tasks() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        scripted.send(json!([task(&id, STAYS)])).await;
        scripted.reported(&id, "RUNNING").await;
        let zone = |scripted: &Scripted| -> Option<Value> {
            let script = "wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task";
            let answer = scripted.host.exec(&arn(&id), "main", &["sh", "-c", script]);
            serde_json::from_str::<Value>(&answer).unwrap().get("AvailabilityZone").cloned()
        };
        assert_eq!(zone(&scripted), Some(json!("us-west-2a")));
        scripted.host.kill_agent();
        scripted.host.set("ECS_DISABLE_TASK_METADATA_AZ", "true");
        let endpoint = scripted.backend.endpoint().to_owned();
        scripted.host.start_agent_at(&endpoint);
        scripted.backend.accept(Channel::Acs).await.is_quiet().await;
        assert_eq!(zone(&scripted), None);
    });
}
