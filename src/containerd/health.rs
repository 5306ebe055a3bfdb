//! Health checks, run as processes within their containers: the implementation of
//! [`crate::ports::HealthChecks`].
//!
//! ```text
//!  open ──> the container's record: its check, its process
//!  start ─> Tasks.Exec, Tasks.Start      wait ─> its event (Tasks.Wait)      end ─> (Tasks.Kill) Tasks.Delete
//! ```
//! A run is the container's own process with other arguments: its user, environment, directory,
//! capabilities, filters. There is one name for all runs of a container, so there is never more than one
//! at a time, and what a life of the agent left behind is found by the next. Nothing here decides what a
//! result means, or when to run.

pub(super) mod ends;
mod output;
pub(super) mod stored;

use crate::containerd::Connection;
use crate::containerd::calls::Calls;
use crate::containerd::connection::failure;
use crate::containerd::containers::ContainerService;
use crate::model::{ContainerId, StopReason};
use crate::ports::{HealthChecks, HealthProbe, OpenedCheck, ProbeError};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    DeleteProcessRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest,
};
use ends::EndsOf;
use futures_util::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};
use output::Output;
use prost_types::Any;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Status};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Name of every run's process within its container.
pub(super) const EXEC_ID: &str = "ecsd-health";
const SIGKILL: u32 = 9;
/// How long the event stream has to tell of an end before containerd is asked.
const TELLING: Duration = Duration::from_secs(1);
/// How long each step of ending a run may take.
const CALL: Duration = Duration::from_secs(15);

impl HealthChecks for ContainerService {
    fn open<'a>(
        &'a self,
        id: &'a ContainerId,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<Option<OpenedCheck>, StopReason>> {
        Box::pin(async move {
            let cannot = |words: String| StopReason::new("CannotInspectContainerError", words);
            let record = self.record(id).await;
            let record = record.map_err(|s| failure("CannotInspectContainerError", "look up", &s))?;
            let Some(record) = record else { return Ok(None) };
            let check = stored::check(&record.extensions).map_err(|e| cannot(e.to_string()))?;
            let Some(check) = check else { return Ok(None) };
            let spec = record.spec.unwrap_or_default().value;
            let process = process(&spec, &check.command).map_err(|e| cannot(e.to_string()))?;
            let output = Output::new(directory)
                .map_err(|error| cannot(format!("a pipe in {}: {error}", directory.display())))?;
            let connection = self.connection.clone();
            let ends = self.events.ends.of(id.as_str());
            let probe = Probe { connection, id: id.clone(), process, output, ends, run: Run::None };
            Ok(Some((check, Box::new(probe) as Box<dyn HealthProbe>)))
        })
    }
}

/// The container's process with another command, and without its terminal.
fn process(spec: &[u8], command: &[String]) -> Result<Any, serde_json::Error> {
    let mut spec: serde_json::Value = serde_json::from_slice(spec)?;
    let mut process = spec.get_mut("process").map(serde_json::Value::take).unwrap_or_default();
    if let Some(members) = process.as_object_mut() {
        members.insert("args".to_owned(), command.into());
        members.insert("terminal".to_owned(), false.into());
        members.remove("consoleSize");
    }
    Ok(Any { type_url: PROCESS_TYPE.to_owned(), value: serde_json::to_vec(&process)? })
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// There is none.
    None,
    /// It may have been made.
    Begun,
    /// Its process, by the host's number.
    Started(u32),
    /// Its process has ended.
    Ended,
}

struct Probe {
    connection: Connection,
    id: ContainerId,
    process: Any,
    output: Output,
    ends: EndsOf,
    run: Run,
}

impl HealthProbe for Probe {
    fn start(&mut self) -> BoxFuture<'_, Result<(), ProbeError>> {
        Box::pin(async {
            self.run = Run::Begun;
            let made = match self.exec().await {
                // Of an earlier life of the agent, or one that could not be ended.
                Err(status) if status.code() == Code::AlreadyExists => {
                    self.remove().await;
                    self.run = Run::Begun;
                    self.exec().await
                }
                made => made,
            };
            if let Err(status) = made {
                let error = not_run(&status);
                if matches!(error, ProbeError::Unreachable(_)) {
                    // Whoever is not there can't be asked to remove anything; the next run will look.
                    self.run = Run::None;
                }
                return Err(error);
            }
            let request = StartRequest { container_id: self.container(), exec_id: EXEC_ID.to_owned() };
            let started = self.tasks().start(self.connection.request(request)).await;
            let pid = started.map_err(|status| not_run(&status))?.into_inner().pid;
            self.run = Run::Started(pid);
            Ok(())
        })
    }

    fn wait(&mut self) -> BoxFuture<'_, Result<i32, ProbeError>> {
        Box::pin(async {
            let (mut tasks, connection, request) = (self.tasks(), &self.connection, self.wait_request());
            let asked = async {
                tokio::time::sleep(TELLING).await;
                // A wait has a limit (`calls`); who waits knows how long the check may take.
                loop {
                    match tasks.wait(connection.request(request.clone())).await {
                        Err(status) if status.code() == Code::DeadlineExceeded => {}
                        answer => return answer.map(|answer| answer.into_inner().exit_status),
                    }
                }
            };
            let (run, ends) = (self.run, &mut self.ends);
            let told = async {
                match run {
                    Run::Started(pid) => ends.told(pid).await,
                    _ => std::future::pending().await,
                }
            };
            // Output is taken meanwhile, lest the process waits for its reader.
            let code = tokio::select! {
                code = told => code,
                answer = asked => answer.map_err(|status| not_run(&status))?,
                () = self.output.follow() => return Err(ProbeError::Unreachable("its output".to_owned())),
            };
            self.run = Run::Ended;
            Ok(i32::try_from(code).unwrap_or(-1))
        })
    }

    fn end(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            if self.run != Run::None {
                self.remove().await;
            }
            self.output.take()
        })
    }
}

