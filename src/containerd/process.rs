//! The process of a container: start, wait, signal, kill, delete. "Not there" and "ended already"
//! are success for everything that is to bring about just that.

use crate::containerd::connection::failure;
use crate::containerd::containers::ContainerService;
use crate::containerd::events::{exit_record, now};
use crate::containerd::spec::facts::CgroupVersion;
use crate::model::{ContainerId, ExitRecord, StopReason, Wall};
use crate::ports::ContainerExit;
use containerd_client::services::v1::{
    Container, DeleteTaskRequest, GetContainerRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
    WaitResponse,
};
use containerd_client::types::v1::{Process, Status};
use std::time::Duration;
use tonic::Code;

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// How long to wait for containerd to come back before asking it anyway.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// containerd cleans up after a dead shim within a second or so; a slow disk may take ten.
const DEAD_SHIM_TRIES: u32 = 100;
const DEAD_SHIM_PAUSE: Duration = Duration::from_millis(200);
const DEAD_SHIM_EXIT: Duration = Duration::from_secs(10);
/// From SIGKILL to the end of a process that is to be deleted.
const KILLED_EXIT: Duration = Duration::from_secs(10);

impl ContainerService {
    pub(super) async fn start_process(&self, id: &ContainerId) -> Result<Wall, StopReason> {
        let request = StartRequest { container_id: id.as_str().to_owned(), exec_id: String::new() };
        let Err(status) = self.tasks().start(self.connection.request(request)).await else {
            return Ok(now());
        };
        // The shim's words for a process that was started before, by a call whose answer was lost.
        let words = status.message();
        let before = words.contains("cannot start a running") || words.contains("cannot start a stopped");
        match before {
            true => Ok(now()),
            false => Err(failure("CannotStartContainerError", "start", &status)),
        }
    }

    /// Whoever tells of the exit first is believed: containerd's answer to the wait, or the event that
    /// the shim sent. The wait has a limit, after which the process is looked at, so an exit of which
    /// neither told is found all the same.
    pub(super) async fn wait_for_exit(&self, id: &ContainerId) -> Option<ContainerExit> {
        loop {
            let request = WaitRequest { container_id: id.as_str().to_owned(), exec_id: String::new() };
            // Losing either half loses nothing: both are asked again.
            let answer = tokio::select! {
                answer = self.wait_call(request) => answer,
                exit = self.events.exit_told(id) => return Some(self.judge(id, exit).await),
            };
            match answer {
                Ok(answer) => {
                    let exit = exit_record(answer.exit_status, answer.exited_at.as_ref());
                    return Some(self.judge(id, exit).await);
                }
                Err(status) if status.code() == Code::NotFound => {
                    return self.last_word(id, Duration::ZERO).await;
                }
                Err(status) => {
                    tracing::debug!(container = id.short(), error = status.message(), "wait was interrupted");
                }
            }
            // containerd went away, or the shim did. The process may well live on.
            match self.process(id).await {
                Ok(Some(process)) if process.status == Status::Stopped as i32 => {
                    let exit = exit_record(process.exit_status, process.exited_at.as_ref());
                    return Some(self.judge(id, exit).await);
                }
                // Also said of a process whose shim just died: containerd is ending it, and will tell.
                Ok(None) => return self.last_word(id, DEAD_SHIM_EXIT).await,
                Ok(Some(_)) => self.events.reconnected(ASK_AGAIN / 4).await,
                Err(_) => self.events.reconnected(ASK_AGAIN).await,
            }
        }
    }

    async fn wait_call(&self, request: WaitRequest) -> Result<WaitResponse, tonic::Status> {
        self.tasks().wait(self.connection.request(request)).await.map(tonic::Response::into_inner)
    }

    /// There is no process: an event may have told of its end, where its shim could no longer.
    async fn last_word(&self, id: &ContainerId, patience: Duration) -> Option<ContainerExit> {
        let exit = self.events.exit_within(id, patience).await?;
        Some(self.judge(id, exit).await)
    }

    /// Adds whether something of the container was killed for memory: its cgroup's own counter tells,
    /// and where that is gone an event. On cgroup v1 events can't be believed before it: one that is
    /// about the limit of the whole task comes for each of its containers, killed or not.
    pub(super) async fn judge(&self, id: &ContainerId, exit: ExitRecord) -> ContainerExit {
        let failed = exit.code != Some(0);
        // Under systemd kills are counted for the whole task: each exit takes its own out.
        let is_asked = self.options.systemd_cgroup || failed;
        let counted = if is_asked { self.counted_oom(id).await } else { None };
        let oom_killed = failed
            && match (self.host.cgroups, counted) {
                (CgroupVersion::V1, Some(counted)) => counted,
                (_, counted) => self.events.oom(id) || counted == Some(true),
            };
        if failed {
            // Whoever else looks at this exit gets the same answer.
            self.events.note_oom(id, oom_killed);
        }
        ContainerExit { exit, oom_killed }
    }

