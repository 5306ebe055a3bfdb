//! Volumes of a task (spec/control-plane.md 3.4, spec/task-engine.md 4.1).

use super::{PayloadError, bad, bounded, check_name, unsupported};
use crate::control::acs::wire;
use crate::model::{DockerVolume, VolumeScope, VolumeSource, VolumeSpec};

pub(super) fn convert(volumes: &[wire::Volume]) -> Result<Vec<VolumeSpec>, PayloadError> {
    bounded("volumes: their number", volumes.len() as u64, 1024, "at most 1024")?;
    let mut out: Vec<VolumeSpec> = Vec::with_capacity(volumes.len());
    for volume in volumes {
        check_name("volume name", &volume.name, false)?;
        if out.iter().any(|v| v.name == volume.name) {
            return Err(PayloadError::Duplicate { what: "volumes", name: volume.name.clone() });
        }
        out.push(VolumeSpec { name: volume.name.clone(), source: source(volume)? });
    }
    Ok(out)
}

fn source(volume: &wire::Volume) -> Result<VolumeSource, PayloadError> {
    match volume.r#type.as_str() {
        "" | "host" => host(volume),
        "docker" => docker(volume),
        kind @ ("efs" | "fsxWindowsFileServer" | "amazonebs" | "s3files" | "attachment") => {
            Err(unsupported(&format!("volume {:?} of type {kind:?}", volume.name)))
        }
        other => Err(bad(&format!("volume {:?}: type", volume.name), other, "it is no type of volume")),
    }
}

/// A path that is not absolute is Docker's name of a volume, which is checked where volumes are made.
fn host(volume: &wire::Volume) -> Result<VolumeSource, PayloadError> {
    let what = format!("volume {:?}: host.sourcePath", volume.name);
    let Some(host) = &volume.host else {
        return Err(bad(&what, "", "a volume of type host needs a host member"));
    };
    if host.source_path.is_empty() {
        return Ok(VolumeSource::Task);
    }
    check_path(&what, &host.source_path)?;
    Ok(VolumeSource::HostPath(host.source_path.clone()))
}

/// Any scope but `task` is shared, as to the original.
fn docker(volume: &wire::Volume) -> Result<VolumeSource, PayloadError> {
    let Some(docker) = &volume.docker_volume_configuration else {
        let what = format!("volume {:?}: dockerVolumeConfiguration", volume.name);
        return Err(bad(&what, "", "a volume of type docker needs it"));
    };
    Ok(VolumeSource::Docker(DockerVolume {
        scope: if docker.scope == "task" { VolumeScope::Task } else { VolumeScope::Shared },
        autoprovision: docker.autoprovision,
        driver: docker.driver.clone(),
        options: docker.driver_opts.clone(),
        labels: docker.labels.clone(),
    }))
}

/// Without NUL, and no longer than the kernel takes.
pub(super) fn check_path(what: &str, path: &str) -> Result<(), PayloadError> {
    if path.contains('\0') || path.len() >= 4096 {
        return Err(bad(what, path, "it holds a NUL or is longer than 4095 bytes"));
    }
    Ok(())
}
