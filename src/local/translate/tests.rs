use super::*;
use crate::local::definition::validate;
use crate::local::names::Names;

fn definition(mut document: Value) -> TaskDefinition {
    validate(&mut document).unwrap();
    let names = Names { region: "us-east-1".into(), account: "000000000000".into() };
    TaskDefinition::new(document, 3, &names, 1.5)
}

fn names() -> TaskNames {
    TaskNames {
        arn: "arn:aws:ecs:us-east-1:000000000000:task/local/0a".into(),
        cluster_arn: "arn:aws:ecs:us-east-1:000000000000:cluster/local".into(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        containers: [("main".to_owned(), "arn:c".to_owned())].into(),
        group: "family:f".into(),
    }
}

fn host_config(task: &wire::Task) -> Value {
    serde_json::from_str(&task.containers[0].docker_config.as_ref().unwrap().host_config).unwrap()
}

#[test]
fn a_plain_task_looks_as_the_service_sends_it() {
    let definition = definition(json!({"family": "peer", "networkMode": "bridge", "containerDefinitions": [
        {"name": "main", "image": "127.0.0.1:5000/bb:1", "cpu": 10, "memory": 64, "command": ["sleep", "9"],
         "portMappings": [{"containerPort": 80, "hostPort": 8099}, {"containerPortRange": "5000-5003"}]}]}));
    let task = task(&definition, &json!({}), &names(), "RUNNING");
    assert_eq!((task.family.as_str(), task.version.as_str(), task.overrides.as_str()), ("peer", "3", "{}"));
    assert_eq!((task.cpu, task.memory, task.network_mode.as_str()), (0.0, 0, "bridge"));
    let main = &task.containers[0];
    assert_eq!((main.cpu, main.memory, main.essential), (10, 64, true));
    assert_eq!((main.overrides.as_str(), main.container_arn.as_str()), ("{}", "arn:c"));
    assert_eq!((main.port_mappings[0].host_port, main.port_mappings[0].protocol.as_str()), (8099, "tcp"));
    assert_eq!(main.port_mappings[1].container_port_range, "5000-5003");
    assert_eq!(host_config(&task), json!({"NetworkMode": "bridge", "CapAdd": [], "CapDrop": []}));
    assert_eq!(main.docker_config.as_ref().unwrap().config, "{}");
}

#[test]
fn everything_else_travels_in_the_docker_documents() {
    let definition = definition(json!({"family": "f", "cpu": ".5 vCPU", "memory": "1 GB",
        "volumes": [{"name": "scratch"}, {"name": "etc", "host": {"sourcePath": "/etc"}}],
        "containerDefinitions": [{
            "name": "main", "image": "x", "memoryReservation": 128, "memory": 256, "user": "1:2",
            "workingDirectory": "/w", "hostname": "h", "pseudoTerminal": true, "privileged": true,
            "readonlyRootFilesystem": true, "dockerLabels": {"a": "b"}, "dnsServers": ["1.1.1.1"],
            "dnsSearchDomains": ["d"], "extraHosts": [{"hostname": "n", "ipAddress": "10.0.0.1"}],
            "dockerSecurityOptions": ["no-new-privileges"],
            "ulimits": [{"name": "nofile", "softLimit": 10, "hardLimit": 20}],
            "systemControls": [{"namespace": "net.core.somaxconn", "value": "9"}],
            "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
            "healthCheck": {"command": ["CMD", "true"], "interval": 10},
            "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/s", "readOnly": true}],
            "linuxParameters": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "maxSwap": 44,
                "sharedMemorySize": 2, "initProcessEnabled": true, "swappiness": 60,
                "tmpfs": [{"containerPath": "/t", "size": 8, "mountOptions": ["noexec"]}],
                "devices": [{"hostPath": "/dev/null", "permissions": ["read"]}]}}]}));
    let task = task(&definition, &json!({}), &names(), "RUNNING");
    assert_eq!((task.cpu, task.memory), (0.5, 1024));
    assert_eq!(task.volumes[0].host.as_ref().unwrap().source_path, "");
    assert_eq!(task.volumes[1].host.as_ref().unwrap().source_path, "/etc");
    let mib = 1024 * 1024;
    assert_eq!(
        host_config(&task),
        json!({"NetworkMode": "bridge", "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "Privileged": true,
            "ReadonlyRootfs": true, "MemoryReservation": 128 * mib, "Dns": ["1.1.1.1"], "DnsSearch": ["d"],
            "SecurityOpt": ["no-new-privileges"], "ExtraHosts": ["n:10.0.0.1"],
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}], "Sysctls": {"net.core.somaxconn": "9"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "Init": true, "ShmSize": 2 * mib,
            "MemorySwap": 300 * mib, "MemorySwappiness": 60, "Tmpfs": {"/t": "size=8m,noexec"},
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "r"}]})
    );
    let main = &task.containers[0];
    assert_eq!(
        (main.memory, main.health_check_type.as_str(), main.mount_points[0].read_only),
        (256, "docker", true)
    );
    let config: Value = serde_json::from_str(&main.docker_config.as_ref().unwrap().config).unwrap();
    assert_eq!(
        config,
        json!({"User": "1:2", "WorkingDir": "/w", "Hostname": "h", "Tty": true, "Labels": {"a": "b"},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10_000_000_000_i64, "Timeout": 5_000_000_000_i64,
                "StartPeriod": 0, "Retries": 3}})
    );
}

