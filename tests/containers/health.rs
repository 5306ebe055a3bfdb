//! Health checks as processes within their containers.

use super::{LONG, clean_up, exit, launch};
use crate::support::bench::{Bench, docker, task};
use ecsd::model::TaskSpec;
use ecsd::ports::{Containers, CreatePlan, HealthChecks, HealthProbe, OpenedCheck, ProbeError};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// A task of one container, `main`, with this check; and more of its document.
fn checked(id: &str, script: &str, check: Value, more: Value) -> TaskSpec {
    let mut config = more;
    config["Healthcheck"] = check;
    let mut spec = task(id, &[("main", script)]);
    spec.containers[0].health_checked = true;
    spec.containers[0].docker = docker(config, json!({"LogConfig": {"Type": "none"}}));
    spec
}

async fn open(service: &impl HealthChecks, plan: &CreatePlan) -> OpenedCheck {
    service.open(&plan.id, &plan.directory).await.unwrap().expect("it has a check")
}

/// A whole run: exit code or what went wrong, and output.
async fn run(probe: &mut Box<dyn HealthProbe>) -> (Result<i32, ProbeError>, String) {
    let ended = async {
        probe.start().await?;
        probe.wait().await
    };
    let result = timeout(LONG, ended).await.expect("it ends");
    (result, probe.end().await)
}

/// Processes of the container that live; its own does not bury its orphans.
fn alive(bench: &Bench, plan: &CreatePlan) -> usize {
    let listed = bench.ctr(&["tasks", "ps", plan.id.as_str()]);
    let pids = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let lives = |pid: &&str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    pids.filter(lives).count()
}

async fn until_alive(bench: &Bench, plan: &CreatePlan, count: usize) {
    let so = async {
        while alive(bench, plan) != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, so).await.unwrap_or_else(|_| panic!("{} processes live, not {count}", alive(bench, plan)));
}

fn forget_first_run(bench: &Bench, plan: &CreatePlan) {
    let remove = ["/bin/busybox", "rm", "/tmp/second"];
    bench.ctr(&[&["tasks", "exec", "--exec-id", "forget", plan.id.as_str()][..], &remove].concat());
}

