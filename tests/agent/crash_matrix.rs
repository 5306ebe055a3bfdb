//! The agent is killed before and after everything that it does, and started again: what the control
//! plane is told in the end, and in which order, is what it is told without; no process is started
//! twice; nothing is left.
//!
//! The matrix is made of a run without a death, in which the agent notes each place that it comes by
//! (`src/crashpoint.rs`): every visit of every place is one cell. A new kind of action must be given a
//! life here that has it, or this does not compile.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::{Backend, CLUSTER_ARN, Channel, INSTANCE};
use crate::support::host::{Host, PATIENCE, on_own_network};
use crate::support::registry::{FakeRegistry, TestImage};
use ecsd::core::ActionKind;
use ecsd::ports::Store;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

/// How a task lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Until it is let go.
    Ends,
    /// The same, but its first process fails, and is restarted by its policy.
    IsRestarted,
    /// Until it is stopped, for which SIGTERM is not enough.
    IsStopped,
}

/// In which life an action occurs.
fn life_of(kind: ActionKind) -> Life {
    match kind {
        ActionKind::Resolve
        | ActionKind::Pull
        | ActionKind::PrepareTask
        | ActionKind::Create
        | ActionKind::Start
        | ActionKind::Release
        | ActionKind::RemoveTask
        | ActionKind::Report => Life::Ends,
        ActionKind::Restart => Life::IsRestarted,
        ActionKind::Signal | ActionKind::Kill => Life::IsStopped,
    }
}

/// What came of one task.
struct Lived {
    id: String,
    life: Life,
    reports: Vec<Value>,
    deaths: usize,
}

/// One host, on which task after task lives and the agent dies again and again.
struct Matrix {
    scripted: Scripted,
    image: String,
    connected: bool,
    _registry: FakeRegistry,
}

impl Matrix {
    async fn start() -> Self {
        let registry = FakeRegistry::start();
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let files: &[(&str, &[u8])] = &[("bin/busybox", &busybox), ("bin/sh", &busybox)];
        registry.put("crash/tiny", "1", &TestImage::new(&[files]));
        let image = format!("{}/crash/tiny:1", registry.host());
        let mut backend = Backend::start().await;
        let mut host = crate::scripted::prepared_host().await;
        std::fs::create_dir_all(host.dir.path().join("shared")).unwrap();
        let file = host.dir.path().join("crash").display().to_string();
        host.set("ECSD_CRASH_FILE", &file);
        host.start_agent_at(backend.endpoint());
        let acs = backend.accept(Channel::Acs).await;
        let scripted = Scripted { host, backend, acs };
        let matrix = Self { scripted, image, connected: true, _registry: registry };
        let settled = |_: &Host| matrix.visits().iter().any(|place| place == "after-settle");
        matrix.scripted.host.until("the agent has taken up what is there", settled).await;
        std::fs::remove_file(matrix.file("crash.visits")).unwrap();
        matrix
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scripted.host.dir.path().join(name)
    }

    /// From now on the agent dies there.
    fn arm(&self, place: Option<&str>) {
        std::fs::write(self.file("crash"), place.unwrap_or_default()).unwrap();
    }

