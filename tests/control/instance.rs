//! What the instance itself has to say: its credentials, its tags, its warm pool, its end.

use crate::environment::in_child_of;
use crate::support::backend::{Backend, INSTANCE};
use crate::support::containerd::TempDir;
use crate::support::sigv4::{ACCESS_KEY, SECRET};
use crate::{account, api_of};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, future};
use ecsd::app::lifecycle::{LifecycleError, WarmPoolTimings, check_cloud_init, leave_warm_pool};
use ecsd::app::spot::drain_when_interrupted;
use ecsd::control::credentials::{ChainOptions, CredentialsCache};
use ecsd::control::ec2::{Ec2Error, Ec2Timings, instance_tags};
use ecsd::control::http::SchemeClient;
use ecsd::control::imds::{Imds, InstanceDocument, paths};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(5);

fn imds_of(backend: &Backend) -> Imds {
    Imds::with_endpoint(&SchemeClient::default(), backend.endpoint()).unwrap()
}

// === Credentials ===

fn external(file: &Path, profile: &str) -> CredentialsCache {
    let options = ChainOptions {
        external: true,
        rotating_file: file.to_owned(),
        rotating_profile: profile.to_owned(),
        ..ChainOptions::new("us-west-2")
    };
    CredentialsCache::chain(SchemeClient::default(), options)
}

fn profile(name: &str, key: &str) -> String {
    format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = t\n")
}

#[tokio::test]
async fn an_external_instance_reads_its_rotating_file_before_shared_files() {
    let dir = TempDir::new("rotating");
    let shared = dir.path().join("shared");
    let vars = [
        ("AWS_SHARED_CREDENTIALS_FILE", shared.to_str().unwrap()),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("ECSD_TEST_DIR", dir.path().to_str().unwrap()),
    ];
    let name = "an_external_instance_reads_its_rotating_file_before_shared_files";
    if !in_child_of("instance", name, &vars).await {
        return;
    }
    let dir = std::path::PathBuf::from(std::env::var("ECSD_TEST_DIR").unwrap());
    let (rotating, shared) = (dir.join("credentials"), dir.join("shared"));
    let chain = external(&rotating, "default");
    assert!(chain.get().await.is_err(), "nothing anywhere");
    std::fs::write(&shared, profile("default", "SHARED")).unwrap();
    assert_eq!(chain.get().await.unwrap().access_key_id(), "SHARED");
    std::fs::write(&rotating, profile("default", "ROTATED1") + &profile("other", "OTHER")).unwrap();
    assert_eq!(chain.get().await.unwrap().access_key_id(), "SHARED", "held for a minute");
    chain.invalidate().await;
    assert_eq!(chain.get().await.unwrap().access_key_id(), "ROTATED1");
    std::fs::write(&rotating, profile("default", "ROTATED2")).unwrap();
    chain.invalidate().await;
    assert_eq!(chain.get().await.unwrap().access_key_id(), "ROTATED2", "the file is read again");
    std::fs::write(&rotating, "no profile").unwrap();
    chain.invalidate().await;
    assert_eq!(chain.get().await.unwrap().access_key_id(), "SHARED", "a broken file is passed over");
    std::fs::write(&rotating, profile("other", "OTHER")).unwrap();
    assert_eq!(external(&rotating, "other").get().await.unwrap().access_key_id(), "OTHER");
    // On EC2 the rotating file comes last.
    let options = ChainOptions {
        rotating_file: rotating,
        rotating_profile: "other".into(),
        ..ChainOptions::new("us-west-2")
    };
    let chain = CredentialsCache::chain(SchemeClient::default(), options);
    assert_eq!(chain.get().await.unwrap().access_key_id(), "SHARED");
    std::fs::remove_file(&shared).unwrap();
    chain.invalidate().await;
    assert_eq!(chain.get().await.unwrap().access_key_id(), "OTHER");
}

