//! Tasks that wait for room: what is said of them, and when they go on.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::host::on_own_network;
use serde_json::{Value, json};
use std::io::{Read, Write};

/// What the introspection endpoint says of a task.
fn introspected(id: &str) -> Option<Value> {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:51678").ok()?;
    let request =
        format!("GET /v1/tasks?taskarn={} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", arn(id));
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn a_task_that_waits_for_a_port_says_who_holds_it_and_goes_on_when_it_is_free() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (holds, waits, other) = (fresh_id(), fresh_id(), fresh_id());
        let on_port = |id: &str, port: u16| {
            let mut task = task(id, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
            task["containers"][0]["portMappings"] = json!([{"containerPort": 80, "hostPort": port}]);
            task
        };
        scripted.send(json!([on_port(&holds, 8080)])).await;
        scripted.reported(&holds, "RUNNING").await;
        scripted.send(json!([on_port(&waits, 8080)])).await;
        // A later one that fits is not held back.
        scripted.send(json!([on_port(&other, 8081)])).await;
        scripted.reported(&other, "RUNNING").await;
        let seen = introspected(&waits).unwrap();
        assert_eq!(seen["WaitingFor"], format!("TCP port 8080 is taken; held by task {holds}"), "{seen}");
        assert_eq!((&seen["KnownStatus"], &seen["DesiredStatus"]), (&json!("PENDING"), &json!("RUNNING")));
        assert_eq!(introspected(&other).unwrap().get("WaitingFor"), None);
        let mut stop = on_port(&holds, 8080);
        stop["desiredStatus"] = "STOPPED".into();
        scripted.send(json!([stop])).await;
        scripted.reported(&waits, "RUNNING").await;
        assert_eq!(introspected(&waits).unwrap().get("WaitingFor"), None);
    });
}
