//! `ecsd logs`: what containers wrote, from the files of the log driver json-file. It reads the agent's
//! data directory alone: whether an agent or containerd runs does not matter.

mod find;
mod print;

use crate::app;
use crate::control::chain;
use crate::logs::reader::follower;
use clap::Parser;
use find::{FindError, Target};
use print::Printer;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Exit code of a command line that can't be.
const USAGE: u8 = 2;

/// Print what the containers of a task wrote
#[derive(Debug, Parser)]
#[command(
    name = "ecsd logs",
    bin_name = "ecsd logs",
    long_about = "Print what the containers of a task wrote, from the files of the log driver json-file on this host.\n\n\
        What they wrote to standard error goes to standard error. Where there is more than one container, each \
        line begins with the name of its own. Logs are there until the task is cleaned up: \
        ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION after its end, by default 3 hours.",
    after_help = "Examples:\n  \
        ecsd logs 1a2b3c\n  \
        ecsd logs -f --since 10m 1a2b3c/web\n  \
        ecsd logs --since 2026-11-28T09:00:00Z arn:aws:ecs:eu-west-1:123456789012:task/prod/1a2b3c4d5e6f\n\n\
        Exit codes: 0 done, 1 no such task, container or log, or it can't be read, 2 a command line that can't be."
)]
struct LogsCommand {
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since then: a duration before now, such as 10m or 1h30m, or a time in RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Directory of the agent's data [default: ECS_DATADIR, as this command's own environment or the
    /// agent's JSON file says, else /var/lib/ecs/data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The task's ARN, its id or the beginning of that; and one of its containers by its name
    #[arg(value_name = "TASK[/CONTAINER]", value_parser = Target::parse)]
    of: Target,
}

/// Why nothing more is printed.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    /// There is nothing to read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The data directory is not known.
    #[error("where the agent keeps its data is not known; name it by --data-dir")]
    Config(#[from] crate::config::ConfigError),
    /// Reading failed.
    #[error("logs can't be followed")]
    Read(#[from] std::io::Error),
}

/// Runs the command; `arguments` begin with its own name.
pub(super) fn command(arguments: Vec<String>) -> u8 {
    let command = match LogsCommand::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help goes to standard output, errors to standard error; neither can be helped if it fails.
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { app::DONE };
        }
    };
    match show(command) {
        Ok(()) => app::DONE,
        Err(error) => {
            eprintln!("ecsd logs: {}", chain(&error));
            app::FAILED
        }
    }
}

fn show(command: LogsCommand) -> Result<(), LogsError> {
    let data_dir = match command.data_dir {
        Some(directory) => directory,
        None => app::settings::load_local()?.config.data_dir,
    };
    let found = find::find(&data_dir.join("tasks"), &command.of)?;
    for (container, driver) in &found.elsewhere {
        eprintln!("ecsd logs: container {container} has no log on this host: its log driver is {driver}");
    }
    let (mut files, follower) = follower()?;
    for log in &found.logs {
        files.add_rotated(&log.container, log.path.clone());
    }
    // Without a hand on them what is there now is passed on, and that is all.
    let _kept = command.follow.then_some(files);
    let mut printer = Printer::new(found.logs.len() > 1, command.since);
    // A reader that has seen enough closes the pipe: that is no failure.
    follower.run(|line| printer.line(&line.source, &line.text).is_ok())?;
    let _ = printer.end();
    Ok(())
}

fn since(text: &str) -> Result<SystemTime, String> {
    let epoch = SystemTime::UNIX_EPOCH;
    let before = |ago: Duration| SystemTime::now().checked_sub(ago).map_or(epoch, |at| at.max(epoch));
    let at = humantime::parse_duration(text).map(before);
    at.or_else(|_| humantime::parse_rfc3339_weak(text))
        .map_err(|_| "write a duration such as 10m, or a time such as 2026-11-28T09:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_durations_and_times_and_names_what_it_takes() {
        let at = since("2023-11-14T22:13:20Z").unwrap();
        assert_eq!(at, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(since("2023-11-14 22:13:20").unwrap(), at);
        let then = since("1h30m").unwrap();
        let ago = SystemTime::now().duration_since(then).unwrap();
        assert!(ago >= Duration::from_secs(5400) && ago < Duration::from_secs(5460), "{ago:?}");
        assert_eq!(since("9999999999999s").unwrap(), SystemTime::UNIX_EPOCH);
        for bad in ["", "yesterday", "10", "-5m", "2023-13-01T00:00:00Z"] {
            assert!(since(bad).unwrap_err().contains("10m"), "{bad}");
        }
    }
}
