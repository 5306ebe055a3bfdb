//! `ecsd local run`: one task from its definition to its last trace.

use super::agentlog::{Notable, PHASES, notable};
use super::args::RunArgs;
use super::follow::Follower;
use super::hooks::HostHooks;
use super::process::Interrupts;
use super::session::Session;
use super::show::{StatePrinter, complain, say, table};
use super::{FAILED, UsageError, http, logs};
use crate::app::local_host::Line;
use crate::local::{Change, Task};
use crate::model::TaskArn;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const MAX_DEFINITION_BYTES: u64 = 1024 * 1024;
const AGENT: &str = "(agent)";
/// Members that describe-task-definition adds and register-task-definition does not take.
const ANSWER_ONLY: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// Runs the command.
pub async fn run(args: RunArgs, hooks: Arc<dyn HostHooks>) -> anyhow::Result<u8> {
    let definition = read_definition(&args.definition)?;
    let images = images(&definition);
    let mut interrupts = Interrupts::new()?;
    let mut name = String::new();
    let session =
        Session::start(&args.host, &images, Duration::from_secs(1), hooks, &mut interrupts, |handle| {
            let registered = handle.register_task_definition(definition);
            name =
                registered.map_err(|error| UsageError(format!("{}: {error}", args.definition.display())))?;
            Ok(())
        });
    let mut session = session.await?;
    say(format_args!(
        "cluster     local at {} (files in {})",
        session.handle.endpoint(),
        session.dir.root().display()
    ));
    let mut shown = match Shown::new(&session) {
        Ok(shown) => shown,
        Err(error) => {
            session.stop().await;
            return Err(error);
        }
    };
    let result = shown.run_task(&mut session, &name, args.run_for, &mut interrupts).await;
    let dir = session.dir.clone();
    session.stop().await;
    shown.rest().await;
    let task = result?;
    shown.summary(&task);
    say(format_args!("cluster     taken down; logs of the agent stay in {}", dir.agent_log().display()));
    Ok(shown.verdict(&task))
}

