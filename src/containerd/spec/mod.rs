//! The OCI runtime spec of a container: a pure function of the plan, the merged Docker documents,
//! the image's configuration, the resolved user, its mounts and facts of the host (spec
//! task-engine 2). Called by `create.rs`; never reads a file, a clock or the environment.
//!
//! ```text
//! plan, settings, image, user, binds, devices, links, host ── build ──> oci_spec::runtime::Spec
//!   process.rs      args, env, cwd, rlimits      mounts.rs   Docker's defaults, ours, the user's
//!   linux.rs        namespaces, devices, masks   seccomp.rs  Docker's filter for the capabilities
//!   resources.rs    cgroup limits, device rules  seccomp_profile.rs  one of the task's own
//!   sysctl.rs       kernel parameters            links.rs    what linked containers are told of
//!   confinement.rs  AppArmor, SELinux            apparmor_profile.rs  the default one's text
//!   capabilities.rs
//! ```

pub mod apparmor_profile;
pub mod capabilities;
pub mod confinement;
pub mod facts;
pub mod files;
pub mod links;
pub mod linux;
pub mod mounts;
pub mod process;
pub mod resources;
pub mod seccomp;
pub mod seccomp_profile;
pub mod seccomp_table;
pub mod shortfalls;
pub mod sysctl;

use crate::containerd::docker_config::ContainerSettings;
use crate::containerd::user::ResolvedUser;
use crate::ports::CreatePlan;
use facts::HostFacts;
use links::LinkedContainer;
use linux::HostDevice;
use mounts::BindMount;
use oci_spec::OciSpecError;
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{RootBuilder, Spec, SpecBuilder};
use std::collections::HashMap;

/// The version of the OCI runtime spec that the document follows: what runc 1.0 reads.
const OCI_VERSION: &str = "1.0.2";

/// Containers with the same value share one shim process (containerd's runc shim).
pub const GROUP_ANNOTATION: &str = "io.containerd.runc.v2.group";

/// Why no spec can be made.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Neither task definition nor image names a program.
    #[error("no command specified: neither the task definition nor the image names one")]
    NoCommand,
    /// The kernel can't take it.
    #[error("the {0} holds a NUL byte")]
    NulByte(&'static str),
    /// Docker refuses it too.
    #[error("the working directory {0:?} is invalid, it needs to be an absolute path")]
    WorkingDirectory(String),
    /// A relative or impossible path.
    #[error("{0:?} is no path to mount at: it needs to be absolute, and not the root")]
    MountPath(String),
    /// Docker's words.
    #[error("Duplicate mount point: {0}")]
    MountedTwice(String),
    /// It would change the host.
    #[error("sysctl {0:?} not allowed in host network mode: it would change the host")]
    HostSysctl(String),
    /// The IPC namespace is the host's.
    #[error("sysctl {0:?} not allowed in host IPC mode: it would change the host")]
    HostIpcSysctl(String),
    /// It holds for the whole host.
    #[error("sysctl {0:?} is not in a separate kernel namespace: it would change the host")]
    UnknownSysctl(String),
    /// Not one of mount(8)'s.
    #[error("Invalid tmpfs option {option:?} of {path:?}")]
    TmpfsOption {
        /// Where it was to be mounted.
        path: String,
        /// What was asked.
        option: String,
    },
    /// Docker's words.
    #[error("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")]
    NoSeccomp,
    /// A builder found a field missing: a bug.
    #[error("the OCI spec could not be put together")]
    Builder(#[from] OciSpecError),
}

/// Everything that the spec depends on.
#[derive(Debug, Clone, Copy)]
pub struct SpecInput<'a> {
    /// What is to be made.
    pub plan: &'a CreatePlan,
    /// What was asked of it.
    pub settings: &'a ContainerSettings,
    /// Its image.
    pub image: &'a ImageConfiguration,
    /// Who it runs as.
    pub user: &'a ResolvedUser,
    /// Its volumes, with clean targets.
    pub binds: &'a [BindMount],
    /// Devices beyond the usual ones.
    pub devices: &'a [HostDevice],
    /// Containers that it is linked to.
    pub links: &'a [LinkedContainer],
    /// Facts of the host.
    pub host: &'a HostFacts,
    /// Its host name.
    pub hostname: &'a str,
}

/// Builds the spec.
///
/// # Errors
/// [`SpecError`] for what can't be run.
pub fn build(input: &SpecInput<'_>) -> Result<Spec, SpecError> {
    let capabilities = process::capability_names(input);
    let group = (GROUP_ANNOTATION.to_owned(), input.plan.spec.id().to_string());
    let builder = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(RootBuilder::default().path("rootfs").readonly(input.settings.read_only_rootfs).build()?)
        .process(process::process(input, &capabilities)?)
        .mounts(mounts::mounts(input)?)
        .annotations(HashMap::from([group]))
        .linux(linux::linux(input, &capabilities)?);
    let mut spec = builder.build()?;
    // Always set: the builder has a default of its own.
    let own_name = !input.settings.namespaces.host_uts;
    spec.set_hostname(own_name.then(|| input.hostname.to_owned()));
    Ok(spec)
}

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod goldens;
#[cfg(test)]
mod tests;