const SLEEPS: &str = "exec busybox sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_as_the_container_is_and_only_its_beginning_is_kept() {
    let bench = Bench::start();
    let script = "b() { busybox \"$@\"; }; b id -u; b pwd; echo $MINE $FROM_IMAGE; b grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; \
                  [ -t 1 ] || echo PLAIN; echo error >&2; exit 3";
    let more = json!({"User": "web", "WorkingDir": "/data", "Env": ["MINE=a b"]});
    let check = json!({"Test": ["CMD-SHELL", script], "Interval": 7_000_000_000i64, "Retries": 9});
    let spec = checked("as", SLEEPS, check, more);
    let plan = bench.plan(&spec, "main");
    launch(&bench, &plan).await.unwrap();
    let (check, mut probe) = open(&*bench.service, &plan).await;
    assert_eq!(
        (check.interval, check.timeout, check.retries),
        (Duration::from_secs(7), Duration::from_secs(30), 9)
    );
    assert_eq!(check.command[..2], ["/bin/sh", "-c"]);
    let (code, seen) = run(&mut probe).await;
    assert_eq!(code, Ok(3), "{seen}");
    let lines = [
        "33",
        "/data",
        "a b 1",
        "CapEff:\t0000000000000000",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "PLAIN",
        "error",
    ];
    for line in lines {
        assert!(seen.lines().any(|l| l == line), "{line:?} in\n{seen}");
    }
    let pipes = || {
        let all = std::fs::read_dir(&plan.directory).unwrap().map(|entry| entry.unwrap().file_name());
        all.filter(|name| name.to_string_lossy().starts_with("health-")).count()
    };
    assert_eq!(pipes(), 1);
    drop(probe);
    assert_eq!(pipes(), 0);
    bench.service.kill(&plan.id).await.unwrap();
    exit(&*bench.service, &plan.id).await;
    clean_up(&bench, &plan.id).await;

    let flood = json!({"Test": ["CMD-SHELL", "busybox yes | busybox head -c 300000"]});
    let missing = json!({"Test": ["CMD", "/no/such/program"]});
    for (id, check) in [("flood", flood), ("missing", missing)] {
        let plan = bench.plan(&checked(id, SLEEPS, check, json!({})), "main");
        launch(&bench, &plan).await.unwrap();
        let (_, mut probe) = open(&*bench.service, &plan).await;
        for _ in 0..3 {
            let (code, seen) = run(&mut probe).await;
            match id {
                "flood" => assert_eq!((code, seen), (Ok(0), format!("{}...", "y\n".repeat(2048)))),
                _ => {
                    let Err(ProbeError::Failed(words)) = code else { panic!("{code:?}") };
                    assert!(
                        words.contains("\"/no/such/program\": stat /no/such/program: no such file"),
                        "{words}"
                    );
                    assert_eq!(seen, "");
                }
            }
        }
        bench.service.kill(&plan.id).await.unwrap();
        exit(&*bench.service, &plan.id).await;
        clean_up(&bench, &plan.id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_check_of_its_own_has_none() {
    let bench = Bench::start();
    let mut untracked =
        checked("untracked", SLEEPS, json!({"Test": ["CMD", "/bin/busybox", "true"]}), json!({}));
    untracked.containers[0].health_checked = false;
    for spec in [untracked, checked("none", SLEEPS, json!({"Test": ["NONE"]}), json!({}))] {
        let plan = bench.plan(&spec, "main");
        bench.service.create(&plan).await.unwrap();
        assert!(bench.service.open(&plan.id, &plan.directory).await.unwrap().is_none());
        clean_up(&bench, &plan.id).await;
    }
    let mut absent = checked("absent", SLEEPS, Value::Null, json!({}));
    absent.containers[0].docker.config.remove("healthcheck");
    let reason = bench.service.create(&bench.plan(&absent, "main")).await.unwrap_err();
    assert_eq!(reason.name, "DockerClientConfigError");
}

/// The first run hangs, with a process of its own beside it; those after it succeed.
const HANGS_ONCE: &str = "[ -e /tmp/second ] && exit 0; echo > /tmp/second; echo hung; busybox sleep 1000 & busybox sleep 1000; true";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_is_killed_with_all_that_it_started() {
    let bench = Bench::start();
    let spec = checked("hangs", SLEEPS, json!({"Test": ["CMD-SHELL", HANGS_ONCE]}), json!({}));
    let plan = bench.plan(&spec, "main");
    launch(&bench, &plan).await.unwrap();
    let (_, mut probe) = open(&*bench.service, &plan).await;
    probe.start().await.unwrap();
    // The container's own, the shell, and what that started.
    until_alive(&bench, &plan, 4).await;
    assert_eq!(timeout(LONG, probe.end()).await.unwrap(), "hung\n");
    until_alive(&bench, &plan, 1).await;
    assert_eq!(run(&mut probe).await.0, Ok(0));

    // An agent that died within a run left it there; the next one finds it.
    forget_first_run(&bench, &plan);
    probe.start().await.unwrap();
    until_alive(&bench, &plan, 4).await;
    drop(probe);
    let again = bench.restarted_service();
    let (_, mut probe) = open(&*again, &plan).await;
    assert_eq!(run(&mut probe).await.0, Ok(0));

    // A run that hangs holds back neither the end of its container nor its removal.
    forget_first_run(&bench, &plan);
    probe.start().await.unwrap();
    bench.service.kill(&plan.id).await.unwrap();
    assert_eq!(exit(&*bench.service, &plan.id).await.exit.code, Some(137));
    clean_up(&bench, &plan.id).await;
    timeout(LONG, probe.end()).await.unwrap();
    assert!(bench.daemon.shims().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_containerd_is_away_nothing_is_said_of_health() {
    let mut bench = Bench::start();
    let spec = checked("away", SLEEPS, json!({"Test": ["CMD", "/bin/busybox", "true"]}), json!({}));
    let plan = bench.plan(&spec, "main");
    launch(&bench, &plan).await.unwrap();
    let (_, mut probe) = open(&*bench.service, &plan).await;
    assert_eq!(run(&mut probe).await.0, Ok(0));
    bench.daemon.kill();
    let (result, _) = run(&mut probe).await;
    assert!(matches!(result, Err(ProbeError::Unreachable(_))), "{result:?}");
    bench.daemon.restart();
    let back = async {
        while run(&mut probe).await.0 != Ok(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, back).await.unwrap();
}
