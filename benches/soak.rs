//! A bad day, for as long as wanted: a back end that cuts both websockets every few seconds, cleanly and
//! not, and answers reports with errors or late, while short tasks come in waves.
//!
//! `cargo bench --bench soak -- --minutes 30 --tasks 200` as root. Ends with 1 where a report was lost,
//! repeated after it had been accepted, out of order or wrong, where anything was left on the host, or
//! where the agent's memory or descriptors grew. Prints the table of docs/performance.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the soak speaks to the back end itself")]
#[path = "../tests/agent/scripted.rs"]
mod scripted;

use scripted::{arn, fresh_id, host_for, task};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use support::backend::{ApiCall, Backend, CLUSTER_ARN, Channel, Connection, Gate, INSTANCE};
use support::host::{Host, on_own_network};

const SUBMIT: &str = "SubmitTaskStateChange";
const WAVES: u32 = 10;
/// After the last wave, everything must have been told within this.
const AFTERWARDS: Duration = Duration::from_secs(180);
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// More than this between the second and the last quarter of the run is a leak.
const MOST_GROWTH_KIB: f64 = 2048.0;
const MOST_NEW_DESCRIPTORS: f64 = 10.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u32| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (minutes, tasks) = (number("--minutes", 30).max(1), number("--tasks", 200).max(WAVES));
    on_own_network(move || async move {
        let violations = soak(Duration::from_secs(60) * minutes, tasks).await;
        violations.iter().for_each(|violation| println!("VIOLATION: {violation}"));
        if !violations.is_empty() {
            std::process::exit(1);
        }
        println!("no violation");
    });
}

/// What is known of one task.
struct Expected {
    payload: Value,
    exit_code: u64,
    acknowledged: bool,
    /// Accepted reports: the task's status, and its containers'.
    accepted: BTreeSet<(String, String)>,
    rank: usize,
}

/// One websocket, and when it is cut.
struct Line {
    channel: Channel,
    connection: Option<Connection>,
    cut_at: Instant,
    cuts: u32,
}

async fn soak(length: Duration, count: u32) -> Vec<String> {
    let mut backend = Backend::start().await;
    let mut host = host_for(&backend).await;
    let begun = Instant::now();
    let mut day = Day::default();
    let mut lines = [Channel::Acs, Channel::Tcs].map(|channel| Line {
        channel,
        connection: None,
        cut_at: begun + random(8000),
        cuts: 0,
    });
    let mut fault: Option<(Gate, Instant)> = None;
    let (mut faults, mut next_fault, mut next_sample) = (0, begun, begun);
    while begun.elapsed() < length || (!day.is_over(count) && begun.elapsed() < length + AFTERWARDS) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // The waves come in the first nine tenths.
        let share = begun.elapsed().as_secs_f64() / (length.as_secs_f64() * 0.9);
        let due = ((share * f64::from(WAVES)).floor() + 1.0).min(f64::from(WAVES)) * f64::from(count / WAVES);
        let mut payload = day.new_tasks(if share >= 0.9 { count as usize } else { due as usize });
        for line in &mut lines {
            let is_new = line.keep(&mut backend, &mut day).await;
            if is_new && line.channel == Channel::Acs {
                payload = day.unacknowledged();
            }
        }
        if let (Some(acs), false) = (&mut lines[0].connection, payload.is_empty()) {
            let message = json!({"messageId": fresh_id(), "clusterArn": CLUSTER_ARN,
                "containerInstanceArn": INSTANCE, "seqNum": 1, "tasks": payload});
            day.sent.insert(message["messageId"].as_str().unwrap().to_owned(), day.arns(&message));
            let text = json!({"type": "PayloadMessage", "message": message}).to_string();
            acs.try_send(tokio_tungstenite::tungstenite::Message::text(text)).await;
        }
        backend.waiting_calls().into_iter().for_each(|call| day.take(call));
        fault = fault.filter(|(_, until)| Instant::now() < *until);
        // Errors that nobody met yet are enough: more of them would only pile up.
        if Instant::now() >= next_fault && begun.elapsed() < length && !backend.has_answers(SUBMIT) {
            faults += 1;
            next_fault = Instant::now() + random(8000);
            let error = |kind: &str| json!({"__type": kind, "message": "scripted"});
            match random(4000).as_secs() {
                0 => backend.answer(SUBMIT, [(500, error("ServerException"))]),
                1 => backend.answer(SUBMIT, [(400, error("ThrottlingException"))]),
                2 => {
                    backend.answer(SUBMIT, [(503, error("ServerException")), (500, json!("no JSON object"))])
                }
                _ => fault = Some((backend.hold(SUBMIT, None), Instant::now() + random(5000))),
            }
        }
        if Instant::now() >= next_sample {
            next_sample += SAMPLE_EVERY;
            day.samples.push((begun.elapsed().as_secs_f64() / 60.0, resident_kib(&host), descriptors(&host)));
        }
    }
    drop(fault);
    println!(
        "{count} tasks in {:.1} min; ACS cut {} times, TCS {}; {faults} faults; {} reports accepted, {} refused",
        begun.elapsed().as_secs_f64() / 60.0,
        lines[0].cuts,
        lines[1].cuts,
        day.reports,
        day.refused
    );
    day.finish(&mut host).await
}

