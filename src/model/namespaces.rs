//! Which namespaces the containers of a task share (spec/task-engine.md 1.12), and the container of ours
//! that holds them.

use crate::model::container::{ContainerSpec, Dependency, DependencyCondition};
use crate::model::ids::EndpointId;
use crate::model::task::TaskSpec;
use std::time::Duration;

/// Name of the container that holds shared namespaces; no container of a task definition can have it.
pub const NAMESPACE_HOLDER: &str = "~internal~ecs~pause~namespace";
/// What the metadata endpoint tells as its image, as the original does; it has none.
const HOLDER_IMAGE: &str = "amazon/amazon-ecs-pause:0.1.0";

/// `pidMode`: whose processes a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PidMode {
    /// Its own.
    #[default]
    Unset,
    /// The host's.
    Host,
    /// Those of all containers of the task.
    Task,
}

/// `ipcMode`: with whom a container shares System V objects, POSIX queues and /dev/shm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpcMode {
    /// With nobody.
    #[default]
    Unset,
    /// With nobody, and there is no /dev/shm.
    None,
    /// With the host.
    Host,
    /// With all containers of the task.
    Task,
}

/// What a container is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerKind {
    /// The task definition has it.
    #[default]
    Normal,
    /// It holds the namespaces that the others share. It has no image, and the control plane is never
    /// told of it.
    NamespaceHolder,
}

impl ContainerSpec {
    /// Ours, not the task definition's.
    pub fn is_internal(&self) -> bool {
        self.kind != ContainerKind::Normal
    }

    fn namespace_holder() -> Self {
        Self {
            image: HOLDER_IMAGE.to_owned(),
            kind: ContainerKind::NamespaceHolder,
            // It has nothing to do before it ends.
            stop_timeout: Some(Duration::from_secs(2)),
            // No metadata endpoint is its own.
            endpoint: EndpointId::new(""),
            ..Self::empty(NAMESPACE_HOLDER)
        }
    }
}

impl TaskSpec {
    /// Containers of this task share a namespace that none of them owns.
    fn shares_namespaces(&self) -> bool {
        self.pid_mode == PidMode::Task || self.ipc_mode == IpcMode::Task
    }

    /// The container that holds the shared namespaces, where there are any.
    pub fn namespace_holder(&self) -> Option<&ContainerSpec> {
        self.containers.iter().find(|c| c.kind == ContainerKind::NamespaceHolder)
    }

    /// Adds that container where one is needed: the others wait for it to run, and so it ends after them.
    #[must_use]
    pub fn with_namespace_holder(mut self) -> Self {
        if self.shares_namespaces() && self.namespace_holder().is_none() {
            for container in &mut self.containers {
                let on_holder = Dependency {
                    container: NAMESPACE_HOLDER.to_owned(),
                    condition: DependencyCondition::Start,
                };
                container.depends_on.push(on_holder);
            }
            self.containers.push(ContainerSpec::namespace_holder());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskArn;

    #[test]
    fn a_holder_is_there_where_something_is_shared() {
        let task = |pid_mode, ipc_mode| {
            let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap();
            let containers = vec![ContainerSpec::empty("a"), ContainerSpec::empty("b")];
            TaskSpec { pid_mode, ipc_mode, containers, ..TaskSpec::empty(arn) }.with_namespace_holder()
        };
        for (pid, ipc) in [(PidMode::Unset, IpcMode::None), (PidMode::Host, IpcMode::Host)] {
            assert!(task(pid, ipc).namespace_holder().is_none());
        }
        for (pid, ipc) in [(PidMode::Task, IpcMode::Unset), (PidMode::Host, IpcMode::Task)] {
            let task = task(pid, ipc).with_namespace_holder();
            let internal: Vec<bool> = task.containers.iter().map(ContainerSpec::is_internal).collect();
            assert_eq!(internal, [false, false, true], "one, after the others");
            let waits = |c: &ContainerSpec| c.depends_on.iter().any(|on| on.container == NAMESPACE_HOLDER);
            assert!(waits(&task.containers[0]) && waits(&task.containers[1]) && !waits(&task.containers[2]));
        }
    }
}
