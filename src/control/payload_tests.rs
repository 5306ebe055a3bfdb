use super::*;
use crate::model::{
    ContainerSpec, Dependency, DependencyCondition, DockerVolume, EcrLogin, PortRange, RegistryLogin,
    SecretLogin, VolumeScope, VolumeSource,
};
use crate::ports::TaskDecoder;

fn task(extra: &str, container: &str) -> wire::Task {
    let text = format!(
        r#"{{"arn":"arn:aws:ecs:us-west-2:1:task/c/t1","desiredStatus":"RUNNING","family":"f","version":"3",
            "containers":[{{"name":"web","image":"bb:1","essential":true {container}}}] {extra}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn error(extra: &str, container: &str) -> String {
    convert(&task(extra, container)).unwrap_err().to_string()
}

fn web(container: &str) -> ContainerSpec {
    convert(&task("", container)).unwrap().spec.containers.remove(0)
}

#[test]
fn a_plain_task_converts() {
    let source = task(
        r#","cpu":0.25,"memory":512,"networkMode":"host","roleCredentials":{"credentialsId":"r1",
            "secretAccessKey":"CANARY","accessKeyId":"A","sessionToken":"CANARY"},
            "volumes":[{"name":"v","host":{"sourcePath":"/data"}},{"name":"w","type":"host","host":{}}]"#,
        r#","cpu":10,"memory":64,"stopTimeout":5,"command":["a"],"overrides":"{\"command\":[\"b\"]}",
            "environment":{"A":"1"},"mountPoints":[{"sourceVolume":"v","containerPath":"/d","readOnly":true}],
            "portMappings":[{"containerPort":80,"hostPort":8080},{"containerPortRange":"90-93","protocol":"udp"}],
            "dockerConfig":{"config":"{\"WorkingDir\":\"/w\"}","hostConfig":"{\"CapAdd\":null}"}"#,
    );
    let done = convert(&source).unwrap();
    let spec = &done.spec;
    assert_eq!((spec.cpu, spec.memory_mib, spec.network_mode), (Some(256), Some(512), NetworkMode::Host));
    assert_eq!(spec.task_role, Some(CredentialsId("r1".into())));
    assert_eq!(spec.volumes[1].source, VolumeSource::Task);
    let web = &spec.containers[0];
    assert_eq!(web.command, ["b"]);
    assert_eq!(web.stop_timeout.unwrap().as_secs(), 5);
    assert_eq!((web.ports[0].host_port, web.ports[0].container.count), (8080, 1));
    assert_eq!(web.ports[1].container, PortRange { first: 90, count: 4, is_range: true });
    assert_eq!(web.docker.config["workingdir"], "/w");
    assert!(web.docker.host_config["capadd"].is_null());
    assert!(!format!("{done:?}").contains("CANARY"));
}

#[test]
fn volumes_convert() {
    let source = task(
        r#","volumes":[{"name":"mine","type":"docker","dockerVolumeConfiguration":{"scope":"task"}},
            {"name":"ours","type":"docker","dockerVolumeConfiguration":{"scope":"shared","autoprovision":true,
            "driver":"local","driverOpts":{"type":"tmpfs","device":"tmpfs"},"labels":{"a":"1"}}},
            {"name":"named","host":{"sourcePath":"named"}}]"#,
        // The container can't be made, the task can.
        r#","mountPoints":[{"sourceVolume":"nope","containerPath":"rel"}]"#,
    );
    let spec = convert(&source).unwrap().spec;
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mine = DockerVolume {
        scope: VolumeScope::Task,
        autoprovision: false,
        driver: String::new(),
        options: pairs(&[]),
        labels: pairs(&[]),
    };
    let ours = DockerVolume {
        scope: VolumeScope::Shared,
        autoprovision: true,
        driver: "local".into(),
        options: pairs(&[("type", "tmpfs"), ("device", "tmpfs")]),
        labels: pairs(&[("a", "1")]),
    };
    let sources: Vec<_> = spec.volumes.into_iter().map(|volume| volume.source).collect();
    let named = VolumeSource::HostPath("named".into());
    assert_eq!(sources, [VolumeSource::Docker(mine), VolumeSource::Docker(ours), named]);
    assert_eq!(spec.containers[0].mounts[0].container_path, "rel");
}

