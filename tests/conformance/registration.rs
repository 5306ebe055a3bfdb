//! Registration: its body, its place in the start-up, and which answers end the agent for good.

use crate::scripted::{host_for, prepared_host};
use crate::support::backend::{Backend, Channel, INSTANCE};
use crate::support::host::on_own_network;
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[test]
fn the_agent_registers_then_discovers_then_opens_both_websockets() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let _host = host_for(&backend).await;
        let call = backend.call().await;
        assert_eq!(call.operation, "RegisterContainerInstance");
        let body = &call.body;
        assert_eq!(body["cluster"], "peer");
        assert!(body.get("containerInstanceArn").is_none(), "it has never registered: {body}");
        assert!(body.get("versionInfo").is_none());
        assert!(uuid::Uuid::parse_str(body["clientToken"].as_str().unwrap()).is_ok());
        assert_eq!(names(&body["totalResources"]), ["CPU", "MEMORY", "PORTS", "PORTS_UDP"]);
        let attributes = names(&body["attributes"]);
        for expected in ["ecs.os-type", "com.amazonaws.ecs.capability.docker-remote-api.1.25"] {
            assert!(attributes.contains(&expected), "{expected} is not in {attributes:?}");
        }
        let call = backend.call().await;
        assert_eq!(call.operation, "DiscoverPollEndpoint");
        assert_eq!(call.body, json!({"cluster": "peer", "containerInstance": INSTANCE, "zoneId": ""}));
        let mut acs = backend.accept(Channel::Acs).await;
        for (key, value) in [
            ("clusterArn", "peer"),
            ("containerInstanceArn", INSTANCE),
            ("protocolVersion", "2"),
            ("sendCredentials", "true"),
            ("seqNum", "1"),
        ] {
            assert_eq!(acs.query[key], value, "{key}");
        }
        acs.is_quiet().await;
        let mut tcs = backend.accept(Channel::Tcs).await;
        assert_eq!(
            (tcs.query["cluster"].as_str(), tcs.query["containerInstance"].as_str()),
            ("peer", INSTANCE)
        );
        assert!(!tcs.query.contains_key("protocolVersion"));
        let (kind, body, _) = tcs.receive_signed().await;
        assert_eq!(kind, "PublishMetricsRequest");
        assert_eq!((&body["metadata"]["idle"], &body["metadata"]["fin"]), (&json!(true), &json!(true)));
    });
}

#[test]
fn a_restart_registers_the_same_instance_and_another_cluster_is_refused() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let mut host = host_for(&backend).await;
        let first = backend.call_of("RegisterContainerInstance").await.body;
        // Held: a connection that is cut is followed by another, without credentials.
        let _held = backend.accept(Channel::Acs).await;
        assert_eq!(host.stop_agent().await.0, Some(0));
        host.start_agent_at(backend.endpoint());
        let again = backend.call_of("RegisterContainerInstance").await.body;
        assert_eq!(again["containerInstanceArn"], INSTANCE);
        assert_ne!(again["clientToken"], first["clientToken"]);
        let acs = backend.accept(Channel::Acs).await;
        assert_eq!(acs.query["sendCredentials"], "true", "a new process has none");
        host.kill_agent();
        backend.waiting_calls();
        host.set("ECS_CLUSTER", "other");
        host.start_agent_at(backend.endpoint());
        assert_eq!(host.agent_exit().await, Some(5));
        assert!(backend.waiting_calls().is_empty(), "nothing is asked of the other cluster");
    });
}

#[test]
fn an_error_of_the_registration_ends_the_agent_with_its_code() {
    on_own_network(|| async {
        let backend = Backend::start().await;
        let mut host = prepared_host().await;
        for (exception, code) in [
            ("ClientException", 5),
            ("InvalidParameterException", 5),
            ("AccessDeniedException", 1),
            ("UnrecognizedClientException", 1),
        ] {
            let error = json!({"__type": exception, "message": "no"});
            backend.answer("RegisterContainerInstance", [(400, error)]);
            host.start_agent_at(backend.endpoint());
            assert_eq!(host.agent_exit().await, Some(code), "{exception}");
        }
    });
}

#[test]
fn attributes_that_the_service_did_not_take_end_the_agent_for_good() {
    on_own_network(|| async {
        let backend = Backend::start().await;
        let taken = json!({"containerInstance": {"containerInstanceArn": INSTANCE,
            "attributes": [{"name": "ecs.os-type", "value": "windows"}]}});
        backend.answer("RegisterContainerInstance", [(200, taken)]);
        let mut host = host_for(&backend).await;
        assert_eq!(host.agent_exit().await, Some(5));
    });
}

#[test]
fn a_transient_error_of_the_registration_is_tried_again_with_the_same_token() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        backend.answer("RegisterContainerInstance", [(500, json!({"__type": "ServerException"}))]);
        let _host = host_for(&backend).await;
        let first = backend.call_of("RegisterContainerInstance").await.body;
        assert_eq!(backend.call_of("RegisterContainerInstance").await.body, first);
        backend.accept(Channel::Acs).await;
    });
}

#[test]
fn the_default_cluster_is_created_where_it_is_missing_and_a_named_one_never() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let missing = || (400, json!({"__type": "ClientException", "message": "Cluster not found."}));
        let mut host = prepared_host().await;
        backend.answer("RegisterContainerInstance", [missing()]);
        host.start_agent_at(backend.endpoint());
        assert_eq!(host.agent_exit().await, Some(5));
        host.set("ECS_CLUSTER", "");
        backend.answer("RegisterContainerInstance", [missing()]);
        host.start_agent_at(backend.endpoint());
        backend.accept(Channel::Acs).await;
        let calls: Vec<_> =
            backend.waiting_calls().into_iter().map(|call| (call.operation, call.body)).collect();
        let operations: Vec<_> = calls.iter().map(|(operation, _)| operation.as_str()).collect();
        assert_eq!(
            operations[..4],
            [
                "RegisterContainerInstance",
                "RegisterContainerInstance",
                "CreateCluster",
                "RegisterContainerInstance"
            ]
        );
        assert_eq!(calls[2].1, json!({"clusterName": "default"}));
        assert_eq!(calls[3].1["cluster"], "default");
    });
}
