//! Which directories of the host a container sees, and where: mount points, binds, volumes of
//! other containers, and the image's own volumes (spec task-engine 2.3 and 4.1). Pure; the
//! directories are made by `groundwork.rs` and filled by `rootfs.rs`.

use crate::containerd::docker_config::ContainerSettings;
use crate::containerd::spec::mounts::{BindMount, clean};
use crate::model::{ContainerSpec, StopReason, VolumeSource};
use crate::ports::CreatePlan;
use oci_spec::image::ImageConfiguration;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// One directory that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What and where.
    pub bind: BindMount,
    /// Starts with what the image has at its path, while it is empty.
    pub copy_up: bool,
}

/// All volumes of a container. `shared` are the mounts of the containers in its `volumesFrom`.
///
/// # Errors
/// `HostConfigError` in the original agent's words, for volumes and paths that can't be.
pub fn resolve(
    plan: &CreatePlan,
    container: &ContainerSpec,
    settings: &ContainerSettings,
    image: &ImageConfiguration,
    shared: Vec<BindMount>,
) -> Result<Vec<Volume>, StopReason> {
    let mut volumes = match &settings.binds {
        Some(binds) => binds.iter().map(|bind| of_bind(plan, bind)).collect::<Result<Vec<_>, _>>()?,
        None => container
            .mounts
            .iter()
            .map(|point| named(plan, &point.volume, &point.container_path, point.read_only))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let taken = |volumes: &[Volume], target: &str| volumes.iter().any(|v| v.bind.target == target);
    let tmpfs: HashSet<String> = settings.tmpfs.keys().filter_map(|path| clean(path)).collect();
    // What the container mounts itself comes before what others share; of these the last counts.
    for bind in shared.into_iter().rev() {
        if !taken(&volumes, &bind.target) && !tmpfs.contains(&bind.target) {
            volumes.push(Volume { bind, copy_up: false });
        }
    }
    let of_image = image.config().as_ref().and_then(|c| c.volumes().clone()).unwrap_or_default();
    for path in of_image.iter().chain(&settings.volumes) {
        // An image's own mistake doesn't keep it from running.
        let Some(target) = clean(path).filter(|target| target != "/") else { continue };
        if !taken(&volumes, &target) && !tmpfs.contains(&target) {
            let source = anonymous(&plan.directory, &target);
            let bind = BindMount { source, target, read_only: false, propagation: None };
            volumes.push(Volume { bind, copy_up: true });
        }
    }
    Ok(volumes)
}

/// Directory of an image's volume: it lives and dies with the container.
fn anonymous(directory: &Path, target: &str) -> PathBuf {
    let name = hex::encode(Sha256::digest(target.as_bytes()));
    directory.join("volumes").join(name.get(..16).unwrap_or(&name))
}

fn of_bind(plan: &CreatePlan, bind: &crate::containerd::docker_config::Bind) -> Result<Volume, StopReason> {
    if !bind.source.starts_with('/') {
        let mut volume = named(plan, &bind.source, &bind.target, bind.read_only)?;
        volume.bind.propagation = bind.propagation.clone();
        volume.copy_up &= !bind.no_copy;
        return Ok(volume);
    }
    let source = clean(&bind.source).ok_or_else(|| unusable(plan, &bind.source, &bind.target))?;
    let target = target(plan, &bind.source, &bind.target)?;
    let bind = BindMount {
        source: source.into(),
        target,
        read_only: bind.read_only,
        propagation: bind.propagation.clone(),
    };
    Ok(Volume { bind, copy_up: false })
}

fn named(plan: &CreatePlan, name: &str, path: &str, read_only: bool) -> Result<Volume, StopReason> {
    if name.is_empty() {
        return Err(unusable(plan, name, path));
    }
    let unknown = || StopReason::new("HostConfigError", format!("Invalid volume referenced: {name}"));
    let source = plan.volumes.get(name).ok_or_else(unknown)?.clone();
    if !source.is_absolute() {
        return Err(unusable(plan, name, path));
    }
    let declared = plan.spec.volumes.iter().find(|v| v.name == name);
    // The user's own directories are never written to; a volume of the task is Docker's "local" one.
    let copy_up = declared.is_some_and(|v| v.source == VolumeSource::Task);
    let bind = BindMount { source, target: target(plan, name, path)?, read_only, propagation: None };
    Ok(Volume { bind, copy_up })
}

fn target(plan: &CreatePlan, volume: &str, path: &str) -> Result<String, StopReason> {
    clean(path).filter(|target| target != "/").ok_or_else(|| unusable(plan, volume, path))
}

fn unusable(plan: &CreatePlan, volume: &str, path: &str) -> StopReason {
    let words = format!(
        "Unable to resolve volume mounts; invalid path: {} {volume:?} -> {path:?}: both ends must be absolute, and the \
         container's not be its root",
        plan.name
    );
    StopReason::new("HostConfigError", words)
}
