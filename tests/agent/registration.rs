//! The agent's binary registers: anew, again, on another EC2 instance. Its supervisor is told.

use super::scripted::host_for;
use crate::support::backend::{Backend, Channel, INSTANCE};
use crate::support::host::{Host, on_own_network};
use ecsd::control::imds::paths;
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";

fn on_ec2(backend: &Backend, id: &str) {
    backend.metadata(paths::INSTANCE_ID, id);
    backend.metadata(DOCUMENT, &json!({"instanceId": id, "region": "us-west-2"}).to_string());
    backend.metadata(SIGNATURE, "c2ln");
}

/// A host that has IMDS, not started yet.
async fn ec2_host(backend: &Backend) -> Host {
    let mut host = host_for(backend).await;
    // That one was started without IMDS.
    host.kill_agent();
    host.set("AWS_EC2_METADATA_DISABLED", "false");
    host.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", backend.endpoint());
    host.set("ECS_INSTANCE_ATTRIBUTES", r#"{"mine":"1"}"#);
    host
}

fn names(call: &Value) -> Vec<String> {
    let attributes = call["attributes"].as_array().unwrap().iter();
    attributes.map(|attribute| attribute["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_instance_registers_again_under_its_arn_and_another_one_anew() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let mut host = ec2_host(&backend).await;
        // Whatever the agent without IMDS has stored is gone with its state.
        let _ = std::fs::remove_dir_all(host.dir.path().join("data"));
        backend.waiting_calls();
        on_ec2(&backend, "i-1");
        host.start_agent_at(backend.endpoint());
        let first = backend.call_of("RegisterContainerInstance").await.body;
        assert!(first.get("containerInstanceArn").is_none(), "{first}");
        assert_eq!(names(&first)[0], "mine");
        assert_eq!(first["instanceIdentityDocumentSignature"], "c2ln");
        backend.call_of("DiscoverPollEndpoint").await;
        assert_eq!(host.stop_agent().await.0, Some(0));

        host.start_agent_at(backend.endpoint());
        let again = backend.call_of("RegisterContainerInstance").await.body;
        assert_eq!(again["containerInstanceArn"], INSTANCE);
        assert!(!names(&again).contains(&"mine".to_owned()), "custom ones are for the first time");
        backend.call_of("DiscoverPollEndpoint").await;
        assert_eq!(host.stop_agent().await.0, Some(0));

        // Its disk went into an image, and that into another instance of another cluster.
        on_ec2(&backend, "i-2");
        host.set("ECS_CLUSTER", "elsewhere");
        host.start_agent_at(backend.endpoint());
        let other = backend.call_of("RegisterContainerInstance").await.body;
        assert!(other.get("containerInstanceArn").is_none(), "{other}");
        assert_eq!((other["cluster"].as_str(), names(&other)[0].as_str()), (Some("elsewhere"), "mine"));
        backend.call_of("DiscoverPollEndpoint").await;
        assert!(host.agent_log().contains("of another EC2 instance"));
        assert_eq!(host.stop_agent().await.0, Some(0));

        // The same instance with another cluster can't go on.
        host.set("ECS_CLUSTER", "third");
        host.start_agent_at(backend.endpoint());
        assert_eq!(host.agent_exit().await, Some(5));
    });
}

#[test]
fn a_supervisor_is_told() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let mut host = ec2_host(&backend).await;
        let socket = host.dir.path().join("notify");
        let supervisor = UnixDatagram::bind(&socket).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        let supervisor = tokio::net::UnixDatagram::from_std(supervisor).unwrap();
        on_ec2(&backend, "i-1");
        host.set("NOTIFY_SOCKET", socket.to_str().unwrap());
        host.set("WATCHDOG_USEC", "200000");
        host.start_agent_at(backend.endpoint());
        heard(&supervisor, "READY=1\nSTATUS=registered with cluster peer").await;
        heard(&supervisor, "WATCHDOG=1").await;
        backend.accept(Channel::Acs).await;
        assert_eq!(host.stop_agent().await.0, Some(0));
        heard(&supervisor, "STOPPING=1").await;
    });
}

/// Waits for a message that begins so.
async fn heard(supervisor: &tokio::net::UnixDatagram, beginning: &str) {
    let mut buffer = [0; 1024];
    let next = async {
        loop {
            let length = supervisor.recv(&mut buffer).await.unwrap();
            if buffer[..length].starts_with(beginning.as_bytes()) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), next).await.unwrap_or_else(|_| panic!("no {beginning:?}"));
}