fn read_definition(path: &Path) -> anyhow::Result<Value> {
    let usage = |text: String| anyhow::Error::from(UsageError(text));
    let at = path.display();
    let size = std::fs::metadata(path).map_err(|error| usage(format!("{at}: {error}")))?.len();
    if size > MAX_DEFINITION_BYTES {
        return Err(usage(format!("{at} has {size} bytes: a task definition has at most 65536")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{at}: {error}")))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|e| usage(format!("{at} is no JSON: {e}")))?;
    if let Some(inner) = value.get_mut("taskDefinition").filter(|inner| inner.is_object()) {
        value = inner.take();
    }
    if let Some(members) = value.as_object_mut() {
        ANSWER_ONLY.iter().for_each(|key| drop(members.remove(*key)));
    }
    Ok(value)
}

fn images(definition: &Value) -> Vec<String> {
    let containers = definition["containerDefinitions"].as_array().into_iter().flatten();
    let images: BTreeSet<_> = containers.filter_map(|c| c["image"].as_str()).map(str::to_owned).collect();
    images.into_iter().collect()
}

/// What is shown on the way, and remembered for the end.
struct Shown {
    follower: Follower,
    states: StatePrinter,
    probed: BTreeSet<String>,
    probes: JoinSet<String>,
    phases: Vec<Option<f64>>,
    has_run: bool,
    stop_asked: bool,
}

impl Shown {
    fn new(session: &Session) -> anyhow::Result<Self> {
        let mut follower = Follower::new()?;
        follower.follow(AGENT, session.dir.agent_log());
        Ok(Self {
            follower,
            states: StatePrinter::default(),
            probed: BTreeSet::new(),
            probes: JoinSet::new(),
            phases: Vec::new(),
            has_run: false,
            stop_asked: false,
        })
    }

    /// Runs the task to its STOPPED; answers it as it was then.
    async fn run_task(
        &mut self,
        session: &mut Session,
        name: &str,
        run_for: Option<Duration>,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<Task> {
        let mut changes = session.handle.subscribe();
        let arn = session.handle.run_task(name, json!({})).context("the task can't be run")?;
        let parsed = TaskArn::parse(&arn)?;
        let mut task = session.handle.task(&arn).context("the task is gone")?;
        for container in &task.containers {
            self.follower
                .follow_container(&container.name, logs::file_of(&session.dir, &parsed, &container.name));
        }
        self.see(&task);
        let mut ends_at: Option<Instant> = None;
        while !task.is_stopped() {
            let timer = async {
                match ends_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: channels and streams keep what they have, timers are made anew.
            tokio::select! {
                biased;
                () = interrupts.next() => {
                    if self.stop_asked {
                        bail!("interrupted again while the task was stopping");
                    }
                    say("task        stopping, on request");
                    self.stop(session, &arn)?;
                    ends_at = None;
                }
                () = timer => {
                    say("task        stopping, its time is over");
                    self.stop(session, &arn)?;
                    ends_at = None;
                }
                status = session.agent.ended() => return Err(session.agent_ended(status)),
                change = changes.recv() => match change {
                    Ok(Change::Task(changed)) if changed.arn == arn => {
                        task = (*changed).clone();
                        self.see(&task);
                    }
                    Ok(Change::Task(other)) => self.states.show(&other),
                    Ok(Change::Instance { is_connected: false, .. }) => say("agent       disconnected"),
                    Ok(Change::Instance { .. }) => {}
                    Err(RecvError::Lagged(_)) => task = session.handle.task(&arn).context("the task is gone")?,
                    Err(RecvError::Closed) => bail!("the control plane ended"),
                },
                Some(line) = self.follower.next() => self.line(&line),
                Some(Ok(line)) = self.probes.join_next() => say(line),
            }
            if task.last_status == "RUNNING" && !self.has_run {
                self.has_run = true;
                ends_at = run_for.map(|run_for| Instant::now() + run_for);
            }
        }
        Ok(task)
    }

    fn stop(&mut self, session: &Session, arn: &str) -> anyhow::Result<()> {
        self.stop_asked = true;
        Ok(session.handle.stop_task(arn, "Stopped by ecsd local run")?)
    }

    fn see(&mut self, task: &Task) {
        self.states.show(task);
        for container in task.containers.iter().filter(|c| c.last_status == "RUNNING") {
            for binding in container.network_bindings.as_array().into_iter().flatten() {
                let Some(port) = binding["hostPort"].as_u64().filter(|_| binding["protocol"] != "udp") else {
                    continue;
                };
                let addr = format!("127.0.0.1:{port}");
                if self.probed.insert(addr.clone()) {
                    let name = container.name.clone();
                    self.probes.spawn(async move {
                        match http::probe(&addr).await {
                            Ok(answer) => format!("url         {name} http://{addr}/ {answer}"),
                            Err(error) => {
                                format!("url         {name} http://{addr}/ gave no HTTP answer ({error})")
                            }
                        }
                    });
                }
            }
        }
    }

    fn line(&mut self, line: &Line) {
        if &*line.source != AGENT {
            return say(format_args!("{} | {}", line.source, logs::text_of(&line.text)));
        }
        match notable(&line.text) {
            Some(Notable::Pull(text)) => say(format_args!("pull        {text}")),
            Some(Notable::Error(text)) => say(format_args!("agent       error: {text}")),
            Some(Notable::Launched { phases, .. }) => self.phases = phases,
            None => {}
        }
    }

    /// What is left in the files.
    async fn rest(&mut self) {
        self.follower.finish();
        while let Some(line) = self.follower.next().await {
            self.line(&line);
        }
    }

    fn summary(&self, task: &Task) {
        let mut rows = vec![["CONTAINER", "EXIT CODE", "REASON"].map(str::to_owned).to_vec()];
        for container in &task.containers {
            let code = container.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
            rows.push(vec![container.name.clone(), code, container.reason.clone().unwrap_or_default()]);
        }
        say("");
        table(&rows);
        if self.phases.is_empty() {
            return;
        }
        let mut head = vec!["PHASE".to_owned()];
        let mut values = vec!["ms".to_owned()];
        let show = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
        for (phase, ms) in PHASES.iter().zip(&self.phases) {
            head.push((*phase).to_owned());
            values.push(show(*ms));
        }
        head.push("total".to_owned());
        values.push(show(Some(self.phases.iter().flatten().sum())));
        say("");
        table(&[head, values]);
        say("");
    }

    /// The exit code of the command. A task that ran and was stopped as asked is fine, whatever its
    /// processes made of the stop signal.
    fn verdict(&self, task: &Task) -> u8 {
        if self.stop_asked && self.has_run {
            return 0;
        }
        let failed = task.containers.iter().filter(|c| c.is_essential).find(|c| c.exit_code != Some(0));
        match failed {
            None => 0,
            Some(container) => {
                let why = match (container.exit_code, &container.reason) {
                    (Some(code), _) => format!("ended with exit code {code}"),
                    (None, Some(reason)) => format!("never ran: {reason}"),
                    (None, None) => "never ran".to_owned(),
                };
                complain(&anyhow::anyhow!("the essential container {} {why}", container.name));
                FAILED
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describe_task_definition_printed_is_taken() {
        let path = std::env::temp_dir().join(format!("ecsd-run-{}.json", std::process::id()));
        let text = json!({"taskDefinition": {"family": "f", "revision": 3, "status": "ACTIVE", "containerDefinitions":
            [{"image": "b"}, {"image": "a"}, {"image": "b"}]}, "tags": []});
        std::fs::write(&path, text.to_string()).unwrap();
        let definition = read_definition(&path).unwrap();
        assert!(definition.get("revision").is_none() && definition["family"] == "f");
        assert_eq!(images(&definition), ["a", "b"]);
        std::fs::write(&path, "{").unwrap();
        let error = read_definition(&path).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("is no JSON"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(read_definition(&path).unwrap_err().is::<UsageError>());
    }
}
