//! What comes over ACS: payloads and the ack rule, role credentials, manifests.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::{CLUSTER_ARN, Channel, Connection, INSTANCE};
use crate::support::host::on_own_network;
use serde_json::{Value, json};

const STAYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

#[test]
fn a_stop_frees_what_a_start_in_the_same_payload_needs() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (old, new) = (fresh_id(), fresh_id());
        let with_port = |id: &str| {
            let mut wanted = task(id, STAYS);
            wanted["containers"][0]["portMappings"] = json!([{"containerPort": 80, "hostPort": 8123}]);
            wanted
        };
        scripted.send(json!([with_port(&old)])).await;
        scripted.reported(&old, "RUNNING").await;
        let mut stop = with_port(&old);
        stop["desiredStatus"] = json!("STOPPED");
        scripted.send(json!([with_port(&new), stop])).await;
        // In this order: the second call would pass the first's report over.
        scripted.reported(&old, "STOPPED").await;
        scripted.reported(&new, "RUNNING").await;
    });
}

#[test]
fn one_bad_task_costs_the_ack_but_not_the_others() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (bad, good) = (fresh_id(), fresh_id());
        let mut malformed = task(&bad, "exit 0");
        malformed["containers"][0]["overrides"] = json!("{\"command\": ");
        scripted.send_payload("mixed", json!([malformed, task(&good, "sleep 1; exit 3")])).await;
        let stopped = scripted.reported(&bad, "STOPPED").await;
        let reason = stopped["reason"].as_str().unwrap();
        assert!(reason.starts_with("UnrecogniedTaskError: Error loading task - "), "{reason}");
        assert_eq!(scripted.reported(&good, "STOPPED").await["containers"][0]["exitCode"], 3);
        scripted.acs.is_quiet().await;
    });
}

fn credentials(id: &str) -> Value {
    json!({"credentialsId": id, "roleArn": "arn:aws:iam::1:role/r", "accessKeyId": "AKID", "secretAccessKey": "s",
        "sessionToken": "t", "expiration": "2031-01-01T00:00:00Z"})
}

#[test]
fn role_credentials_are_acknowledged_for_tasks_that_are_known() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        let mut wanted = task(&id, STAYS);
        wanted["roleCredentials"] = credentials("c-1");
        scripted.send_payload("m-1", json!([wanted])).await;
        let mut acks = [scripted.acs.receive().await, scripted.acs.receive().await];
        acks.sort_by(|a, b| a.0.cmp(&b.0));
        let ack = json!({"messageId": "m-1", "cluster": CLUSTER_ARN, "containerInstance": INSTANCE});
        let for_credentials = |message: &str, id: &str| {
            let body =
                json!({"messageId": message, "credentialsId": id, "expiration": "2031-01-01T00:00:00Z"});
            ("IAMRoleCredentialsAckRequest".to_owned(), body)
        };
        assert_eq!(acks, [("AckRequest".to_owned(), ack), for_credentials("m-1", "c-1")]);
        let message = |message: &str, task: &str, id: &str| {
            json!({"messageId": message, "taskArn": task, "roleType": "TaskApplication",
                "roleCredentials": credentials(id)})
        };
        scripted.acs.send("IAMRoleCredentialsMessage", message("m-2", &arn(&id), "c-1")).await;
        assert_eq!(scripted.acs.receive().await, for_credentials("m-2", "c-1"));
        scripted.acs.send("IAMRoleCredentialsMessage", message("m-3", &arn(&fresh_id()), "c-2")).await;
        scripted.acs.is_quiet().await;
    });
}

fn manifest(timeline: i64, tasks: &[&str]) -> Value {
    let tasks: Vec<_> =
        tasks.iter().map(|id| json!({"taskArn": arn(id), "desiredStatus": "RUNNING"})).collect();
    json!({"messageId": format!("manifest-{timeline}"), "clusterArn": CLUSTER_ARN,
        "containerInstanceArn": INSTANCE, "timeline": timeline, "tasks": tasks})
}

async fn next_of(acs: &mut Connection, kind: &str) -> Value {
    loop {
        let (found, body) = acs.receive().await;
        if found == kind {
            return body;
        }
    }
}

#[test]
fn a_task_that_the_manifest_lacks_is_stopped_after_it_was_asked_for() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (wanted, orphan) = (fresh_id(), fresh_id());
        scripted.send(json!([task(&wanted, STAYS), task(&orphan, STAYS)])).await;
        for id in [&wanted, &orphan] {
            scripted.host.until("it runs", |host| host.container_pid(&arn(id), "main").is_some()).await;
        }
        scripted.acs.send("TaskManifestMessage", manifest(7, &[&wanted])).await;
        let question = next_of(&mut scripted.acs, "TaskStopVerificationMessage").await;
        let candidate =
            json!({"taskArn": arn(&orphan), "taskClusterArn": CLUSTER_ARN, "desiredStatus": "STOPPED"});
        assert_eq!(question, json!({"messageId": "manifest-7", "stopCandidates": [candidate]}));
        let yes = json!({"messageId": "manifest-7", "stopTasks": [candidate]});
        scripted.acs.send("TaskStopVerificationAck", yes).await;
        scripted.reported(&orphan, "STOPPED").await;
        assert!(scripted.host.container_pid(&arn(&wanted), "main").is_some());
        // The number of the newest manifest survives the process.
        scripted.host.kill_agent();
        let endpoint = scripted.backend.endpoint().to_owned();
        scripted.host.start_agent_at(&endpoint);
        let mut acs = scripted.backend.accept(Channel::Acs).await;
        acs.send("TaskManifestMessage", manifest(7, &[])).await;
        acs.is_quiet().await;
        acs.send("TaskManifestMessage", manifest(8, &[&wanted])).await;
        assert_eq!(acs.receive().await.1["messageId"], "manifest-8");
        acs.is_quiet().await;
        assert!(scripted.host.container_pid(&arn(&wanted), "main").is_some());
    });
}
