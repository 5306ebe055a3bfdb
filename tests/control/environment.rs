//! What comes from the process's environment: credentials and the metadata service. Each test runs
//! itself again as a child with that environment.

use crate::support::backend::Backend;
use crate::support::sigv4::{ACCESS_KEY, REGION, SECRET};
use ecsd::control::api::Registration;
use ecsd::control::http::SchemeClient;
use ecsd::control::imds::Imds;
use ecsd::control::{Account, AgentIdentity, EcsApi};
use std::time::Duration;

/// Runs this very test in a child; answers whether this is the child.
pub(crate) async fn in_child_of(module: &str, name: &str, vars: &[(&str, &str)]) -> bool {
    if std::env::var_os("ECSD_TEST_CHILD").is_some() {
        return true;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("{module}::{name}"), "--nocapture"]).env("ECSD_TEST_CHILD", "1");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
        child.env_remove(name);
    }
    child.envs(vars.iter().copied());
    let done = child.output().await.unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
    false
}

async fn in_child(name: &str, vars: &[(&str, &str)]) -> bool {
    in_child_of("environment", name, vars).await
}

/// Registers with the default credentials chain.
async fn register() {
    let endpoint = std::env::var("ECSD_TEST_ENDPOINT").unwrap();
    let account = Account::new(REGION, Some(endpoint), AgentIdentity::default());
    let imds = Imds::new(&account.http, false);
    let document = imds.document(Duration::ZERO, &account.credentials).await;
    assert_eq!(document.region().as_deref(), Some("eu-x-1"));
    assert_eq!(document.availability_zone().as_deref(), Some("eu-x-1a"));
    assert_eq!(document.signature, "c2ln");
    assert!(imds.region().await.is_err(), "404");
    let wanted = Registration { cluster: "peer".into(), document, ..Registration::default() };
    EcsApi::new(&account).register_container_instance(&wanted).await.unwrap();
}

fn with_document(backend: &Backend) {
    let document = r#"{"region":"eu-x-1","availabilityZone":"eu-x-1a","instanceId":"i-1"}"#;
    backend.metadata("/latest/dynamic/instance-identity/document", document);
    backend.metadata("/latest/dynamic/instance-identity/signature", "c2ln\n");
}

#[tokio::test]
async fn credentials_of_the_environment() {
    let mut backend = Backend::start().await;
    with_document(&backend);
    let endpoint = backend.endpoint().to_owned();
    let vars = [
        ("ECSD_TEST_ENDPOINT", endpoint.as_str()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    if in_child("credentials_of_the_environment", &vars).await {
        return register().await;
    }
    let call = backend.call_of("RegisterContainerInstance").await;
    assert_eq!(call.body["instanceIdentityDocumentSignature"], "c2ln");
}

#[tokio::test]
async fn credentials_of_the_instance_role() {
    let mut backend = Backend::start().await;
    with_document(&backend);
    let role = serde_json::json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": SECRET, "Token": "session", "Expiration": "2099-01-01T00:00:00Z",
        "LastUpdated": "2020-01-01T00:00:00Z"});
    for base in ["security-credentials", "security-credentials-extended"] {
        backend.metadata(&format!("/latest/meta-data/iam/{base}/"), "role");
        backend.metadata(&format!("/latest/meta-data/iam/{base}/role"), &role.to_string());
    }
    let endpoint = backend.endpoint().to_owned();
    let vars = [
        ("ECSD_TEST_ENDPOINT", endpoint.as_str()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    if in_child("credentials_of_the_instance_role", &vars).await {
        return register().await;
    }
    let call = backend.call_of("RegisterContainerInstance").await;
    assert_eq!(call.headers["x-amz-security-token"], "session");
}

#[tokio::test]
async fn a_disabled_metadata_service_is_not_asked() {
    let backend = Backend::start().await;
    let vars =
        [("AWS_EC2_METADATA_SERVICE_ENDPOINT", backend.endpoint()), ("AWS_EC2_METADATA_DISABLED", "true")];
    if in_child("a_disabled_metadata_service_is_not_asked", &vars).await {
        let disabled = std::env::var("AWS_EC2_METADATA_DISABLED").ok();
        let imds = Imds::new(&SchemeClient::default(), Imds::disabled_by(disabled.as_deref()));
        assert!(imds.is_disabled());
        assert!(imds.region().await.is_err());
        let chain =
            ecsd::control::credentials::CredentialsCache::default_chain(SchemeClient::default(), REGION);
        assert!(chain.get().await.is_err());
        return;
    }
    assert_eq!(backend.metadata_requests(), 0);
}

/// What its own cgroup may use says nothing of what tasks may: they are in other cgroups.
#[tokio::test]
async fn the_agents_own_quota_takes_no_processor_from_tasks() {
    if in_child("the_agents_own_quota_takes_no_processor_from_tasks", &[]).await {
        let before = ecsd::stats::processors();
        let cgroup = HalfAProcessor::enter();
        assert_eq!(std::thread::available_parallelism().unwrap().get(), 1, "the quota holds");
        assert_eq!(ecsd::stats::processors(), before);
        drop(cgroup);
    }
}

/// This process in a cgroup of its own that may use half a processor.
struct HalfAProcessor {
    cgroup: std::path::PathBuf,
}

impl HalfAProcessor {
    fn enter() -> Self {
        let v1 = std::path::Path::new("/sys/fs/cgroup/cpu");
        let root = if v1.is_dir() { v1 } else { std::path::Path::new("/sys/fs/cgroup") };
        let cgroup = root.join(format!("ecsd-quota-{}", std::process::id()));
        std::fs::create_dir(&cgroup).unwrap();
        let (file, quota) =
            if v1.is_dir() { ("cpu.cfs_quota_us", "50000") } else { ("cpu.max", "50000 100000") };
        std::fs::write(cgroup.join(file), quota).unwrap();
        std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        Self { cgroup }
    }
}

impl Drop for HalfAProcessor {
    fn drop(&mut self) {
        let parent = self.cgroup.parent().unwrap().join("cgroup.procs");
        let _ = std::fs::write(parent, std::process::id().to_string());
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}
