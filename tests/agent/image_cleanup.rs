//! The agent makes room on containerd's disk by itself, also after a restart, and never at the cost of a task.

use crate::support::containerd::PrivateContainerd;
use crate::support::host::{Host, container, family, on_own_network};
use crate::support::registry::{DockerRegistry, TestImage, noise};
use serde_json::json;

/// Names of the agent's images.
fn images(host: &Host) -> String {
    host.ctr(&["images", "ls", "-q"])
}

#[test]
fn a_full_disk_is_emptied_of_what_no_task_needs_over_a_restart_of_the_agent() {
    on_own_network(|| async {
        let registry = DockerRegistry::start(None);
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let push = |name: &str, seed: u64| {
            let image = TestImage::new(&[&[("bin/busybox", &busybox)], &[("noise", &noise(seed, 6 << 20))]]);
            registry.push(name, "1", &image);
            format!("{}/{name}:1", registry.host())
        };
        let [lives, first, second, third] =
            [("lives", 1), ("first", 2), ("second", 3), ("third", 4)].map(|(name, seed)| push(name, seed));
        let mut host = Host::on(PrivateContainerd::start_on_small_disk(64)).await;
        // Some 15 MiB an image, of which the layer of busybox is shared.
        host.set("ECS_IMAGE_CLEANUP_HIGH_WATERMARK", "70");
        host.set("ECS_IMAGE_CLEANUP_LOW_WATERMARK", "60");
        host.start().await;
        let task = |name: &str, image: &str, script: &str| {
            let command = json!({"image": image, "command": ["/bin/busybox", "sh", "-c", script]});
            family(name, [container("main", "", command)])
        };
        let running = host.run_task(task("lives", &lives, "exec /bin/busybox sleep 3600"));
        host.until_status(&running, "RUNNING").await;
        for (name, image) in [("first", &first), ("second", &second)] {
            let arn = host.run_task(task(name, image, "exit 0"));
            host.until_status(&arn, "STOPPED").await;
        }
        let (code, _) = host.stop_agent().await;
        assert_eq!(code, Some(0));
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start().await;
        let arn = host.run_task(task("third", &third, "exit 0"));
        host.until_status(&arn, "STOPPED").await;
        host.until("there is room", |host| !images(host).contains(&first)).await;
        let left = images(&host);
        assert!(left.contains(&lives), "{left}");
        assert!(host.agent_log().contains("containerd's disk is too full"), "{}", host.agent_log());
        assert!(host.container_pid(&running, "main").is_some());
        // Its image is whole: another task of it starts without the registry.
        drop(registry);
        let again = host.run_task(task("again", &lives, "exit 7"));
        assert_eq!(host.until_status(&again, "STOPPED").await.containers[0].exit_code, Some(7));
    });
}
