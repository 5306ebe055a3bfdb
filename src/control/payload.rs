//! From a task on the wire to the task that the engine runs, and to the form in which it is stored.
//!
//! The one place where tasks are validated: what leaves here has unique container names fit for
//! paths, parsed documents, numbers in bounds and dependencies that can be met. What ecsd can't do is
//! refused here with its name, never silently left out. The same conversion reads stored tasks back.

mod container;
mod depends;
mod extras;
pub mod interface;
mod log;
mod stored;
mod volume;

pub use stored::{PayloadDecoder, to_stored};

use crate::control::acs::wire;
use crate::model::{
    CredentialsId, DesiredStatus, EndpointId, IpcMode, NetworkMode, PidMode, RoleCredentials, TaskArn,
    TaskSpec,
};

/// More containers than any task definition may have (10), with room.
const MAX_CONTAINERS: usize = 128;
/// The longest name of a family, container or volume (255 in the ECS API).
const MAX_NAME: usize = 255;

/// Why a task can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The ARN can't be used; nothing can be reported of the task.
    #[error(transparent)]
    Arn(#[from] crate::model::ids::IdError),
    /// Nothing to run.
    #[error("the task has no containers")]
    NoContainers,
    /// A number or a list beyond all reason.
    #[error("{what} is {value}: it must be {limits}")]
    OutOfBounds {
        /// Path of the member, such as `container "web": memory`.
        what: String,
        /// What it is.
        value: String,
        /// What it may be.
        limits: &'static str,
    },
    /// A text that can't be used.
    #[error("{what} {value:?} is not usable: {reason}")]
    BadValue {
        /// Path of the member.
        what: String,
        /// What it is, cut to a sensible length.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two containers, or two volumes, of one name.
    #[error("there are two {what} named {name:?}")]
    Duplicate {
        /// `containers` or `volumes`.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// A document that is no JSON, or not the JSON that it must be.
    #[error("container {container:?}: {document} can't be read: {reason}")]
    Document {
        /// Container.
        container: String,
        /// Which one.
        document: &'static str,
        /// What the parser said, without the document's values.
        reason: String,
    },
    /// Something that ecsd does not do.
    #[error("{what} is not supported by this agent")]
    Unsupported {
        /// What, and where.
        what: String,
    },
    /// A network interface that can't be used.
    #[error(transparent)]
    Interface(#[from] interface::InterfaceError),
    /// A GPU that can't be given to who is to have it.
    #[error("{0}")]
    Gpu(String),
    /// A proxy of another type than App Mesh.
    #[error("agent does not support proxy type other than app mesh")]
    Proxy,
    /// Conditions that can never be met: a cycle, an unknown container or condition.
    #[error("{0}")]
    Dependencies(String),
}

impl PayloadError {
    /// The reason that is reported with STOPPED (spec/control-plane.md 3.5, 5.5).
    pub fn stop_reason(&self, arn: &TaskArn) -> String {
        match self {
            Self::Dependencies(_) => format!("Task dependencies cannot be resolved, taskArn: {arn}"),
            // The spelling is the original agent's.
            _ => format!("UnrecogniedTaskError: Error loading task - {self}"),
        }
    }

    /// Whether the payload counts as handled all the same: the original finds bad dependencies only
    /// after it acknowledged.
    pub fn acknowledged(&self) -> bool {
        matches!(self, Self::Dependencies(_))
    }
}

/// What a task on the wire comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// What the control plane wants of it.
    pub desired: DesiredStatus,
    /// What to run.
    pub spec: TaskSpec,
    /// Credentials of the task role.
    pub role: Option<RoleCredentials>,
    /// Credentials of the execution role.
    pub execution_role: Option<RoleCredentials>,
}

/// Converts a task that came from the control plane. Its containers get fresh endpoint ids.
///
/// # Errors
/// [`PayloadError`]
pub fn convert(task: &wire::Task) -> Result<Converted, PayloadError> {
    let converted = convert_with(task, &|_| EndpointId::new(uuid::Uuid::new_v4().to_string()))?;
    check_memory(&converted.spec)?;
    Ok(converted)
}

/// No container may have more than its task (spec/task-engine.md 1.13). Tasks that were taken before are
/// past that.
fn check_memory(spec: &TaskSpec) -> Result<(), PayloadError> {
    let Some(of_task) = spec.memory_mib else { return Ok(()) };
    match spec.containers.iter().find(|container| container.memory_mib > of_task) {
        Some(container) => {
            let what = format!("container {:?}: memory", container.name);
            let why = format!("it must not be more than the task's {of_task} MiB");
            Err(bad(&what, &container.memory_mib.to_string(), why))
        }
        None => Ok(()),
    }
}

/// Converts a task, taking the endpoint ids from `endpoint` by container name.
fn convert_with(task: &wire::Task, endpoint: &dyn Fn(&str) -> EndpointId) -> Result<Converted, PayloadError> {
    let arn = TaskArn::parse(&task.arn)?;
    let desired = match task.desired_status.as_str() {
        "RUNNING" => DesiredStatus::Running,
        "STOPPED" => DesiredStatus::Stopped,
        other => return Err(bad("desiredStatus", other, "it must be RUNNING or STOPPED")),
    };
    if task.containers.is_empty() {
        return Err(PayloadError::NoContainers);
    }
    bounded("containers: their number", task.containers.len() as u64, MAX_CONTAINERS as u64, "at most 128")?;
    check_name("family", &task.family, true)?;
    check_name("version", &task.version, true)?;
    extras::check(task)?;
    refuse_unsupported(task)?;
    let volumes = volume::convert(&task.volumes)?;
    let role = credentials("roleCredentials", task.role_credentials.as_ref())?;
    let execution_role = credentials("executionRoleCredentials", task.execution_role_credentials.as_ref())?;
    let mut containers = Vec::with_capacity(task.containers.len());
    for source in &task.containers {
        let mut spec = container::convert(source, endpoint)?;
        log::complete(&mut spec.docker.host_config, source, &arn.id(), execution_role.as_ref())?;
        if containers.iter().any(|c: &crate::model::ContainerSpec| c.name == spec.name) {
            return Err(PayloadError::Duplicate { what: "containers", name: spec.name });
        }
        containers.push(spec);
    }
    extras::give_gpus(task, &mut containers)?;
    depends::check(&containers)?;
    let id = |c: &Option<RoleCredentials>| -> Option<CredentialsId> { c.as_ref().map(|c| c.id.clone()) };
    let spec = TaskSpec {
        arn,
        family: task.family.clone(),
        version: task.version.clone(),
        network_mode: network_mode(&task.network_mode)?,
        pid_mode: pid_mode(&task.pid_mode)?,
        ipc_mode: ipc_mode(&task.ipc_mode)?,
        cpu: cpu_units(task.cpu)?,
        memory_mib: Some(mib("memory", task.memory)?).filter(|m| *m > 0),
        containers,
        volumes,
        launch_type: task.launch_type.clone(),
        service_name: task.service_name.clone(),
        task_role: id(&role),
        execution_role: id(&execution_role),
        associations: extras::associations(task)?,
    };
    Ok(Converted { desired, spec: spec.with_namespace_holder(), role, execution_role })
}

fn network_mode(word: &str) -> Result<NetworkMode, PayloadError> {
    match word {
        "" | "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        "awsvpc" => Err(unsupported("network mode awsvpc")),
        other => Err(bad("networkMode", other, "it must be bridge, host or none")),
    }
}

fn pid_mode(word: &str) -> Result<PidMode, PayloadError> {
    match word {
        "" => Ok(PidMode::Unset),
        "host" => Ok(PidMode::Host),
        "task" => Ok(PidMode::Task),
        other => Err(bad("pidMode", other, "it must be host or task")),
    }
}

fn ipc_mode(word: &str) -> Result<IpcMode, PayloadError> {
    match word {
        "" => Ok(IpcMode::Unset),
        "none" => Ok(IpcMode::None),
        "host" => Ok(IpcMode::Host),
        "task" => Ok(IpcMode::Task),
        other => Err(bad("ipcMode", other, "it must be host, task or none")),
    }
}

/// What a task may ask that ecsd has no answer to. Leaving it out would run something else than
/// what was asked.
fn refuse_unsupported(task: &wire::Task) -> Result<(), PayloadError> {
    let refused: [(bool, &str); 1] =
        [(task.containers.iter().any(|c| !c.credential_specs.is_empty()), "a credential spec (gMSA)")];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, what)) => Err(unsupported(what)),
        None => Ok(()),
    }
}

