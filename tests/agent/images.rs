//! Images from registries that work, and from registries that don't.

use crate::support::containerd::PrivateContainerd;
use crate::support::host::{Host, container, family, on_own_network, with_agent};
use crate::support::registry::{DockerRegistry, FakeRegistry, Fault, TestImage, noise};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// busybox, and a layer that takes a while.
fn image() -> TestImage {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    TestImage::new(&[&[("bin/busybox", &busybox)], &[("noise", &noise(1, 2 << 20))]])
}

fn definition(image: &str) -> Value {
    let command = json!({"image": image, "command": ["/bin/busybox", "sh", "-c", "exit 6"]});
    family("pulled", [container("main", "", command)])
}

/// Runs a task whose image can't be had; the reason of its container.
async fn refused(host: &Host, image: &str) -> String {
    let arn = host.run_task(definition(image));
    let task = host.until_status(&arn, "STOPPED").await;
    assert_eq!(task.details["stopCode"], "TaskFailedToStart");
    assert_eq!(task.containers[0].exit_code, None);
    task.containers[0].reason.clone().unwrap()
}

async fn runs(host: &Host, image: &str) -> ecsd::local::Task {
    let arn = host.run_task(definition(image));
    let task = host.until_status(&arn, "STOPPED").await;
    assert_eq!(task.containers[0].exit_code, Some(6), "{task:#?}");
    task
}

#[test]
fn an_image_is_pulled_from_a_registry_and_a_missing_one_is_told_within_three_seconds() {
    with_agent(|host| async move {
        let registry = DockerRegistry::start(None);
        let image = image();
        registry.push("team/app", "1", &image);
        let task = runs(&host, &format!("{}/team/app:1", registry.host())).await;
        assert_eq!(task.containers[0].image_digest, Some(image.digest()));
        let begun = Instant::now();
        let reason = refused(&host, &format!("{}/team/app:no-such-tag", registry.host())).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(reason.starts_with("CannotPull") && reason.contains("manifest unknown"), "{reason}");
        assert!(reason.contains("no-such-tag"), "{reason}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_password_from_the_agents_configuration_opens_a_registry() {
    on_own_network(|| async {
        let registry = DockerRegistry::start(Some(("someone", "CANARY-password")));
        registry.push("team/app", "1", &image());
        let name = format!("{}/team/app:1", registry.host());
        let mut host = Host::new().await;
        host.start().await;
        let reason = refused(&host, &name).await;
        assert!(reason.starts_with("CannotPull") && reason.contains("401"), "{reason}");
        let (code, _) = host.stop_agent().await;
        assert_eq!(code, Some(0));
        host.set("ECS_ENGINE_AUTH_TYPE", "docker");
        let account =
            json!({"username": "someone", "password": "CANARY-password", "email": "a@example.test"});
        host.set("ECS_ENGINE_AUTH_DATA", &json!({registry.host(): account}).to_string());
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start().await;
        runs(&host, &name).await;
        assert!(!host.agent_log().contains("CANARY"));
    });
}

#[test]
fn a_layer_that_breaks_off_is_resumed_and_wrong_bytes_are_refused() {
    with_agent(|host| async move {
        let registry = FakeRegistry::start();
        let good = image();
        registry.put("team/app", "1", &good);
        let layer = format!("GET /v2/team/app/blobs/{}", good.layers[1]);
        registry.fault(&layer, Fault::CloseAfter(100_000), 1);
        let name = format!("{}/team/app:1", registry.host());
        runs(&host, &name).await;
        assert!(registry.seen(&layer).len() >= 2);
        let bad = TestImage::new(&[&[("bin/app", b"app")]]);
        registry.put("team/bad", "1", &bad);
        registry.fault(&bad.layers[0], Fault::WrongBytes, usize::MAX);
        let reason = refused(&host, &format!("{}/team/bad:1", registry.host())).await;
        assert!(reason.starts_with("CannotPullContainerError: "), "{reason}");
        assert!(reason.contains(&bad.layers[0]), "{reason}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_full_disk_is_named_and_what_was_pulled_before_still_runs() {
    on_own_network(|| async {
        let registry = FakeRegistry::start();
        registry.put("team/big", "1", &TestImage::new(&[&[("big", &noise(3, 40 << 20))]]));
        registry.put("team/app", "1", &image());
        let mut host = Host::on(PrivateContainerd::start_on_small_disk(24)).await;
        host.start().await;
        let small = format!("{}/team/app:1", registry.host());
        runs(&host, &small).await;
        let reason = refused(&host, &format!("{}/team/big:1", registry.host())).await;
        assert!(
            reason.starts_with("CannotPullContainerError: ") && reason.contains("no space left"),
            "{reason}"
        );
        runs(&host, &small).await;
    });
}

#[test]
fn a_pull_ends_with_its_task() {
    with_agent(|host| async move {
        let registry = FakeRegistry::start();
        let image = image();
        registry.put("team/app", "1", &image);
        registry.fault(&image.layers[1], Fault::HangAfter(1000), 1);
        let name = format!("{}/team/app:1", registry.host());
        let arn = host.run_task(definition(&name));
        host.until("the layer is asked for", |_| !registry.seen(&image.layers[1]).is_empty()).await;
        host.control.stop_task(&arn, "enough").unwrap();
        host.until_status(&arn, "STOPPED").await;
        // The registry would have been waited for for a minute.
        let begun = Instant::now();
        host.until("the connection is closed", |_| registry.hung_up() == 1).await;
        assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
        runs(&host, &name).await;
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_task_runs_on_the_native_snapshotter() {
    on_own_network(|| async {
        let registry = DockerRegistry::start(None);
        registry.push("team/app", "1", &image());
        let mut host = Host::new().await;
        host.set("ECS_CONTAINERD_SNAPSHOTTER", "native");
        host.start().await;
        runs(&host, &format!("{}/team/app:1", registry.host())).await;
        let snapshots = host.ctr(&["snapshots", "--snapshotter", "native", "ls"]);
        assert!(snapshots.contains("Committed"), "{snapshots}");
        assert!(!host.ctr(&["snapshots", "--snapshotter", "overlayfs", "ls"]).contains("Committed"));
        host.until_nothing_is_left().await;
    });
}
