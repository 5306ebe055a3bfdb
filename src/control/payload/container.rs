//! One container of a task (spec/control-plane.md 3.4, spec/task-engine.md 2.1).

use super::volume::check_path;
use super::{PayloadError, bad, bounded, check_name, mib, out_of_bounds, unsupported};
use crate::control::acs::wire;
use crate::model::{
    ContainerKind, ContainerSpec, Dependency, DependencyCondition, DockerConfig, EcrLogin, EndpointId,
    MountPoint, PortMapping, PortRange, Protocol, RegistryLogin, RestartPolicy, SecretLogin, VolumeFrom,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than any limit of ECS, short enough to add to a clock.
const MAX_TIMEOUT_S: i64 = 365 * 24 * 3600;
/// How long a container must have run to be restarted, where nothing else is said.
const RESTART_PERIOD: Duration = Duration::from_secs(300);

pub(super) fn convert(
    source: &wire::Container,
    endpoint: &dyn Fn(&str) -> EndpointId,
) -> Result<ContainerSpec, PayloadError> {
    check_name("container name", &source.name, false)?;
    let at = |member: &str| format!("container {:?}: {member}", source.name);
    refuse_unsupported(source)?;
    if source.image.is_empty() || source.image.len() > 4096 || source.image.contains(char::is_control) {
        return Err(bad(&at("image"), &source.image, "it must be an image reference"));
    }
    let cpu = u64::try_from(source.cpu).ok().filter(|units| *units <= 16_384 * 1024);
    check_environment(&at("environment"), &source.environment)?;
    Ok(ContainerSpec {
        name: source.name.clone(),
        kind: ContainerKind::Normal,
        arn: source.container_arn.clone(),
        image: source.image.clone(),
        registry_login: registry_login(source)?,
        command: command(source)?,
        entry_point: source.entry_point.clone(),
        environment: source.environment.clone(),
        essential: source.essential,
        cpu_shares: cpu.ok_or_else(|| out_of_bounds(&at("cpu"), source.cpu, "0 to 16777216 CPU units"))?,
        memory_mib: mib(&at("memory"), source.memory)?,
        ports: ports(source)?,
        mounts: mounts(source)?,
        volumes_from: source
            .volumes_from
            .iter()
            .map(|v| VolumeFrom { container: v.source_container.clone(), read_only: v.read_only })
            .collect(),
        links: source.links.clone(),
        // In this very spelling; others are for containers that the original does not look at either.
        health_checked: source.health_check_type == "docker",
        depends_on: dependencies(source)?,
        start_timeout: timeout(&at("startTimeout"), source.start_timeout)?,
        stop_timeout: timeout(&at("stopTimeout"), source.stop_timeout)?,
        restart: restart(&at("restartPolicy"), source.restart_policy.as_ref())?,
        docker: docker(source)?,
        endpoint: endpoint(&source.name),
    })
}

fn refuse_unsupported(source: &wire::Container) -> Result<(), PayloadError> {
    let refused: [(bool, &str); 4] = [
        (!source.secrets.is_empty(), "a secret of SSM or Secrets Manager"),
        (!source.environment_files.is_empty(), "an environment file"),
        (source.firelens_configuration.is_some(), "a log router (FireLens)"),
        (!source.managed_agents.is_empty(), "a managed agent (ECS Exec)"),
    ];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, what)) => Err(unsupported(&format!("container {:?}: {what}", source.name))),
        None => Ok(()),
    }
}