#[tokio::test]
async fn an_external_instance_takes_those_of_its_environment_first_and_of_its_role_last() {
    let dir = TempDir::new("rotating");
    let rotating = dir.path().join("credentials");
    std::fs::write(&rotating, profile("default", "ROTATED")).unwrap();
    let backend = Backend::start().await;
    let role = json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ROLE", "SecretAccessKey": "s",
        "Token": "t", "Expiration": "2099-01-01T00:00:00Z", "LastUpdated": "2020-01-01T00:00:00Z"});
    for base in ["security-credentials", "security-credentials-extended"] {
        backend.metadata(&format!("/latest/meta-data/iam/{base}/"), "role");
        backend.metadata(&format!("/latest/meta-data/iam/{base}/role"), &role.to_string());
    }
    let nowhere = ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    let name = "an_external_instance_takes_those_of_its_environment_first_and_of_its_role_last";
    for (file, own, expected) in [
        (rotating.to_str().unwrap(), Some("OWN"), "OWN"),
        (rotating.to_str().unwrap(), None, "ROTATED"),
        ("/nonexistent", None, "ROLE"),
    ] {
        let mut vars = vec![
            nowhere,
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", backend.endpoint()),
            ("ECSD_TEST_FILE", file),
            ("ECSD_TEST_EXPECTED", expected),
        ];
        vars.extend(own.map(|key| ("AWS_ACCESS_KEY_ID", key)));
        vars.extend(own.map(|_| ("AWS_SECRET_ACCESS_KEY", "s")));
        if in_child_of("instance", name, &vars).await {
            let file = std::env::var("ECSD_TEST_FILE").unwrap();
            let found = external(Path::new(&file), "default").get().await.unwrap();
            assert_eq!(found.access_key_id(), std::env::var("ECSD_TEST_EXPECTED").unwrap());
            return;
        }
    }
}

// === Identity document ===

/// Gives the same credentials each time, and counts how often.
#[derive(Debug, Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl ProvideCredentials for Counted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.0.fetch_add(1, Ordering::SeqCst);
        future::ProvideCredentials::ready(Ok(Credentials::new(ACCESS_KEY, SECRET, None, None, "test")))
    }
}

#[tokio::test]
async fn a_document_that_comes_late_is_waited_for_and_drops_the_credentials() {
    const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
    let backend = Backend::start().await;
    backend.metadata(DOCUMENT, r#"{"instanceId":"i-1"}"#);
    backend.metadata("/latest/dynamic/instance-identity/signature", "sig");
    backend.metadata_refuses(DOCUMENT, 2);
    let counted = Counted::default();
    let credentials = CredentialsCache::from_provider(counted.clone());
    credentials.get().await.unwrap();
    let imds = imds_of(&backend);
    let document = imds.document(Duration::from_secs(30), &credentials).await;
    assert_eq!(counted.0.load(Ordering::SeqCst), 3, "fetched again after each refusal");
    assert_eq!((document.instance_id().as_deref(), document.signature.as_str()), (Some("i-1"), "sig"));
    backend.metadata_refuses(DOCUMENT, 100);
    let document = imds.document(Duration::ZERO, &credentials).await;
    assert_eq!(document, InstanceDocument::default(), "not fatal, and nothing to be signed");
}

// === EC2's tags ===

fn tags(pairs: &[(&str, &str)]) -> String {
    let items: String = pairs
        .iter()
        .map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>"))
        .collect();
    format!("<DescribeTagsResponse><requestId>r</requestId><tagSet>{items}</tagSet></DescribeTagsResponse>")
}

#[tokio::test]
async fn tags_of_ec2_are_asked_for_by_signed_query_and_sifted() {
    let mut backend = Backend::start().await;
    let own =
        tags(&[("team", "x"), ("aws:autoscaling:group", "g"), ("AWS:x", "y"), ("k", "Aws:v"), ("e", "")]);
    backend.ec2([(503, "<Response/>".to_owned()), (200, own)]);
    let timings = Ec2Timings { unit: SHORT };
    let account = account(&backend, Some("token"));
    let found = instance_tags(&account, backend.endpoint(), "i-1", &timings).await.unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(found, [("e", ""), ("team", "x")]);
    let expected = json!({"Action": "DescribeTags", "Version": "2016-11-15", "MaxResults": "50",
        "Filter.1.Name": "resource-id", "Filter.1.Value.1": "i-1",
        "Filter.2.Name": "resource-type", "Filter.2.Value.1": "instance"});
    let calls = backend.waiting_calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].body, expected);
    assert_eq!(calls[1].headers["x-amz-security-token"], "token");
}

