//! From what the user calls a task to the files of its containers' logs.
//!
//! `<data>/tasks/<task id>/<container>/` holds `logger.json`, which the log writer was started with: it
//! names the driver, and for json-file the newest file.

use crate::model::TaskArn;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// More than a log writer's configuration has.
const CONFIG_MAX_BYTES: u64 = 4 << 20;
/// Names in a message; more help nobody.
const SHOWN: usize = 10;

/// What the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// What the task may be called, with the container's name that goes with it; the first that fits
    /// counts.
    readings: Vec<(String, Option<String>)>,
    /// The id may be the beginning of one.
    is_prefix: bool,
    text: String,
}

/// A container's log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    /// Name in the task definition.
    pub container: String,
    /// The newest file.
    pub path: PathBuf,
}

/// What there is of a task.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Logs on this host, by container.
    pub logs: Vec<Log>,
    /// Containers whose logs are elsewhere, and their drivers.
    pub elsewhere: Vec<(String, String)>,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    /// No such task.
    #[error(
        "no task {task} in {}: it was cleaned up, or another directory is to be named by --data-dir",
        .tasks.display()
    )]
    NoTask { task: String, tasks: PathBuf },
    /// A beginning of more than one id.
    #[error("{task} is the beginning of more than one task: {}", listed(.ids))]
    Ambiguous { task: String, ids: Vec<String> },
    /// No such container.
    #[error("task {task} has no container {container}; it has {}", listed(.names))]
    NoContainer { task: String, container: String, names: Vec<String> },
    /// Its output goes elsewhere, or nowhere.
    #[error("container {container} has no log on this host: its log driver is {driver}")]
    Elsewhere { container: String, driver: String },
    /// None of its containers has a log here.
    #[error("no container of task {task} has a log on this host (yet)")]
    NoLog { task: String },
    /// Something can't be read.
    #[error("{} can't be read", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

impl Target {
    /// Reads `TASK[/CONTAINER]`. An ARN has slashes of its own.
    ///
    /// # Errors
    /// In words, where it can be neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let own = |container: Option<&str>| container.map(str::to_owned);
        let mut readings: Vec<(String, Option<String>)> = Vec::new();
        let is_arn = text.starts_with("arn:");
        if is_arn {
            let mut read = |arn: &str, container: Option<&str>| {
                // Clusters are as good as ids for the ARN's grammar: the disk decides.
                if let Ok(arn) = TaskArn::parse(arn) {
                    readings.push((arn.id().as_str().to_owned(), own(container)));
                }
            };
            let slashes = text.matches('/').count();
            if slashes <= 2 {
                read(text, None);
            }
            if slashes >= 2
                && let Some((arn, container)) = text.rsplit_once('/')
            {
                read(arn, Some(container));
            }
        } else {
            let (task, container) = match text.split_once('/') {
                Some((task, container)) => (task, Some(container)),
                None => (text, None),
            };
            readings.push((task.to_owned(), own(container)));
        }
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_fit = |text: &String| !text.is_empty() && text.chars().all(fit);
        readings.retain(|(task, container)| is_fit(task) && container.as_ref().is_none_or(is_fit));
        if readings.is_empty() {
            return Err("write a task's ARN or id, perhaps with /CONTAINER".to_owned());
        }
        Ok(Self { readings, is_prefix: !is_arn, text: text.to_owned() })
    }
}

/// The logs of a target, below the directory of all tasks.
///
/// # Errors
/// [`FindError`]
pub(super) fn find(tasks: &Path, target: &Target) -> Result<Found, FindError> {
    let ids = match names_in(tasks) {
        Err(FindError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let no_task = || FindError::NoTask { task: target.text.clone(), tasks: tasks.to_owned() };
    let exact = target.readings.iter().find(|(task, _)| ids.contains(task));
    let (task, container) = match exact {
        Some((task, container)) => (task.clone(), container),
        None if !target.is_prefix => return Err(no_task()),
        None => {
            let (task, container) = target.readings.first().ok_or_else(no_task)?;
            let mut fitting: Vec<String> =
                ids.into_iter().filter(|id| id.starts_with(task.as_str())).collect();
            match fitting.len() {
                0 => return Err(no_task()),
                1 => (fitting.remove(0), container),
                _ => return Err(FindError::Ambiguous { task: task.clone(), ids: fitting }),
            }
        }
    };
    let names = names_in(&tasks.join(&task))?;
    let Some(container) = container else { return all_of(&tasks.join(&task), task, names) };
    if !names.contains(container) {
        return Err(FindError::NoContainer { task, container: container.clone(), names });
    }
    match log_of(&tasks.join(&task).join(container))? {
        Some(Ok(path)) => {
            Ok(Found { logs: vec![Log { container: container.clone(), path }], ..Found::default() })
        }
        Some(Err(driver)) => Err(FindError::Elsewhere { container: container.clone(), driver }),
        None => Err(FindError::NoLog { task: format!("{task}/{container}") }),
    }
}

fn all_of(directory: &Path, task: String, names: Vec<String>) -> Result<Found, FindError> {
    let mut found = Found::default();
    for container in names {
        match log_of(&directory.join(&container))? {
            Some(Ok(path)) => found.logs.push(Log { container, path }),
            Some(Err(driver)) => found.elsewhere.push((container, driver)),
            None => {}
        }
    }
    if !found.logs.is_empty() {
        return Ok(found);
    }
    match found.elsewhere.into_iter().next() {
        Some((container, driver)) => Err(FindError::Elsewhere { container, driver }),
        None => Err(FindError::NoLog { task }),
    }
}

/// The newest file of a container's log, or the driver that has it; `None` where there is none yet.
fn log_of(container: &Path) -> Result<Option<Result<PathBuf, String>>, FindError> {
    #[derive(serde::Deserialize)]
    struct Config {
        driver: String,
        #[serde(default)]
        path: PathBuf,
    }
    let path = container.join("logger.json");
    let failed = |source| FindError::Read { path: path.clone(), source };
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(CONFIG_MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    // It holds the driver's options, perhaps secrets: serde's words may quote them.
    let config: Config = serde_json::from_slice(&text).map_err(|_| {
        failed(std::io::Error::new(ErrorKind::InvalidData, "it is no log writer's configuration"))
    })?;
    if config.driver != "json-file" {
        return Ok(Some(Err(config.driver)));
    }
    match fs::File::open(&config.path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(FindError::Read { path: config.path, source })
        }
        // Not there: not written yet, or just being rotated.
        _ => Ok(Some(Ok(config.path))),
    }
}

/// Names of the directories in one, sorted.
fn names_in(directory: &Path) -> Result<Vec<String>, FindError> {
    let failed = |source| FindError::Read { path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

fn listed(names: &[String]) -> String {
    let more = if names.len() > SHOWN { " and others" } else { "" };
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
