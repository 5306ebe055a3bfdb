//! The same task definitions, run by the whole agent.

use super::cases::{Case, image};
use super::scripted::{arn, fresh_id};
use super::seen::{Seen, Surroundings};
use super::{AT_ONCE, own_mounts};
use crate::support::backend::{Backend, CLUSTER_ARN, Channel, Connection, INSTANCE};
use crate::support::containerd::TempDir;
use crate::support::host::{Host, PATIENCE};
use crate::support::sigv4;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

pub async fn run(cases: &[Case]) -> BTreeMap<String, Seen> {
    let base = TempDir::new("parity-agent");
    own_mounts(base.path());
    let mut agent = Agent::start().await;
    let mut all = BTreeMap::new();
    let mut left = cases;
    while !left.is_empty() {
        let mut containers = 0;
        let fits = |case: &&Case| {
            containers += case.containers.len();
            containers <= AT_ONCE
        };
        let (batch, rest) = left.split_at(left.iter().take_while(fits).count());
        left = rest;
        let ids: Vec<String> = batch.iter().map(|_| fresh_id()).collect();
        let tasks = batch.iter().zip(&ids).map(|(case, id)| case.payload(&arn(id), base.path()));
        let mut tasks: Vec<Value> = tasks.collect();
        agent.send(&tasks).await;
        for (case, id) in batch.iter().zip(&ids) {
            all.insert(case.name.clone(), agent.seen(case, id, base.path()).await);
        }
        tasks.iter_mut().for_each(|task| task["desiredStatus"] = "STOPPED".into());
        agent.send(&tasks).await;
        for id in &ids {
            agent.reported(id, "STOPPED").await;
        }
    }
    all
}

struct Agent {
    host: Host,
    backend: Backend,
    acs: Connection,
    /// Newest report of each task.
    reports: BTreeMap<String, Value>,
}

impl Agent {
    async fn start() -> Self {
        let mut backend = Backend::start().await;
        let mut host = Host::new().await;
        let archive = host.dir.path().join("image.tar");
        std::fs::write(&archive, image()).unwrap();
        let connection = ecsd::containerd::Connection::new(host.containerd.socket(), "ecs").unwrap();
        let images = ecsd::containerd::ImageService::new(connection, Default::default());
        images.import(&archive).await.unwrap();
        host.set("AWS_SECRET_ACCESS_KEY", sigv4::SECRET);
        host.set("AWS_DEFAULT_REGION", sigv4::REGION);
        host.set("ECS_CLUSTER", "peer");
        host.set("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached");
        host.start_agent_at(backend.endpoint());
        let acs = backend.accept(Channel::Acs).await;
        Self { host, backend, acs, reports: BTreeMap::new() }
    }

    async fn send(&mut self, tasks: &[Value]) {
        let id = uuid::Uuid::new_v4().to_string();
        let message = json!({"messageId": id, "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE,
            "seqNum": 1, "tasks": tasks});
        self.acs.send("PayloadMessage", message).await;
        loop {
            let (kind, body) = self.acs.receive().await;
            if kind == "AckRequest" && body["messageId"] == id.as_str() {
                return;
            }
        }
    }

    /// The report of a task's status, or of its end.
    async fn reported(&mut self, id: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(report) = self.reports.get(&arn(id))
                && (report["status"] == status || report["status"] == "STOPPED")
            {
                return report.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{id} is not {status}\n{}", self.host.agent_log());
            let call = self.backend.call_of("SubmitTaskStateChange").await;
            let task = call.body["task"].as_str().unwrap_or_default().to_owned();
            self.reports.insert(task, call.body);
        }
    }

    async fn seen(&mut self, case: &Case, id: &str, base: &Path) -> Seen {
        let arn = arn(id);
        let report = self.reported(id, "RUNNING").await;
        if report["status"] == "STOPPED" {
            let of_container = report["containers"].as_array().into_iter().flatten();
            let reason =
                of_container.filter_map(|c| c["reason"].as_str()).chain(report["reason"].as_str()).next();
            return Seen::refused(reason.unwrap_or_default());
        }
        let probed = case.probed().name.clone();
        let out = case.is_silent().then(|| case.out(base).join("seen"));
        let text = |host: &Host| match &out {
            Some(file) => std::fs::read_to_string(file).unwrap_or_default(),
            None => host.logs(&arn, &probed),
        };
        self.host.until("the probe is done", |host| text(host).contains("== end")).await;
        let ids: BTreeMap<String, String> =
            case.containers.iter().map(|c| (c.name.clone(), self.host.container_id(&arn, &c.name))).collect();
        let names = ids.iter().map(|(name, id)| (name.clone(), format!("ecs-parity-1-{name}-{}", &id[44..])));
        let state = self.host.containerd.directory().join("state/io.containerd.runtime.v2.task/ecs");
        let bundle = state.join(&ids[&probed]);
        Surroundings::new(&ids, &names.collect(), &bundle).read(case, &text(&self.host))
    }
}