    /// A line among the visits.
    fn mark(&self, line: &str) {
        use std::io::Write;
        let mut file =
            std::fs::File::options().create(true).append(true).open(self.file("crash.visits")).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn visits(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file("crash.visits")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn payload(&self, id: &str, life: Life) -> Value {
        let wait = format!("until [ -e /v/{id}.go ]; do /bin/busybox sleep 0.05; done; exit 3");
        let script = match life {
            Life::Ends => wait,
            // Shorter than the policy's period would be the end of it.
            Life::IsRestarted => {
                format!(
                    "if [ -e /v/{id}.again ]; then {wait}; fi; > /v/{id}.again; /bin/busybox sleep 1.1; exit 1"
                )
            }
            Life::IsStopped => "trap '' TERM; while :; do /bin/busybox sleep 0.05; done".to_owned(),
        };
        let script = format!("echo x >> /v/{id}.starts; {script}");
        let mut task = task(id, &script);
        task["volumes"] = json!([{"name": "v", "type": "host", "host": {"sourcePath": self.file("shared")}},
            {"name": "own", "type": "host", "host": {}}]);
        let container = &mut task["containers"][0];
        container["image"] = json!(self.image);
        container["command"][0] = json!("/bin/sh");
        container["stopTimeout"] = json!(1);
        if life == Life::IsRestarted {
            container["restartPolicy"] =
                json!({"enabled": true, "ignoredExitCodes": [3], "restartAttemptPeriod": 1});
        }
        container["mountPoints"] = json!([{"sourceVolume": "v", "containerPath": "/v"},
            {"sourceVolume": "own", "containerPath": "/own"}]);
        container["portMappings"] = json!([{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}]);
        // A check is under way at most of the deaths.
        let check = json!({"Healthcheck": {"Test": ["CMD", "/bin/busybox", "sleep", "0.2"], "Interval": 100_000_000}});
        container["healthCheckType"] = json!("docker");
        container["dockerConfig"] =
            json!({"config": check.to_string(), "hostConfig": "{\"NetworkMode\":\"bridge\"}"});
        task
    }

    /// The agent is started again, to die at that place where one is given.
    fn start_again(&mut self, place: Option<&str>) {
        self.arm(place);
        let endpoint = self.scripted.backend.endpoint().to_owned();
        self.scripted.host.start_agent_at(&endpoint);
        self.connected = false;
    }

    /// A task lives from its payload to the last trace of it, while the agent dies at one place after the
    /// other.
    async fn live(&mut self, life: Life, places: &[&str]) -> Lived {
        let id = fresh_id();
        let mut lived = Lived { id: id.clone(), life, reports: Vec::new(), deaths: 0 };
        let mut unanswered: Vec<Value> = Vec::new();
        let mut let_go = false;
        self.arm(places.first().copied());
        let task = self.payload(&id, life);
        self.ask(&mut unanswered, format!("run-{id}"), &task).await;
        let begun = Instant::now();
        let mut gone_since: Option<Instant> = None;
        loop {
            assert!(
                begun.elapsed() < PATIENCE,
                "{places:?}: {:#?}\nleft: {:#?}\n{}",
                lived.reports,
                self.remains(&id),
                self.scripted.host.agent_log()
            );
            self.hear(&mut unanswered).await;
            if self.scripted.host.agent_died() {
                assert!(lived.deaths < places.len(), "{places:?}: the agent died by itself");
                lived.deaths += 1;
                gone_since = None;
                self.start_again(places.get(lived.deaths).copied());
            }
            while let Some(call) = self.scripted.backend.waiting_call_of("SubmitTaskStateChange") {
                if call.body["task"] == arn(&id).as_str() {
                    lived.reports.push(call.body);
                }
            }
            let told = |status: &str| lived.reports.iter().any(|report| report["status"] == status);
            if told("RUNNING") && !let_go {
                let_go = true;
                match life {
                    Life::Ends | Life::IsRestarted => {
                        std::fs::write(self.file("shared").join(format!("{id}.go")), "").unwrap();
                    }
                    Life::IsStopped => {
                        self.mark("--- stop");
                        let mut stop = task.clone();
                        stop["desiredStatus"] = json!("STOPPED");
                        self.ask(&mut unanswered, format!("stop-{id}"), &stop).await;
                    }
                }
            }
            if !told("STOPPED") || !self.connected {
                continue;
            }
            if gone_since.is_none() && self.remains(&id).is_empty() {
                gone_since = Some(Instant::now());
            }
            // The store forgets it last, some 100 ms later; a place that was not come by until then is not
            // come by any more.
            if gone_since.is_some_and(|at| at.elapsed() > Duration::from_millis(400))
                && !self.scripted.host.agent_died()
            {
                return lived;
            }
        }
    }

    /// Sends one task, and again until it is acknowledged.
    async fn ask(&mut self, unanswered: &mut Vec<Value>, message: String, task: &Value) {
        unanswered.push(json!({"type": "PayloadMessage", "message": {"messageId": message,
            "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE, "seqNum": 1, "tasks": [task]}}));
        self.send(&unanswered[unanswered.len() - 1..]).await;
    }

    /// Sends messages to an agent that may be dead already.
    async fn send(&mut self, messages: &[Value]) {
        for message in messages {
            self.connected &= self.scripted.acs.try_send(Message::text(message.to_string())).await;
        }
    }

    /// Waits a moment for what the agent says on the websocket, or for the websocket itself.
    async fn hear(&mut self, unanswered: &mut Vec<Value>) {
        let moment = Duration::from_millis(20);
        if !self.connected {
            tokio::time::sleep(moment).await;
            if self.scripted.backend.knocks(Channel::Acs) {
                self.scripted.acs = self.scripted.backend.accept(Channel::Acs).await;
                self.connected = true;
                self.send(unanswered).await;
            }
            return;
        }
        match tokio::time::timeout(moment, self.scripted.acs.next_text()).await {
            Ok(Some(text)) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["type"] == "AckRequest" {
                    unanswered.retain(|sent| sent["message"]["messageId"] != frame["message"]["messageId"]);
                }
            }
            Ok(None) => self.connected = false,
            Err(_) => {}
        }
    }

    /// What is left on the host of anything, and of this task in runc.
    fn remains(&self, id: &str) -> Vec<String> {
        let host = &self.scripted.host;
        let mut remains = host.remains();
        let state = PathBuf::from("/run/containerd/runc/ecs").join(host.container_id(&arn(id), "main"));
        remains.extend(state.exists().then(|| format!("runc state {}", state.display())));
        let own = [host.dir.path(), host.containerd.directory()].map(|path| path.display().to_string());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mounts = mounts.filter(|mount| own.iter().any(|own| mount.starts_with(own.as_str())));
        remains.extend(mounts.map(|mount| format!("mount {mount}")));
        remains
    }

    fn starts(&self, id: &str) -> usize {
        let file = self.file("shared").join(format!("{id}.starts"));
        std::fs::read_to_string(file).unwrap_or_default().lines().count()
    }

    /// Every cell of a life whose number is `part` of `parts`, and `only` those that count; then the
    /// store must hold nothing any more.
    async fn all_cells(
        mut self,
        life: Life,
        only: impl Fn(&[String]) -> Vec<String>,
        part: usize,
        parts: usize,
    ) {
        let whole = self.live(life, &[]).await;
        let places = only(&self.visits());
        let expected = Told::of(&self, &whole);
        assert_eq!(expected.order.first().map(String::as_str), Some("PENDING"), "{:#?}", whole.reports);
        let mut missed = Vec::new();
        for (n, place) in places.iter().enumerate().filter(|(n, _)| n % parts == part) {
            let begun = Instant::now();
            let lived = self.live(life, &[place]).await;
            println!("{n:3} {place}: {} death ({:.1} s)", lived.deaths, begun.elapsed().as_secs_f32());
            self.check(&lived, &expected, place);
            missed.extend((lived.deaths == 0).then(|| place.clone()));
        }
        // Commits are put together by time, so the last one may not come.
        let cells = places.len().div_ceil(parts);
        assert!(missed.len() * 10 <= cells, "not come by: {missed:?} of {cells}");
        self.has_nothing_stored().await;
    }

    /// The same was told as without a death, and no more processes were started.
    fn check(&self, lived: &Lived, expected: &Told, place: &str) {
        let told = Told::of(self, lived);
        assert_eq!(told.last, expected.last, "{place}");
        // PENDING says nothing any more once the agent finds a container that runs.
        let pending = usize::from(told.order.first() != expected.order.first());
        assert_eq!(told.order, expected.order[pending..], "{place}: {:#?}", lived.reports);
        let starts = if lived.life == Life::IsRestarted { 2 } else { 1 };
        assert_eq!(self.starts(&lived.id), starts, "{place}: processes started");
    }

    async fn has_nothing_stored(mut self) {
        self.scripted.host.stop_agent().await;
        let store = ecsd::store::RedbStore::open(&self.file("data")).unwrap();
        let loaded = store.load().unwrap();
        assert!(loaded.tasks.is_empty() && loaded.quarantined == 0, "{loaded:?}");
    }
}

/// What the control plane was told of a task.
#[derive(Debug, PartialEq)]
struct Told {
    /// Statuses, each once for as long as it was repeated.
    order: Vec<String>,
    /// The last report, without its times and what differs from task to task.
    last: Value,
}

impl Told {
    fn of(matrix: &Matrix, lived: &Lived) -> Self {
        let mut order: Vec<String> =
            lived.reports.iter().map(|r| r["status"].as_str().unwrap().to_owned()).collect();
        order.dedup();
        let stopped: Vec<&Value> = lived.reports.iter().filter(|r| r["status"] == "STOPPED").collect();
        let plain = stopped[0];
        assert!(stopped.iter().all(|again| *again == plain), "told in two ways: {stopped:#?}");
        let container = plain["containers"].as_array().unwrap().last().unwrap();
        let id = matrix.scripted.host.container_id(&arn(&lived.id), "main");
        assert_eq!(container["runtimeId"], id.as_str(), "{:#?}", lived.reports);
        // A port that was told is the port to the end.
        let ports: BTreeSet<u64> = lived
            .reports
            .iter()
            .filter(|r| r["status"] != "PENDING")
            .flat_map(|r| r["containers"].as_array().unwrap())
            .filter_map(|c| c["networkBindings"][0]["hostPort"].as_u64())
            .collect();
        assert_eq!(ports.len(), 1, "{:#?}", lived.reports);
        let last = json!({"reason": plain["reason"], "status": container["status"], "exit": container["exitCode"],
            "why": container["reason"], "image": container["imageDigest"]});
        Self { order, last }
    }
}

/// Each visit as a cell: `<place>:<n>`.
fn cells(visits: &[String]) -> Vec<(usize, String)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut cells = Vec::new();
    for (at, place) in visits.iter().enumerate().filter(|(_, place)| !place.starts_with("---")) {
        let count = seen.entry(place).or_default();
        *count += 1;
        cells.push((at, format!("{place}:{count}")));
    }
    cells
}

/// Every action of this life was come by.
fn has_all(life: Life, visits: &[String]) {
    for kind in ActionKind::ALL.iter().filter(|kind| life_of(**kind) == life) {
        for moment in ["before", "after"] {
            let place = format!("{moment}-{}", kind.name());
            assert!(visits.contains(&place), "nobody comes by {place}: {visits:#?}");
        }
    }
}

/// The cells of the visits from one to another.
fn between(visits: &[String], first: usize, last: usize) -> Vec<String> {
    cells(visits).into_iter().filter(|(at, _)| (first..=last).contains(at)).map(|(_, cell)| cell).collect()
}

/// All of a launch and its end.
fn launch(visits: &[String]) -> Vec<String> {
    has_all(Life::Ends, visits);
    cells(visits).into_iter().map(|(_, cell)| cell).collect()
}

/// From the control plane's word to the end of the process.
fn stop(visits: &[String]) -> Vec<String> {
    has_all(Life::IsStopped, visits);
    let first = visits.iter().position(|place| place == "--- stop").unwrap();
    let last = visits.iter().rposition(|place| place == "after-kill").unwrap();
    between(visits, first, last)
}

/// From the end of the first process to the second one, with the commits before and after.
fn restart(visits: &[String]) -> Vec<String> {
    has_all(Life::IsRestarted, visits);
    let of = |place: &str| visits.iter().position(|visit| visit == place).unwrap();
    between(visits, of("before-restart") - 2, of("after-restart") + 2)
}

#[test]
fn an_agent_killed_at_any_place_of_a_launch_or_an_end_goes_on_first_half() {
    on_own_network(|| async { Matrix::start().await.all_cells(Life::Ends, launch, 0, 2).await });
}

#[test]
fn an_agent_killed_at_any_place_of_a_launch_or_an_end_goes_on_second_half() {
    on_own_network(|| async { Matrix::start().await.all_cells(Life::Ends, launch, 1, 2).await });
}

/// And killed again while it takes up what is there.
#[test]
fn an_agent_killed_on_its_way_back_takes_things_up_the_next_time() {
    on_own_network(|| async {
        let mut matrix = Matrix::start().await;
        let whole = matrix.live(Life::Ends, &[]).await;
        let expected = Told::of(&matrix, &whole);
        // One container half made, one made, one that runs, one that has ended.
        for first in ["after-create:1", "before-start:1", "after-start:1", "before-release:1"] {
            // The first commit of a life keeps the registration.
            for second in ["before-commit:1", "after-commit:1", "before-settle:1", "after-settle:1"] {
                let lived = matrix.live(Life::Ends, &[first, second]).await;
                assert_eq!(lived.deaths, 2, "{first}, {second}");
                matrix.check(&lived, &expected, &format!("{first}, {second}"));
            }
        }
        matrix.has_nothing_stored().await;
    });
}

#[test]
fn an_agent_killed_at_any_place_of_a_restart_goes_on() {
    on_own_network(|| async { Matrix::start().await.all_cells(Life::IsRestarted, restart, 0, 1).await });
}

#[test]
fn an_agent_killed_at_any_place_of_a_stop_goes_on() {
    on_own_network(|| async { Matrix::start().await.all_cells(Life::IsStopped, stop, 0, 1).await });
}