#[tokio::test]
async fn a_refusal_of_ec2_is_final_and_says_what_is_missing() {
    let mut backend = Backend::start().await;
    let refusal = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>not you</Message></Error>\
                   </Errors></Response>";
    backend.ec2([(403, refusal.to_owned()), (200, "no xml".to_owned())]);
    let timings = Ec2Timings { unit: SHORT };
    let account = account(&backend, None);
    let error = instance_tags(&account, backend.endpoint(), "i-1", &timings).await.unwrap_err();
    for word in ["UnauthorizedOperation", "not you", "ec2:DescribeTags"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(backend.waiting_calls().len(), 1);
    let error = instance_tags(&account, backend.endpoint(), "i-1", &timings).await.unwrap_err();
    assert!(matches!(error, Ec2Error::Answer { .. }), "{error}");
    assert!(instance_tags(&account, "ec2", "i-1", &timings).await.is_err());
}

// === Spot ===

#[tokio::test]
async fn a_spot_interruption_drains_once_it_can() {
    let mut backend = Backend::start().await;
    let no = json!({"__type": "ClientException", "message": "not now"});
    backend.answer("UpdateContainerInstancesState", [(400, no)]);
    backend.metadata(paths::SPOT_ACTION, r#"{"action":"noop","time":"2026-01-01T00:00:00Z"}"#);
    let watch =
        drain_when_interrupted(imds_of(&backend), api_of(&backend), "peer".into(), INSTANCE.into(), SHORT);
    let watch = tokio::spawn(watch);
    backend.metadata_asked(paths::SPOT_ACTION, 3).await;
    assert!(backend.waiting_calls().is_empty(), "nothing takes the instance away yet");
    backend.metadata(paths::SPOT_ACTION, r#"{"action":"terminate","time":"2026-01-01T00:00:00Z"}"#);
    let refused = backend.call().await;
    assert_eq!(refused.body["status"], "DRAINING");
    assert_eq!(backend.call().await.body, refused.body, "tried again");
    tokio::time::timeout(Duration::from_secs(20), watch).await.expect("it ends with success").unwrap();
    assert!(backend.waiting_calls().is_empty());
}

#[tokio::test]
async fn without_imds_there_is_no_spot_watch() {
    let backend = Backend::start().await;
    let imds = Imds::new(&SchemeClient::default(), true);
    drain_when_interrupted(imds, api_of(&backend), "peer".into(), INSTANCE.into(), SHORT).await;
}

// === Warm pools and cloud-init ===

fn warm_pool() -> WarmPoolTimings {
    WarmPoolTimings { poll: SHORT, most: 4, retry: SHORT }
}

#[tokio::test]
async fn a_warm_pool_is_waited_for() {
    let backend = Backend::start().await;
    let imds = imds_of(&backend);
    let waiting = tokio::spawn(async move {
        let timings = WarmPoolTimings { most: 1000, ..warm_pool() };
        leave_warm_pool(&imds, &timings).await
    });
    backend.metadata_asked(paths::TARGET_LIFECYCLE_STATE, 2).await;
    backend.metadata(paths::TARGET_LIFECYCLE_STATE, "Warmed:Stopped");
    backend.metadata_asked(paths::TARGET_LIFECYCLE_STATE, 2).await;
    backend.metadata_refuses(paths::TARGET_LIFECYCLE_STATE, 4);
    backend.metadata_asked(paths::TARGET_LIFECYCLE_STATE, 5).await;
    assert!(!waiting.is_finished());
    backend.metadata(paths::TARGET_LIFECYCLE_STATE, "InService");
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_warm_pool_that_tells_nothing_ends_the_agent() {
    let backend = Backend::start().await;
    let error = leave_warm_pool(&imds_of(&backend), &warm_pool()).await.unwrap_err();
    assert!(matches!(error, LifecycleError::NoState { looks: 4 }), "{error}");
    backend.metadata_refuses(paths::TARGET_LIFECYCLE_STATE, 100);
    let error = leave_warm_pool(&imds_of(&backend), &warm_pool()).await.unwrap_err();
    assert!(matches!(error, LifecycleError::WarmPool(_)), "{error}");
    let blackholed = Imds::new(&SchemeClient::default(), true);
    let error = leave_warm_pool(&blackholed, &warm_pool()).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("blackholed"), "{error}");
}

#[tokio::test]
async fn cloud_init_without_its_user_data_ends_the_agent() {
    let (backend, dir) = (Backend::start().await, TempDir::new("cloud-init"));
    let (imds, file) = (imds_of(&backend), dir.path().join("result.json"));
    check_cloud_init(&imds, &file).await.unwrap();
    let result = |source: &str| format!(r#"{{"v1":{{"datasource":"{source}","errors":[]}}}}"#);
    std::fs::write(&file, result("DataSourceNone")).unwrap();
    check_cloud_init(&imds, &file).await.expect("there is no user data");
    backend.metadata(paths::USER_DATA, "#!/bin/sh");
    let error = check_cloud_init(&imds, &file).await.unwrap_err();
    assert!(error.to_string().contains("DataSourceNone"), "{error}");
    check_cloud_init(&Imds::new(&SchemeClient::default(), true), &file).await.expect("not on EC2");
    for fine in [result("DataSourceEc2Local").as_str(), "no json", "{}"] {
        std::fs::write(&file, fine).unwrap();
        check_cloud_init(&imds, &file).await.unwrap();
    }
}
