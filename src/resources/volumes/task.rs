//! The volumes of a task: which there must be, and which are its own (spec task-engine 4.1). What can't
//! be had ends the task, in the original's words.

use super::record::Volume;
use super::{Inner, VolumeError};
use crate::model::{
    DockerVolume, TaskSpec, VolumeBacking, VolumeRequest, VolumeScope, VolumeSource, VolumeSpec,
};
use std::collections::BTreeMap;

/// Makes and finds volumes. Those that a mount point alone asks for are made where one does.
pub(super) fn provide(service: &Inner, spec: &TaskSpec) -> Result<(), String> {
    for volume in &spec.volumes {
        let VolumeBacking::Named(request) = spec.backing(volume) else { continue };
        let mounted = || spec.containers.iter().flat_map(|c| &c.mounts).any(|m| m.volume == volume.name);
        match &volume.source {
            VolumeSource::Docker(docker) => {
                service.locked(&request.name, || of_docker(service, volume, docker, &request))?
            }
            VolumeSource::Task if mounted() => make(service, &request)?,
            // Docker makes one when it makes the container.
            VolumeSource::Task | VolumeSource::HostPath(_) => {}
        }
    }
    Ok(())
}

/// Names of the volumes that end with the task.
pub(super) fn own_volumes(spec: &TaskSpec) -> Vec<String> {
    let named = |volume| match spec.backing(volume) {
        VolumeBacking::Named(request) => Some(request.name),
        VolumeBacking::Host(_) => None,
    };
    spec.volumes.iter().filter(|volume| volume.is_of_task()).filter_map(named).collect()
}

fn make(service: &Inner, request: &VolumeRequest) -> Result<(), String> {
    service.locked(&request.name, || service.make(request)).map(|_| ()).map_err(|error| error.to_string())
}

fn of_docker(
    service: &Inner,
    volume: &VolumeSpec,
    docker: &DockerVolume,
    request: &VolumeRequest,
) -> Result<(), String> {
    let name = &volume.name;
    let words = |error: VolumeError| error.to_string();
    if docker.scope == VolumeScope::Task {
        if docker.autoprovision {
            return Err(format!("volume [{name}] : task scoped volume could not be autoprovisioned"));
        }
        return service.make(request).map(|_| ()).map_err(words);
    }
    match (service.find(name).map_err(words)?, docker.autoprovision) {
        (Some(_), false) => Ok(()),
        (None, false) => Err(format!(
            "initialize volume: volume detection failed, volume '{name}' does not exist and autoprovision is set to \
             false: {}",
            VolumeError::Missing(name.clone())
        )),
        (None, true) => service.make(request).map(|_| ()).map_err(words),
        (Some(found), true) if service.match_full_config => same(&found, docker),
        (Some(_), true) => Ok(()),
    }
}

/// The first word of the first sentence is misspelt in the original, too.
fn same(found: &Volume, wanted: &DockerVolume) -> Result<(), String> {
    if found.labels != wanted.labels {
        return Err(format!(
            "intialize volume: non-autoprovisioned volume does not match existing volume labels: existing: {}, \
             expected: {}",
            go_map(&found.labels),
            go_map(&wanted.labels)
        ));
    }
    if found.options != wanted.options {
        return Err(format!(
            "initialize volume: non-autoprovisioned volume does not match existing volume options: existing: {}, \
             expected: {}",
            go_map(&found.options),
            go_map(&wanted.options)
        ));
    }
    Ok(())
}

/// A map as Go prints it.
fn go_map(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("map[{}]", pairs.join(" "))
}
