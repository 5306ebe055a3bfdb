//! Restart policies: the same container runs again, and only its own endpoint is told.

use crate::durability::{sigkill, start_again};
use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::host::{Host, container, family, on_own_network, with_agent};
use ecsd::local::Task;
use serde_json::{Value, json};

/// Counts its runs in a file of its own, tells of each, and goes on with `then`.
fn counting(then: &str) -> String {
    format!("n=$(cat /n 2>/dev/null || echo 0); echo $((n+1)) > /n; echo \"run $n $(hostname)\"; {then}")
}

fn restarted(period: u64, ignored: &[i32]) -> Value {
    json!({"restartPolicy": {"enabled": true, "ignoredExitCodes": ignored, "restartAttemptPeriod": period},
        "portMappings": [{"containerPort": 80}]})
}

/// What containers with this id wrote for each run.
fn runs(host: &Host, arn: &str, count: usize) -> Vec<String> {
    let id = host.container_id(arn, "main");
    (0..count).map(|n| format!("run {n} {}", &id[..12])).collect()
}

fn told(host: &Host, arn: &str) -> Vec<String> {
    host.logs(arn, "main").lines().filter(|line| line.starts_with("run ")).map(str::to_owned).collect()
}

fn container_of(task: &Task) -> (&str, Option<i64>, Option<String>) {
    let container = &task.containers[0];
    (&container.last_status, container.exit_code, container.reason.clone())
}

#[test]
fn a_container_is_restarted_as_it_is_until_a_code_is_ignored() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        let script = counting(
            // The process may run before the agent is told that it does.
            "until wget -qO /m $ECS_CONTAINER_METADATA_URI_V4 && grep -q StartedAt /m; do sleep 0.05; done; \
             cat /m; echo; sleep 1.2; [ $n -lt 2 ] || exit 5; exit 3",
        );
        let mut payload = task(&id, &script);
        let policy = restarted(1, &[0, 5]);
        for member in ["restartPolicy", "portMappings"] {
            payload["containers"][0][member] = policy[member].clone();
        }
        scripted.send(json!([payload])).await;
        let mut reports = Vec::new();
        while reports.last() != Some(&json!("STOPPED")) {
            let body = scripted.backend.call_of("SubmitTaskStateChange").await.body;
            reports.push(body["status"].clone());
            if body["status"] == "STOPPED" {
                let [container] = body["containers"].as_array().unwrap().as_slice() else { panic!("{body}") };
                assert_eq!((&container["exitCode"], &container["status"]), (&json!(5), &json!("STOPPED")));
            }
        }
        reports.retain(|status| status != "PENDING");
        assert_eq!(reports, ["RUNNING", "STOPPED"], "the control plane hears of no restart");
        let host = &scripted.host;
        assert_eq!(told(host, &arn(&id)), runs(host, &arn(&id), 3));
        let log = host.logs(&arn(&id), "main");
        let bodies: Vec<Value> = log
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let of = |key: &str| bodies.iter().map(|body| body[key].clone()).collect::<Vec<_>>();
        assert_eq!(of("RestartCount"), [0, 1, 2], "{log}");
        for same in ["DockerId", "StartedAt", "Ports", "Networks"] {
            assert!(
                of(same).iter().all(|value| *value == bodies[0][same] && !value.is_null()),
                "{same}: {log}"
            );
        }
        assert_eq!(of("KnownStatus"), ["RUNNING"; 3]);
    });
}

#[test]
fn one_that_ends_too_soon_is_not_restarted_and_a_stop_ends_one_that_was() {
    with_agent(|host| async move {
        let run = |name: &str, then: &str, period| {
            host.run_task(family(name, [container("main", &counting(then), restarted(period, &[]))]))
        };
        let (early, stopped) =
            (run("early", "exit 3", 60), run("stopped", "sleep 1.1; [ $n -gt 0 ] || exit 3; sleep 1000", 1));
        let task = host.until_status(&early, "STOPPED").await;
        assert_eq!((container_of(&task), told(&host, &early).len()), (("STOPPED", Some(3), None), 1));
        host.until("it was restarted", |host| told(host, &stopped).len() == 2).await;
        host.control.stop_task(&stopped, "test").unwrap();
        let task = host.until_status(&stopped, "STOPPED").await;
        // A shell that is process 1 is deaf to SIGTERM.
        assert_eq!((container_of(&task), told(&host, &stopped).len()), (("STOPPED", Some(137), None), 2));
        host.until_nothing_is_left().await;
    });
}

