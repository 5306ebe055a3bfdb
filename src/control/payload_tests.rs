use super::*;
use crate::model::{ContainerSpec, Dependency, DependencyCondition, PortRange, VolumeSource};
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
        (r#","pidMode":"task""#, "", "pid mode"),
        (r#","cpu":-1"#, "", "cpu is -1"),
        (r#","cpu":1e300"#, "", "vCPUs"),
        (r#","memory":9223372036854775807"#, "", "memory is 9223372036854775807"),
        (r#","volumes":[{"name":"v","type":"efs"}]"#, "", "\"efs\""),
        (r#","volumes":[{"name":"v"}]"#, "", "host member"),
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
        ("", r#","environment":{"A=B":""}"#, "environment"),
        ("", r#","restartPolicy":{"enabled":true}"#, "restart policy"),
        ("", r#","portMappings":[{"containerPort":0}]"#, "containerPort is 0"),
        ("", r#","portMappings":[{"containerPort":70000}]"#, "70000"),
        ("", r#","portMappings":[{"containerPort":1,"hostPort":-1}]"#, "hostPort is -1"),
        ("", r#","portMappings":[{"containerPort":1,"protocol":"sctp"}]"#, "sctp"),
        ("", r#","portMappings":[{"containerPortRange":"9-1"}]"#, "9-1"),
        ("", r#","mountPoints":[{"sourceVolume":"x","containerPath":"/d"}]"#, "no such volume"),
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
    let unhealthy = pair(&on("db", "HEALTHY"), "").unwrap_err();
    assert!(unhealthy.to_string().contains("HEALTHY") && !unhealthy.acknowledged());
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
fn null_overrides_and_empty_documents_are_nothing() {
    for text in ["", "{}", "null", r#"{\"command\":null}"#] {
        assert_eq!(web(&format!(r#","command":["a"],"overrides":"{text}""#)).command, ["a"]);
    }
    assert!(web(r#","dockerConfig":{"config":"","hostConfig":"null"}"#).docker.config.is_empty());
}
