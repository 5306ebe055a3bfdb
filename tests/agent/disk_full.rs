//! The disk of the state is full: nothing is acknowledged that could be lost, what runs goes on, and all is
//! well once there is room.

use crate::scripted::{Scripted, arn, fresh_id, prepared_host, task};
use crate::support::backend::{Backend, Channel};
use crate::support::host::{Host, on_own_network};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Fills the state's disk, and has the store find no room in what it holds of it already.
fn fill(host: &Host) {
    std::fs::write(host.dir.path().join("crash.full"), "").unwrap();
    let ballast = data_of(host).join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    for block in [1 << 20, 4096, 1] {
        while std::io::Write::write(&mut file, &vec![1; block]).is_ok_and(|written| written == block) {}
    }
}

/// Makes room again.
fn empty(host: &Host) {
    std::fs::remove_file(data_of(host).join("ballast")).unwrap();
    std::fs::remove_file(host.dir.path().join("crash.full")).unwrap();
}

/// An agent whose state is on a disk of 4 MiB.
async fn start_on_a_small_disk() -> Scripted {
    let mut backend = Backend::start().await;
    let mut host = prepared_host().await;
    let data = data_of(&host);
    std::fs::create_dir_all(&data).unwrap();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(none, &data, Some("tmpfs"), flags, Some("size=4m,mode=700")).unwrap();
    let crash = host.dir.path().join("crash").display().to_string();
    host.set("ECSD_CRASH_FILE", &crash);
    // Its log is elsewhere, and the state must not be full of it.
    host.start_agent_at(backend.endpoint());
    let acs = backend.accept(Channel::Acs).await;
    Scripted { host, backend, acs }
}

fn data_of(host: &Host) -> PathBuf {
    host.dir.path().join("data")
}

/// A task that does this once it is let go.
fn gated(host: &Host, id: &str, then: &str) -> Value {
    let shared = host.dir.path().join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let mut task = task(id, &format!("until [ -e /v/go ]; do sleep 0.05; done; {then}"));
    task["volumes"] = json!([{"name": "v", "type": "host", "host": {"sourcePath": shared}}]);
    task["containers"][0]["mountPoints"] = json!([{"sourceVolume": "v", "containerPath": "/v"}]);
    task
}

fn let_go(host: &Host) {
    std::fs::write(host.dir.path().join("shared/go"), "").unwrap();
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    on_own_network(|| async {
        let mut scripted = start_on_a_small_disk().await;
        let (runs, refused) = (fresh_id(), fresh_id());
        let gated = gated(&scripted.host, &runs, "exit 5");
        scripted.send(json!([gated])).await;
        scripted.reported(&runs, "RUNNING").await;

        fill(&scripted.host);
        // The container ends; that is told, but the runtime must not forget it.
        let_go(&scripted.host);
        assert_eq!(scripted.reported(&runs, "STOPPED").await["containers"][0]["exitCode"], 5);
        scripted.send_payload("while-full", json!([task(&refused, "exit 6")])).await;
        let full = |host: &Host| host.agent_log().contains("could not be stored");
        scripted.host.until("the agent notices", full).await;
        scripted.acs.is_quiet().await;
        assert_eq!(scripted.host.containerd.shims().len(), 1, "its end is known to the runtime alone");

        // It dies now: what was acknowledged is there, and told as before. That a container could not be
        // made without room for its files may have been told already.
        scripted.host.kill_agent();
        while scripted.backend.waiting_call_of("SubmitTaskStateChange").is_some() {}
        empty(&scripted.host);
        let endpoint = scripted.backend.endpoint().to_owned();
        scripted.host.start_agent_at(&endpoint);
        scripted.acs = scripted.backend.accept(Channel::Acs).await;
        scripted.send_payload("while-full", json!([task(&refused, "exit 6")])).await;
        scripted.acknowledged("while-full").await;
        // What was told before may be told again, and then the same.
        loop {
            let report = scripted.backend.call_of("SubmitTaskStateChange").await.body;
            let (told, code) = (&report["task"], &report["containers"][0]["exitCode"]);
            if report["status"] == "STOPPED" && *told == arn(&runs) {
                assert_eq!(*code, 5);
            } else if report["status"] == "STOPPED" {
                assert_eq!(*told, arn(&refused));
                assert_eq!(*code, 6, "{report}");
                break;
            }
        }
        scripted.host.until_nothing_is_left().await;
        scripted.host.stop_agent().await;
        nix::mount::umount(&data_of(&scripted.host)).unwrap();
    });
}

#[test]
fn a_stop_gets_through_while_nothing_can_be_stored() {
    on_own_network(|| async {
        let mut scripted = start_on_a_small_disk().await;
        let id = fresh_id();
        let mut restarted = gated(&scripted.host, &id, "sleep 1.1; exit 6");
        restarted["containers"][0]["restartPolicy"] = json!({"enabled": true, "restartAttemptPeriod": 1});
        scripted.send(json!([restarted])).await;
        scripted.reported(&id, "RUNNING").await;
        fill(&scripted.host);
        let_go(&scripted.host);
        let waits = |host: &Host| host.agent_log().contains("a start is kept back");
        scripted.host.until("the restart waits for the disk", waits).await;
        restarted["desiredStatus"] = "STOPPED".into();
        scripted.send_payload("stop", json!([restarted])).await;
        let report = scripted.reported(&id, "STOPPED").await;
        assert_eq!(report["containers"][0]["exitCode"], 6, "{report}");
        empty(&scripted.host);
        scripted.host.until_nothing_is_left().await;
        assert_eq!(scripted.host.containerd.shims().len(), 0);
        scripted.host.stop_agent().await;
        nix::mount::umount(&data_of(&scripted.host)).unwrap();
    });
}
