//! Containers' output: where its files are, how their lines read, and `ecsd local logs`.
//!
//! The json-file format: one object a line, `{"log":"text\n","stream":"stdout","time":"..."}`, in
//! `<data>/tasks/<task id>/<container>/<container id>-json.log`.

use super::args::LogsArgs;
use super::follow::Follower;
use super::process::Interrupts;
use super::show::{say, short};
use super::statedir::StateDir;
use crate::app::local_host::decode_log_line;
use crate::model::{ContainerId, TaskArn};
use anyhow::bail;
use std::path::{Path, PathBuf};

/// The log file of a container.
pub fn file_of(dir: &StateDir, arn: &TaskArn, container: &str) -> PathBuf {
    let id = ContainerId::derive(arn, container);
    dir.task(arn.id().as_str()).join(container).join(format!("{id}-json.log"))
}

/// The text of one line of a json-file log, without its line end; other lines as they are.
pub fn text_of(line: &str) -> String {
    match decode_log_line(line.as_bytes()) {
        Some(entry) => entry.text.trim_end_matches(['\n', '\r']).to_owned(),
        None => line.to_owned(),
    }
}

/// `ecsd local logs`
pub async fn show(args: LogsArgs) -> anyhow::Result<u8> {
    let dir = StateDir::new(&args.state.dir)?;
    let files = find(&dir, args.of.as_deref());
    if files.is_empty() {
        match &args.of {
            Some(of) => bail!(
                "no task or container '{of}' with a log in {}: see `ecsd local ps`",
                dir.data().join("tasks").display()
            ),
            None => bail!("no container has a log in {} (yet)", dir.data().join("tasks").display()),
        }
    }
    let mut follower = Follower::new()?;
    for (label, path) in files {
        follower.follow_container(&label, path);
    }
    let mut interrupts = Interrupts::new()?;
    if !args.follow {
        follower.finish();
    }
    loop {
        // Cancel-safe: a line stays in its channel, a signal in its stream.
        tokio::select! {
            line = follower.next() => match line {
                Some(line) => say(format_args!("{} | {}", line.source, text_of(&line.text))),
                None => return Ok(0),
            },
            () = interrupts.next() => return Ok(0),
        }
    }
}

/// Labels and files of what `of` means: a container's name, or a task's id or the beginning of it.
fn find(dir: &StateDir, of: Option<&str>) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for task in children(&dir.data().join("tasks")) {
        for container in children(&task) {
            let (id, name) = (name_of(&task), name_of(&container));
            let wanted = of.is_none_or(|of| name == of || (!of.is_empty() && id.starts_with(of)));
            let logs = children(&container).into_iter().filter(|file| name_of(file).ends_with("-json.log"));
            for file in logs.filter(|_| wanted) {
                found.push((format!("{} {name}", short(&id)), file));
            }
        }
    }
    found.sort();
    found
}

fn children(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_json_file_driver() {
        assert_eq!(text_of(r#"{"log":"a \"b\"\n","stream":"stdout","time":"t"}"#), "a \"b\"");
        assert_eq!(text_of("not json"), "not json");
    }

    #[test]
    fn tasks_and_containers_are_found() {
        let root = std::env::temp_dir().join(format!("ecsd-logs-{}", std::process::id()));
        let dir = StateDir::new(&root).unwrap();
        for (task, container) in [("0a1b", "web"), ("0a1b", "db"), ("ff00", "web")] {
            let home = dir.task(task).join(container);
            std::fs::create_dir_all(&home).unwrap();
            std::fs::write(home.join("0000-json.log"), "").unwrap();
            std::fs::write(home.join("hosts"), "").unwrap();
        }
        assert_eq!(find(&dir, None).len(), 3);
        assert_eq!(find(&dir, Some("web")).len(), 2);
        assert_eq!(find(&dir, Some("0a")).len(), 2);
        assert!(find(&dir, Some("x")).is_empty() && find(&dir, Some("")).is_empty());
        std::fs::remove_dir_all(root).unwrap();
    }
}
