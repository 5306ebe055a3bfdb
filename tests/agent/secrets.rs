//! Role credentials reach the container that asks for them, and nothing else: no log, no store, no
//! file of the agent (invariant 8).

use super::scripted::{Scripted, fresh_id, task};
use crate::support::host::on_own_network;
use serde_json::json;
use std::path::{Path, PathBuf};

const ACCESS_KEY: &str = "AKIDCANARY0001";
const SECRET: &str = "canary-secret-0002";
const TOKEN: &str = "canary-token-0003";

#[test]
fn role_credentials_are_served_and_left_nowhere() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        // Only the answer's length is printed: what a container logs is its own affair.
        let script = "wget -qO /tmp/c http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; \
                      grep -c canary-secret /tmp/c; trap 'exit 0' TERM; while :; do sleep 1; done";
        let mut wanted = task(&id, script);
        wanted["roleCredentials"] = json!({
            "credentialsId": "cred-1", "roleArn": "arn:aws:iam::1:role/r", "accessKeyId": ACCESS_KEY,
            "secretAccessKey": SECRET, "sessionToken": TOKEN, "expiration": "2030-01-01T00:00:00Z",
        });
        scripted.send(json!([wanted.clone()])).await;
        scripted.reported(&id, "RUNNING").await;
        let arn = super::scripted::arn(&id);
        scripted
            .host
            .until("the container has its credentials", |host| host.logs(&arn, "main").contains('1'))
            .await;
        let audit = scripted.host.dir.path().join("audit.log");
        let granted = format!("{arn} GetCredentials 2 peer arn:");
        let audited = || std::fs::read_to_string(&audit).unwrap_or_default();
        scripted.host.until("that is in the audit log", |_| audited().contains(&granted)).await;
        assert!(
            audited().contains(" \"/v2/credentials\" \"") && !audited().contains("cred-1"),
            "{}",
            audited()
        );
        wanted["desiredStatus"] = json!("STOPPED");
        scripted.send(json!([wanted])).await;
        scripted.reported(&id, "STOPPED").await;
        for file in files(scripted.host.dir.path()) {
            let content = std::fs::read(&file).unwrap_or_default();
            for canary in [ACCESS_KEY, SECRET, TOKEN] {
                let found = content.windows(canary.len()).any(|window| window == canary.as_bytes());
                assert!(!found, "{canary} is in {}", file.display());
            }
        }
    });
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
