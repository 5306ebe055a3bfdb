//! Task definition plus run-time overrides -> the task as ACS carries it. Pure.
//!
//! As the real back end does (spec/control-plane.md 3.4, spec/task-engine.md 2): a few members are
//! typed, all the rest travels in two Docker API documents as JSON text (see [`docker`]). A command
//! override travels in the container's `overrides`; the other overrides are already applied.

mod docker;

use crate::control::acs::wire;
use crate::control::ecr::parts_of;
use crate::local::definition::{TaskDefinition, size};
use crate::local::shape::{list, text, texts};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a task is called and whose it is.
#[derive(Debug, Clone)]
pub struct TaskNames {
    /// Task ARN.
    pub arn: String,
    /// Cluster ARN.
    pub cluster_arn: String,
    /// Account of the task definition.
    pub account: String,
    /// Region, for what travels with one.
    pub region: String,
    /// Container ARNs by container name.
    pub containers: BTreeMap<String, String>,
    /// Group.
    pub group: String,
}

/// The whole task. `overrides` is RunTask's, checked; `desired` is RUNNING or STOPPED.
pub fn task(definition: &TaskDefinition, overrides: &Value, names: &TaskNames, desired: &str) -> wire::Task {
    let document = &definition.document;
    let cpu = size::cpu_units(text(overrides, "cpu")).ok().or(definition.cpu_units);
    let memory = size::memory_mib(text(overrides, "memory")).ok().or(definition.memory_mib);
    wire::Task {
        arn: names.arn.clone(),
        task_cluster_arn: names.cluster_arn.clone(),
        desired_status: desired.to_owned(),
        family: definition.family.clone(),
        version: definition.revision.to_string(),
        task_definition_account_id: names.account.clone(),
        overrides: "{}".to_owned(),
        cpu: cpu.unwrap_or_default() as f64 / size::UNITS_PER_VCPU as f64,
        memory: memory.and_then(|mib| i64::try_from(mib).ok()).unwrap_or_default(),
        pid_mode: text(document, "pidMode").to_owned(),
        ipc_mode: text(document, "ipcMode").to_owned(),
        network_mode: definition.network_mode().to_owned(),
        launch_type: "EC2".to_owned(),
        group: names.group.clone(),
        enable_fault_injection: flag(document, "enableFaultInjection"),
        containers: definition
            .containers()
            .iter()
            .map(|c| container(c, definition, overrides, names))
            .collect(),
        volumes: list(document, "volumes").iter().map(volume).collect(),
        ..wire::Task::default()
    }
}

