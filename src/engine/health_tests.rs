//! Runs of checks that a script answers in place of a runtime.

use super::*;
use crate::model::{HealthStatus, StopReason, TaskId};
use futures_util::future::BoxFuture;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

/// What one call comes to.
#[derive(Debug, Clone)]
enum Answer {
    Exit(i32),
    Refused(ProbeError),
    /// It never starts.
    HangsStarting,
    /// It never ends.
    Hangs,
}

/// A container's runs, one after the other; the last one is repeated.
struct Scripted {
    answers: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    ended: mpsc::UnboundedSender<String>,
}

struct Probe {
    answers: VecDeque<Answer>,
    id: String,
    ended: mpsc::UnboundedSender<String>,
}

impl HealthChecks for Scripted {
    fn open<'a>(
        &'a self,
        id: &'a ContainerId,
        _: &'a Path,
    ) -> BoxFuture<'a, Result<Option<OpenedCheck>, StopReason>> {
        let millisecond = Duration::from_millis(1);
        let check = HealthCheck {
            command: vec!["x".into()],
            interval: millisecond,
            timeout: millisecond * 20,
            start_period: Duration::ZERO,
            start_interval: millisecond,
            retries: 2,
        };
        let id = id.as_str().to_owned();
        let answers = self.answers.lock().unwrap().get(&id).cloned();
        let ended = self.ended.clone();
        let probe = answers.map(|answers| Box::new(Probe { answers, id, ended }) as Box<dyn HealthProbe>);
        Box::pin(async move { Ok(probe.map(|probe| (check, probe))) })
    }
}

impl Probe {
    fn now(&self) -> Answer {
        self.answers.front().unwrap().clone()
    }
}

impl HealthProbe for Probe {
    fn start(&mut self) -> BoxFuture<'_, Result<(), ProbeError>> {
        Box::pin(async {
            match self.now() {
                Answer::Refused(error) => Err(error),
                Answer::HangsStarting => std::future::pending().await,
                Answer::Exit(_) | Answer::Hangs => Ok(()),
            }
        })
    }

    fn wait(&mut self) -> BoxFuture<'_, Result<i32, ProbeError>> {
        Box::pin(async {
            match self.now() {
                Answer::Exit(code) => Ok(code),
                _ => std::future::pending().await,
            }
        })
    }

    fn end(&mut self) -> BoxFuture<'_, String> {
        if self.answers.len() > 1 {
            self.answers.pop_front();
        }
        self.ended.send(self.id.clone()).unwrap();
        Box::pin(async { "said".to_owned() })
    }
}

struct Fixture {
    runs: HealthRuns,
    inbox: mpsc::Receiver<Input>,
    ended: mpsc::UnboundedReceiver<String>,
}

impl Fixture {
    fn new(scripts: &[(&str, &[Answer])]) -> Self {
        let script =
            |(id, answers): &(&str, &[Answer])| ((*id).to_owned(), answers.iter().cloned().collect());
        let (ended, is_ended) = mpsc::unbounded_channel();
        let port = Scripted { answers: Mutex::new(scripts.iter().map(script).collect()), ended };
        let (to_inbox, inbox) = mpsc::channel(16);
        Self { runs: HealthRuns::new(Arc::new(port), to_inbox), inbox, ended: is_ended }
    }

    fn begin(&mut self, id: &str) {
        self.runs.begin(Subject {
            key: key(id),
            id: ContainerId::from_recorded(id),
            directory: PathBuf::new(),
            started: wall(),
        });
    }

    /// The next change: of which container, and what.
    async fn change(&mut self) -> (ContainerKey, Epoch, crate::model::Health) {
        match self.inbox.recv().await.unwrap() {
            Input::Health { container, epoch, health } => (container, epoch, health),
            other => panic!("{other:?}"),
        }
    }
}

fn key(name: &str) -> ContainerKey {
    let arn = crate::model::TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap();
    let task: TaskId = arn.id();
    ContainerKey { task, name: name.to_owned() }
}

#[tokio::test]
async fn changes_are_told_of_the_start_that_they_belong_to() {
    let mut f = Fixture::new(&[("a", &[Answer::Exit(0), Answer::Exit(1), Answer::Exit(3)])]);
    f.begin("a");
    let (container, epoch, health) = f.change().await;
    assert_eq!((container, health.status), (key("a"), HealthStatus::Healthy));
    assert!(f.runs.is_current(&key("a"), epoch));
    let (_, _, health) = f.change().await;
    assert_eq!((health.status, health.exit_code), (HealthStatus::Unhealthy, Some(3)));
    assert_eq!(health.output, "said");
    f.begin("a");
    assert!(!f.runs.is_current(&key("a"), epoch), "the container was started again");
    let (_, again, health) = f.change().await;
    assert_eq!(health.status, HealthStatus::Healthy, "from the beginning");
    f.runs.end(&key("a"));
    assert!(!f.runs.is_current(&key("a"), again));
}

#[tokio::test]
async fn a_run_that_takes_too_long_has_failed_and_is_ended() {
    let mut f = Fixture::new(&[("a", &[Answer::Hangs])]);
    f.begin("a");
    let (_, _, health) = f.change().await;
    assert_eq!((health.status, health.exit_code), (HealthStatus::Unhealthy, Some(-1)));
    assert_eq!(health.output, "Health check exceeded timeout (20ms): said");
    assert_eq!(f.ended.recv().await.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_process_that_can_not_be_made_is_a_failure_and_a_runtime_that_is_away_is_none() {
    let refused = Answer::Refused(ProbeError::Failed("no such program".into()));
    let away = Answer::Refused(ProbeError::Unreachable("no containerd".into()));
    let mut f = Fixture::new(&[
        ("refused", std::slice::from_ref(&refused)),
        // Were those failures, it would be unhealthy before it is healthy.
        ("away", &[refused.clone(), away.clone(), away.clone(), away, Answer::Exit(0)]),
    ]);
    f.begin("refused");
    let (_, _, health) = f.change().await;
    assert_eq!((health.status, health.output.as_str()), (HealthStatus::Unhealthy, "no such program"));
    f.runs.end(&key("refused"));
    f.begin("away");
    assert_eq!(f.change().await.2.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn those_that_hang_keep_nobody_else_waiting() {
    let names: Vec<String> = (0..STARTS).map(|n| format!("hung{n}")).collect();
    let hung = [Answer::HangsStarting];
    let well = [Answer::Exit(0)];
    let mut scripts: Vec<(&str, &[Answer])> = names.iter().map(|name| (name.as_str(), &hung[..])).collect();
    scripts.push(("well", &well));
    let mut f = Fixture::new(&scripts);
    names.iter().for_each(|name| f.begin(name));
    // All slots are taken before the last container asks for one.
    while f.runs.starts.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    f.begin("well");
    assert_eq!(f.change().await.0, key("well"));
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (nanoseconds, text) in [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (20_000_000, "20ms"),
        (999_999_999, "999.999999ms"),
        (5_000_000_000, "5s"),
        (2_050_000_000, "2.05s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
    ] {
        assert_eq!(go_duration(Duration::from_nanos(nanoseconds)), text);
    }
}