impl Probe {
    fn tasks(&self) -> TasksClient<Calls> {
        TasksClient::new(self.connection.channel())
    }

    fn container(&self) -> String {
        self.id.as_str().to_owned()
    }

    fn wait_request(&self) -> WaitRequest {
        WaitRequest { container_id: self.container(), exec_id: EXEC_ID.to_owned() }
    }

    async fn exec(&self) -> Result<(), Status> {
        let output = self.output.path().display().to_string();
        let request = ExecProcessRequest {
            container_id: self.container(),
            exec_id: EXEC_ID.to_owned(),
            stdout: output.clone(),
            stderr: output,
            spec: Some(self.process.clone()),
            ..ExecProcessRequest::default()
        };
        self.tasks().exec(self.connection.request(request)).await.map(|_| ())
    }

    /// Kills what runs, and deletes what is known of it. What can't be had now is tried again before the
    /// next run.
    async fn remove(&mut self) {
        if self.run != Run::Ended {
            self.kill().await;
        }
        let request = DeleteProcessRequest { container_id: self.container(), exec_id: EXEC_ID.to_owned() };
        let mut tasks = self.tasks();
        let delete = timeout(CALL, tasks.delete_process(self.connection.request(request)));
        // The shim passes on the last of the output before it answers.
        let answer = tokio::select! { answer = delete => answer, () = self.output.follow() => return };
        self.run = Run::None;
        if let Ok(Err(status)) = answer
            && status.code() != Code::NotFound
        {
            let error = status.message();
            tracing::debug!(container = self.id.short(), error, "a health check's process was not deleted");
        }
    }

    async fn kill(&mut self) {
        if let Run::Started(pid) = self.run {
            kill_group(pid, &self.id);
        }
        let (container_id, exec_id) = (self.container(), EXEC_ID.to_owned());
        let request = KillRequest { container_id, exec_id, signal: SIGKILL, all: false };
        let mut tasks = self.tasks();
        let kill = timeout(CALL, tasks.kill(self.connection.request(request)));
        // One that was made and not started, or that is not there, is not waited for.
        if !matches!(kill.await, Ok(Ok(_))) && !matches!(self.run, Run::Started(_)) {
            return;
        }
        let mut tasks = self.tasks();
        let wait = timeout(CALL, tasks.wait(self.connection.request(self.wait_request())));
        tokio::select! { _ = wait => {}, () = self.output.follow() => {} }
    }
}

/// Kills what a run has started, too: a shell's commands would else go on in the container after each
/// timeout, more and more of them. runc gives each process that enters a container a session of its own.
/// Only where that number surely is this run's: in the container's cgroup, and the first of its group.
fn kill_group(pid: u32, container: &ContainerId) {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Ok(pid) = i32::try_from(pid).map(Pid::from_raw) else { return };
    if cgroups.contains(container.as_str()) && getpgid(Some(pid)) == Ok(pid) {
        // It may have ended just now.
        let _ = killpg(pid, Signal::SIGKILL);
    }
}

/// What an error of containerd says of a run.
fn not_run(status: &Status) -> ProbeError {
    let words = status.message().to_owned();
    let unreachable = matches!(status.code(), Code::Unavailable | Code::NotFound | Code::Cancelled)
        || words.contains("ttrpc: closed");
    match unreachable {
        true => ProbeError::Unreachable(words),
        false => ProbeError::Failed(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_run_is_the_containers_process_with_another_command() {
        let spec = json!({"process": {"args": ["/bin/app"], "terminal": true, "consoleSize": {"height": 1, "width": 1},
            "user": {"uid": 33}, "cwd": "/srv", "env": ["A=1"], "apparmorProfile": "x"}, "root": {}});
        let any = process(spec.to_string().as_bytes(), &["/bin/true".into(), "x".into()]).unwrap();
        let process: Value = serde_json::from_slice(&any.value).unwrap();
        let want = json!({"args": ["/bin/true", "x"], "terminal": false, "user": {"uid": 33}, "cwd": "/srv",
            "env": ["A=1"], "apparmorProfile": "x"});
        assert_eq!(process, want);
    }

    #[test]
    fn what_is_no_fault_of_the_container_says_nothing_of_it() {
        let kind = |code, words: &str| not_run(&Status::new(code, words));
        assert!(matches!(kind(Code::Unavailable, "connection error"), ProbeError::Unreachable(_)));
        assert!(matches!(kind(Code::Unknown, "ttrpc: closed: unknown"), ProbeError::Unreachable(_)));
        assert!(matches!(kind(Code::NotFound, "no running process"), ProbeError::Unreachable(_)));
        assert!(matches!(kind(Code::Unknown, "OCI runtime exec failed"), ProbeError::Failed(_)));
    }
}
