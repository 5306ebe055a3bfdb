//! What containers ask ECS through the agent: whether their task is protected from scale-in, and tags.

use super::Wall;

/// What a task wants of its protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtectionChange {
    /// Protected from now on, or not any more.
    pub enabled: bool,
    /// For how long; ECS has a default and limits.
    pub expires_in_minutes: Option<i32>,
}

/// A task's protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProtection {
    /// The task's ARN.
    pub task: String,
    /// Whether it is protected.
    pub enabled: bool,
    /// Until when.
    pub expires_at: Option<Wall>,
}

/// A task whose protection could not be told or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionFailure {
    /// Its ARN.
    pub arn: Option<String>,
    /// Why, in a word.
    pub reason: Option<String>,
    /// Why, in a sentence.
    pub detail: Option<String>,
}

/// What ECS answered about the protection of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProtectionAnswer {
    /// Tasks of which it tells.
    pub tasks: Vec<TaskProtection>,
    /// Tasks of which it can't.
    pub failures: Vec<ProtectionFailure>,
}

/// ECS said no, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcsRefusal {
    /// HTTP status; `None` where there was no answer.
    pub status: Option<u16>,
    /// The exception; blank where there was no answer.
    pub code: String,
    /// Its words, or what went wrong.
    pub message: String,
    /// By which ECS knows the request.
    pub request_id: Option<String>,
}