    /// `None` where the counter is gone, or not known.
    async fn counted_oom(&self, id: &ContainerId) -> Option<bool> {
        let marks = self.marks(id).await.ok()??;
        self.kills.counted(&marks.cgroup?, self.host.cgroups)
    }

    /// The container's record; `None` where there is none.
    pub(super) async fn record(&self, id: &ContainerId) -> Result<Option<Container>, tonic::Status> {
        let request = GetContainerRequest { id: id.as_str().to_owned() };
        match self.containers().get(self.connection.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().container),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// The container's process; `None` where there is none.
    pub(super) async fn process(&self, id: &ContainerId) -> Result<Option<Process>, tonic::Status> {
        let request = GetRequest { container_id: id.as_str().to_owned(), exec_id: String::new() };
        match self.tasks().get(self.connection.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().process),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub(super) async fn send_stop_signal(&self, id: &ContainerId) -> Result<(), StopReason> {
        let marks = self.marks(id).await;
        let marks = marks.map_err(|s| failure("CannotStopContainerError", "look up", &s))?;
        let Some(marks) = marks else { return Ok(()) };
        self.send(id, marks.stop_signal.unwrap_or(SIGTERM), false).await
    }

    pub(super) async fn kill_all(&self, id: &ContainerId) -> Result<(), StopReason> {
        self.send(id, SIGKILL, true).await
    }

    async fn send(&self, id: &ContainerId, signal: u32, all: bool) -> Result<(), StopReason> {
        let container_id = id.as_str().to_owned();
        let request = KillRequest { container_id, exec_id: String::new(), signal, all };
        let answer = self
            .through_a_dead_shim(|| {
                let (mut tasks, request) = (self.tasks(), self.connection.request(request.clone()));
                async move { tasks.kill(request).await.map(|_| ()) }
            })
            .await;
        match answer {
            Ok(()) => Ok(()),
            Err(status) if status.code() == Code::NotFound || ended(status.message()) => Ok(()),
            Err(status) => Err(failure("CannotStopContainerError", &format!("signal {signal}"), &status)),
        }
    }

    /// Makes a call again while containerd is cleaning up after a shim that died: until it has,
    /// it answers that the connection to the shim is closed; then, that there is no such process.
    async fn through_a_dead_shim<F>(&self, call: impl Fn() -> F) -> Result<(), tonic::Status>
    where
        F: Future<Output = Result<(), tonic::Status>>,
    {
        for _ in 0..DEAD_SHIM_TRIES {
            match call().await {
                Err(status) if status.message().contains("ttrpc: closed") => {}
                answer => return answer,
            }
            // No event tells when: the one of the exit comes before the record is gone.
            tokio::time::sleep(DEAD_SHIM_PAUSE).await;
        }
        call().await
    }

    /// What still runs is killed first: it was given up, or nobody knew that it had started.
    pub(super) async fn delete_process(&self, id: &ContainerId) -> Result<(), StopReason> {
        let mut answer = self.delete_call(id).await;
        if answer.as_ref().is_err_and(still_runs) {
            self.kill_all(id).await?;
            let request = WaitRequest { container_id: id.as_str().to_owned(), exec_id: String::new() };
            // An end that is not told shows in the next answer.
            let _ = tokio::time::timeout(KILLED_EXIT, self.wait_call(request)).await;
            answer = self.delete_call(id).await;
        }
        self.groups.sweep();
        match answer {
            Ok(()) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(failure("CannotRemoveContainerError", "delete the process", &status)),
        }
    }

    async fn delete_call(&self, id: &ContainerId) -> Result<(), tonic::Status> {
        let deletion = self.groups.deleting(id).await;
        let request = DeleteTaskRequest { container_id: id.as_str().to_owned() };
        let answer = self
            .through_a_dead_shim(|| {
                let (mut tasks, request) = (self.tasks(), self.connection.request(request.clone()));
                async move { tasks.delete(request).await.map(|_| ()) }
            })
            .await;
        if answer.as_ref().err().is_none_or(|status| status.code() == Code::NotFound) {
            deletion.done();
        }
        answer
    }
}

/// The shim's words for a process that can't be deleted yet.
fn still_runs(status: &tonic::Status) -> bool {
    let words = ["cannot delete a running process", "must be stopped before deletion"];
    status.code() == Code::FailedPrecondition || words.iter().any(|known| status.message().contains(known))
}

/// runc's and the shim's words for a process that is no more.
fn ended(words: &str) -> bool {
    ["process already finished", "container not running", "process does not exist"]
        .iter()
        .any(|known| words.contains(known))
}
