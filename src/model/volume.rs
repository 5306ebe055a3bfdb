//! Volumes: what a task definition says of them, and which of the host's stands behind each.

use crate::model::ids::ContainerId;
use crate::model::task::TaskSpec;
use std::collections::BTreeMap;

/// The one driver that there is, by Docker's name.
pub const LOCAL_DRIVER: &str = "local";

/// A volume of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Name.
    pub name: String,
    /// What backs it.
    pub source: VolumeSource,
}

/// What backs a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A directory of the host; a text that is no absolute path is the name of one of its volumes.
    HostPath(String),
    /// A directory that lives as long as the task.
    Task,
    /// What `dockerVolumeConfiguration` says.
    Docker(DockerVolume),
}

/// `dockerVolumeConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerVolume {
    /// Whose it is.
    pub scope: VolumeScope,
    /// It is made where it is missing; else it must be there. Of shared ones only.
    pub autoprovision: bool,
    /// Driver; empty is `local`.
    pub driver: String,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// How long a Docker volume lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeScope {
    /// As long as its task.
    Task,
    /// For ever, for whichever task names it.
    Shared,
}

/// A named volume of the host, as whoever needs it would make it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeRequest {
    /// Its name on the host.
    pub name: String,
    /// Driver; empty is `local`.
    pub driver: String,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What of the host stands behind a volume of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeBacking<'a> {
    /// A path.
    Host(&'a str),
    /// A named volume.
    Named(VolumeRequest),
}

impl VolumeRequest {
    /// A volume of the driver `local` without options.
    pub fn local(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

impl VolumeSpec {
    /// It ends with its task.
    pub fn is_of_task(&self) -> bool {
        match &self.source {
            VolumeSource::HostPath(_) => false,
            VolumeSource::Task => true,
            VolumeSource::Docker(volume) => volume.scope == VolumeScope::Task,
        }
    }
}

impl TaskSpec {
    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&VolumeSpec> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// What stands behind one of the task's volumes.
    pub fn backing<'a>(&self, volume: &'a VolumeSpec) -> VolumeBacking<'a> {
        match &volume.source {
            VolumeSource::HostPath(path) if path.is_empty() || path.starts_with('/') => {
                VolumeBacking::Host(path)
            }
            // Docker takes the source of a bind that is no path for the name of a volume.
            VolumeSource::HostPath(name) => VolumeBacking::Named(VolumeRequest::local(name)),
            VolumeSource::Task => {
                VolumeBacking::Named(VolumeRequest::local(self.docker_volume_name(&volume.name)))
            }
            VolumeSource::Docker(docker) => VolumeBacking::Named(VolumeRequest {
                name: match docker.scope {
                    VolumeScope::Task => self.docker_volume_name(&volume.name),
                    VolumeScope::Shared => volume.name.clone(),
                },
                driver: docker.driver.clone(),
                options: docker.options.clone(),
                labels: docker.labels.clone(),
            }),
        }
    }

    /// The name on the host of a volume of the task's own: `ecs-<family>-<revision>-<name>-<hex>`, as the
    /// original's, its tail derived and not random. Fit for a file's name.
    fn docker_volume_name(&self, name: &str) -> String {
        /// Of a file's name 255 bytes are left for it, the dash and 20 digits.
        const LONGEST_HEAD: usize = 234;
        // No container has a blank in its name.
        let id = ContainerId::derive(&self.arn, &format!("volume {name}"));
        let mut head = format!("ecs-{}-{}-{name}", self.family, self.version);
        while head.len() > LONGEST_HEAD {
            head.pop();
        }
        format!("{head}-{}", id.as_str().get(44..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskArn;

    fn task(id: &str, family: &str) -> TaskSpec {
        let arn = TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap();
        TaskSpec { family: family.into(), version: "7".into(), ..TaskSpec::empty(arn) }
    }

    fn name_of(task: &TaskSpec, source: VolumeSource) -> String {
        match task.backing(&VolumeSpec { name: "v".into(), source }) {
            VolumeBacking::Host(path) => path.to_owned(),
            VolumeBacking::Named(request) => request.name,
        }
    }

    #[test]
    fn volumes_of_tasks_are_named_like_the_originals_and_never_alike() {
        let name = name_of(&task("a", "web"), VolumeSource::Task);
        assert!(name.starts_with("ecs-web-7-v-") && name.len() == "ecs-web-7-v-".len() + 20, "{name}");
        assert_eq!(name, name_of(&task("a", "web"), VolumeSource::Task), "a crash finds it again");
        assert_ne!(name, name_of(&task("b", "web"), VolumeSource::Task));
        let (long, other) = ("f".repeat(255), task("a", &"f".repeat(254)));
        let long = name_of(&task("a", &long), VolumeSource::Task);
        assert_eq!(long.len(), 255);
        assert_eq!(long, name_of(&other, VolumeSource::Task), "the tail tells tasks apart, not the head");
    }

    #[test]
    fn shared_volumes_and_names_in_place_of_paths_keep_their_names() {
        let docker = |scope| {
            VolumeSource::Docker(DockerVolume {
                scope,
                autoprovision: true,
                driver: String::new(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
            })
        };
        let task = task("a", "web");
        assert_eq!(name_of(&task, docker(VolumeScope::Shared)), "v");
        assert!(name_of(&task, docker(VolumeScope::Task)).starts_with("ecs-web-7-v-"));
        assert_eq!(name_of(&task, VolumeSource::HostPath("named".into())), "named");
        assert_eq!(name_of(&task, VolumeSource::HostPath("/srv".into())), "/srv");
    }
}
