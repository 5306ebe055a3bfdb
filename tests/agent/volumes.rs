//! Volumes as containers see them: who shares what, what outlives whom, and what is left.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::host::{Host, container, family, on_own_network, with_agent};
use ecsd::local::Task;
use serde_json::{Value, json};

const WAITS: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

/// A task definition with these volumes.
fn definition(name: &str, volumes: Value, containers: impl IntoIterator<Item = Value>) -> Value {
    let mut definition = family(name, containers);
    definition["volumes"] = volumes;
    definition
}

fn mounted(volume: &str, path: &str) -> Value {
    json!([{"sourceVolume": volume, "containerPath": path}])
}

fn shared(name: &str, more: Value) -> Value {
    let mut volume =
        json!({"name": name, "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}});
    for (key, value) in more.as_object().unwrap() {
        volume["dockerVolumeConfiguration"][key] = value.clone();
    }
    json!([volume])
}

fn stopped_reason(task: &Task) -> &str {
    task.details.get("stoppedReason").and_then(Value::as_str).unwrap_or_default()
}

async fn until_ready(host: &Host, arn: &str, container: &str) {
    host.until_status(arn, "RUNNING").await;
    host.until("it is ready", |host| host.logs(arn, container).contains("ready")).await;
}

/// The agent ends without a word, and another one takes its place.
async fn restart(host: &mut Host) {
    host.kill_agent();
    host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
    host.start().await;
}

#[test]
fn a_shared_volume_goes_from_task_to_task_and_outlives_the_agent() {
    with_agent(|mut host| async move {
        let volume = || shared("ours", json!({"labels": {"team": "a"}}));
        let writes =
            container("main", "echo written > /v/file", json!({"mountPoints": mounted("ours", "/v")}));
        let first = host.run_task(definition("writes", volume(), [writes]));
        assert_eq!(host.until_status(&first, "STOPPED").await.containers[0].exit_code, Some(0));
        restart(&mut host).await;
        let reads = container(
            "main",
            "grep -q written /v/file && test ! -e /v/index.html && exit 4",
            json!({"mountPoints": mounted("ours", "/v")}),
        );
        let second = host.run_task(definition("reads", volume(), [reads]));
        assert_eq!(host.until_status(&second, "STOPPED").await.containers[0].exit_code, Some(4));
        host.until_nothing_is_left().await;
        assert_eq!(std::fs::read_to_string(host.named_volume("ours").join("file")).unwrap(), "written\n");
        let record = std::fs::read(host.named_volume("ours").with_file_name("volume.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["labels"], json!({"team": "a"}));
    });
}

#[test]
fn a_volume_of_the_task_is_filled_from_the_image_once_and_goes_with_it() {
    with_agent(|host| async move {
        let point = mounted("own", "/www");
        let first = "grep -q hello /www/index.html && echo changed > /www/index.html";
        let second = "grep -q changed /www/index.html && exit 5";
        let containers = [
            container("first", first, json!({"mountPoints": point, "essential": false})),
            container(
                "main",
                second,
                json!({"mountPoints": point,
                "dependsOn": [{"containerName": "first", "condition": "SUCCESS"}]}),
            ),
        ];
        for volumes in [
            json!([{"name": "own"}]),
            json!([{"name": "own", "dockerVolumeConfiguration": {"scope": "task", "labels": {"a": "1"}}}]),
        ] {
            let arn = host.run_task(definition("fills", volumes, containers.clone()));
            let task = host.until_status(&arn, "STOPPED").await;
            assert_eq!(task.containers[1].exit_code, Some(5), "{task:#?}");
            host.until_nothing_is_left().await;
        }
    });
}

#[test]
fn a_mounted_volume_is_mounted_for_its_first_user_and_unmounted_after_its_last() {
    with_agent(|mut host| async move {
        let volume = || {
            shared(
                "ram",
                json!({"driver": "local",
            "driverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1750,uid=33"}}),
            )
        };
        let uses = |name: &str| {
            let script = format!(
                "grep ' /v tmpfs' /proc/mounts; ls -n / | grep ' v$'; echo {name} >> /v/names; {WAITS}"
            );
            definition(
                name,
                volume(),
                [container("main", &script, json!({"mountPoints": mounted("ram", "/v")}))],
            )
        };
        let first = host.run_task(uses("first"));
        until_ready(&host, &first, "main").await;
        let seen = host.logs(&first, "main");
        assert!(seen.contains("size=1024k") && seen.contains("uid=33"), "{seen}");
        restart(&mut host).await;
        let second = host.run_task(uses("second"));
        until_ready(&host, &second, "main").await;
        assert_eq!(host.mounts_below("data/volumes").len(), 1);
        host.control.stop_task(&first, "test").unwrap();
        host.until_status(&first, "STOPPED").await;
        assert_eq!(host.exec(&second, "main", &["cat", "/v/names"]), "first\nsecond\n");
        restart(&mut host).await;
        host.control.stop_task(&second, "test").unwrap();
        host.until_status(&second, "STOPPED").await;
        host.until_nothing_is_left().await;
        assert!(host.named_volume("ram").is_dir(), "the volume itself stays");
        assert_eq!(std::fs::read_dir(host.named_volume("ram")).unwrap().count(), 0);
    });
}

#[test]
fn volumes_of_another_container_come_whole_and_read_only_where_asked() {
    with_agent(|host| async move {
        let directory = host.dir.path().join("made/by/docker");
        let volumes = json!([
            {"name": "host", "host": {"sourcePath": directory}},
            {"name": "own"},
            {"name": "ram", "dockerVolumeConfiguration": {"scope": "task",
                "driverOpts": {"type": "tmpfs", "device": "tmpfs"}}},
        ]);
        let points = json!([
            {"sourceVolume": "host", "containerPath": "/host"},
            {"sourceVolume": "own", "containerPath": "/own"},
            {"sourceVolume": "ram", "containerPath": "/ram", "readOnly": false},
        ]);
        let fills = format!("for d in host own ram; do echo $d > /$d/file; done; {WAITS}");
        let checks = "for d in host own ram; do grep -q $d /$d/file || exit 1; if touch /$d/x; then exit 2; fi; done; \
                      touch /writes || exit 3; exit 6";
        let containers = [
            container("source", &fills, json!({"mountPoints": points, "essential": false})),
            container(
                "main",
                checks,
                json!({"volumesFrom": [{"sourceContainer": "source", "readOnly": true}],
                "dependsOn": [{"containerName": "waits", "condition": "SUCCESS"}]}),
            ),
            container(
                "waits",
                "until test -e /ram/file; do sleep 0.05; done; echo y >> /host/file",
                json!({"volumesFrom": [{"sourceContainer": "source"}], "essential": false}),
            ),
        ];
        let arn = host.run_task(definition("from", volumes, containers));
        let task = host.until_status(&arn, "STOPPED").await;
        let main = task.containers.iter().find(|c| c.name == "main").unwrap();
        assert_eq!(main.exit_code, Some(6), "{task:#?}");
        host.until_nothing_is_left().await;
        assert_eq!(std::fs::read_to_string(directory.join("file")).unwrap(), "host\ny\n");
    });
}

#[test]
fn whatever_a_container_leaves_in_its_volumes_goes_and_nothing_else() {
    with_agent(|host| async move {
        let precious = host.dir.path().join("precious");
        std::fs::create_dir_all(precious.join("kept")).unwrap();
        std::fs::write(precious.join("kept/file"), "mine").unwrap();
        let script = format!(
            "cd /v; ln -s {0} link; ln -s / root; ln -s .. up; mkdir sub; ln -s {0}/kept sub/link; \
             for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29; do \
             mkdir -p d/d/d/d/d/d/d/d/d/d; cd d/d/d/d/d/d/d/d/d/d; done; mkdir -m 0 none; cd /v; \
             echo x > fixed; {WAITS}",
            precious.display()
        );
        let more = json!({"mountPoints": mounted("own", "/v")});
        let arn =
            host.run_task(definition("leaves", json!([{"name": "own"}]), [container("main", &script, more)]));
        until_ready(&host, &arn, "main").await;
        // As a container with CAP_LINUX_IMMUTABLE would, where the file system knows that.
        let volume = host.volume("leaves", "own");
        for name in ["fixed", "sub", "d"] {
            let _ = std::process::Command::new("chattr").arg("+i").arg(volume.join(name)).status();
        }
        host.control.stop_task(&arn, "test").unwrap();
        assert_eq!(host.until_status(&arn, "STOPPED").await.containers[0].exit_code, Some(7));
        host.until_nothing_is_left().await;
        assert_eq!(std::fs::read_to_string(precious.join("kept/file")).unwrap(), "mine");
    });
}

#[test]
fn volumes_that_can_not_be_had_end_the_task_in_the_originals_words() {
    with_agent(|host| async move {
        let one = |name: &str, volume: Value| {
            let main = container("main", "exit 0", json!({"mountPoints": mounted("v1", "/v")}));
            host.run_task(definition(
                name,
                json!([{"name": "v1", "dockerVolumeConfiguration": volume}]),
                [main],
            ))
        };
        let missing = one("missing", json!({"scope": "shared", "autoprovision": false}));
        let options = one("options", json!({"scope": "task", "driverOpts": {"type": "tmpfs"}}));
        for (arn, words) in [
            (
                &missing,
                "initialize volume: volume detection failed, volume 'v1' does not exist and autoprovision is set to \
                 false: get v1: no such volume",
            ),
            (&options, "missing required option: \"device\""),
        ] {
            let task = host.until_status(arn, "STOPPED").await;
            assert!(stopped_reason(&task).contains(words), "{task:#?}");
            assert_eq!(task.containers[0].exit_code, None);
        }
        let unmountable = one(
            "unmountable",
            json!({"scope": "task",
            "driverOpts": {"type": "none", "o": "bind", "device": "/no/such/directory"}}),
        );
        let task = host.until_status(&unmountable, "STOPPED").await;
        let reason = task.containers[0].reason.clone().unwrap();
        assert!(reason.starts_with("CannotStartContainerError: error while mounting volume '"), "{reason}");
        assert!(reason.ends_with(", flags: 0x1000: no such file or directory"), "{reason}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_volume_that_is_there_must_match_where_the_operator_says_so() {
    on_own_network(|| async {
        let mut host = Host::new().await;
        host.load_busybox().await;
        host.set("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", "true");
        host.start().await;
        let one = |name: &str, label: &str| {
            let main = container("main", "exit 0", json!({"mountPoints": mounted("ours", "/v")}));
            host.run_task(definition(name, shared("ours", json!({"labels": {"team": label}})), [main]))
        };
        let first = one("first", "a");
        assert_eq!(host.until_status(&first, "STOPPED").await.containers[0].exit_code, Some(0));
        let second = one("second", "b");
        let task = host.until_status(&second, "STOPPED").await;
        assert_eq!(
            stopped_reason(&task),
            "intialize volume: non-autoprovisioned volume does not match existing volume labels: existing: \
             map[team:a], expected: map[team:b]"
        );
    });
}

#[test]
fn documents_name_volumes_mounts_and_containers_as_docker_reads_them() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (good, bad, unknown) = (fresh_id(), fresh_id(), fresh_id());
        let host_config = |value: Value| Value::from(value.to_string());
        let directory = scripted.host.dir.path().join("bound");
        std::fs::create_dir_all(&directory).unwrap();
        let script = "grep -q hello /www/index.html || exit 1; test -e /empty/index.html && exit 2; \
                      touch /bound/x && exit 3; grep -q ' /ram tmpfs.*size=64k' /proc/mounts || exit 4; \
                      grep -q ' /anon ' /proc/mounts || exit 5; echo x > /www/from-main; exit 9";
        let mut with = task(&good, script);
        with["containers"][0]["dockerConfig"]["hostConfig"] = host_config(json!({
            "Binds": ["named:/www", "/anon"],
            "Mounts": [
                {"Type": "volume", "Source": "other", "Target": "/empty", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "1"}}},
                {"Type": "bind", "Source": directory, "Target": "/bound", "ReadOnly": true},
                {"Type": "tmpfs", "Target": "/ram", "TmpfsOptions": {"SizeBytes": 65536}},
            ]
        }));
        let mut other = with["containers"][0].clone();
        other["name"] = "other".into();
        other["essential"] = false.into();
        other["command"] =
            json!(["sh", "-c", "until test -e /www/from-main; do sleep 0.05; done; touch /www/y || exit 3"]);
        other["dependsOn"] = json!([{"containerName": "main", "condition": "START"}]);
        other["dockerConfig"]["hostConfig"] = host_config(json!({"VolumesFrom": ["main:ro"]}));
        with["containers"].as_array_mut().unwrap().push(other);
        with["containers"][0]["essential"] = false.into();
        let mut missing = task(&bad, "exit 0");
        missing["containers"][0]["dockerConfig"]["hostConfig"] = host_config(json!({
            "Mounts": [{"Type": "bind", "Source": "/no/such/source", "Target": "/x"}]
        }));
        let mut nowhere = task(&unknown, "exit 0");
        nowhere["containers"][0]["mountPoints"] = json!([{"sourceVolume": "nowhere", "containerPath": "/x"}]);
        scripted.send(json!([with, missing, nowhere])).await;
        let mut ends = std::collections::BTreeMap::new();
        while ends.len() < 3 {
            let body = scripted.backend.call_of("SubmitTaskStateChange").await.body;
            if body["status"] == "STOPPED" {
                ends.insert(body["task"].as_str().unwrap().to_owned(), body["containers"].clone());
            }
        }
        // Each container may be told in an earlier report.
        let host = &scripted.host;
        assert!(host.named_volume("named").join("from-main").exists(), "{ends:#?}");
        assert!(!host.named_volume("named").join("y").exists(), "it is read-only there");
        assert_eq!(std::fs::read_dir(host.named_volume("other")).unwrap().count(), 0);
        let reason = |id: &str| ends[&arn(id)][0]["reason"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            reason(&bad),
            "CannotCreateContainerError: invalid mount config for type \"bind\": bind source path does not exist: \
             /no/such/source"
        );
        assert_eq!(reason(&unknown), "HostConfigError: Invalid volume referenced: nowhere");
        scripted.host.until_nothing_is_left().await;
    });
}