#[derive(Default)]
struct Day {
    tasks: BTreeMap<String, Expected>,
    /// ARNs by message id.
    sent: BTreeMap<String, Vec<String>>,
    violations: Vec<String>,
    /// Minutes, KiB, descriptors.
    samples: Vec<(f64, f64, f64)>,
    reports: usize,
    refused: usize,
}

impl Day {
    /// Tasks up to that many: those that are new.
    fn new_tasks(&mut self, due: usize) -> Vec<Value> {
        let mut new = Vec::new();
        while self.tasks.len() < due {
            let id = fresh_id();
            let exit_code = random(6000).as_secs();
            let script = format!("sleep {}; exit {exit_code}", random(4000).as_secs());
            let payload = task(&id, &script);
            new.push(payload.clone());
            let (accepted, acknowledged) = (BTreeSet::new(), false);
            self.tasks.insert(arn(&id), Expected { payload, exit_code, acknowledged, accepted, rank: 0 });
        }
        new
    }

    fn unacknowledged(&self) -> Vec<Value> {
        self.tasks.values().filter(|task| !task.acknowledged).map(|task| task.payload.clone()).collect()
    }

    fn arns(&self, payload: &Value) -> Vec<String> {
        let tasks = payload["tasks"].as_array().into_iter().flatten();
        tasks.filter_map(|task| task["arn"].as_str()).map(str::to_owned).collect()
    }

    fn is_over(&self, count: u32) -> bool {
        self.tasks.len() >= count as usize && self.tasks.values().all(|task| task.rank == 3)
    }

    fn acknowledge(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let message = frame["message"]["messageId"].as_str().unwrap_or_default();
        for arn in self.sent.remove(message).filter(|_| frame["type"] == "AckRequest").into_iter().flatten() {
            if let Some(task) = self.tasks.get_mut(&arn) {
                task.acknowledged = true;
            }
        }
    }

    /// A report, as it was answered.
    fn take(&mut self, call: ApiCall) {
        if call.operation != SUBMIT {
            return;
        }
        if call.status != 200 {
            self.refused += 1;
            return;
        }
        self.reports += 1;
        let (body, name) = (&call.body, call.body["task"].as_str().unwrap_or_default());
        let Some(task) = self.tasks.get_mut(name) else {
            return self.violations.push(format!("a report of a task that was never sent: {body}"));
        };
        let status = body["status"].as_str().unwrap_or_default();
        let rank = 1 + ["PENDING", "RUNNING", "STOPPED"].iter().position(|s| *s == status).unwrap_or(0);
        let containers = body["containers"].as_array().cloned().unwrap_or_default();
        let theirs: Vec<_> = containers.iter().map(|c| c["status"].as_str().unwrap_or_default()).collect();
        if !task.accepted.insert((status.to_owned(), theirs.join(","))) {
            self.violations.push(format!("accepted before and told again: {body}"));
        }
        if rank < task.rank {
            self.violations.push(format!("out of order: {body}"));
        }
        task.rank = task.rank.max(rank);
        let code = containers.first().and_then(|c| c["exitCode"].as_u64());
        if status == "STOPPED" && code != Some(task.exit_code) {
            self.violations.push(format!("exit code {code:?} instead of {}: {body}", task.exit_code));
        }
    }

