//! Other programs than runc below the shim: crun for everything, and one by name for a container; GPUs,
//! with a stand-in for NVIDIA's program that notes what it was called for and leaves the rest to runc.

use super::scripted::{Scripted, arn, fresh_id, task};
use crate::support::containerd::TempDir;
use crate::support::host::{BUSYBOX, Host, on_own_network};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A runc that notes its arguments, a line for each call.
struct StandIn {
    program: PathBuf,
    notes: PathBuf,
}

impl StandIn {
    fn new(directory: &Path) -> Self {
        let (program, notes) = (directory.join("stand-in"), directory.join("notes"));
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexec runc \"$@\"\n", notes.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { program, notes }
    }

    /// It was called to create this container.
    fn created(&self, host: &Host, id: &str, name: &str) -> bool {
        let container = host.container_id(&arn(id), name);
        let notes = std::fs::read_to_string(&self.notes).unwrap_or_default();
        notes.lines().any(|line| line.contains(" create ") && line.contains(&container))
    }
}

const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// crun refuses hosts whose cgroup v2 has controllers beside v1: this thread, and all that it starts, sees
/// an empty directory in its place, which [`drop_stand_in`] takes away again.
fn hide_hybrid_cgroups() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let _ = umount2(UNIFIED, MntFlags::MNT_DETACH);
    if Path::new(UNIFIED).is_dir() {
        mount(Some("none"), UNIFIED, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
}

/// Directories of a stand-in can't be removed as cgroups are: with the files that were written in them.
fn drop_stand_in() {
    let _ = nix::mount::umount2(UNIFIED, nix::mount::MntFlags::MNT_DETACH);
}

#[test]
fn the_hello_task_runs_with_crun() {
    let Some(crun) = ecsd::containerd::runtimes::find_program("crun") else {
        eprintln!("*** SKIPPED: crun is not installed (deploy/setup.sh --test) ***");
        return;
    };
    on_own_network(|| async move {
        hide_hybrid_cgroups();
        let mut host = Host::new().await;
        host.load_busybox().await;
        host.set("ECS_CONTAINERD_RUNTIME_BINARY", &crun.display().to_string());
        host.start().await;
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello/task.json");
        let mut hello: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for container in hello["containerDefinitions"].as_array_mut().unwrap() {
            container["image"] = BUSYBOX.into();
        }
        hello["pidMode"] = "task".into();
        hello["containerDefinitions"][1]["linuxParameters"] = json!({"initProcessEnabled": true});
        let task = host.run_task(hello);
        host.until_status(&task, "RUNNING").await;
        host.until("the metadata endpoint answered", |host| host.logs(&task, "web").contains(&task)).await;
        // What crun keeps of a container is called otherwise than what runc does.
        let state = Path::new("/run/containerd/runc/ecs").join(host.container_id(&task, "web"));
        assert!(state.join("status").exists() && !state.join("state.json").exists(), "{}", state.display());
        assert_eq!(host.exec(&task, "web", &["cat", "/proc/1/comm"]).trim(), "pause");
        host.control.stop_task(&task, "test").unwrap();
        let stopped = host.until_status(&task, "STOPPED").await;
        assert!(stopped.containers.iter().all(|c| c.exit_code == Some(0)), "{stopped:#?}");
        drop_stand_in();
        host.until_nothing_is_left().await;
    });
}

/// The task, with this runtime in its container's hostConfig.
fn by_runtime(id: &str, runtime: &str) -> Value {
    let mut task = task(id, "exit 3");
    task["containers"][0]["dockerConfig"]["hostConfig"] =
        json!({"NetworkMode": "bridge", "Runtime": runtime}).to_string().into();
    task
}

#[test]
fn a_container_may_name_its_runtime() {
    on_own_network(|| async {
        let directory = TempDir::new("runtimes");
        let stand_in = StandIn::new(directory.path());
        let mut agent = Scripted::start().await;
        for runtime in ["runc", "io.containerd.runc.v2", stand_in.program.to_str().unwrap()] {
            let id = fresh_id();
            agent.send(json!([by_runtime(&id, runtime)])).await;
            let report = agent.reported(&id, "STOPPED").await;
            assert_eq!(report["containers"][0]["exitCode"], 3, "{runtime}: {report:#}");
            assert_eq!(stand_in.created(&agent.host, &id, "main"), runtime.starts_with('/'), "{runtime}");
        }
        for runtime in ["nvidia", "neuron", "no-such-runtime", "/no/such/runtime", "io.containerd.absent.v9"]
        {
            let id = fresh_id();
            agent.send(json!([by_runtime(&id, runtime)])).await;
            let report = agent.reported(&id, "STOPPED").await;
            let reason = report["containers"][0]["reason"].as_str().unwrap_or_default();
            assert!(reason.starts_with("CannotCreateContainerError: "), "{runtime}: {report:#}");
            let words =
                if runtime.contains("absent") { runtime } else { "unknown or invalid runtime name: " };
            assert!(reason.contains(words), "{runtime}: {reason}");
        }
    });
}

/// A task whose first container has this GPU, and whose second has none.
fn with_gpu(id: &str, gpu: &str) -> Value {
    let mut task = task(id, "echo sees=$NVIDIA_VISIBLE_DEVICES; sleep 3600");
    let mut other = task["containers"][0].clone();
    other["name"] = "other".into();
    other["containerArn"] = format!("{}/other", arn(id)).into();
    task["containers"].as_array_mut().unwrap().push(other);
    task["associations"] = json!([{"containers": ["main"], "name": gpu, "type": "gpu"}]);
    task
}

fn to_stop(id: &str) -> Value {
    let mut task = with_gpu(id, "GPU-a");
    task["desiredStatus"] = "STOPPED".into();
    task
}

#[test]
fn gpus_are_registered_given_out_once_and_taken_back() {
    on_own_network(|| async {
        let directory = TempDir::new("gpus");
        let stand_in = StandIn::new(directory.path());
        let info = directory.path().join("info.json");
        std::fs::write(&info, r#"{"DriverVersion":"535.1","GPUIDs":["GPU-a","GPU-b"]}"#).unwrap();
        let mut agent = Scripted::start_with(&[
            ("ECS_ENABLE_GPU_SUPPORT", "true"),
            ("ECSD_GPU_INFO", info.to_str().unwrap()),
            ("ECS_NVIDIA_RUNTIME", stand_in.program.to_str().unwrap()),
        ])
        .await;
        let registered = agent.backend.call_of("RegisterContainerInstance").await.body;
        let device = |id: &str| json!({"id": id, "type": "GPU"});
        assert_eq!(registered["platformDevices"], json!([device("GPU-a"), device("GPU-b")]));
        let value = |name: &str| {
            let attributes = registered["attributes"].as_array().unwrap();
            attributes.iter().find(|a| a["name"] == name).map(|a| a["value"].clone())
        };
        assert!(value("ecs.capability.nvidia-driver-version.535.1").is_some());
        assert_eq!(value("ecs.capability.gpu-driver-version"), Some("535.1".into()));

        let (first, second) = (fresh_id(), fresh_id());
        agent.send(json!([with_gpu(&first, "GPU-a")])).await;
        agent.reported(&first, "RUNNING").await;
        let host = &agent.host;
        host.until("it tells", |host| host.logs(&arn(&first), "main").contains("sees=")).await;
        assert_eq!(host.logs(&arn(&first), "main"), "sees=GPU-a\n");
        host.until("it tells", |host| host.logs(&arn(&first), "other").contains("sees=")).await;
        assert_eq!(host.logs(&arn(&first), "other"), "sees=\n");
        assert!(stand_in.created(host, &first, "main") && !stand_in.created(host, &first, "other"));

        // One that is taken is waited for; one that does not exist, not.
        agent.send(json!([with_gpu(&second, "GPU-a")])).await;
        let unknown = fresh_id();
        agent.send(json!([with_gpu(&unknown, "GPU-z")])).await;
        let report = agent.reported(&unknown, "STOPPED").await;
        assert_eq!(report["reason"], "task gpu GPU-z not found in host gpus");
        assert!(!stand_in.created(&agent.host, &second, "main"));
        agent.send(json!([to_stop(&first)])).await;
        agent.reported(&first, "STOPPED").await;
        agent.reported(&second, "RUNNING").await;
        assert!(stand_in.created(&agent.host, &second, "main"));
    });
}

#[test]
fn gpus_that_nothing_gives_to_containers_are_not_offered() {
    on_own_network(|| async {
        let directory = TempDir::new("gpus");
        let info = directory.path().join("info.json");
        std::fs::write(&info, r#"{"DriverVersion":"535.1","GPUIDs":["GPU-a"]}"#).unwrap();
        let mut agent = Scripted::start_with(&[
            ("ECS_ENABLE_GPU_SUPPORT", "true"),
            ("ECSD_GPU_INFO", info.to_str().unwrap()),
            ("ECS_NVIDIA_RUNTIME", "no-such-program"),
        ])
        .await;
        let registered = agent.backend.call_of("RegisterContainerInstance").await.body;
        assert_eq!(registered["platformDevices"], Value::Null);
        assert!(!registered["attributes"].to_string().contains("driver-version"));
        let id = fresh_id();
        agent.send(json!([with_gpu(&id, "GPU-a")])).await;
        let report = agent.reported(&id, "STOPPED").await;
        assert_eq!(report["reason"], "task gpu GPU-a not found in host gpus");
    });
}
