//! The states that the control plane knows. The order is meaning: every rule compares with `<` and
//! `>=`, and a known status only ever grows (spec/task-engine.md 1.1).

/// Where a container is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ContainerStatus {
    /// Nothing happened yet.
    #[default]
    None,
    /// The image's digest is known.
    ManifestPulled,
    /// The image is unpacked.
    Pulled,
    /// The runtime holds the container; its process has not been started.
    Created,
    /// The process was started.
    Running,
    /// The process has ended, or will never start.
    Stopped,
}

/// Where a task is known to be: the least of its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TaskStatus {
    /// Nothing happened yet (also: waiting for resources).
    #[default]
    None,
    /// Every image's digest is known.
    ManifestPulled,
    /// Every container is created.
    Created,
    /// Every container runs (or ran).
    Running,
    /// Every container has stopped.
    Stopped,
}

/// What the control plane wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DesiredStatus {
    /// Run it.
    #[default]
    Running,
    /// Stop it. Never taken back.
    Stopped,
}

impl ContainerStatus {
    /// The status of a task of which this is the least advanced container.
    pub fn as_task(self) -> TaskStatus {
        match self {
            Self::None => TaskStatus::None,
            Self::ManifestPulled | Self::Pulled => TaskStatus::ManifestPulled,
            Self::Created => TaskStatus::Created,
            Self::Running => TaskStatus::Running,
            Self::Stopped => TaskStatus::Stopped,
        }
    }

    /// The word that the metadata endpoint and the store use.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Pulled => "PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }

    /// The status of that word; `UNKNOWN` and `DEAD` are old spellings.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "NONE" | "UNKNOWN" => Self::None,
            "MANIFEST_PULLED" => Self::ManifestPulled,
            "PULLED" => Self::Pulled,
            "CREATED" => Self::Created,
            "RUNNING" => Self::Running,
            "STOPPED" | "DEAD" => Self::Stopped,
            _ => return None,
        })
    }

    /// The word that the control plane gets: everything before RUNNING is PENDING.
    pub fn backend_word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            _ => "PENDING",
        }
    }
}

impl TaskStatus {
    /// The word that the metadata endpoint and the store use.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }

    /// The status of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "NONE" => Self::None,
            "MANIFEST_PULLED" => Self::ManifestPulled,
            "CREATED" => Self::Created,
            "RUNNING" => Self::Running,
            "STOPPED" => Self::Stopped,
            _ => return None,
        })
    }

    /// The word that the control plane gets: everything before RUNNING is PENDING.
    pub fn backend_word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            _ => "PENDING",
        }
    }
}

impl DesiredStatus {
    /// RUNNING or STOPPED.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}
