//! Which directories of the host a container sees, and where: mount points, binds, mounts, volumes of
//! other containers, and the image's own volumes (spec task-engine 2.3 and 4.1). Pure.
//!
//! ```text
//! resolve ──> Wanted ──(named ones made ready by ports::Volumes)──> Volume ──> groundwork.rs makes what is
//!                                                                   missing, copyup.rs fills what is new
//! ```

use crate::containerd::docker_config::{
    Bind, ContainerSettings, MountRequest, MountSource, Relabel, SharedFrom,
};
use crate::containerd::spec::mounts::{BindMount, clean};
use crate::model::{
    ContainerSpec, LOCAL_DRIVER, MountPoint, StopReason, TaskSpec, VolumeBacking, VolumeFrom, VolumeRequest,
};
use crate::ports::{CreatePlan, VolumeUse};
use oci_spec::image::ImageConfiguration;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One directory that a container is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where; its source is empty until a named volume is ready.
    bind: BindMount,
    origin: Origin,
    copy_up: bool,
    relabel: Relabel,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A path of the host, as it is or made where it is missing.
    Host {
        make: bool,
    },
    Named(VolumeRequest),
    /// A volume without a name: it lives and dies with the container.
    Anonymous,
    /// What another container has mounted.
    OfContainer,
}

/// One directory that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What and where.
    pub bind: BindMount,
    /// Starts with what the image has at its path, while it is empty.
    pub copy_up: bool,
    /// Made where it is missing; else that is an error.
    pub make: bool,
    /// What becomes of its SELinux labels.
    pub relabel: Relabel,
}

/// All volumes of a container. `shared` are the mounts of the containers that it takes volumes from.
///
/// # Errors
/// `HostConfigError` in the original agent's words, and what Docker says, for volumes and paths that can't
/// be.
pub fn resolve(
    plan: &CreatePlan,
    container: &ContainerSpec,
    settings: &ContainerSettings,
    image: &ImageConfiguration,
    shared: Vec<BindMount>,
) -> Result<Vec<Wanted>, StopReason> {
    let driver = settings.volume_driver.as_deref().unwrap_or_default();
    let mut volumes = match &settings.binds {
        Some(binds) => {
            let one = |bind: &Bind| of_bind(&plan.directory, bind, driver);
            binds.iter().map(one).collect::<Result<Vec<_>, _>>()?
        }
        None => container
            .mounts
            .iter()
            .map(|point| of_mount_point(&plan.spec, &plan.name, point))
            .collect::<Result<Vec<_>, _>>()?,
    };
    volumes.extend(settings.mounts.iter().map(|mount| of_mount(&plan.directory, mount)));
    let taken = |volumes: &[Wanted], target: &str| volumes.iter().any(|v| v.bind.target == target);
    let tmpfs: HashSet<String> = settings.tmpfs.keys().filter_map(|path| clean(path)).collect();
    // What the container mounts itself comes before what others share; of these the last counts.
    for bind in shared.into_iter().rev() {
        if !taken(&volumes, &bind.target) && !tmpfs.contains(&bind.target) {
            let (origin, relabel) = (Origin::OfContainer, Relabel::No);
            volumes.push(Wanted { bind, origin, copy_up: false, relabel });
        }
    }
    let of_image = image.config().as_ref().and_then(|c| c.volumes().clone()).unwrap_or_default();
    for path in of_image.iter().chain(&settings.volumes) {
        // An image's own mistake doesn't keep it from running.
        let Some(target) = clean(path).filter(|target| target != "/") else { continue };
        if !taken(&volumes, &target) && !tmpfs.contains(&target) {
            volumes.push(anonymous(&plan.directory, target));
        }
    }
    let without_name = volumes.iter().any(|volume| volume.origin == Origin::Anonymous);
    match without_name && !matches!(driver, "" | LOCAL_DRIVER) {
        true => Err(no_plugin(driver)),
        false => Ok(volumes),
    }
}

/// What is to be made ready before the container can be made, in the order of `wanted`.
pub fn uses(wanted: &[Wanted]) -> Vec<VolumeUse> {
    let one = |wanted: &Wanted| match &wanted.origin {
        Origin::Named(request) => Some(VolumeUse::Named(request.clone())),
        Origin::OfContainer => Some(VolumeUse::At(wanted.bind.source.clone())),
        Origin::Host { .. } | Origin::Anonymous => None,
    };
    wanted.iter().filter_map(one).collect()
}

/// The volumes, now that those of [`uses`] are ready at `paths`.
pub fn ready(wanted: Vec<Wanted>, paths: Vec<PathBuf>) -> Vec<Volume> {
    let mut paths = paths.into_iter();
    let one = |wanted: Wanted| {
        let Wanted { mut bind, origin, copy_up, relabel } = wanted;
        if matches!(origin, Origin::Named(_) | Origin::OfContainer)
            && let Some(path) = paths.next()
        {
            bind.source = path;
        }
        let make = matches!(origin, Origin::Host { make: true } | Origin::Anonymous);
        Volume { bind, copy_up, make, relabel }
    };
    wanted.into_iter().map(one).collect()
}

/// The containers that a container takes volumes from: as the document names them, else as the task
/// definition does.
///
/// # Errors
/// A container that the task does not have, in Docker's words.
pub fn sources(
    task: &TaskSpec,
    container: &ContainerSpec,
    settings: &ContainerSettings,
) -> Result<Vec<VolumeFrom>, StopReason> {
    let Some(named) = &settings.volumes_from else { return Ok(container.volumes_from.clone()) };
    let one = |from: &SharedFrom| {
        let is = |name: &str| {
            let (id, wanted) = (task.container_id(name), from.container.trim_start_matches('/'));
            name == wanted
                || id.as_str() == wanted
                || id.short() == wanted
                || task.docker_name(name) == wanted
        };
        let found = task.containers.iter().find(|other| is(&other.name));
        let missing = || unmade(format!("No such container: {}", from.container));
        let found = found.ok_or_else(missing)?;
        Ok(VolumeFrom { container: found.name.clone(), read_only: from.read_only })
    };
    named.iter().map(one).collect()
}

