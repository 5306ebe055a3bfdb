//! The introspection endpoint: what operators, log collectors and the health check ask
//! (spec/local-endpoints-config.md 2).

use super::gojson::opt_time;
use super::metrics;
use super::reply::{Answer, Handler, Reply, RequestHead};
use super::route::query_value;
use super::shapes::{self, PortBody, VolumeBody};
use super::snapshot::{ContainerView, Snapshot, Stage, TaskView};
use crate::model::{CheckStatus, DesiredStatus, InstanceCheck, PullUnderWay, TaskSpec, TaskStatus, Wall};
use hyper::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::watch;

/// Ids up to this many characters are prefixes.
const SHORT_ID: usize = 12;

/// Checks of the instance.
pub trait ChecksLookup: Send + Sync {
    /// Each, as of now. Must answer at once.
    fn checks(&self) -> Vec<InstanceCheck>;
}

/// Pulls of images.
pub trait PullsLookup: Send + Sync {
    /// Those under way, as of now. Must answer at once.
    fn pulls(&self) -> Vec<PullUnderWay>;
}

/// What became of the containers' logs.
pub trait LogsLookup: Send + Sync {
    /// How many messages of a container's log were lost. Must answer at once.
    fn dropped(&self, task: &TaskSpec, container: &str) -> u64;
}

