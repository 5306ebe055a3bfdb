//! What EC2 has to say of the instance, by its metadata service and its API, and an instance outside
//! of EC2. Failures and waits of these are held by `tests/control/instance.rs`.

use crate::scripted::prepared_host;
use crate::support::backend::{Backend, Channel, INSTANCE};
use crate::support::host::{Host, on_own_network};
use ecsd::control::imds::paths;
use serde_json::{Value, json};

/// A host whose agent asks the back end's metadata service.
async fn on_ec2(backend: &Backend, variables: &[(&str, &str)]) -> Host {
    let mut host = prepared_host().await;
    host.set("AWS_EC2_METADATA_DISABLED", "false");
    host.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", backend.endpoint());
    variables.iter().for_each(|(name, value)| host.set(name, value));
    host
}

#[test]
fn a_spot_instance_that_is_taken_away_drains() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let mut host = on_ec2(&backend, &[("ECS_ENABLE_SPOT_INSTANCE_DRAINING", "true")]).await;
        host.start_agent_at(backend.endpoint());
        backend.accept(Channel::Acs).await.is_quiet().await;
        backend.metadata_asked(paths::SPOT_ACTION, 2).await;
        assert!(backend.waiting_call_of("UpdateContainerInstancesState").is_none(), "not yet");
        backend.metadata(paths::SPOT_ACTION, r#"{"action":"terminate","time":"2026-01-01T00:00:00Z"}"#);
        let call = backend.call_of("UpdateContainerInstancesState").await;
        let expected = json!({"cluster": "peer", "containerInstances": [INSTANCE], "status": "DRAINING"});
        assert_eq!(call.body, expected);
    });
}

#[test]
fn an_instance_in_a_warm_pool_does_not_register() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let mut host = on_ec2(&backend, &[("ECS_WARM_POOLS_CHECK", "true")]).await;
        backend.metadata(paths::TARGET_LIFECYCLE_STATE, "Warmed:Running");
        host.start_agent_at(backend.endpoint());
        host.until("it waits", |host| host.agent_log().contains("in a warm pool")).await;
        assert_eq!(host.stop_agent().await.0, Some(0));
        assert!(backend.waiting_calls().is_empty(), "it registered");
        backend.metadata(paths::TARGET_LIFECYCLE_STATE, "InService");
        host.start_agent_at(backend.endpoint());
        assert_eq!(backend.call().await.operation, "RegisterContainerInstance");
        backend.accept(Channel::Acs).await;
    });
}

#[test]
fn an_instance_that_cloud_init_did_not_set_up_ends_the_agent_for_good() {
    on_own_network(|| async {
        // Where only this test's own processes see it.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let (none, private) = (None::<&str>, nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC);
        nix::mount::mount(none, "/", none, private, none).unwrap();
        nix::mount::mount(none, "/var/lib", Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
        std::fs::create_dir_all("/var/lib/cloud/data").unwrap();
        let result = r#"{"v1": {"datasource": "DataSourceNone", "errors": []}}"#;
        std::fs::write("/var/lib/cloud/data/result.json", result).unwrap();
        let mut backend = Backend::start().await;
        backend.metadata(paths::USER_DATA, "#!/bin/sh\necho ECS_CLUSTER=other >> /etc/ecs/ecs.config\n");
        let mut host = on_ec2(&backend, &[]).await;
        host.start_agent_at(backend.endpoint());
        assert_eq!(host.agent_exit().await, Some(5));
        assert!(host.agent_log().contains("DataSourceNone"), "{}", host.agent_log());
        assert!(backend.waiting_calls().is_empty());
    });
}

fn tags(body: &Value) -> Vec<(&str, &str)> {
    let tags = body["tags"].as_array().unwrap().iter();
    let mut tags: Vec<_> =
        tags.map(|tag| (tag["key"].as_str().unwrap(), tag["value"].as_str().unwrap())).collect();
    tags.sort_unstable();
    tags
}

#[test]
fn the_identity_document_and_ec2s_tags_reach_the_registration() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        let document = r#"{"instanceId": "i-0abc", "region": "us-west-2"}"#;
        backend.metadata("/latest/dynamic/instance-identity/document", document);
        backend.metadata("/latest/dynamic/instance-identity/signature", "signed");
        let item = |key: &str, value: &str| format!("<item><key>{key}</key><value>{value}</value></item>");
        let all = [item("team", "ec2"), item("cost", "7"), item("aws:created-by", "x")].concat();
        backend.ec2([(200, format!("<DescribeTagsResponse><tagSet>{all}</tagSet></DescribeTagsResponse>"))]);
        let endpoint = backend.endpoint().to_owned();
        let variables = [
            ("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", "ec2_instance"),
            ("ECS_CONTAINER_INSTANCE_TAGS", r#"{"team": "own"}"#),
            ("AWS_ENDPOINT_URL_EC2", &endpoint),
        ];
        let mut host = on_ec2(&backend, &variables).await;
        host.start_agent_at(&endpoint);
        let question = backend.call().await;
        assert_eq!(question.operation, "DescribeTags");
        assert_eq!(question.body["Filter.1.Value.1"], "i-0abc");
        let body = backend.call_of("RegisterContainerInstance").await.body;
        assert_eq!(body["instanceIdentityDocument"], document);
        assert_eq!(body["instanceIdentityDocumentSignature"], "signed");
        assert_eq!(tags(&body), [("cost", "7"), ("team", "own")]);
        backend.accept(Channel::Acs).await;
    });
}

#[test]
fn an_external_instance_says_so_and_asks_no_metadata_service() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        backend.metadata("/latest/dynamic/instance-identity/document", r#"{"instanceId": "i-0abc"}"#);
        backend.metadata("/latest/dynamic/instance-identity/signature", "signed");
        backend.metadata("/latest/meta-data/placement/region", "us-west-2");
        let mut host = on_ec2(&backend, &[("ECS_EXTERNAL", "true"), ("AWS_DEFAULT_REGION", "")]).await;
        host.start_agent_at(backend.endpoint());
        assert_eq!(host.agent_exit().await, Some(1), "a region is needed");
        assert!(host.agent_log().contains("set AWS_DEFAULT_REGION"), "{}", host.agent_log());
        host.set("AWS_DEFAULT_REGION", crate::support::sigv4::REGION);
        host.start_agent_at(backend.endpoint());
        let body = backend.call_of("RegisterContainerInstance").await.body;
        for member in ["instanceIdentityDocument", "instanceIdentityDocumentSignature"] {
            assert!(body[member].as_str().is_none_or(str::is_empty), "{member}: {body}");
        }
        let attributes: Vec<_> = body["attributes"].as_array().unwrap().iter().map(|a| &a["name"]).collect();
        for own in ["ecs.capability.external", "ecs.cpu-architecture"] {
            assert!(attributes.contains(&&json!(own)), "{own} is not in {attributes:?}");
        }
        backend.accept(Channel::Acs).await;
        assert_eq!(backend.metadata_requests(), 0);
    });
}