/// Directory of a volume without a name.
fn anonymous(directory: &Path, target: String) -> Wanted {
    let name = hex::encode(Sha256::digest(target.as_bytes()));
    let source = directory.join("volumes").join(name.get(..16).unwrap_or(&name));
    let bind = BindMount { source, target, ..BindMount::default() };
    Wanted { bind, origin: Origin::Anonymous, copy_up: true, relabel: Relabel::WithProcesses }
}

fn of_bind(directory: &Path, bind: &Bind, driver: &str) -> Result<Wanted, StopReason> {
    let raw = || format!("{}:{}", bind.source, bind.target);
    let target = target(&bind.target, raw)?;
    let mount = BindMount { target, read_only: bind.read_only, ..BindMount::default() };
    if bind.source.is_empty() {
        return Ok(anonymous(directory, mount.target));
    }
    if bind.source.starts_with('/') {
        let source = clean(&bind.source).ok_or_else(|| no_specification(raw(), "the source is too long"))?;
        let mount = BindMount { source: source.into(), propagation: bind.propagation.clone(), ..mount };
        return Ok(of_host(mount, true, bind.relabel));
    }
    let request = VolumeRequest { driver: driver.to_owned(), ..VolumeRequest::local(&bind.source) };
    let relabel = match bind.relabel {
        Relabel::No => Relabel::WithProcesses,
        asked => asked,
    };
    Ok(Wanted { bind: mount, origin: Origin::Named(request), copy_up: !bind.no_copy, relabel })
}

fn of_host(bind: BindMount, make: bool, relabel: Relabel) -> Wanted {
    // The user's own directories are never written to.
    Wanted { bind, origin: Origin::Host { make }, copy_up: false, relabel }
}

fn of_mount(directory: &Path, mount: &MountRequest) -> Wanted {
    let bind = BindMount { target: mount.target.clone(), read_only: mount.read_only, ..BindMount::default() };
    match &mount.source {
        MountSource::Bind { path, propagation, without_submounts, make } => {
            let (source, propagation) = (path.into(), propagation.clone());
            let bind = BindMount { source, propagation, without_submounts: *without_submounts, ..bind };
            of_host(bind, *make, Relabel::No)
        }
        MountSource::Volume { name, .. } if name.is_empty() => anonymous(directory, bind.target),
        MountSource::Volume { name, driver, options, labels, no_copy } => {
            let request = VolumeRequest {
                name: name.clone(),
                driver: driver.clone(),
                options: options.clone(),
                labels: labels.clone(),
            };
            let origin = Origin::Named(request);
            Wanted { bind, origin, copy_up: !no_copy, relabel: Relabel::WithProcesses }
        }
    }
}

fn of_mount_point(task: &TaskSpec, container: &str, point: &MountPoint) -> Result<Wanted, StopReason> {
    let (name, path) = (&point.volume, &point.container_path);
    let refused = |words: String| StopReason::new("HostConfigError", words);
    let volume = task.volume(name).ok_or_else(|| refused(format!("Invalid volume referenced: {name}")))?;
    let backing = task.backing(volume);
    let source = match &backing {
        VolumeBacking::Host(path) => path,
        VolumeBacking::Named(request) => request.name.as_str(),
    };
    if source.is_empty() || path.is_empty() {
        return Err(refused(format!(
            "Unable to resolve volume mounts; invalid path: {container} {name}; {source} -> {path}"
        )));
    }
    let raw = || format!("{source}:{path}");
    let bind = BindMount { target: target(path, raw)?, read_only: point.read_only, ..BindMount::default() };
    match backing {
        VolumeBacking::Host(source) => {
            let source = clean(source).ok_or_else(|| no_specification(raw(), "the source is too long"))?;
            Ok(of_host(BindMount { source: source.into(), ..bind }, true, Relabel::No))
        }
        VolumeBacking::Named(request) => Ok(Wanted {
            bind,
            origin: Origin::Named(request),
            copy_up: true,
            relabel: Relabel::WithProcesses,
        }),
    }
}

fn target(path: &str, raw: impl FnOnce() -> String) -> Result<String, StopReason> {
    match clean(path) {
        None => {
            Err(no_specification(raw(), &format!("invalid mount path: '{path}' mount path must be absolute")))
        }
        Some(target) if target == "/" => {
            Err(no_specification(raw(), "invalid specification: destination can't be '/'"))
        }
        Some(target) => Ok(target),
    }
}

fn no_specification(raw: String, why: &str) -> StopReason {
    unmade(format!("invalid volume specification: '{raw}': {why}"))
}

fn no_plugin(driver: &str) -> StopReason {
    unmade(format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found"))
}

fn unmade(words: String) -> StopReason {
    StopReason::new("CannotCreateContainerError", words)
}

/// Where named volumes are in tests of what follows from them.
#[cfg(test)]
pub(super) fn ready_in_tests(wanted: Vec<Wanted>) -> Vec<Volume> {
    let path = |used: VolumeUse| match used {
        VolumeUse::Named(request) => PathBuf::from(format!("/volumes/{}/_data", request.name)),
        VolumeUse::At(path) => path,
    };
    let paths = uses(&wanted).into_iter().map(path).collect();
    ready(wanted, paths)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