#[test]
fn an_end_while_the_agent_was_away_is_answered_too() {
    with_agent(|mut host| async move {
        let serves = counting("httpd -f -p 80 -h /www");
        let definition =
            |name: &str, period| family(name, [container("main", &serves, restarted(period, &[]))]);
        let (again, early) =
            (host.run_task(definition("again", 1)), host.run_task(definition("early", 3600)));
        for arn in [&again, &early] {
            host.until_status(arn, "RUNNING").await;
            host.until("it runs", |host| told(host, arn).len() == 1).await;
        }
        let known = host.control.task(&again).unwrap();
        // It has to run for a second.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let before = host.container_pid(&again, "main").unwrap();
        host.kill_agent();
        sigkill(before);
        sigkill(host.container_pid(&early, "main").unwrap());
        host.until("they have ended", |host| {
            [&again, &early].iter().all(|arn| host.container_pid(arn, "main").is_none())
        })
        .await;
        start_again(&mut host).await;
        let task = host.until_status(&early, "STOPPED").await;
        assert_eq!((container_of(&task), told(&host, &early).len()), (("STOPPED", Some(137), None), 1));
        host.until("it was restarted", |host| told(host, &again).len() == 2).await;
        assert_eq!(told(&host, &again), runs(&host, &again, 2));
        let now = host.control.task(&again).unwrap();
        assert_eq!(
            (container_of(&now), container_of(&known)),
            (("RUNNING", None, None), ("RUNNING", None, None))
        );
        assert_eq!(now.containers[0].network_bindings, known.containers[0].network_bindings);
        // Still reachable at its old port.
        let port = now.containers[0].network_bindings[0]["hostPort"].as_u64().unwrap();
        let record = host.record(&again, "main");
        let address = record["Labels"]["com.ecsd.address"].as_str().unwrap();
        host.until("it answers", |_| std::net::TcpStream::connect((address, 80)).is_ok()).await;
        assert!(host.port_map().iter().any(|entry| entry.contains(&port.to_string())));
        // And once more, the agent being there.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        sigkill(host.container_pid(&again, "main").unwrap());
        host.until("it was restarted again", |host| told(host, &again).len() == 3).await;
        host.control.stop_task(&again, "test").unwrap();
        host.until_status(&again, "STOPPED").await;
        host.until_nothing_is_left().await;
    });
}

#[test]
fn an_agent_that_is_killed_in_a_restart_finishes_it_and_makes_none_twice() {
    with_agent(|mut host| async move {
        let script = counting("trap 'exit 7' TERM; while [ ! -e /v/end-$n ]; do sleep 0.05; done; exit 3");
        let mut members = restarted(1, &[7]);
        members["mountPoints"] = json!([{"sourceVolume": "v", "containerPath": "/v"}]);
        let mut definition = family("killed", [container("main", &script, members)]);
        let shared = host.dir.path().join("shared");
        std::fs::create_dir_all(&shared).unwrap();
        definition["volumes"] = json!([{"name": "v", "host": {"sourcePath": shared}}]);
        let arn = host.run_task(definition);
        host.until_status(&arn, "RUNNING").await;
        for (n, moment) in [0, 20, 60, 120, 200].into_iter().enumerate() {
            host.until("it runs", |host| told(host, &arn).len() == n + 1).await;
            // It has to run for a second, and is killed at some moment of what follows.
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            std::fs::write(shared.join(format!("end-{n}")), "").unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
            host.kill_agent();
            start_again(&mut host).await;
        }
        host.until("it runs", |host| told(host, &arn).len() == 6).await;
        assert_eq!(told(&host, &arn), runs(&host, &arn, 6));
        host.control.stop_task(&arn, "test").unwrap();
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!(container_of(&task), ("STOPPED", Some(7), None));
        assert_eq!(told(&host, &arn).len(), 6);
        host.until_nothing_is_left().await;
    });
}
