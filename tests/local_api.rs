//! The embedded control plane over real sockets: every operation, every refusal, both websockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod local_support;

use futures_util::{SinkExt, StreamExt};
use local_support::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn definitions_are_registered_described_listed_and_deregistered() {
    let handle = start().await;
    let addr = address(&handle);
    for revision in 1..=3 {
        let answer = call(&addr, "RegisterTaskDefinition", definition("web")).await;
        let shown = &answer["taskDefinition"];
        assert_eq!(shown["revision"], revision);
        assert_eq!(shown["status"], "ACTIVE");
        assert_eq!(shown["compatibilities"], json!(["EXTERNAL", "EC2"]));
        assert!(shown["registeredAt"].as_f64().unwrap() > 1.7e9);
        let container = &shown["containerDefinitions"][0];
        assert_eq!(container["essential"], true);
        assert_eq!(container["portMappings"][0]["protocol"], "tcp");
        for list in ["environment", "mountPoints", "volumesFrom", "systemControls"] {
            assert_eq!(container[list], json!([]), "{list}");
        }
    }
    let arn = "arn:aws:ecs:us-east-1:000000000000:task-definition/web:2";
    for name in ["web:2", arn] {
        let answer = call(&addr, "DescribeTaskDefinition", json!({"taskDefinition": name})).await;
        assert_eq!(answer["taskDefinition"]["taskDefinitionArn"], arn);
    }
    let newest = call(&addr, "DescribeTaskDefinition", json!({"taskDefinition": "web"})).await;
    assert_eq!(newest["taskDefinition"]["revision"], 3);
    let first = call(&addr, "ListTaskDefinitions", json!({"maxResults": 2})).await;
    assert_eq!(first["taskDefinitionArns"].as_array().unwrap().len(), 2);
    let rest =
        call(&addr, "ListTaskDefinitions", json!({"maxResults": 2, "nextToken": first["nextToken"]})).await;
    assert_eq!(rest["taskDefinitionArns"].as_array().unwrap().len(), 1);
    assert!(rest.get("nextToken").is_none());
    let gone = call(&addr, "DeregisterTaskDefinition", json!({"taskDefinition": "web:3"})).await;
    assert_eq!(gone["taskDefinition"]["status"], "INACTIVE");
    let newest = call(&addr, "DescribeTaskDefinition", json!({"taskDefinition": "web"})).await;
    assert_eq!(newest["taskDefinition"]["revision"], 2);
    let inactive = call(&addr, "ListTaskDefinitions", json!({"status": "INACTIVE"})).await;
    assert_eq!(inactive["taskDefinitionArns"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn bad_definitions_are_refused_with_the_field_and_the_cure() {
    let handle = start().await;
    let addr = address(&handle);
    let with = |pointer: &str, value: Value| {
        let mut document = definition("f");
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = document.pointer_mut(parent).unwrap();
        match key.parse::<usize>() {
            Ok(i) if parent.is_array() => parent.as_array_mut().unwrap().insert(i, value),
            _ => parent[key] = value,
        }
        document
    };
    let second = |extra: Value| {
        let mut container = json!({"name": "b", "image": "x", "memory": 64});
        for (key, value) in extra.as_object().unwrap() {
            container[key] = value.clone();
        }
        with("/containerDefinitions/1", container)
    };
    let c = "/containerDefinitions/0";
    let mut cycle = second(json!({"dependsOn": [{"containerName": "web", "condition": "START"}]}));
    cycle["containerDefinitions"][0]["dependsOn"] = json!([{"containerName": "b", "condition": "START"}]);
    let mut no_memory = definition("f");
    no_memory["containerDefinitions"][0].as_object_mut().unwrap().remove("memory");
    let mut no_essential = definition("f");
    no_essential["containerDefinitions"][0]["essential"] = json!(false);
    let cases = [
        (json!({}), "Family should not be null or empty"),
        (with("/family", json!("a b")), "'family' takes 1 to 255 letters"),
        (with("/family", json!("x".repeat(256))), "'family' takes"),
        (with("/containerDefinitions", json!([])), "Container list cannot be empty"),
        (with(&format!("{c}/name"), json!("")), "Container.name should not be null or empty"),
        (with(&format!("{c}/name"), json!("a.b")), "'name' takes 1 to 255 letters"),
        (with(&format!("{c}/image"), json!("")), "Container.image should not be null or empty"),
        (with(&format!("{c}/image"), json!("a b")), "repository[:tag]"),
        (second(json!({"name": "web"})), "Duplicate container name 'web'"),
        (
            no_memory,
            "Invalid setting for container 'web'. At least one of 'memory' or 'memoryReservation' must be specified.",
        ),
        (with(&format!("{c}/memory"), json!(1)), "'memory' is 1: give MiB, 6 or more"),
        (with(&format!("{c}/memoryReservation"), json!(65)), "must not be greater than 'memory' (64 MiB)"),
        (with("/memory", json!("32")), "must not be greater than the task's 'memory' (32 MiB)"),
        (with("/cpu", json!("lots")), "Invalid 'cpu' setting for task: 'lots'"),
        (with("/cpu", json!(256)), "cpu: expected a string, found the number 256"),
        (with("/memory", json!("1 TB")), "Invalid 'memory' setting for task: '1 TB'"),
        (
            with("/networkMode", json!("vpc")),
            "Member must satisfy enum value set: [bridge, host, awsvpc, none]",
        ),
        (with("/networkMode", json!("awsvpc")), "Allowed values for 'networkMode' here: bridge, host, none"),
        (with("/requiresCompatibilities", json!(["FARGATE"])), "Add EC2"),
        (no_essential, "at least one container must be essential"),
        (
            with(&format!("{c}/portMappings/0/containerPort"), json!(0)),
            "'portMappings[0].containerPort' is 0: allowed are 1 to 65535",
        ),
        (
            with(&format!("{c}/portMappings/0/hostPort"), json!(70000)),
            "'portMappings[0].hostPort' is 70000: allowed are 0 to 65535",
        ),
        (with(&format!("{c}/portMappings/0/protocol"), json!("sctp")), "[tcp, udp]"),
        (with(&format!("{c}/portMappings/0/containerPortRange"), json!("1-2")), "give one of them"),
        (with(&format!("{c}/portMappings"), json!([{"containerPortRange": "9-3"}])), "first-last"),
        (with(&format!("{c}/portMappings"), json!([{}])), "'portMappings[0].containerPort' is missing"),
        (
            with(
                &format!("{c}/portMappings"),
                json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
            ),
            "Host port 9/tcp is mapped twice",
        ),
        (
            second(json!({"dependsOn": [{"containerName": "nope", "condition": "START"}]})),
            "names the container 'nope'; containers are: b, web",
        ),
        (
            second(json!({"dependsOn": [{"containerName": "web", "condition": "READY"}]})),
            "[START, COMPLETE, SUCCESS, HEALTHY]",
        ),
        (second(json!({"dependsOn": [{"containerName": "web"}]})), "condition' is missing"),
        (
            second(json!({"dependsOn": [{"containerName": "web", "condition": "HEALTHY"}]})),
            "has no 'healthCheck'",
        ),
        (
            second(json!({"dependsOn": [{"containerName": "web", "condition": "COMPLETE"}]})),
            "which is essential",
        ),
        (second(json!({"dependsOn": [{"containerName": "b", "condition": "START"}]})), "cycle: b -> b"),
        (cycle, "form a cycle"),
        (second(json!({"links": ["nope:x"]})), "'links[0]' names the container 'nope'"),
        (
            with(&format!("{c}/environment"), json!({"A": "b"})),
            "containerDefinitions[0].environment: expected a list, found an object",
        ),
        (with(&format!("{c}/environment"), json!([{"value": "x"}])), "'environment[0].name' is ''"),
        (
            with(&format!("{c}/environment"), json!([{"name": "A", "value": 1}])),
            "environment[0].value: expected a string",
        ),
        (with(&format!("{c}/environment"), json!(["A=b"])), "expected an object, found the string \"A=b\""),
        (
            with(&format!("{c}/mountPoints"), json!([{"sourceVolume": "v", "containerPath": "/x"}])),
            "Unknown volume 'v'",
        ),
        (
            with("/volumes", json!([{"name": "v", "host": {"sourcePath": "/a/../b"}}])),
            "absolute path without '..'",
        ),
        (with("/volumes", json!([{"name": "v"}, {"name": "v"}])), "Duplicate volume name 'v'"),
        (
            with("/volumes", json!([{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}])),
            "needs a file system in AWS",
        ),
        (with(&format!("{c}/healthCheck"), json!({"command": ["true"]})), "CMD or CMD-SHELL"),
        (
            with(&format!("{c}/healthCheck"), json!({"command": ["CMD", "true"], "interval": 1})),
            "allowed are 5 to 300",
        ),
        (with(&format!("{c}/stopTimeout"), json!(-1)), "'stopTimeout' is -1"),
        (
            with(&format!("{c}/colour"), json!("red")),
            "Unknown parameter in containerDefinitions[0]: \"colour\", must be one of: name, image",
        ),
        (with("/containerDefintions", json!([])), "Unknown parameter in input: \"containerDefintions\""),
        (with(&format!("{c}/cpu"), json!(1e300)), "expected an integer between"),
        (with(&format!("{c}/user"), json!("u".repeat(70_000))), "Max allowed length is '65536' bytes"),
    ];
    for (document, expected) in cases {
        let (kind, message) = refused(&addr, "RegisterTaskDefinition", document.clone()).await;
        assert!(message.contains(expected), "{expected}\n  got {kind}: {message}");
        assert!(matches!(kind.as_str(), "ClientException" | "SerializationException"), "{kind}: {message}");
        assert!(message.len() < 2000, "{message}");
    }
    let none = call(&addr, "ListTaskDefinitions", json!({})).await;
    assert_eq!(none["taskDefinitionArns"], json!([]));
}

#[tokio::test]
async fn requests_that_are_no_requests_are_answered() {
    let handle = start().await;
    let addr = address(&handle);
    let (kind, message) = refused(&addr, "CreateService", json!({})).await;
    assert_eq!(kind, "UnknownOperationException");
    assert!(message.contains("RegisterTaskDefinition"), "{message}");
    for body in ["", "[]", "{", "\"x\"", "nul", &"[".repeat(100_000)] {
        let (status, answer) = post(&addr, "RunTask", body).await;
        assert_eq!(status, 400, "{body:.10}");
        assert!(answer["__type"].is_string(), "{answer}");
    }
    let (status, answer) = post(&addr, "RegisterTaskDefinition", &"x".repeat(1024 * 1024 + 1)).await;
    assert_eq!((status, answer["__type"].as_str()), (413, Some("RequestEntityTooLargeException")));
    let get = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let (status, answer) = raw(&addr, get.as_bytes()).await;
    assert_eq!(status, 404);
    assert!(answer["message"].as_str().unwrap().contains("--endpoint-url"));
    let no_target =
        format!("POST / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    let (status, answer) = raw(&addr, no_target.as_bytes()).await;
    assert_eq!((status, answer["__type"].as_str()), (400, Some("UnknownOperationException")));
}

#[tokio::test]
async fn without_an_agent_no_task_is_placed() {
    let handle = start().await;
    let addr = address(&handle);
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    let (kind, message) = refused(&addr, "RunTask", json!({"taskDefinition": "web"})).await;
    assert_eq!(kind, "InvalidParameterException");
    assert_eq!(message, "No Container Instances were found in your cluster.");
    let instance = register_instance(&addr).await;
    let answer = call(&addr, "RunTask", json!({"taskDefinition": "web"})).await;
    assert_eq!(answer["tasks"], json!([]));
    assert_eq!(answer["failures"][0]["arn"], instance);
    assert_eq!(answer["failures"][0]["reason"], "AGENT");
}

#[tokio::test]
async fn a_task_goes_through_its_life() {
    let handle = start().await;
    let addr = address(&handle);
    let mut agent = FakeAgent::start(&handle).await;
    assert_eq!(agent.expect("HeartbeatMessage").await["healthy"], true);
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    let overrides = json!({"containerOverrides": [{"name": "web", "command": ["x"], "environment":
        [{"name": "A", "value": "1"}]}]});
    let run = json!({"cluster": "local", "taskDefinition": "web", "overrides": overrides, "startedBy": "me"});
    let answer = call(&addr, "RunTask", run).await;
    assert_eq!(answer["failures"], json!([]));
    let task = &answer["tasks"][0];
    let arn = task["taskArn"].as_str().unwrap().to_owned();
    assert!(arn.starts_with("arn:aws:ecs:us-east-1:000000000000:task/local/"), "{arn}");
    assert_eq!(arn.rsplit('/').next().unwrap().len(), 32);
    assert_eq!(
        (task["lastStatus"].as_str(), task["desiredStatus"].as_str()),
        (Some("PENDING"), Some("RUNNING"))
    );
    assert_eq!(task["containerInstanceArn"], agent.instance);
    assert_eq!(task["group"], "family:web");

    let payload = agent.expect("PayloadMessage").await;
    assert_eq!(payload["containerInstanceArn"], agent.instance);
    let sent = &payload["tasks"][0];
    assert_eq!((sent["arn"].as_str(), sent["desiredStatus"].as_str()), (Some(arn.as_str()), Some("RUNNING")));
    assert_eq!(sent["containers"][0]["overrides"], r#"{"command":["x"]}"#);
    assert_eq!(sent["containers"][0]["environment"], json!({"A": "1"}));
    agent.ack(&payload).await;

    let bindings = json!([{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp"}]);
    agent
        .report(
            &arn,
            "PENDING",
            json!([{"containerName": "web", "status": "PENDING", "imageDigest": "sha256:1"}]),
        )
        .await;
    agent
        .report(
            &arn,
            "RUNNING",
            json!([{"containerName": "web", "status": "RUNNING", "runtimeId": "r",
            "networkBindings": bindings}]),
        )
        .await;
    let shown = call(&addr, "DescribeTasks", json!({"cluster": "local", "tasks": [arn, "ffff"]})).await;
    assert_eq!(shown["failures"][0]["reason"], "MISSING");
    let task = &shown["tasks"][0];
    assert_eq!(task["lastStatus"], "RUNNING");
    assert!(
        task["startedAt"].is_number() && task["createdAt"].is_number() && task["pullStartedAt"].is_number()
    );
    assert_eq!(task["connectivity"], "CONNECTED");
    let container = &task["containers"][0];
    assert_eq!(
        (container["lastStatus"].as_str(), container["runtimeId"].as_str()),
        (Some("RUNNING"), Some("r"))
    );
    assert_eq!(
        (&container["networkBindings"], container["imageDigest"].as_str()),
        (&bindings, Some("sha256:1"))
    );
    assert_eq!(container["networkInterfaces"], json!([]));

    let running = call(&addr, "ListTasks", json!({"cluster": "local", "family": "web"})).await;
    assert_eq!(running["taskArns"], json!([arn]));
    let clusters = call(&addr, "DescribeClusters", json!({"clusters": ["local", "nope"]})).await;
    assert_eq!(clusters["clusters"][0]["runningTasksCount"], 1);
    assert_eq!(clusters["failures"][0]["reason"], "MISSING");

    let id = arn.rsplit('/').next().unwrap();
    let stopped = call(&addr, "StopTask", json!({"cluster": "local", "task": id, "reason": "enough"})).await;
    assert_eq!(stopped["task"]["desiredStatus"], "STOPPED");
    let payload = agent.expect("PayloadMessage").await;
    assert_eq!(payload["tasks"][0]["desiredStatus"], "STOPPED");
    agent.ack(&payload).await;
    agent
        .report(&arn, "STOPPED", json!([{"containerName": "web", "status": "STOPPED", "exitCode": 137}]))
        .await;
    agent.report(&arn, "RUNNING", json!([{"containerName": "web", "status": "RUNNING"}])).await;
    let shown = call(&addr, "DescribeTasks", json!({"cluster": "local", "tasks": [id]})).await;
    let task = &shown["tasks"][0];
    assert_eq!(
        (task["lastStatus"].as_str(), task["stoppedReason"].as_str()),
        (Some("STOPPED"), Some("enough"))
    );
    assert_eq!(task["stopCode"], "UserInitiated");
    assert_eq!(task["containers"][0]["exitCode"], 137);
    let none = call(&addr, "ListTasks", json!({"cluster": "local"})).await;
    assert_eq!(none["taskArns"], json!([]));
    let stopped = call(&addr, "ListTasks", json!({"cluster": "local", "desiredStatus": "STOPPED"})).await;
    assert_eq!(stopped["taskArns"], json!([arn]));
}

#[tokio::test]
async fn how_a_task_ended_is_told() {
    let handle = start().await;
    let addr = address(&handle);
    let agent = FakeAgent::start(&handle).await;
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    let pull = "CannotPullContainerError: no such image";
    for (container, code, reason) in [
        (json!({"exitCode": 3}), "EssentialContainerExited", "Essential container in task exited"),
        (json!({"reason": pull}), "TaskFailedToStart", pull),
        (json!({"reason": "CannotStartContainerError: x"}), "TaskFailedToStart", "Task failed to start"),
    ] {
        let answer = call(&addr, "RunTask", json!({"taskDefinition": "web"})).await;
        let arn = answer["tasks"][0]["taskArn"].as_str().unwrap();
        let mut container = container.clone();
        container["containerName"] = json!("web");
        container["status"] = json!("STOPPED");
        agent.report(arn, "STOPPED", json!([container])).await;
        let shown = call(&addr, "DescribeTasks", json!({"tasks": [arn]})).await;
        let task = &shown["tasks"][0];
        assert_eq!((task["stopCode"].as_str(), task["stoppedReason"].as_str()), (Some(code), Some(reason)));
        assert!(task["stoppedAt"].is_number());
    }
}

#[tokio::test]
async fn placement_knows_resources_attributes_and_ports() {
    let handle = start().await;
    let addr = address(&handle);
    let _agent = FakeAgent::start(&handle).await;
    let mut big = definition("big");
    big["containerDefinitions"][0]["memory"] = json!(5000);
    let mut port = definition("port");
    port["containerDefinitions"][0]["portMappings"] = json!([{"containerPort": 80, "hostPort": 8080}]);
    let mut reserved = definition("reserved");
    reserved["containerDefinitions"][0]["portMappings"] = json!([{"containerPort": 80, "hostPort": 22}]);
    let mut secret = definition("secret");
    secret["containerDefinitions"][0]["secrets"] = json!([{"name": "S", "valueFrom": "/p"}]);
    for document in [&big, &port, &reserved, &secret] {
        call(&addr, "RegisterTaskDefinition", document.clone()).await;
    }
    for (family, reason) in
        [("big", "RESOURCE:MEMORY"), ("reserved", "RESOURCE:PORTS"), ("secret", "ATTRIBUTE")]
    {
        let answer = call(&addr, "RunTask", json!({"taskDefinition": family})).await;
        assert_eq!(answer["failures"][0]["reason"], reason, "{answer}");
    }
    let answer = call(&addr, "RunTask", json!({"taskDefinition": "port", "count": 2})).await;
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(answer["failures"][0]["reason"], "RESOURCE:PORTS");
    let instances = call(&addr, "ListContainerInstances", json!({})).await;
    let arns = instances["containerInstanceArns"].clone();
    let shown = call(&addr, "DescribeContainerInstances", json!({"containerInstances": arns})).await;
    let instance = &shown["containerInstances"][0];
    assert_eq!(
        (instance["agentConnected"].as_bool(), instance["pendingTasksCount"].as_u64()),
        (Some(true), Some(1))
    );
    let left = |name: &str| {
        instance["remainingResources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone()
    };
    assert_eq!(left("MEMORY")["integerValue"], 1000 - 64);
    assert_eq!(left("PORTS")["stringSetValue"], json!(["22", "8080", "51678"]));
}

#[tokio::test]
async fn bad_run_and_stop_requests_are_refused() {
    let handle = start().await;
    let addr = address(&handle);
    let _agent = FakeAgent::start(&handle).await;
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    let run = |extra: Value| {
        let mut input = json!({"taskDefinition": "web"});
        for (key, value) in extra.as_object().unwrap() {
            input[key] = value.clone();
        }
        input
    };
    for (operation, input, expected) in [
        ("RunTask", json!({}), "taskDefinition is missing"),
        ("RunTask", run(json!({"taskDefinition": "nope"})), "TaskDefinition not found: 'nope'"),
        ("RunTask", run(json!({"taskDefinition": "web:x"})), "TaskDefinition not found"),
        ("RunTask", run(json!({"count": 11})), "count is 11: allowed are 1 to 10"),
        ("RunTask", run(json!({"launchType": "FARGATE"})), "Use EC2"),
        ("RunTask", run(json!({"cluster": "nope"})), "Cluster not found."),
        ("RunTask", run(json!({"taskdefinition": "x"})), "Unknown parameter in input"),
        (
            "RunTask",
            run(json!({"overrides": {"containerOverrides": [{"name": "db"}]}})),
            "Override for container named db is not a container in the TaskDefinition",
        ),
        ("RunTask", run(json!({"overrides": {"cpu": "x"}})), "Invalid 'cpu' setting"),
        ("StopTask", json!({}), "task is missing"),
        ("StopTask", json!({"task": "nope"}), "The referenced task was not found."),
        ("StopTask", json!({"task": 7}), "task: expected a string"),
        ("ListTasks", json!({"desiredStatus": "GONE"}), "allowed are RUNNING, PENDING, STOPPED"),
        ("ListTasks", json!({"maxResults": 0}), "allowed are 1 to 100"),
        ("ListTasks", json!({"nextToken": "made-up"}), "Invalid token"),
        ("DescribeTasks", json!({}), "Tasks cannot be empty."),
        ("DescribeTasks", json!({"tasks": "x"}), "expected a list of strings"),
        ("DescribeTaskDefinition", json!({"taskDefinition": "nope"}), "Unable to describe task definition."),
        ("SubmitTaskStateChange", json!({"task": "nope", "status": "RUNNING"}), "not found: 'nope'"),
        ("UpdateContainerInstancesState", json!({"status": "OFF"}), "allowed are ACTIVE and DRAINING"),
        ("ListTagsForResource", json!({"resourceArn": "arn:x"}), "was not found"),
        ("CreateCluster", json!({"clusterName": "a b"}), "letters, numbers"),
    ] {
        let (_, message) = refused(&addr, operation, input).await;
        assert!(message.contains(expected), "{operation}: {message}");
    }
}

#[tokio::test]
async fn a_repeated_client_token_starts_nothing_twice() {
    let handle = start().await;
    let addr = address(&handle);
    let _agent = FakeAgent::start(&handle).await;
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    let input = json!({"taskDefinition": "web", "clientToken": "once"});
    let first = call(&addr, "RunTask", input.clone()).await;
    let again = call(&addr, "RunTask", input).await;
    assert_eq!(first["tasks"][0]["taskArn"], again["tasks"][0]["taskArn"]);
    let all = call(&addr, "ListTasks", json!({})).await;
    assert_eq!(all["taskArns"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_on_the_next_connection() {
    let handle = start().await;
    let addr = address(&handle);
    let mut agent = FakeAgent::start(&handle).await;
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    call(&addr, "RunTask", json!({"taskDefinition": "web"})).await;
    let first = agent.expect("PayloadMessage").await;
    // A second connection takes over: the first is closed, the payload comes again.
    let second = connect(&addr, &acs_path(&agent.instance)).await.unwrap();
    let mut old = std::mem::replace(&mut agent.socket, second);
    let again = agent.expect("PayloadMessage").await;
    assert_eq!(first["messageId"], again["messageId"]);
    let end = tokio::time::timeout(WAIT, async {
        while let Some(Ok(frame)) = old.next().await {
            if frame.is_close() {
                break;
            }
        }
    });
    end.await.unwrap();
    agent.ack(&again).await;
    let arn = again["tasks"][0]["arn"].as_str().unwrap().to_owned();
    call(&addr, "StopTask", json!({"task": arn})).await;
    let stop = agent.expect("PayloadMessage").await;
    assert_ne!(stop["messageId"], again["messageId"]);
    assert!(stop["seqNum"].as_i64().unwrap() > again["seqNum"].as_i64().unwrap());
}

#[tokio::test]
async fn an_agent_that_returns_is_told_what_nobody_wants() {
    let handle = start().await;
    let addr = address(&handle);
    let arn = "arn:aws:ecs:us-east-1:000000000000:container-instance/local/0123";
    let mut input = instance();
    input["containerInstanceArn"] = json!(arn);
    let answer = call(&addr, "RegisterContainerInstance", input.clone()).await;
    assert_eq!(answer["containerInstance"]["containerInstanceArn"], arn);
    let socket = connect(&addr, &acs_path(arn)).await.unwrap();
    let mut agent = FakeAgent { addr: addr.clone(), instance: arn.into(), socket };
    let manifest = agent.expect("TaskManifestMessage").await;
    assert!(manifest.get("tasks").is_none_or(|tasks| tasks == &json!([])));
    let orphan = json!({"taskArn": "arn:aws:ecs:us-east-1:000000000000:task/local/dead",
        "taskClusterArn": manifest["clusterArn"], "desiredStatus": "STOPPED"});
    let verify = json!({"messageId": manifest["messageId"], "stopCandidates": [orphan]});
    agent.send("TaskStopVerificationMessage", verify).await;
    let ack = agent.expect("TaskStopVerificationAck").await;
    assert_eq!(ack["stopTasks"], json!([orphan]));
    input["containerInstanceArn"] = json!("arn:aws:ecs:eu-west-1:1:container-instance/local/0123");
    let (kind, message) = refused(&addr, "RegisterContainerInstance", input).await;
    assert_eq!(kind, "ClientException");
    assert!(message.contains("same region"), "{message}");
}

#[tokio::test]
async fn registration_echoes_what_the_agent_checks() {
    let handle = start().await;
    let addr = address(&handle);
    let mut input = instance();
    input["tags"] = json!([{"key": "k", "value": "v"}]);
    let answer = call(&addr, "RegisterContainerInstance", input.clone()).await;
    let shown = &answer["containerInstance"];
    assert_eq!((shown["status"].as_str(), shown["agentConnected"].as_bool()), (Some("ACTIVE"), Some(false)));
    let attributes = shown["attributes"].as_array().unwrap();
    for attribute in input["attributes"].as_array().unwrap() {
        assert!(attributes.contains(attribute));
    }
    assert!(attributes.contains(&json!({"name": "ecs.availability-zone", "value": "us-east-1a"})));
    assert_eq!(shown["registeredResources"], input["totalResources"]);
    let arn = shown["containerInstanceArn"].as_str().unwrap();
    let endpoints = call(
        &addr,
        "DiscoverPollEndpoint",
        json!({"cluster": "local", "containerInstance": arn, "zoneId": ""}),
    )
    .await;
    assert_eq!(endpoints["endpoint"], format!("http://{addr}/acs"));
    assert_eq!(endpoints["telemetryEndpoint"], format!("http://{addr}/tcs"));
    let tags = call(&addr, "ListTagsForResource", json!({"resourceArn": arn})).await;
    assert_eq!(tags["tags"], input["tags"]);
    let draining = json!({"cluster": "local", "containerInstances": [arn], "status": "DRAINING"});
    let answer = call(&addr, "UpdateContainerInstancesState", draining).await;
    assert_eq!(answer["containerInstances"][0]["status"], "DRAINING");
    let attachments = call(&addr, "SubmitAttachmentStateChanges", json!({"attachments": []})).await;
    assert_eq!(attachments["acknowledgment"], "ACK");
    let cluster = call(&addr, "CreateCluster", json!({"clusterName": "other"})).await;
    assert_eq!(cluster["cluster"]["clusterName"], "other");
    let clusters = call(&addr, "ListClusters", json!({})).await;
    assert_eq!(clusters["clusterArns"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn containers_may_be_reported_alone() {
    let handle = start().await;
    let addr = address(&handle);
    let _agent = FakeAgent::start(&handle).await;
    call(&addr, "RegisterTaskDefinition", definition("web")).await;
    let arn = call(&addr, "RunTask", json!({"taskDefinition": "web"})).await["tasks"][0]["taskArn"].clone();
    let report =
        json!({"cluster": "local", "task": arn, "containerName": "web", "status": "STOPPED", "exitCode": 4});
    call(&addr, "SubmitContainerStateChange", report).await;
    let shown = call(&addr, "DescribeTasks", json!({"tasks": [arn]})).await;
    assert_eq!(shown["tasks"][0]["containers"][0]["exitCode"], 4);
}

#[tokio::test]
async fn strangers_get_no_websocket() {
    let handle = start().await;
    let addr = address(&handle);
    let instance = register_instance(&addr).await;
    for (path, expected) in [
        (
            acs_path("arn:aws:ecs:us-east-1:000000000000:container-instance/local/nope"),
            "InvalidInstanceException",
        ),
        (acs_path(&instance).replace("clusterArn=local", "clusterArn=nope"), "InvalidClusterException"),
        (acs_path(&instance).replace("clusterArn=local&", ""), "InvalidClusterException"),
        ("/nowhere/ws".to_owned(), "BadRequestException"),
    ] {
        let body = connect(&addr, &path).await.unwrap_err();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["type"], expected, "{path}");
    }
    let half = format!("GET /ws HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n");
    assert_eq!(raw(&addr, half.as_bytes()).await.0, 400);
}

#[tokio::test]
async fn unanswered_heartbeats_end_the_connection() {
    let handle = start_with(Duration::from_millis(50)).await;
    let addr = address(&handle);
    let mut agent = FakeAgent::start(&handle).await;
    let first = agent.expect("HeartbeatMessage").await;
    agent.send("HeartbeatAckRequest", json!({"messageId": first["messageId"]})).await;
    let ended = tokio::time::timeout(WAIT, async {
        while let Some(Ok(frame)) = agent.socket.next().await {
            if frame.is_close() {
                break;
            }
        }
    });
    ended.await.unwrap();
    let shown =
        call(&addr, "DescribeContainerInstances", json!({"containerInstances": [agent.instance]})).await;
    assert_eq!(shown["containerInstances"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn telemetry_is_acknowledged() {
    let handle = start().await;
    let addr = address(&handle);
    let instance = register_instance(&addr).await;
    let path = format!("/tcs/ws?agentHash=x&agentVersion=1&cluster=local&containerInstance={instance}");
    let mut socket = connect(&addr, &path).await.unwrap();
    let frame = signed(&json!({"type": "PublishMetricsRequest",
        "message": {"metadata": {"idle": true, "fin": true}}}));
    socket.send(Message::text(frame)).await.unwrap();
    let ack = tokio::time::timeout(WAIT, async {
        loop {
            let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            if value["type"] != "HeartbeatMessage" {
                return value;
            }
        }
    });
    assert_eq!(ack.await.unwrap(), json!({"type": "AckPublishMetric", "message": {"message": "OK"}}));
}

#[tokio::test]
async fn in_process_the_handle_sees_every_state() {
    use ecsd::local::Change;
    let handle = start().await;
    let mut changes = handle.subscribe();
    let agent = FakeAgent::start(&handle).await;
    tokio::spawn(agent.obey());
    handle.register_task_definition(definition("web")).unwrap();
    let mut arn = String::new();
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("STOPPED") {
        match tokio::time::timeout(WAIT, changes.recv()).await.unwrap().unwrap() {
            Change::Instance { is_connected: true, .. } => {
                assert!(handle.has_ready_instance());
                arn = handle.run_task("web", json!({})).unwrap();
            }
            Change::Instance { .. } => panic!("the agent went"),
            Change::Task(task) => {
                assert_eq!(task.arn, arn);
                if seen.last() != Some(&task.last_status) {
                    seen.push(task.last_status.clone());
                }
                if task.last_status == "RUNNING" && task.desired_status == "RUNNING" {
                    assert_eq!(handle.live_tasks().len(), 1);
                    handle.stop_task(&arn, "done").unwrap();
                }
            }
        }
    }
    assert_eq!(seen, ["PENDING", "RUNNING", "STOPPED"]);
    assert_eq!(handle.task(&arn).unwrap().containers[0].exit_code, Some(0));
    handle.shutdown();
}

#[tokio::test]
async fn tasks_with_a_role_get_credentials_and_renewed_ones() {
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::SystemTime;

    #[derive(Debug)]
    struct Renewing(AtomicU64);
    impl ProvideCredentials for Renewing {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let ends = SystemTime::now() + Duration::from_secs(if number == 0 { 6 } else { 3600 });
            let (secret, token) = (format!("CANARY-{number}"), Some("CANARY-token".to_owned()));
            future::ProvideCredentials::ready(Ok(Credentials::new("AKID", secret, token, Some(ends), "test")))
        }
    }
    let provider = SharedCredentialsProvider::new(Renewing(AtomicU64::new(0)));
    let credentials = ecsd::local::TaskCredentials::From(provider);
    let handle = start_options(ecsd::local::Options { credentials, ..options() }).await;
    let addr = address(&handle);
    let mut agent = FakeAgent::start(&handle).await;
    let mut with_role = definition("role");
    with_role["taskRoleArn"] = json!("arn:aws:iam::000000000000:role/app");
    call(&addr, "RegisterTaskDefinition", with_role).await;
    call(&addr, "RegisterTaskDefinition", definition("plain")).await;
    call(&addr, "RunTask", json!({"taskDefinition": "plain"})).await;
    let plain = agent.expect("PayloadMessage").await;
    assert!(plain["tasks"][0].get("roleCredentials").is_none());
    let arn = call(&addr, "RunTask", json!({"taskDefinition": "role"})).await["tasks"][0]["taskArn"].clone();
    assert!(!format!("{handle:?}").contains("CANARY"), "an unsent payload shows them");
    let payload = agent.expect("PayloadMessage").await;
    let first = payload["tasks"][0]["roleCredentials"].clone();
    assert_eq!(first["secretAccessKey"], "CANARY-0");
    assert_eq!(first["roleArn"], "arn:aws:iam::000000000000:role/app");
    assert!(payload["tasks"][0].get("executionRoleCredentials").is_none(), "no such role is named");
    agent.ack(&payload).await;
    let renewed = loop {
        let message = agent.expect("IAMRoleCredentialsMessage").await;
        if message["roleCredentials"]["secretAccessKey"] != "CANARY-0" {
            break message;
        }
    };
    assert_eq!((&renewed["taskArn"], &renewed["roleType"]), (&arn, &json!("TaskApplication")));
    assert_eq!(renewed["roleCredentials"]["secretAccessKey"], "CANARY-1");
    assert_eq!(
        renewed["roleCredentials"]["credentialsId"], first["credentialsId"],
        "the container keeps its URL"
    );
    let shown = call(&addr, "DescribeTasks", json!({"tasks": [arn]})).await;
    assert!(!shown.to_string().contains("CANARY"));
    // An agent that comes back has none any more.
    drop(agent.socket);
    agent.socket = connect(&addr, &acs_path(&agent.instance)).await.unwrap();
    agent.expect("TaskManifestMessage").await;
    let again = agent.expect("IAMRoleCredentialsMessage").await;
    assert_eq!(again["roleCredentials"]["secretAccessKey"], "CANARY-1");
}

#[tokio::test]
async fn telemetry_of_live_tasks_is_kept_and_shown() {
    let handle = start().await;
    let addr = address(&handle);
    let agent = FakeAgent::start(&handle).await;
    handle.register_task_definition(definition("web")).unwrap();
    let arn = handle.run_task("web", json!({})).unwrap();
    let path =
        format!("/tcs/ws?agentHash=x&agentVersion=1&cluster=local&containerInstance={}", agent.instance);
    let mut socket = connect(&addr, &path).await.unwrap();
    let metric = json!({"taskArn": arn, "taskDefinitionFamily": "web", "taskDefinitionVersion": "1",
        "containerMetrics": [{"containerName": "web", "cpuStatsSet": {"min": 1.0, "max": 3.0, "sum": 4.0,
            "sampleCount": 2}, "memoryStatsSet": {"min": 5, "max": 6, "sum": 11, "sampleCount": 2}}]});
    let unknown = json!({"taskArn": "arn:aws:ecs:us-east-1:000000000000:task/local/unknown"});
    let frame = signed(&json!({"type": "PublishMetricsRequest", "message": {"metadata": {"fin": true},
        "timestamp": 1.5, "taskMetrics": [metric, unknown]}}));
    socket.send(Message::text(frame)).await.unwrap();
    let acknowledged = async {
        while !socket.next().await.unwrap().unwrap().into_text().unwrap().contains("AckPublishMetric") {}
    };
    tokio::time::timeout(WAIT, acknowledged).await.unwrap();
    let request = format!("GET /ecsd/telemetry HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let (status, shown) = raw(&addr, request.as_bytes()).await;
    assert_eq!(status, 200);
    assert_eq!(shown["metrics"], json!({arn: {"timestamp": 1.5, "body": metric}}));
}