/// The override of one container, or `null`.
pub fn override_of<'a>(overrides: &'a Value, name: &str) -> &'a Value {
    let found = list(overrides, "containerOverrides").iter().find(|o| text(o, "name") == name);
    found.unwrap_or(&Value::Null)
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn int(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or_default()
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn container(
    c: &Value,
    definition: &TaskDefinition,
    overrides: &Value,
    names: &TaskNames,
) -> wire::Container {
    let name = text(c, "name");
    let over = override_of(overrides, name);
    let pick = |key: &str| over.get(key).map_or_else(|| int(c, key), |_| int(over, key));
    let pairs = list(c, "environment").iter().chain(list(over, "environment"));
    let command = texts(over, "command");
    wire::Container {
        name: name.to_owned(),
        container_arn: names.containers.get(name).cloned().unwrap_or_default(),
        image: text(c, "image").to_owned(),
        command: texts(c, "command"),
        entry_point: texts(c, "entryPoint"),
        environment: pairs.map(|p| (text(p, "name").to_owned(), text(p, "value").to_owned())).collect(),
        environment_files: list(c, "environmentFiles")
            .iter()
            .chain(list(over, "environmentFiles"))
            .map(|f| wire::EnvironmentFile {
                value: text(f, "value").to_owned(),
                r#type: text(f, "type").to_owned(),
            })
            .collect(),
        essential: flag(c, "essential"),
        cpu: pick("cpu"),
        memory: pick("memory"),
        links: texts(c, "links"),
        port_mappings: list(c, "portMappings").iter().map(port_mapping).collect(),
        mount_points: list(c, "mountPoints").iter().map(mount_point).collect(),
        volumes_from: list(c, "volumesFrom")
            .iter()
            .map(|v| wire::VolumeFrom {
                source_container: text(v, "sourceContainer").to_owned(),
                read_only: flag(v, "readOnly"),
            })
            .collect(),
        overrides: if command.is_empty() {
            "{}".to_owned()
        } else {
            json!({ "command": command }).to_string()
        },
        docker_config: Some(wire::DockerConfig {
            config: docker::config(c).to_string(),
            host_config: docker::host_config(c, over, definition.network_mode()).to_string(),
            version: "1.18".to_owned(),
        }),
        registry_authentication: registry_authentication(c, definition, overrides, &names.region),
        health_check_type: c.get("healthCheck").map(|_| "docker".to_owned()).unwrap_or_default(),
        secrets: list(c, "secrets").iter().map(|s| secret(s, &names.region)).collect(),
        depends_on: list(c, "dependsOn")
            .iter()
            .map(|d| wire::ContainerDependency {
                container_name: text(d, "containerName").to_owned(),
                condition: text(d, "condition").to_owned(),
            })
            .collect(),
        start_timeout: int(c, "startTimeout"),
        stop_timeout: int(c, "stopTimeout"),
        firelens_configuration: c.get("firelensConfiguration").map(|f| wire::FirelensConfiguration {
            r#type: text(f, "type").to_owned(),
            options: string_map(f.get("options")),
        }),
        restart_policy: c.get("restartPolicy").map(|p| wire::RestartPolicy {
            enabled: flag(p, "enabled"),
            ignored_exit_codes: list(p, "ignoredExitCodes").iter().filter_map(Value::as_i64).collect(),
            restart_attempt_period: int(p, "restartAttemptPeriod"),
        }),
        credential_specs: texts(c, "credentialSpecs"),
        ..wire::Container::default()
    }
}

/// Where the password of the image's registry comes from: the secret that is named, or for an image in ECR
/// ECR itself, in the name of the execution role where there is one.
fn registry_authentication(
    c: &Value,
    definition: &TaskDefinition,
    overrides: &Value,
    region: &str,
) -> Option<wire::RegistryAuthentication> {
    if let Some(given) = c.get("repositoryCredentials") {
        let secret = text(given, "credentialsParameter");
        // An ARN names its region.
        let named = secret.split(':').nth(3).filter(|named| !named.is_empty());
        let asm = wire::AsmAuthData {
            credentials_parameter: secret.to_owned(),
            region: named.unwrap_or(region).to_owned(),
        };
        let (r#type, asm_auth_data) = ("asm".to_owned(), Some(asm));
        return Some(wire::RegistryAuthentication { r#type, asm_auth_data, ..Default::default() });
    }
    let (region, account) = parts_of(text(c, "image"))?;
    let role = |document: &Value| !text(document, "executionRoleArn").is_empty();
    let ecr = wire::EcrAuthData {
        registry_id: account.to_owned(),
        region: region.to_owned(),
        endpoint_override: String::new(),
        use_execution_role: role(overrides) || role(&definition.document),
    };
    let (r#type, ecr_auth_data) = ("ecr".to_owned(), Some(ecr));
    Some(wire::RegistryAuthentication { r#type, ecr_auth_data, ..Default::default() })
}

fn port_mapping(mapping: &Value) -> wire::PortMapping {
    wire::PortMapping {
        container_port: int(mapping, "containerPort"),
        host_port: int(mapping, "hostPort"),
        container_port_range: text(mapping, "containerPortRange").to_owned(),
        protocol: text(mapping, "protocol").to_owned(),
    }
}

fn mount_point(mount: &Value) -> wire::MountPoint {
    wire::MountPoint {
        source_volume: text(mount, "sourceVolume").to_owned(),
        container_path: text(mount, "containerPath").to_owned(),
        read_only: flag(mount, "readOnly"),
    }
}

fn secret(secret: &Value, region: &str) -> wire::Secret {
    let from = text(secret, "valueFrom");
    wire::Secret {
        name: text(secret, "name").to_owned(),
        value_from: from.to_owned(),
        r#type: "ENVIRONMENT_VARIABLE".to_owned(),
        region: region.to_owned(),
        provider: if from.contains(":secretsmanager:") { "asm" } else { "ssm" }.to_owned(),
        target: "CONTAINER".to_owned(),
        ..wire::Secret::default()
    }
}

/// `host` unless it says `docker`; the clouds' kinds never pass validation.
fn volume(volume: &Value) -> wire::Volume {
    let name = text(volume, "name").to_owned();
    match volume.get("dockerVolumeConfiguration") {
        Some(docker) => wire::Volume {
            name,
            r#type: "docker".to_owned(),
            docker_volume_configuration: Some(wire::DockerVolume {
                scope: match text(docker, "scope") {
                    "" => "task".to_owned(),
                    scope => scope.to_owned(),
                },
                autoprovision: flag(docker, "autoprovision"),
                driver: text(docker, "driver").to_owned(),
                driver_opts: string_map(docker.get("driverOpts")),
                labels: string_map(docker.get("labels")),
            }),
            ..wire::Volume::default()
        },
        None => wire::Volume {
            name,
            r#type: "host".to_owned(),
            host: Some(wire::HostVolume {
                source_path: volume.get("host").map(|h| text(h, "sourcePath").to_owned()).unwrap_or_default(),
            }),
            ..wire::Volume::default()
        },
    }
}

#[cfg(test)]
mod tests;
