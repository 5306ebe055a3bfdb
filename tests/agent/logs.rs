//! Log drivers of tasks: lines reach a log server through the shim's logger, and a task whose log can't be
//! had does not start.

use crate::support::host::{Host, container, family, on_own_network};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

async fn host() -> Host {
    let mut host = Host::new().await;
    host.load_busybox().await;
    host.set("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","syslog","fluentd","none"]"#);
    host.start().await;
    host
}

/// The lines that a server gets over its first connection. The runtime is the control plane's too: it must
/// not wait.
fn received(listener: TcpListener) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(listener.accept().unwrap().0).lines() {
            all.lock().unwrap().push(line.unwrap());
        }
    });
    lines
}

fn logging(driver: &str, options: Value) -> Value {
    json!({"logConfiguration": {"logDriver": driver, "options": options}})
}

/// What introspection says of the only container of the only task.
fn introspected() -> Option<Value> {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:51678").ok()?;
    stream.write_all(b"GET /v1/tasks HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    Some(body["Tasks"][0]["Containers"][0].clone())
}

#[test]
fn lines_reach_a_log_server_also_while_the_agent_is_away() {
    on_own_network(|| async {
        let mut host = host().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = json!({
            "syslog-address": format!("tcp://{}", listener.local_addr().unwrap()),
            "syslog-format": "rfc5424", "tag": "{{.Name}}/{{.ID}}",
        });
        let script = "echo first; until [ -e /go ]; do sleep 0.1; done; echo second >&2; echo third";
        let arn = host.run_task(family("syslog", [container("main", script, logging("syslog", options))]));
        let seen = received(listener);
        let lines = || seen.lock().unwrap().clone();
        host.until("a line arrives", |_| !lines().is_empty()).await;
        let first = lines()[0].clone();
        let id = host.container_id(&arn, "main");
        assert!(first.starts_with("<30>1 ") && first.ends_with(" - first"), "{first}");
        assert!(
            first.contains(&format!("/{} ", &id[..12])) && first.contains(" ecs-syslog-1-main-"),
            "{first}"
        );
        host.until_status(&arn, "RUNNING").await;
        assert_eq!(introspected().unwrap()["LogMessagesDropped"], Value::Null);
        host.kill_agent();
        host.ctr(&["task", "exec", "--exec-id", "go", &id, "touch", "/go"]);
        host.until("the others arrive", |_| lines().len() == 3).await;
        let mut rest = lines().split_off(1);
        rest.sort();
        assert!(rest[0].starts_with("<27>1 ") && rest[0].ends_with(" - second"), "{rest:?}");
        assert!(rest[1].starts_with("<30>1 ") && rest[1].ends_with(" - third"), "{rest:?}");
        host.start().await;
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(0));
    });
}

#[test]
fn a_dead_server_stops_no_container_and_its_losses_are_told() {
    on_own_network(|| async {
        let host = host().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = json!({
            "fluentd-address": listener.local_addr().unwrap().to_string(),
            "mode": "non-blocking", "max-buffer-size": "64k",
        });
        // It reads nothing: far more is written than all buffers hold.
        let script = "seq 1 1000000; sleep 3600";
        let arn = host.run_task(family("dead", [container("main", script, logging("fluentd", options))]));
        host.until_status(&arn, "RUNNING").await;
        host.until("the losses are told", |_| {
            introspected().is_some_and(|container| container["LogMessagesDropped"].as_u64() > Some(300_000))
        })
        .await;
        host.control.stop_task(&arn, "enough").unwrap();
        host.until_status(&arn, "STOPPED").await;
    });
}

#[test]
fn without_its_log_server_a_task_does_not_start() {
    on_own_network(|| async {
        let host = host().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        for (name, options, words) in [
            (
                "absent",
                json!({"fluentd-address": address}),
                format!("CannotStartContainerError: failed to initialize logging driver: dial tcp {address}"),
            ),
            (
                "unknown",
                json!({"fluentd-adress": address}),
                "CannotCreateContainerError: unknown log opt 'fluentd-adress' for fluentd log driver"
                    .to_owned(),
            ),
        ] {
            let options = logging("fluentd", options);
            let arn = host.run_task(family(name, [container("main", "sleep 3600", options)]));
            let task = host.until_status(&arn, "STOPPED").await;
            let reason = task.containers[0].reason.clone().unwrap_or_default();
            assert!(reason.starts_with(&words), "{reason}");
        }
        host.until_nothing_is_left().await;
    });
}