/// Where the registry's password comes from. Another type than these is none, as for the original.
fn registry_login(source: &wire::Container) -> Result<Option<RegistryLogin>, PayloadError> {
    let Some(auth) = &source.registry_authentication else { return Ok(None) };
    let at = |member: &str| format!("container {:?}: registryAuthentication: {member}", source.name);
    match auth.r#type.as_str() {
        "ecr" => {
            let ecr =
                auth.ecr_auth_data.as_ref().ok_or_else(|| bad(&at("ecrAuthData"), "", "it is missing"))?;
            check_region(&at("region"), &ecr.region)?;
            Ok(Some(RegistryLogin::Ecr(EcrLogin {
                region: ecr.region.clone(),
                registry: ecr.registry_id.clone(),
                endpoint: ecr.endpoint_override.clone(),
                execution_role: ecr.use_execution_role,
            })))
        }
        "asm" => {
            let asm =
                auth.asm_auth_data.as_ref().ok_or_else(|| bad(&at("asmAuthData"), "", "it is missing"))?;
            check_region(&at("region"), &asm.region)?;
            if asm.credentials_parameter.is_empty() {
                return Err(bad(&at("credentialsParameter"), "", "it must be the ARN of a secret"));
            }
            let (secret, region) = (asm.credentials_parameter.clone(), asm.region.clone());
            Ok(Some(RegistryLogin::Secret(SecretLogin { secret, region })))
        }
        _ => Ok(None),
    }
}

/// It becomes part of a host's name.
fn check_region(what: &str, region: &str) -> Result<(), PayloadError> {
    let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if region.is_empty() || region.len() > 64 || !region.chars().all(fit) {
        return Err(bad(what, region, "it must be a region, such as eu-west-1"));
    }
    Ok(())
}

/// A policy that is on. Without a period it is the API's default.
fn restart(what: &str, policy: Option<&wire::RestartPolicy>) -> Result<Option<RestartPolicy>, PayloadError> {
    let Some(policy) = policy.filter(|policy| policy.enabled) else { return Ok(None) };
    let period = timeout(&format!("{what}: restartAttemptPeriod"), policy.restart_attempt_period)?;
    Ok(Some(RestartPolicy {
        // A code beyond all that a process can end with is one that never comes.
        ignored_exit_codes: policy.ignored_exit_codes.iter().filter_map(|c| (*c).try_into().ok()).collect(),
        attempt_period: period.unwrap_or(RESTART_PERIOD),
    }))
}

/// The kernel takes neither NUL nor `=` in a name.
fn check_environment(what: &str, environment: &BTreeMap<String, String>) -> Result<(), PayloadError> {
    for (name, value) in environment {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(bad(what, name, "a variable's name must not be empty or hold '=' or NUL"));
        }
        if value.contains('\0') {
            return Err(bad(what, name, "the variable's value holds a NUL"));
        }
    }
    Ok(())
}

/// The command, or what the overrides put in its place. `overrides` is JSON text with `command` as
/// its only key; any other would be an override that is not obeyed.
fn command(source: &wire::Container) -> Result<Vec<String>, PayloadError> {
    let document = |reason: String| PayloadError::Document {
        container: source.name.clone(),
        document: "overrides",
        reason,
    };
    let overrides = object(&source.overrides).map_err(document)?;
    let mut command = None;
    for (key, value) in overrides {
        if key != "command" {
            let key: String = key.chars().take(64).collect();
            return Err(document(format!("unknown member {key:?}: only command can be overridden")));
        }
        let words: Option<Vec<String>> =
            serde_json::from_value(value).map_err(|e| document(super::wire::explain(&e)))?;
        command = words;
    }
    Ok(command.unwrap_or_else(|| source.command.clone()))
}

fn docker(source: &wire::Container) -> Result<DockerConfig, PayloadError> {
    let Some(docker) = &source.docker_config else { return Ok(DockerConfig::default()) };
    let read = |document: &'static str, text: &str| {
        object(text).map_err(|reason| PayloadError::Document {
            container: source.name.clone(),
            document,
            reason,
        })
    };
    Ok(DockerConfig {
        config: read("dockerConfig.config", &docker.config)?,
        host_config: read("dockerConfig.hostConfig", &docker.host_config)?,
    })
}

/// A JSON object as text, its top-level keys lower-cased (Docker's decoder does not mind case).
/// Empty text and `null` are the empty object.
fn object(text: &str) -> Result<BTreeMap<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let read: Result<Option<BTreeMap<String, Value>>, _> = serde_json::from_str(text);
    let members = read.map_err(|e| super::wire::explain(&e))?.unwrap_or_default();
    Ok(members.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect())
}

