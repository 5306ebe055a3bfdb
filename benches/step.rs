//! What one `core::step` costs with 200 tasks in the state: 160 that run, of two containers each, and 40
//! that wait for room.
//!
//! `cargo bench --bench step [-- --rounds N]`. Prints median and 99th percentile for each kind of event;
//! ends with 1 where a median is over 50 microseconds in an optimised build. A reconcile looks at every
//! container and has no such limit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use ecsd::core::{
    Action, CreatedContainer, Effect, EffectId, Event, Observed, Outcome, ReportOutcome, Rules, State,
    Timeouts,
};
use ecsd::model::*;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TASKS: usize = 200;
const RUNNING: usize = 160;
const LIMIT: Duration = Duration::from_micros(50);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(2000).max(1);
    let (base, containers) = full_state();
    println!("{TASKS} tasks, {RUNNING} of them running; {rounds} rounds");
    println!("| event | median | 99 % |\n|---|---|---|");
    let mut worst = Duration::ZERO;
    let mut row = |name: &str, is_limited: bool, prepare: &dyn Fn(&mut State, usize) -> Event| {
        let (median, most) = measure(&base, rounds, prepare);
        println!("| {name} | {:.1} us | {:.1} us |", micros(median), micros(most));
        if is_limited {
            worst = worst.max(median);
        }
    };
    row("a container that is not essential ends", true, &|_, n| exited(n % RUNNING, "side"));
    row("the last container of a task ends, another task is admitted", true, &|state, n| {
        let _ = step(state, exited(n % RUNNING, "side"));
        exited(n % RUNNING, "main")
    });
    row("a task comes and waits", true, &|_, n| wanted(TASKS + n, DesiredStatus::Running));
    row("a task is to stop", true, &|_, n| wanted(n % RUNNING, DesiredStatus::Stopped));
    row("a stop signal was sent", true, &|state, n| {
        let effects = step(state, wanted(n % RUNNING, DesiredStatus::Stopped));
        let id = find(&effects, |action| matches!(action, Action::Signal { .. }));
        Event::Done { id, outcome: Outcome::Signalled(Ok(())) }
    });
    row("a report was taken", true, &|state, n| {
        let _ = step(state, exited(n % RUNNING, "side"));
        let effects = step(state, exited(n % RUNNING, "main"));
        let id = find(&effects, |action| matches!(action, Action::Report(_)));
        Event::Done { id, outcome: Outcome::Reported(ReportOutcome::Accepted) }
    });
    row("a digest was looked up", true, &|state, n| {
        let _ = step(state, exited(n % RUNNING, "side"));
        let effects = step(state, exited(n % RUNNING, "main"));
        let id = find(&effects, |action| matches!(action, Action::Resolve { .. }));
        Event::Done { id, outcome: Outcome::Resolved(Ok(ResolvedImage { digest: digest(), local: false })) }
    });
    row("time passes, nothing is due", true, &|_, _| Event::Tick);
    row("a reconcile", false, &|state, _| Event::Reconciled {
        containers: containers.clone(),
        as_of: state.look(),
    });
    if worst > LIMIT && !cfg!(debug_assertions) {
        println!("over the limit of {LIMIT:?}");
        std::process::exit(1);
    }
}

/// Median and 99th percentile of one step, each from the same state.
fn measure(
    base: &State,
    rounds: usize,
    prepare: &dyn Fn(&mut State, usize) -> Event,
) -> (Duration, Duration) {
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let mut state = base.clone();
        let event = prepare(&mut state, round);
        let begun = Instant::now();
        let effects = state.step(event, now());
        // The shell asks after every step.
        let due = state.next_deadline();
        times.push(begun.elapsed());
        black_box((effects, due));
    }
    times.sort();
    (times[rounds / 2], times[rounds * 99 / 100])
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

fn now() -> Now {
    Now { wall: Wall(1_795_467_514_000_000_000), mono: Mono(Duration::from_secs(100)) }
}

fn step(state: &mut State, event: Event) -> Vec<Effect> {
    state.step(event, now())
}

fn find(effects: &[Effect], wanted: impl Fn(&Action) -> bool) -> EffectId {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Run { id, action, .. } if wanted(action) => Some(*id),
        _ => None,
    });
    found.expect("the step asks for it")
}

fn digest() -> Option<ImageDigest> {
    ImageDigest::parse(&format!("sha256:{}", "ab".repeat(32)))
}

fn spec(n: usize) -> Arc<TaskSpec> {
    let arn = format!("arn:aws:ecs:us-west-2:123456789012:task/bench/{n:032x}");
    let container = |name: &str| ContainerSpec {
        image: "123456789012.dkr.ecr.us-west-2.amazonaws.com/team/app:1".into(),
        essential: name == "main",
        cpu_shares: 10,
        memory_mib: 64,
        ..ContainerSpec::empty(name)
    };
    Arc::new(TaskSpec {
        family: "bench".into(),
        version: "1".into(),
        containers: vec![container("main"), container("side")],
        ..TaskSpec::empty(TaskArn::parse(&arn).unwrap())
    })
}

fn wanted(n: usize, desired: DesiredStatus) -> Event {
    Event::TaskWanted { spec: spec(n), desired }
}

fn exited(n: usize, container: &str) -> Event {
    let exit = ExitRecord { code: Some(0), at: now().wall };
    Event::Exited { container: spec(n).key(container), exit, oom_killed: false }
}

/// All tasks brought as far as they come when everything goes well, and what the runtime holds then.
fn full_state() -> (State, BTreeMap<ContainerKey, Observed>) {
    let cpu = RUNNING as u64 * 20;
    let mut state = State::new(Rules {
        host: HostResources { cpu, memory_mib: 1 << 20, ..HostResources::default() },
        stop_timeout: Duration::from_secs(30),
        cleanup_wait: Duration::from_secs(3 * 3600),
        cleanup_jitter: Duration::ZERO,
        timeouts: Timeouts::default(),
        pull_failure_stops_task: false,
        pull_upfront: false,
    });
    let as_of = state.look();
    let _ = step(&mut state, Event::Reconciled { containers: BTreeMap::new(), as_of });
    for n in 0..TASKS {
        let mut effects = step(&mut state, wanted(n, DesiredStatus::Running));
        while let Some(effect) = effects.pop() {
            if let Effect::Run { id, action, .. } = effect {
                effects.extend(step(&mut state, Event::Done { id, outcome: well(&action) }));
            }
        }
    }
    assert_eq!(state.queue().count(), TASKS - RUNNING);
    let keys = (0..RUNNING).flat_map(|n| ["main", "side"].map(|name| spec(n).key(name)));
    (state, keys.map(|key| (key, Observed::Running)).collect())
}

fn well(action: &Action) -> Outcome {
    let at = now().wall;
    match action {
        Action::Resolve { .. } => Outcome::Resolved(Ok(ResolvedImage { digest: digest(), local: false })),
        Action::Pull { .. } => Outcome::Pulled(Ok(digest().unwrap())),
        Action::PrepareTask { .. } => Outcome::TaskPrepared(Ok(())),
        Action::Create { .. } => {
            Outcome::Created(Ok(CreatedContainer { at, address: ContainerAddress::default() }))
        }
        Action::Start { .. } | Action::Restart { .. } => Outcome::Started(Ok(at)),
        Action::Signal { .. } | Action::Kill { .. } => Outcome::Signalled(Ok(())),
        Action::Release { .. } => Outcome::Released(Ok(())),
        Action::RemoveTask { .. } => Outcome::TaskRemoved(Ok(())),
        Action::Report(_) => Outcome::Reported(ReportOutcome::Accepted),
    }
}