fn credentials(
    what: &str,
    wire: Option<&wire::RoleCredentials>,
) -> Result<Option<RoleCredentials>, PayloadError> {
    let Some(wire) = wire else { return Ok(None) };
    from_wire_credentials(wire).map(Some).ok_or_else(|| bad(what, "", "credentialsId is empty"))
}

/// Role credentials in model terms; `None` without an id.
pub fn from_wire_credentials(wire: &wire::RoleCredentials) -> Option<RoleCredentials> {
    (!wire.credentials_id.is_empty()).then(|| RoleCredentials {
        id: CredentialsId(wire.credentials_id.clone()),
        role_arn: wire.role_arn.clone(),
        access_key_id: wire.access_key_id.clone(),
        secret_access_key: wire.secret_access_key.clone(),
        session_token: wire.session_token.clone(),
        expiration: wire.expiration.clone(),
    })
}

/// vCPUs to CPU units.
fn cpu_units(vcpus: f64) -> Result<Option<u64>, PayloadError> {
    const MOST: f64 = 16_384.0;
    if !(0.0..=MOST).contains(&vcpus) {
        return Err(out_of_bounds("cpu", vcpus, "0 to 16384 vCPUs"));
    }
    // In bounds, so the cast is exact.
    Ok(Some((vcpus * 1024.0).round() as u64).filter(|units| *units > 0))
}

/// A non-negative number of MiB that still fits when counted in bytes.
fn mib(what: &str, value: i64) -> Result<u64, PayloadError> {
    match u64::try_from(value) {
        Ok(value) if value <= 1 << 30 => Ok(value),
        _ => Err(out_of_bounds(what, value, "0 to 1073741824 MiB")),
    }
}

fn bounded(what: &str, value: u64, most: u64, limits: &'static str) -> Result<(), PayloadError> {
    if value <= most { Ok(()) } else { Err(out_of_bounds(what, value, limits)) }
}

fn out_of_bounds(what: &str, value: impl ToString, limits: &'static str) -> PayloadError {
    PayloadError::OutOfBounds { what: what.to_owned(), value: value.to_string(), limits }
}

fn bad(what: &str, value: &str, reason: impl Into<String>) -> PayloadError {
    PayloadError::BadValue {
        what: what.to_owned(),
        value: value.chars().take(128).collect(),
        reason: reason.into(),
    }
}

fn unsupported(what: &str) -> PayloadError {
    PayloadError::Unsupported { what: what.to_owned() }
}

/// Names become parts of paths, labels and container names.
fn check_name(what: &str, name: &str, may_be_empty: bool) -> Result<(), PayloadError> {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() && !may_be_empty {
        return Err(bad(what, name, "it is empty"));
    }
    if name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(fit) {
        let rule = "at most 255 letters, digits, '-', '_' and '.', not beginning with '.'";
        return Err(bad(what, name, rule));
    }
    Ok(())
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