/// Answers on 127.0.0.1:51678.
pub struct IntrospectionHandler {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    version: String,
    checks: Option<Arc<dyn ChecksLookup>>,
    pulls: Option<Arc<dyn PullsLookup>>,
    logs: Option<Arc<dyn LogsLookup>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
struct MetadataBody {
    cluster: String,
    container_instance_arn: Option<String>,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthBody {
    healthy: bool,
    checks: Vec<CheckBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckBody {
    r#type: &'static str,
    status: &'static str,
    #[serde(serialize_with = "opt_time")]
    since: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct PullsBody {
    #[serde(rename = "Pulls")]
    pulls: Vec<PullBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PullBody {
    image: String,
    #[serde(serialize_with = "opt_time")]
    started_at: Option<Wall>,
    bytes_done: u64,
    bytes_total: u64,
    bytes_per_second: u64,
    layers_done: usize,
    layers_total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
}

#[derive(Serialize, Default)]
struct TasksBody {
    #[serde(rename = "Tasks")]
    tasks: Option<Vec<TaskBody>>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
struct TaskBody {
    arn: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    desired_status: &'static str,
    known_status: &'static str,
    family: String,
    version: String,
    containers: Option<Vec<ContainerBody>>,
    /// Of our own, and only there while the task waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerBody {
    docker_id: String,
    docker_name: String,
    name: String,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    created_at: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    started_at: Option<Wall>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortBody>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<VolumeBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_count: Option<u32>,
    /// Of our own, and only there where messages were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_messages_dropped: Option<u64>,
}

impl IntrospectionHandler {
    /// `version` is shown as it is: `Amazon ECS Agent - v<version> (<revision>)`.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, version: String) -> Self {
        Self { snapshots, version, checks: None, pulls: None, logs: None }
    }

    /// Tells of these checks, too.
    pub fn with_checks(self, checks: Arc<dyn ChecksLookup>) -> Self {
        Self { checks: Some(checks), ..self }
    }

    /// Tells of these pulls, too.
    pub fn with_pulls(self, pulls: Arc<dyn PullsLookup>) -> Self {
        Self { pulls: Some(pulls), ..self }
    }

    fn under_way(&self) -> Vec<PullUnderWay> {
        self.pulls.as_ref().map(|pulls| pulls.pulls()).unwrap_or_default()
    }

    /// Tells of the losses of logs, too.
    pub fn with_logs(self, logs: Arc<dyn LogsLookup>) -> Self {
        Self { logs: Some(logs), ..self }
    }

    fn reply(&self, request: &RequestHead<'_>) -> Reply {
        let snapshot = self.snapshots.borrow().clone();
        match request.path {
            "/v1/metadata" => Reply::json(
                StatusCode::OK,
                &MetadataBody {
                    cluster: snapshot.cluster.clone(),
                    container_instance_arn: snapshot.container_instance_arn.clone(),
                    version: self.version.clone(),
                },
            ),
            "/v1/tasks" => tasks(&snapshot, request.query, self.logs.as_deref()),
            "/v1/health" => health(self.checks.as_ref().map(|checks| checks.checks()).unwrap_or_default()),
            "/v1/pulls" => pulls(self.under_way()),
            "/metrics" => Reply::metrics(metrics::page(&self.under_way())),
            "/license" => Reply::text(StatusCode::OK, include_str!("../../LICENSE")),
            _ => Reply::text(
                StatusCode::OK,
                r#"{"AvailableCommands":["/v1/metadata","/v1/tasks","/license"]}"#,
            ),
        }
    }
}

impl Handler for IntrospectionHandler {
    fn answer(&self, request: &RequestHead<'_>) -> Answer {
        Answer::Now(self.reply(request).into_response())
    }
}

/// Not the original's: 200 where the instance is well, 503 with the reason where it is not.
fn health(checks: Vec<InstanceCheck>) -> Reply {
    let healthy = checks.iter().all(|check| check.status != CheckStatus::Impaired);
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = |check: InstanceCheck| CheckBody {
        r#type: check.kind,
        status: check.status.word(),
        since: Some(check.last_change),
        reason: check.reason,
    };
    Reply::json(status, &HealthBody { healthy, checks: checks.into_iter().map(body).collect() })
}

/// Not the original's.
fn pulls(pulls: Vec<PullUnderWay>) -> Reply {
    let body = |pull: PullUnderWay| PullBody {
        image: pull.image,
        started_at: Some(pull.started_at),
        bytes_done: pull.bytes_done,
        bytes_total: pull.bytes_total,
        bytes_per_second: pull.bytes_per_second,
        layers_done: pull.layers_done,
        layers_total: pull.layers_total,
        waiting_for: pull.waiting_for,
    };
    Reply::json(StatusCode::OK, &PullsBody { pulls: pulls.into_iter().map(body).collect() })
}

fn tasks(snapshot: &Snapshot, query: Option<&str>, logs: Option<&dyn LogsLookup>) -> Reply {
    let found = |task: Option<&TaskView>| match task {
        Some(task) => Reply::json(StatusCode::OK, &task_body(task, logs)),
        None => Reply::json(StatusCode::NOT_FOUND, &TaskBody::default()),
    };
    match (query_value(query, "taskarn"), query_value(query, "dockerid")) {
        (Some(_), Some(_)) => Reply::json(StatusCode::BAD_REQUEST, &TaskBody::default()),
        (Some(arn), None) => found(snapshot.tasks.iter().find(|t| t.spec.arn.as_str() == arn).map(|t| &**t)),
        (None, Some(id)) => {
            let matches = |c: &ContainerView<'_>| {
                let own = c.id();
                c.stage() == Stage::Created
                    && if id.len() > SHORT_ID { own == id } else { own.starts_with(id.as_str()) }
            };
            let mut hits = snapshot.containers().filter(matches);
            match (hits.next(), hits.next()) {
                (_, Some(_)) => Reply::json(StatusCode::BAD_REQUEST, &TaskBody::default()),
                (hit, None) => found(hit.map(|c| c.task)),
            }
        }
        (None, None) => {
            let tasks = snapshot.tasks.iter().map(|t| task_body(t, logs)).collect();
            Reply::json(StatusCode::OK, &TasksBody { tasks: Some(tasks) })
        }
    }
}

fn task_body(task: &TaskView, logs: Option<&dyn LogsLookup>) -> TaskBody {
    let (spec, progress) = (&task.spec, &task.progress);
    // A task that ended although it was wanted running says nothing of what is wanted.
    let moot = progress.known == TaskStatus::Stopped && progress.desired != DesiredStatus::Stopped;
    TaskBody {
        arn: spec.arn.as_str().to_owned(),
        desired_status: if moot { "" } else { progress.desired.word() },
        known_status: progress.known.backend_word(),
        family: spec.family.clone(),
        version: spec.version.clone(),
        containers: Some(
            task.containers()
                .filter(|c| c.stage() == Stage::Created)
                .map(|container| container_body(container, logs))
                .collect(),
        ),
        waiting_for: task.waiting_for.clone(),
    }
}

fn container_body(view: ContainerView<'_>, logs: Option<&dyn LogsLookup>) -> ContainerBody {
    let dropped = logs.map(|logs| logs.dropped(&view.task.spec, &view.spec.name));
    let bound = shapes::bound_ports(view, false);
    ContainerBody {
        docker_id: view.id(),
        docker_name: view.task.spec.docker_name(&view.spec.name),
        name: view.spec.name.clone(),
        image: view.spec.image.clone(),
        image_id: shapes::image_id(view),
        created_at: view.progress.and_then(|p| p.created_at),
        started_at: view.progress.and_then(|p| p.started_at),
        ports: if bound.is_empty() { shapes::asked_ports(view) } else { bound },
        volumes: shapes::volumes(view),
        restart_count: view.restart_count(),
        log_messages_dropped: dropped.filter(|count| *count > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_told_in_full() {
        let pull = PullUnderWay {
            image: "r/app:1".into(),
            started_at: Wall(1_700_000_000_000_000_000),
            bytes_done: 1,
            bytes_total: 2,
            bytes_per_second: 3,
            layers_done: 4,
            layers_total: 5,
            waiting_for: None,
        };
        let waits = PullUnderWay { waiting_for: Some("x".into()), ..pull.clone() };
        let body = String::from_utf8(pulls(vec![pull, waits]).body).unwrap();
        let one = r#""Image":"r/app:1","StartedAt":"2023-11-14T22:13:20Z","BytesDone":1,"BytesTotal":2,"BytesPerSecond":3,"LayersDone":4,"LayersTotal":5"#;
        assert_eq!(body, format!("{{\"Pulls\":[{{{one}}},{{{one},\"WaitingFor\":\"x\"}}]}}"));
        assert_eq!(pulls(Vec::new()).body, br#"{"Pulls":[]}"#);
    }
}
