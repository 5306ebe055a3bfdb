//! Which programs make a container: containerd's runtime, and the runc-compatible program that it calls
//! (`Runtime` of `hostConfig`; GPUs and Neuron devices, spec task-engine 1.14). Called by `create.rs`.
//!
//! ```text
//!   a GPU of the task, NVIDIA_VISIBLE_DEVICES      -> nvidia  -> ECS_NVIDIA_RUNTIME
//!   AWS_NEURON_VISIBLE_DEVICES, where it is on     -> neuron  -> the wrapper of AWS's package
//!   hostConfig: "" runc                            -> the agent's own choice
//!               io.containerd.<name>               -> that runtime of containerd
//!               a path, the name of a program      -> that program
//! ```

use crate::containerd::containers::ContainerOptions;
use crate::containerd::create::cannot_create;
use crate::model::{ContainerSpec, GPU_ASSOCIATION, StopReason, TaskSpec, VISIBLE_GPUS};
use std::path::PathBuf;

/// Docker's names for its default.
const DEFAULT: [&str; 3] = ["", "runc", "io.containerd.runc.v2"];
const NVIDIA: &str = "nvidia";
const NVIDIA_PROGRAM: &str = "nvidia-container-runtime";
const NEURON: &str = "neuron";
const NEURON_PROGRAM: &str = "/opt/aws/neuron/bin/oci_neuron_hook_wrapper.sh";
/// Names the Neuron devices of a container.
const VISIBLE_NEURON: &str = "AWS_NEURON_VISIBLE_DEVICES";

/// What makes a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuntimeChoice {
    /// containerd's runtime.
    pub shim: String,
    /// A runc-compatible program; empty is the shim's own choice.
    pub program: String,
}

impl RuntimeChoice {
    /// The agent's own.
    pub fn default_of(options: &ContainerOptions) -> Self {
        Self { shim: options.runtime.clone(), program: options.runtime_binary.clone().unwrap_or_default() }
    }

    /// For a container whose documents ask for `asked`; devices come before that.
    ///
    /// # Errors
    /// Docker's words for a runtime that is not there.
    pub fn of(
        options: &ContainerOptions,
        task: &TaskSpec,
        container: &ContainerSpec,
        asked: Option<&str>,
    ) -> Result<Self, StopReason> {
        let has = |name: &str| container.environment.contains_key(name);
        let gpus = task.associations.iter().any(|association| association.kind == GPU_ASSOCIATION);
        let name = match asked {
            _ if gpus && has(VISIBLE_GPUS) => NVIDIA,
            _ if options.inferentia && has(VISIBLE_NEURON) => NEURON,
            asked => asked.unwrap_or_default(),
        };
        let default = Self::default_of(options);
        if DEFAULT.contains(&name) || name == default.shim {
            return Ok(default);
        }
        // Whether there is such a one only containerd can tell.
        if name.starts_with("io.containerd.") {
            return Ok(Self { shim: name.to_owned(), program: String::new() });
        }
        let wanted = match name {
            NVIDIA => nvidia_program(&options.nvidia_runtime),
            NEURON => NEURON_PROGRAM,
            other => other,
        };
        let missing = || format!("unknown or invalid runtime name: {name}: there is no program {wanted:?}");
        let program = find_program(wanted).ok_or_else(|| cannot_create(missing()))?;
        Ok(Self { program: program.display().to_string(), ..default })
    }

    /// The shim is runc's, and takes its options.
    pub fn is_runc(&self) -> bool {
        self.shim.starts_with("io.containerd.runc.")
    }
}

/// The program that stands behind ECS_NVIDIA_RUNTIME: with dockerd, `nvidia` is its name for this one.
pub fn nvidia_program(configured: &str) -> &str {
    if configured == NVIDIA { NVIDIA_PROGRAM } else { configured }
}

/// A program by its absolute path, or by its name in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let is_program =
        |path: &PathBuf| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file();
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_absolute()).filter(is_program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::logging::LogHost;
    use crate::model::{Association, AssociationContent, TaskArn};

    fn options() -> ContainerOptions {
        ContainerOptions {
            snapshotter: "overlayfs".into(),
            runtime: "io.containerd.runc.v2".into(),
            runtime_binary: Some("/usr/bin/crun".into()),
            systemd_cgroup: false,
            propagate_task_memory: false,
            selinux: false,
            logger_program: PathBuf::new(),
            log_host: LogHost::default(),
            init_program: None,
            shm_dir: PathBuf::new(),
            nvidia_runtime: "nvidia".into(),
            inferentia: true,
        }
    }

    fn choice(asked: &str, variables: &[&str], gpu: bool) -> Result<(String, String), String> {
        let mut task = TaskSpec::empty(TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap());
        task.associations.extend(gpu.then(|| Association {
            containers: vec!["main".into()],
            name: "GPU-1".into(),
            kind: "gpu".into(),
            content: AssociationContent { encoding: String::new(), value: String::new() },
        }));
        let mut container = ContainerSpec::empty("main");
        container.environment.extend(variables.iter().map(|name| ((*name).to_owned(), "0".to_owned())));
        // `true` stands in for the program that gives GPUs.
        let options = ContainerOptions { nvidia_runtime: "true".into(), ..options() };
        let choice = RuntimeChoice::of(&options, &task, &container, Some(asked));
        choice.map(|choice| (choice.shim, choice.program)).map_err(|reason| reason.to_string())
    }

    #[test]
    fn names_stand_for_programs() {
        let default = Ok(("io.containerd.runc.v2".to_owned(), "/usr/bin/crun".to_owned()));
        for name in ["", "runc", "io.containerd.runc.v2"] {
            assert_eq!(choice(name, &[], false), default, "{name}");
        }
        assert_eq!(
            choice("io.containerd.kata.v2", &[], false).unwrap(),
            ("io.containerd.kata.v2".into(), String::new())
        );
        let program = |name: &str| choice(name, &[], false).map(|(_, program)| program);
        assert_eq!(program("/bin/sh").unwrap(), "/bin/sh");
        assert!(program("sh").unwrap().ends_with("/sh"));
        for name in ["no-such-runtime", "/no/such/runtime", "../bin/sh", "/etc/passwd", "/bin"] {
            let words = program(name).unwrap_err();
            assert!(
                words.starts_with("CannotCreateContainerError: unknown or invalid runtime name: "),
                "{words}"
            );
        }
    }

    #[test]
    fn devices_come_before_names() {
        let nvidia = choice("runc", &["NVIDIA_VISIBLE_DEVICES"], true).unwrap();
        assert!(nvidia.1.ends_with("/true"), "{nvidia:?}");
        // Without a GPU of the task's own the variable says nothing.
        assert!(choice("runc", &["NVIDIA_VISIBLE_DEVICES"], false).unwrap().1.ends_with("/crun"));
        assert!(choice("runc", &[], true).unwrap().1.ends_with("/crun"));
        let words = choice("", &["AWS_NEURON_VISIBLE_DEVICES"], false).unwrap_err();
        assert!(words.contains("oci_neuron_hook_wrapper.sh"), "{words}");
        assert_eq!(nvidia_program("nvidia"), "nvidia-container-runtime");
    }
}
