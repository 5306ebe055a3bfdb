//! `requiresAttributes`: what a container instance must say of itself before a task of this
//! definition is placed there (spec/control-plane.md 2.6 lists what instances say).

use crate::control::ecr::parts_of;
use crate::local::shape::{list, text};
use serde_json::Value;
use std::collections::BTreeSet;

const LEGACY: &str = "com.amazonaws.ecs.capability.";
const CAPABILITY: &str = "ecs.capability.";

/// The attributes that a checked document asks for, sorted.
pub fn attributes(document: &Value) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut add = |when: bool, prefix: &str, name: &str| {
        if when {
            names.insert(format!("{prefix}{name}"));
        }
    };
    add(document.get("cpu").is_some() || document.get("memory").is_some(), CAPABILITY, "task-cpu-mem-limit");
    add(!text(document, "taskRoleArn").is_empty(), LEGACY, "task-iam-role");
    let shared = |key| matches!(text(document, key), "task");
    add(shared("pidMode") || shared("ipcMode"), CAPABILITY, "pid-ipc-namespace-sharing");
    add(document.get("proxyConfiguration").is_some(), CAPABILITY, "aws-appmesh");
    for docker in list(document, "volumes").iter().filter_map(|v| v.get("dockerVolumeConfiguration")) {
        let driver = Some(text(docker, "driver")).filter(|driver| !driver.is_empty()).unwrap_or("local");
        add(true, CAPABILITY, &format!("docker-plugin.{driver}"));
    }
    let execution_role = !text(document, "executionRoleArn").is_empty();
    for container in list(document, "containerDefinitions") {
        let has = |key: &str| container.get(key).is_some();
        let some = |key: &str| !list(container, key).is_empty();
        add(container.get("privileged") == Some(&Value::Bool(true)), LEGACY, "privileged-container");
        add(some("dependsOn"), CAPABILITY, "container-ordering");
        add(has("healthCheck"), CAPABILITY, "container-health-check");
        add(some("environmentFiles"), CAPABILITY, "env-files.s3");
        add(has("repositoryCredentials"), CAPABILITY, "private-registry-authentication.secretsmanager");
        let in_ecr = parts_of(text(container, "image")).is_some();
        add(in_ecr, LEGACY, "ecr-auth");
        add(in_ecr && execution_role, CAPABILITY, "execution-role-ecr-pull");
        let restarts = container.get("restartPolicy").and_then(|policy| policy.get("enabled"));
        add(restarts == Some(&Value::Bool(true)), CAPABILITY, "container-restart-policy");
        if let Some(router) = container.get("firelensConfiguration") {
            add(true, CAPABILITY, &format!("firelens.{}", text(router, "type")));
        }
        for secret in list(container, "secrets") {
            let service = if text(secret, "valueFrom").contains(":secretsmanager:") { "asm" } else { "ssm" };
            add(true, CAPABILITY, &format!("secrets.{service}.environment-variables"));
        }
        let ranges = list(container, "portMappings").iter().any(|m| m.get("containerPortRange").is_some());
        add(ranges, CAPABILITY, "network.container-port-range");
        let driver = container.get("logConfiguration").map(|log| text(log, "logDriver")).unwrap_or_default();
        add(!driver.is_empty(), LEGACY, &format!("logging-driver.{driver}"));
    }
    names.into_iter().collect()
}