#[test]
fn overrides_are_applied() {
    let definition = definition(json!({"family": "f", "containerDefinitions": [
        {"name": "main", "image": "x", "memory": 64, "environment": [{"name": "A", "value": "1"},
            {"name": "B", "value": "1"}]}]}));
    let overrides = json!({"cpu": "512", "containerOverrides": [{"name": "main", "command": ["a b", "\"c\""],
        "cpu": 7, "memory": 99, "memoryReservation": 50, "environment": [{"name": "B", "value": "2"}]}]});
    let task = task(&definition, &overrides, &names(), "RUNNING");
    let main = &task.containers[0];
    assert_eq!(main.overrides, r#"{"command":["a b","\"c\""]}"#);
    assert_eq!((task.cpu, main.cpu, main.memory), (0.5, 7, 99));
    assert_eq!((main.environment["A"].as_str(), main.environment["B"].as_str()), ("1", "2"));
    assert_eq!(host_config(&task)["MemoryReservation"], json!(50 * 1024 * 1024));
}

#[test]
fn registries_passwords_are_named_as_the_service_names_them() {
    let image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1";
    let secret = "arn:aws:secretsmanager:eu-west-2:000000000000:secret:s";
    let of = |role: &str| {
        let definition =
            definition(json!({"family": "f", "executionRoleArn": role, "containerDefinitions": [
            {"name": "ecr", "image": image, "memory": 8},
            {"name": "asm", "image": "r.example/x", "memory": 8,
             "repositoryCredentials": {"credentialsParameter": secret}},
            {"name": "none", "image": "busybox", "memory": 8}]}));
        task(&definition, &json!({}), &names(), "RUNNING").containers
    };
    let containers = of("arn:aws:iam::000000000000:role/x");
    let auth = |n: usize| serde_json::to_value(&containers[n].registry_authentication).unwrap();
    let ecr = &auth(0)["ecrAuthData"];
    assert_eq!(auth(0)["type"], "ecr");
    assert_eq!((&ecr["registryId"], &ecr["region"]), (&json!("123456789012"), &json!("eu-west-1")));
    assert_eq!(ecr["useExecutionRole"], true);
    assert_eq!(auth(1)["type"], "asm");
    assert_eq!(auth(1)["asmAuthData"], json!({"credentialsParameter": secret, "region": "eu-west-2"}));
    assert_eq!(auth(2), Value::Null);
}