fn dependencies(source: &wire::Container) -> Result<Vec<Dependency>, PayloadError> {
    let convert = |d: &wire::ContainerDependency| {
        let condition = match d.condition.as_str() {
            "START" => DependencyCondition::Start,
            "COMPLETE" => DependencyCondition::Complete,
            "SUCCESS" => DependencyCondition::Success,
            "HEALTHY" => DependencyCondition::Healthy,
            other => {
                let other: String = other.chars().take(64).collect();
                return Err(PayloadError::Dependencies(format!(
                    "container {:?} waits for {:?} to be {other:?}: \
                     the conditions are START, COMPLETE, SUCCESS and HEALTHY",
                    source.name, d.container_name
                )));
            }
        };
        Ok(Dependency { container: d.container_name.clone(), condition })
    };
    let named: Vec<Dependency> = source.depends_on.iter().map(convert).collect::<Result<_, _>>()?;
    // What has to be there for volumes and links waits its turn like what is asked for.
    let volumes =
        source.volumes_from.iter().map(|v| (v.source_container.as_str(), DependencyCondition::Create));
    let links = source
        .links
        .iter()
        .map(|link| (link.split(':').next().unwrap_or_default(), DependencyCondition::Start));
    let mut all = named;
    for (container, condition) in volumes.chain(links) {
        let implied = Dependency { container: container.to_owned(), condition };
        if !all.contains(&implied) {
            all.push(implied);
        }
    }
    Ok(all)
}

fn timeout(what: &str, seconds: i64) -> Result<Option<Duration>, PayloadError> {
    match seconds {
        0 => Ok(None),
        1..=MAX_TIMEOUT_S => Ok(Some(Duration::from_secs(seconds.unsigned_abs()))),
        other => Err(out_of_bounds(what, other, "0 to 31536000 seconds")),
    }
}

/// Volumes that there are none of, and paths that are none, fail the container's creation: the other
/// containers of the task may run.
fn mounts(source: &wire::Container) -> Result<Vec<MountPoint>, PayloadError> {
    let at = |member: &str| format!("container {:?}: {member}", source.name);
    bounded(&at("mountPoints: their number"), source.mount_points.len() as u64, 1024, "at most 1024")?;
    let convert = |m: &wire::MountPoint| {
        check_path(&at("sourceVolume"), &m.source_volume)?;
        check_path(&at("containerPath"), &m.container_path)?;
        Ok(MountPoint {
            volume: m.source_volume.clone(),
            container_path: m.container_path.clone(),
            read_only: m.read_only,
        })
    };
    source.mount_points.iter().map(convert).collect()
}

fn ports(source: &wire::Container) -> Result<Vec<PortMapping>, PayloadError> {
    let at = |member: &str| format!("container {:?}: {member}", source.name);
    bounded(&at("portMappings: their number"), source.port_mappings.len() as u64, 1024, "at most 1024")?;
    let convert = |m: &wire::PortMapping| {
        let protocol = match m.protocol.as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(bad(&at("protocol"), other, "it must be tcp or udp")),
        };
        let host_port = u16::try_from(m.host_port)
            .map_err(|_| out_of_bounds(&at("hostPort"), m.host_port, "0 to 65535"))?;
        if !m.container_port_range.is_empty() {
            let range = &m.container_port_range;
            let container = port_range(range).ok_or_else(|| {
                bad(&at("containerPortRange"), range, "it must be a-b with 1 <= a <= b <= 65535")
            })?;
            return Ok(PortMapping { container, host_port: 0, protocol });
        }
        let first = u16::try_from(m.container_port).ok().filter(|p| *p > 0);
        let first =
            first.ok_or_else(|| out_of_bounds(&at("containerPort"), m.container_port, "1 to 65535"))?;
        Ok(PortMapping { container: PortRange { first, count: 1, is_range: false }, host_port, protocol })
    };
    source.port_mappings.iter().map(convert).collect()
}

fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    // 1-65535 is 65535 ports: the count still fits.
    (first > 0 && first <= last).then(|| PortRange { first, count: last - first + 1, is_range: true })
}
