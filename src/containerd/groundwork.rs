//! What of a container lies in files: its hosts, resolv.conf and hostname, its logger's
//! configuration, the directories of its volumes, the device nodes to copy. Made before the
//! container, on a blocking thread; made again after a crash, with the same result.

use crate::containerd::devices;
use crate::containerd::docker_config::ContainerSettings;
use crate::containerd::logger::{self, LoggedContainer};
use crate::containerd::selinux;
use crate::containerd::spec::files;
use crate::containerd::spec::links::LinkedContainer;
use crate::containerd::spec::linux::HostDevice;
use crate::containerd::volumes::Volume;
use crate::model::{LogError, NetworkMode};
use crate::ports::{CreatePlan, NetworkAttachment};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why the files can't be made.
#[derive(Debug, thiserror::Error)]
pub enum GroundworkError {
    /// A file or directory.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// The log driver's URI could not name it.
    #[error("the path {0:?} can't be named to the logger: use letters, digits, '/', '-', '_', '.'")]
    Path(PathBuf),
    /// A bind whose source nobody makes. Docker's words.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {path}", path = .0.display())]
    NoSource(PathBuf),
    /// The log's tag, or what chooses its attributes.
    #[error(transparent)]
    Log(#[from] LogError),
    /// SELinux labels of a volume.
    #[error("relabel the volume")]
    Relabel(#[from] crate::containerd::relabel::RelabelError),
    /// Device nodes could not be read.
    #[error("devices of the host")]
    Devices(#[source] std::io::Error),
}

impl From<std::io::Error> for GroundworkError {
    fn from(source: std::io::Error) -> Self {
        Self::Io { what: "label files by", path: "/proc/thread-self/attr/fscreate".into(), source }
    }
}

/// Programs that the shim shall run for a container.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The log writer.
    pub logger: PathBuf,
    /// The OCI runtime; `None` is the shim's own choice.
    pub runtime: Option<String>,
}

/// What the rest of the creation needs to know.
#[derive(Debug)]
pub struct Groundwork {
    /// The container's host name.
    pub hostname: String,
    /// Devices beyond the usual ones.
    pub devices: Vec<HostDevice>,
    /// The OCI runtime for this container; `None` is the shim's own choice.
    pub runtime: Option<String>,
    /// URI of its output for the shim; empty is nowhere.
    pub output: String,
    /// An empty directory to mount on.
    pub scratch: PathBuf,
}

/// Makes them all; `label` is what SELinux knows a container's files by, `logged` what its log may tell.
///
/// # Errors
/// [`GroundworkError`]
pub fn lay(
    plan: &CreatePlan,
    settings: &ContainerSettings,
    volumes: &[Volume],
    links: &[LinkedContainer],
    programs: &Programs,
    label: Option<&str>,
    logged: &LoggedContainer,
) -> Result<Groundwork, GroundworkError> {
    let scratch = plan.directory.join("image");
    directory(&scratch)?;
    for volume in volumes {
        let source = &volume.bind.source;
        // A file is as good as a directory; Docker makes what is missing, unless it is told not to.
        match (std::fs::symlink_metadata(source), volume.make) {
            (Ok(_), _) => {}
            (Err(_), true) => directory(source)?,
            (Err(_), false) => return Err(GroundworkError::NoSource(source.clone())),
        }
    }
    let hostname = selinux::labelled(label, || generated_files(plan, settings, links))?;
    let devices = match settings.privileged {
        true => devices::all_and(&settings.devices),
        false => devices::requested(&settings.devices),
    };
    Ok(Groundwork {
        hostname,
        devices: devices.map_err(GroundworkError::Devices)?,
        output: output(plan, settings, logged, &programs.logger)?,
        runtime: runtime(plan, settings, programs)?,
        scratch,
    })
}

/// hosts, resolv.conf and hostname; answers the host name.
fn generated_files(
    plan: &CreatePlan,
    settings: &ContainerSettings,
    links: &[LinkedContainer],
) -> Result<String, GroundworkError> {
    let host_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let of_host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let hosts_name = || of_host().unwrap_or_else(|| plan.id.short().to_owned());
    let (hostname, hosts, own_network) = match &plan.network {
        NetworkAttachment::Host => {
            let name = settings.hostname.clone().unwrap_or_else(hosts_name);
            (name, files::hosts_of_host(&host_file("/etc/hosts"), settings), false)
        }
        NetworkAttachment::Empty | NetworkAttachment::Namespace { .. } => {
            let ipv4 = plan.network.ipv4();
            // In host mode it would have the host's name, had its network not been disabled.
            let name = match (&settings.hostname, plan.spec.network_mode) {
                (Some(name), _) => name.clone(),
                (None, NetworkMode::Host) => hosts_name(),
                (None, _) => plan.id.short().to_owned(),
            };
            let hosts = files::hosts(&name, ipv4, settings, links);
            (name, hosts, true)
        }
    };
    let mut resolvers = host_file("/etc/resolv.conf");
    if own_network && files::is_stub(&resolvers) {
        let real = host_file("/run/systemd/resolve/resolv.conf");
        if !real.is_empty() {
            resolvers = real;
        }
    }
    write(&plan.directory.join("hosts"), hosts.as_bytes(), 0o644)?;
    write(&plan.directory.join("hostname"), format!("{hostname}\n").as_bytes(), 0o644)?;
    let resolv_conf = files::resolv_conf(&resolvers, own_network, settings);
    write(&plan.directory.join("resolv.conf"), resolv_conf.as_bytes(), 0o644)?;
    Ok(hostname)
}

/// The logger's configuration, and the URI that makes the shim start it (spec
/// containerd-and-crates 3). One pair only: the shim gives pairs in random order.
fn output(
    plan: &CreatePlan,
    settings: &ContainerSettings,
    logged: &LoggedContainer,
    program: &Path,
) -> Result<String, GroundworkError> {
    let log = settings.log.clone().unwrap_or_default();
    if !logger::is_needed(&log, settings.tty) {
        return Ok(String::new());
    }
    let path = plan.directory.join(format!("{}-json.log", plan.id));
    let content = logger::content(&log, logged, plain(&path)?)?;
    let file = logger::path(&plan.directory);
    write(&file, content.as_bytes(), 0o600)?;
    Ok(format!("binary://{}?--config={}", plain(program)?, plain(&file)?))
}

/// The OCI runtime. For an input that stays open without a terminal it is a link to the log writer, which
/// opens it and becomes the runtime (`logs::input`).
fn runtime(
    plan: &CreatePlan,
    settings: &ContainerSettings,
    programs: &Programs,
) -> Result<Option<String>, GroundworkError> {
    if !settings.open_stdin || settings.tty {
        return Ok(programs.runtime.clone());
    }
    let link = plan.directory.join("runtime-with-input");
    let runtime = programs.runtime.as_deref().unwrap_or("runc");
    write(&link.with_extension("program"), runtime.as_bytes(), 0o600)?;
    match std::os::unix::fs::symlink(&programs.logger, &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(GroundworkError::Io { what: "link", path: link, source: error })
        }
        _ => Ok(Some(plain(&link)?.to_owned())),
    }
}

/// A path that reads the same inside a URI.
fn plain(path: &Path) -> Result<&str, GroundworkError> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    let text = path.to_str().filter(|text| text.starts_with('/') && text.chars().all(fit));
    text.ok_or_else(|| GroundworkError::Path(path.to_owned()))
}

fn directory(path: &Path) -> Result<(), GroundworkError> {
    let io = |source| GroundworkError::Io { what: "make the directory", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(io)
}

/// Writes a file in place: a container that runs already has this very file mounted.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), GroundworkError> {
    let io = |source| GroundworkError::Io { what: "write", path: path.to_owned(), source };
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode).custom_flags(flags);
    let mut file = options.open(path).map_err(io)?;
    file.write_all(content).map_err(io)
}
