use super::*;
use crate::containerd::docker_config::merge;
use crate::model::{ContainerId, DockerConfig, TaskArn, VolumeSource, VolumeSpec};
use crate::ports::NetworkAttachment;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn task(host: Value, volumes: Vec<VolumeSpec>, mounts: Vec<MountPoint>) -> TaskSpec {
    let host = host.as_object().unwrap().clone();
    let host_config = host.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
    let main = ContainerSpec {
        mounts,
        docker: DockerConfig { host_config, ..DockerConfig::default() },
        volumes_from: vec![VolumeFrom { container: "db".into(), read_only: false }],
        ..ContainerSpec::empty("main")
    };
    TaskSpec {
        family: "f".into(),
        version: "1".into(),
        containers: vec![main, ContainerSpec::empty("db")],
        volumes,
        ..TaskSpec::empty(TaskArn::parse("arn:aws:ecs:r:1:task/c/0a").unwrap())
    }
}

fn resolved(task: TaskSpec) -> Result<Vec<Wanted>, StopReason> {
    let plan = CreatePlan {
        id: ContainerId::derive(&task.arn, "main"),
        spec: Arc::new(task),
        name: "main".into(),
        network: NetworkAttachment::Host,
        cgroup: "/c".into(),
        directory: "/tasks/main".into(),
        agent_environment: Default::default(),
        labels: Default::default(),
        keepsake: None,
    };
    let container = plan.spec.container("main").unwrap();
    resolve(&plan, container, &merge(container)?, &ImageConfiguration::default(), Vec::new())
}

#[test]
fn the_document_names_containers_by_name_and_id() {
    let named = |value: &str| {
        let task = task(json!({"VolumesFrom": [value]}), vec![], vec![]);
        sources(&task, &task.containers[0], &merge(&task.containers[0]).unwrap())
    };
    let plain = task(json!({}), vec![], vec![]);
    let (id, docker_name) = (plain.container_id("db"), plain.docker_name("db"));
    for name in ["db:ro", &format!("{id}:ro"), &format!("{}:ro", id.short()), &format!("/{docker_name}:ro")] {
        assert_eq!(named(name).unwrap(), [VolumeFrom { container: "db".into(), read_only: true }], "{name}");
    }
    let reason = named("elsewhere").unwrap_err().to_string();
    assert_eq!(reason, "CannotCreateContainerError: No such container: elsewhere");
    // Without the document the task definition says; null takes that away.
    let settings = merge(&plain.containers[0]).unwrap();
    assert_eq!(sources(&plain, &plain.containers[0], &settings).unwrap(), plain.containers[0].volumes_from);
    let none = task(json!({"VolumesFrom": null}), vec![], vec![]);
    assert_eq!(sources(&none, &none.containers[0], &merge(&none.containers[0]).unwrap()).unwrap(), []);
}

#[test]
fn what_can_not_be_mounted_is_said_as_the_original_says_it() {
    let volume = |path: &str| VolumeSpec { name: "v".into(), source: VolumeSource::HostPath(path.into()) };
    for (source, path, words) in [
        ("", "/x", "HostConfigError: Unable to resolve volume mounts; invalid path: main v;  -> /x"),
        ("/a", "", "HostConfigError: Unable to resolve volume mounts; invalid path: main v; /a -> "),
        (
            "/a",
            "b",
            "CannotCreateContainerError: invalid volume specification: '/a:b': invalid mount path: 'b' mount path must \
             be absolute",
        ),
        (
            "/a",
            "/b/..",
            "CannotCreateContainerError: invalid volume specification: '/a:/b/..': invalid specification: destination \
             can't be '/'",
        ),
    ] {
        let point = MountPoint { volume: "v".into(), container_path: path.into(), read_only: false };
        let reason = resolved(task(json!({}), vec![volume(source)], vec![point])).unwrap_err();
        assert_eq!(reason.to_string(), words);
    }
    let point = MountPoint { volume: "v".into(), container_path: "/x".into(), read_only: false };
    let wanted = resolved(task(json!({}), vec![volume("named")], vec![point])).unwrap();
    assert_eq!(uses(&wanted), [VolumeUse::Named(VolumeRequest::local("named"))], "no path is a name");
}

proptest! {
    /// Whatever a document asks for: what is mounted is at a path within the container, and comes from an
    /// absolute path, or from a volume whose name is checked where it is made.
    #[test]
    fn no_bind_leads_out_of_the_container(bind in "(/|\\.|\\.\\.|a|b|:|ro|,|\0){1,12}") {
        let Ok(wanted) = resolved(task(json!({"Binds": [bind]}), vec![], vec![])) else { return Ok(()) };
        for one in wanted {
            let parts: Vec<&str> = one.bind.target.split('/').skip(1).collect();
            prop_assert!(one.bind.target.starts_with('/'), "{:?}", one);
            prop_assert!(parts.iter().all(|part| !matches!(*part, "" | "." | "..")), "{:?}", one);
            match one.origin {
                Origin::Named(request) => prop_assert!(!request.name.starts_with('/')),
                Origin::Anonymous => prop_assert!(one.bind.source.starts_with("/tasks/main/volumes")),
                Origin::Host { .. } | Origin::OfContainer => {
                    let source = one.bind.source.to_str().unwrap_or_default();
                    prop_assert_eq!(clean(source), Some(source.to_owned()));
                }
            }
        }
    }
}