    async fn finish(mut self, host: &mut Host) -> Vec<String> {
        for (arn, task) in self.tasks.iter().filter(|(_, task)| task.rank != 3) {
            self.violations.push(format!("{arn} was never told STOPPED: {:?}", task.accepted));
        }
        let begun = Instant::now();
        while !host.remains().is_empty() && begun.elapsed() < AFTERWARDS {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.violations.extend(host.remains().into_iter().map(|what| format!("left behind: {what}")));
        println!("| of the agent's process | first | last | most | slope per minute |");
        println!("|---|---|---|---|---|");
        let memory: Vec<_> = self.samples.iter().map(|(at, kib, _)| (*at, *kib)).collect();
        let files: Vec<_> = self.samples.iter().map(|(at, _, files)| (*at, *files)).collect();
        show("resident, KiB", &memory);
        show("descriptors", &files);
        for (what, growth, most) in [
            ("KiB resident", growth(&memory), MOST_GROWTH_KIB),
            ("descriptors", growth(&files), MOST_NEW_DESCRIPTORS),
        ] {
            if growth > most {
                self.violations
                    .push(format!("grew by {growth:.0} {what} from the second to the last quarter"));
            }
        }
        match host.stop_agent().await.0 {
            Some(0) => {}
            code => self.violations.push(format!("the agent ended with {code:?}")),
        }
        self.violations
    }
}

impl Line {
    /// Takes what came, and cuts when it is time; answers whether a new connection was made.
    async fn keep(&mut self, backend: &mut Backend, day: &mut Day) -> bool {
        let is_new = backend.knocks(self.channel);
        if is_new {
            self.connection = Some(backend.accept(self.channel).await);
            self.cut_at = Instant::now() + Duration::from_secs(1) + random(7000);
        }
        let Some(connection) = &mut self.connection else { return false };
        while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), connection.next_text()).await {
            let Some(text) = next else {
                self.connection = None;
                return false;
            };
            if self.channel == Channel::Acs {
                day.acknowledge(&text);
            } else {
                let (kind, _, _) = connection.verified(&text);
                let ack = match kind.as_str() {
                    "PublishMetricsRequest" => "AckPublishMetric",
                    "PublishHealthRequest" => "AckPublishHealth",
                    _ => "AckPublishInstanceStatus",
                };
                let ack = json!({"type": ack, "message": {"message": "OK"}}).to_string();
                connection.try_send(tokio_tungstenite::tungstenite::Message::text(ack)).await;
            }
        }
        if Instant::now() >= self.cut_at {
            self.cuts += 1;
            if let Some(connection) = self.connection.take() {
                match random(3000).as_secs() {
                    0 => connection.close(1000, "scripted").await,
                    1 => connection.close(4000, "scripted").await,
                    _ => drop(connection),
                }
            }
            return false;
        }
        is_new
    }
}

/// Up to so many milliseconds.
fn random(below_ms: u128) -> Duration {
    let ms = uuid::Uuid::new_v4().as_u128() % below_ms.max(1);
    Duration::from_millis(u64::try_from(ms).unwrap())
}

fn resident_kib(host: &Host) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.agent_pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn descriptors(host: &Host) -> f64 {
    let listed = std::fs::read_dir(format!("/proc/{}/fd", host.agent_pid()));
    f64::from(u32::try_from(listed.into_iter().flatten().count()).unwrap())
}

fn mean(values: &[(f64, f64)]) -> f64 {
    values.iter().map(|(_, value)| value).sum::<f64>() / values.len().max(1) as f64
}

/// From the second quarter (the first warms up) to the last.
fn growth(samples: &[(f64, f64)]) -> f64 {
    let quarter = samples.len() / 4;
    mean(&samples[samples.len() - quarter..]) - mean(&samples[quarter..quarter * 2])
}

/// A row of the table; the slope is that of the best straight line through all but the first quarter.
fn show(what: &str, samples: &[(f64, f64)]) {
    let warm = &samples[samples.len() / 4..];
    let (middle, average) = (warm.iter().map(|(at, _)| at).sum::<f64>() / warm.len() as f64, mean(warm));
    let along: f64 = warm.iter().map(|(at, value)| (at - middle) * (value - average)).sum();
    let across: f64 = warm.iter().map(|(at, _)| (at - middle).powi(2)).sum();
    let most = samples.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let (first, last) = (samples.first().unwrap().1, samples.last().unwrap().1);
    println!("| {what} | {first:.0} | {last:.0} | {most:.0} | {:.1} |", along / across);
}