#[test]
fn what_is_stored_holds_no_secret_and_reads_back_the_same() {
    let source = task(
        r#","roleCredentials":{"credentialsId":"r1","secretAccessKey":"CANARY","accessKeyId":"CANARY",
            "sessionToken":"CANARY"},"executionRoleCredentials":{"credentialsId":"e1","sessionToken":"CANARY"}"#,
        "",
    );
    let spec = convert(&source).unwrap().spec;
    let endpoints: Vec<_> = spec.containers.iter().map(|c| (c.name.clone(), c.endpoint.clone())).collect();
    let stored = to_stored(&source, &endpoints);
    assert!(!stored.contains("CANARY"));
    assert_eq!(PayloadDecoder.decode(&stored).unwrap(), spec);
    assert!(PayloadDecoder.decode(&stored.replace("\"version\":1,", "\"version\":9,")).is_err());
    assert!(PayloadDecoder.decode("{").is_err());
}

#[test]
fn what_can_not_run_is_refused_with_its_name() {
    for (extra, container, words) in [
        (r#","networkMode":"awsvpc""#, "", "awsvpc"),
        (r#","networkMode":"mesh""#, "", "networkMode"),
        (r#","pidMode":"none""#, "", "pidMode \"none\" is not usable: it must be host or task"),
        (
            r#","ipcMode":"shareable""#,
            "",
            "ipcMode \"shareable\" is not usable: it must be host, task or none",
        ),
        (r#","cpu":-1"#, "", "cpu is -1"),
        (r#","cpu":1e300"#, "", "vCPUs"),
        (r#","memory":9223372036854775807"#, "", "memory is 9223372036854775807"),
        (r#","volumes":[{"name":"v","type":"efs"}]"#, "", "\"efs\""),
        (r#","volumes":[{"name":"v","type":"ebs"}]"#, "", "no type of volume"),
        (r#","volumes":[{"name":"v"}]"#, "", "host member"),
        (r#","volumes":[{"name":"v","type":"docker"}]"#, "", "dockerVolumeConfiguration"),
        (r#","volumes":[{"name":"v","host":{}},{"name":"v","host":{}}]"#, "", "two volumes"),
        (r#","volumes":[{"name":"../v","host":{}}]"#, "", "volume name"),
        ("", r#","overrides":"{\"cpu\":1}""#, "only command"),
        ("", r#","overrides":"{""#, "overrides can't be read"),
        ("", r#","dockerConfig":{"hostConfig":"{bad"}"#, "hostConfig can't be read"),
        ("", r#","dockerConfig":{"config":"[1]"}"#, "config can't be read"),
        ("", r#","memory":-1"#, "memory is -1"),
        ("", r#","cpu":-5"#, "cpu is -5"),
        ("", r#","stopTimeout":-1"#, "stopTimeout"),
        ("", r#","secrets":[{"name":"S"}]"#, "secret"),
        ("", r#","environmentFiles":[{}]"#, "environment file"),
        ("", r#","registryAuthentication":{"type":"ecr"}"#, "ecrAuthData"),
        (
            "",
            r#","registryAuthentication":{"type":"ecr","ecrAuthData":{"region":"x.evil"}}"#,
            "region \"x.evil\"",
        ),
        (
            "",
            r#","registryAuthentication":{"type":"asm","asmAuthData":{"region":"r"}}"#,
            "credentialsParameter",
        ),
        ("", r#","environment":{"A=B":""}"#, "environment"),
        (
            "",
            r#","restartPolicy":{"enabled":true,"restartAttemptPeriod":-1}"#,
            "restartPolicy: restartAttemptPeriod is -1",
        ),
        ("", r#","portMappings":[{"containerPort":0}]"#, "containerPort is 0"),
        ("", r#","portMappings":[{"containerPort":70000}]"#, "70000"),
        ("", r#","portMappings":[{"containerPort":1,"hostPort":-1}]"#, "hostPort is -1"),
        ("", r#","portMappings":[{"containerPort":1,"protocol":"sctp"}]"#, "sctp"),
        ("", r#","portMappings":[{"containerPortRange":"9-1"}]"#, "9-1"),
        ("", r#","mountPoints":[{"sourceVolume":"x","containerPath":"/d\u0000"}]"#, "holds a NUL"),
    ] {
        let text = error(extra, container);
        assert!(text.contains(words), "{text} lacks {words}");
    }
    let mut strange = task("", "");
    strange.family = "../x".into();
    assert!(convert(&strange).unwrap_err().to_string().contains("family"));
    let mut twice = task("", "");
    twice.containers.push(twice.containers[0].clone());
    assert!(convert(&twice).unwrap_err().to_string().contains("two containers"));
    twice.containers[1].name = "../../etc".into();
    assert!(convert(&twice).unwrap_err().to_string().contains("container name"));
}

#[test]
fn where_a_registrys_password_comes_from_is_kept() {
    let of = |auth: &str| {
        let converted = convert(&task("", &format!(r#","registryAuthentication":{auth}"#))).unwrap();
        converted.spec.containers[0].registry_login.clone()
    };
    let ecr = of(r#"{"type":"ecr","ecrAuthData":{"registryId":"1","region":"eu-west-1",
        "endpointOverride":"ecr.example","useExecutionRole":true}}"#);
    let expected = EcrLogin {
        region: "eu-west-1".into(),
        registry: "1".into(),
        endpoint: "ecr.example".into(),
        execution_role: true,
    };
    assert_eq!(ecr, Some(RegistryLogin::Ecr(expected)));
    let asm = of(r#"{"type":"asm","asmAuthData":{"credentialsParameter":"arn:s","region":"eu-west-1"}}"#);
    let expected = SecretLogin { secret: "arn:s".into(), region: "eu-west-1".into() };
    assert_eq!(asm, Some(RegistryLogin::Secret(expected)));
    assert_eq!(of(r#"{"type":"other"}"#), None);
}

#[test]
fn a_restart_policy_counts_where_it_is_on() {
    for (policy, expected) in [
        (r#"{"enabled":false,"ignoredExitCodes":[1],"restartAttemptPeriod":60}"#, None),
        (r#"{"enabled":true}"#, Some((vec![], 300))),
        (
            r#"{"enabled":true,"ignoredExitCodes":[143,0,99999999999],"restartAttemptPeriod":60}"#,
            Some((vec![0, 143], 60)),
        ),
    ] {
        let converted = convert(&task("", &format!(r#","restartPolicy":{policy}"#))).unwrap();
        let restart = converted.spec.containers[0].restart.clone();
        let found = restart.map(|r| (r.ignored_exit_codes.into_iter().collect(), r.attempt_period.as_secs()));
        assert_eq!(found, expected, "{policy}");
    }
}

/// Attachments, interfaces, accelerators and proxies: what is malformed is told as such, what is well
/// is refused with its name.
#[test]
fn what_comes_with_a_task_is_checked_and_refused() {
    use serde_json::{Value, json};
    let eni = |more: Value| {
        let mut eni = json!({"attachmentArn": "a", "ec2Id": "eni-1", "macAddress": "0a:00:00:00:00:01",
            "subnetGatewayIpv4Address": "10.0.0.1/24", "ipv4Addresses": [{"privateAddress": "10.0.0.9"}]});
        eni.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"networkMode": "awsvpc", "elasticNetworkInterfaces": [eni]})
    };
    let attachment = |kind: &str, properties: &[(&str, &str)]| {
        let properties: Vec<_> = properties.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
        json!({"attachments": [{"attachmentType": kind, "attachmentProperties": properties}]})
    };
    let ebs = [("volumeId", "v"), ("volumeName", "n"), ("sourceVolumeHostPath", "p")];
    let proxy = |kind: &str, container: &str| json!({"proxyConfiguration": {"type": kind, "containerName": container}});
    let device = |kind: &str, container: &str, encoding: &str| {
        json!({"associations": [{"containers": [container], "name": "g", "type": kind,
            "content": {"encoding": encoding, "value": "x"}}]})
    };
    let with = |extra: Value| -> wire::Task {
        let mut whole = serde_json::to_value(task("", "")).unwrap();
        whole.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    };
    for (extra, words) in [
        (eni(json!({})), "a network interface of the task's own (awsvpc) is not supported"),
        (eni(json!({"macAddress": ""})), "empty eni mac address"),
        (eni(json!({"macAddress": "zz"})), "no mac address such as"),
        (eni(json!({"ec2Id": ""})), "empty eni id"),
        (eni(json!({"ipv4Addresses": []})), "no ipv4 addresses"),
        (
            eni(json!({"ipv4Addresses": [], "ipv6Addresses": [{"address": "fd00::1"}]})),
            "no subnet gateway ipv6",
        ),
        (eni(json!({"subnetGatewayIpv4Address": null})), "no subnet gateway ipv4"),
        (
            eni(json!({"subnetGatewayIpv4Address": "10.0.0.1"})),
            "invalid subnet gateway ipv4 address 10.0.0.1",
        ),
        (
            eni(json!({"interfaceAssociationProtocol": "veth"})),
            "invalid interface association protocol: veth",
        ),
        (eni(json!({"interfaceAssociationProtocol": "vlan"})), "vlan interface properties missing"),
        (attachment("amazonebs", &ebs), "amazonebs\" is not supported"),
        (attachment("amazonebs", &ebs[1..]), "property volumeId \"\" is not usable: it is missing"),
        (attachment("s3files", &[("volumeId", "v")]), "property volumeName"),
        (
            attachment("s3files", &[("volumeId", ""), ("volumeName", "n")]),
            "volumeId \"\" is not usable: it is empty",
        ),
        (attachment("serviceconnectdetail", &[("ContainerName", "web")]), "ServiceConnectConfig"),
        (attachment("serviceconnectdetail", &[("ContainerName", "w"), ("ServiceConnectConfig", "{")]), "EOF"),
        (attachment("new", &[]), "new\" is not supported"),
        (proxy("APPMESH", "web"), "App Mesh"),
        (proxy("APPMESH", "none"), "no such container"),
        (proxy("OTHER", "web"), "agent does not support proxy type other than app mesh"),
        (device("gpu", "none", ""), "could not find container with name none for associating GPU "),
        (device("tpu", "web", "identity"), "it must be gpu or elastic-inference"),
        (device("elastic-inference", "none", "identity"), "no such container"),
        (device("elastic-inference", "web", "rot13"), "identity or base64"),
    ] {
        let error = convert(&with(extra)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words), "{text} lacks {words}");
        assert!(!error.acknowledged());
    }
    let spec = convert(&with(device("elastic-inference", "web", "base64"))).unwrap().spec;
    assert_eq!(spec.associations[0].content.value, "x");
    assert_eq!(spec.associations[0].containers, ["web"]);
}

#[test]
fn gpus_are_claimed_and_told_to_the_container_that_has_them() {
    let with = |gpus: &[(&str, &[&str])]| {
        let mut source = task("", r#","environment":{"NVIDIA_VISIBLE_DEVICES":"all"}"#);
        let mut second = task("", "").containers.remove(0);
        second.name = "side".into();
        source.containers.push(second);
        source.associations = gpus
            .iter()
            .map(|(id, containers)| wire::Association {
                containers: containers.iter().map(|name| (*name).to_owned()).collect(),
                name: (*id).to_owned(),
                r#type: "gpu".to_owned(),
                content: None,
            })
            .collect();
        convert(&source)
    };
    let spec = with(&[("GPU-a", &["web"]), ("GPU-b", &["web"])]).unwrap().spec;
    let visible = |name: &str| spec.container(name).unwrap().environment.get("NVIDIA_VISIBLE_DEVICES");
    assert_eq!((visible("web").map(String::as_str), visible("side")), (Some("GPU-a,GPU-b"), None));
    assert_eq!(spec.claim().gpus, ["GPU-a".to_owned(), "GPU-b".to_owned()].into());
    let shared = with(&[("GPU-a", &["web", "side"])]).unwrap_err().to_string();
    assert_eq!(shared, "could not associate multiple containers to GPU GPU-a");
    assert!(with(&[("", &["web"])]).is_err(), "a GPU without an id");
}

#[test]
fn shared_namespaces_have_a_holder_that_is_read_back_too() {
    let source = task(r#","pidMode":"task","ipcMode":"none""#, "");
    let spec = convert(&source).unwrap().spec;
    assert_eq!((spec.pid_mode, spec.ipc_mode), (PidMode::Task, IpcMode::None));
    assert!(spec.namespace_holder().is_some());
    let endpoints: Vec<_> = spec.containers.iter().map(|c| (c.name.clone(), c.endpoint.clone())).collect();
    assert_eq!(PayloadDecoder.decode(&to_stored(&source, &endpoints)).unwrap(), spec);
    let of_host = convert(&task(r#","pidMode":"host","ipcMode":"host""#, "")).unwrap().spec;
    assert!(of_host.namespace_holder().is_none());
}

#[test]
fn a_task_without_containers_is_refused_as_the_original_would_say_it() {
    let mut empty = task("", "");
    empty.containers.clear();
    let error = convert(&empty).unwrap_err();
    let arn = TaskArn::parse(&empty.arn).unwrap();
    assert_eq!(
        error.stop_reason(&arn),
        "UnrecogniedTaskError: Error loading task - the task has no containers"
    );
    assert!(!error.acknowledged());
}

#[test]
fn volumes_and_links_of_others_are_dependencies() {
    let mut source = task(
        "",
        r#","links":["db:alias"],"volumesFrom":[{"sourceContainer":"db"}],
           "dependsOn":[{"containerName":"db","condition":"START"}]"#,
    );
    let mut second = task("", "").containers.remove(0);
    second.name = "db".into();
    source.containers.push(second);
    let on = |condition| Dependency { container: "db".into(), condition };
    assert_eq!(
        convert(&source).unwrap().spec.containers[0].depends_on,
        [on(DependencyCondition::Start), on(DependencyCondition::Create)]
    );
}

#[test]
fn dependencies_that_can_not_be_met_are_refused() {
    let pair = |a: &str, b: &str| {
        let mut source = task("", a);
        let mut second = task("", b).containers.remove(0);
        second.name = "db".into();
        source.containers.push(second);
        convert(&source)
    };
    let on = |name: &str, condition: &str| {
        format!(r#","dependsOn":[{{"containerName":"{name}","condition":"{condition}"}}]"#)
    };
    assert!(pair(&on("db", "SUCCESS"), "").is_ok());
    let task = pair(&on("db", "HEALTHY"), r#","healthCheckType":"docker""#).unwrap().spec;
    assert_eq!(task.containers[0].depends_on[0].condition, DependencyCondition::Healthy);
    assert_eq!(task.containers.iter().map(|c| c.health_checked).collect::<Vec<_>>(), [false, true]);
    let shouted = pair("", r#","healthCheckType":"DOCKER""#).unwrap().spec;
    assert!(!shouted.containers[1].health_checked);
    for bad in [
        pair(&on("db", "START"), &on("web", "START")),
        pair(&on("db", "START"), r#","links":["web:alias"]"#),
        pair("", r#","volumesFrom":[{"sourceContainer":"none"}]"#),
        pair(&on("web", "START"), ""),
        pair(&on("db", "SOON"), ""),
    ] {
        let error = bad.unwrap_err();
        let arn = TaskArn::parse("arn:aws:ecs:us-west-2:1:task/c/t1").unwrap();
        assert_eq!(
            error.stop_reason(&arn),
            "Task dependencies cannot be resolved, taskArn: arn:aws:ecs:us-west-2:1:task/c/t1"
        );
        assert!(error.acknowledged());
    }
}

#[test]
fn a_container_has_no_more_memory_than_its_task() {
    let with = |task_mib: i64, container_mib: i64| {
        let mut source = task("", "");
        source.memory = task_mib;
        source.containers[0].memory = container_mib;
        convert(&source)
    };
    assert!(with(64, 64).is_ok() && with(0, 128).is_ok());
    let error = with(64, 65).unwrap_err().to_string();
    assert!(error.contains("memory") && error.contains("the task's 64 MiB"), "{error}");
}

#[test]
fn null_overrides_and_empty_documents_are_nothing() {
    for text in ["", "{}", "null", r#"{\"command\":null}"#] {
        assert_eq!(web(&format!(r#","command":["a"],"overrides":"{text}""#)).command, ["a"]);
    }
    assert!(web(r#","dockerConfig":{"config":"","hostConfig":"null"}"#).docker.config.is_empty());
}
