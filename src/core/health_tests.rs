//! Docker's rules one by one, and against a small oracle over random results.

use super::*;
use proptest::prelude::*;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn check(start_period: u64, retries: u32) -> HealthCheck {
    HealthCheck {
        command: vec!["true".into()],
        interval: seconds(10),
        timeout: seconds(5),
        start_period: seconds(start_period),
        start_interval: seconds(2),
        retries,
    }
}

fn result(exit_code: i32) -> HealthResult {
    HealthResult { exit_code, output: format!("said {exit_code}") }
}

/// Takes runs (age in seconds, exit code); which of them changed the health, and to what.
fn changes(monitor: &mut HealthMonitor, runs: &[(u64, i32)]) -> Vec<(u64, HealthStatus)> {
    let run = |(age, code): &(u64, i32)| {
        let health = monitor.take(result(*code), seconds(*age), Wall(*age))?;
        Some((*age, health.status))
    };
    runs.iter().filter_map(run).collect()
}

#[test]
fn one_success_is_enough_and_so_many_failures_in_a_row() {
    use HealthStatus::{Healthy, Unhealthy};
    let mut monitor = HealthMonitor::new(&check(0, 3));
    let runs = [(1, 0), (2, 0), (3, 1), (4, 1), (5, 0), (6, 1), (7, -1), (8, 2), (9, 1), (10, 0)];
    assert_eq!(changes(&mut monitor, &runs), [(1, Healthy), (8, Unhealthy), (10, Healthy)]);
    let mut monitor = HealthMonitor::new(&check(0, 1));
    assert_eq!(changes(&mut monitor, &[(1, 1), (2, 1)]), [(1, Unhealthy)]);
}

#[test]
fn failures_within_the_start_period_do_not_count_until_a_run_succeeds() {
    use HealthStatus::{Healthy, Unhealthy};
    let mut monitor = HealthMonitor::new(&check(10, 2));
    assert_eq!(changes(&mut monitor, &[(2, 1), (4, 1), (9, 1), (10, 1), (12, 1)]), [(12, Unhealthy)]);
    let mut monitor = HealthMonitor::new(&check(10, 2));
    assert_eq!(changes(&mut monitor, &[(2, 1), (4, 0), (5, 1), (6, 1)]), [(4, Healthy), (6, Unhealthy)]);
}

#[test]
fn the_start_interval_holds_until_the_start_is_over() {
    let mut monitor = HealthMonitor::new(&check(20, 1));
    assert_eq!(monitor.pause(seconds(0)), seconds(2));
    monitor.take(result(1), seconds(2), Wall(0));
    assert_eq!(monitor.pause(seconds(19)), seconds(2));
    assert_eq!(monitor.pause(seconds(20)), seconds(10));
    monitor.take(result(0), seconds(4), Wall(0));
    assert_eq!(monitor.pause(seconds(4)), seconds(10));
    assert_eq!(HealthMonitor::new(&check(0, 1)).pause(seconds(0)), seconds(10), "without a start period");
}

#[test]
fn the_exit_code_is_told_of_the_unhealthy_alone_and_output_is_cut_between_characters() {
    let mut monitor = HealthMonitor::new(&check(0, 1));
    let unhealthy = monitor.take(result(7), seconds(1), Wall(5)).unwrap();
    let told = Health {
        status: HealthStatus::Unhealthy,
        since: Some(Wall(5)),
        output: "said 7".into(),
        exit_code: Some(7),
    };
    assert_eq!(unhealthy, told);
    let long = HealthResult { exit_code: 0, output: format!("x{}", "ä".repeat(3000)) };
    let healthy = monitor.take(long, seconds(2), Wall(6)).unwrap();
    assert_eq!((healthy.exit_code, healthy.output.len()), (None, 1023));
}

/// What the whole history says, by Docker's rules told in another way.
fn oracle(history: &[(u64, i32)], start_period: u64, retries: u32) -> HealthStatus {
    let enough = |failures: usize| failures >= retries as usize;
    match history.iter().rposition(|(_, code)| *code == 0) {
        Some(last) if enough(history.len() - 1 - last) => HealthStatus::Unhealthy,
        Some(_) => HealthStatus::Healthy,
        None if enough(history.iter().filter(|(age, _)| *age >= start_period).count()) => {
            HealthStatus::Unhealthy
        }
        None => HealthStatus::Unknown,
    }
}

proptest! {
    #[test]
    fn random_results_keep_to_the_rules(
        runs in prop::collection::vec((0u64..8, prop_oneof![2 => Just(0), 3 => Just(1), 1 => Just(-1)]), 0..60),
        start_period in 0u64..40, retries in 1u32..5,
    ) {
        let mut monitor = HealthMonitor::new(&check(start_period, retries));
        let (mut age, mut history, mut before) = (0, Vec::new(), HealthStatus::Unknown);
        for (pause, code) in runs {
            age += pause;
            history.push((age, code));
            let change = monitor.take(result(code), seconds(age), Wall(age));
            let status = oracle(&history, start_period, retries);
            prop_assert_eq!(change.as_ref().map(|health| health.status), (status != before).then_some(status));
            if let Some(health) = change {
                prop_assert_eq!(health.since, Some(Wall(age)));
                prop_assert_eq!(health.exit_code, (status == HealthStatus::Unhealthy).then_some(code));
            }
            let starting = status == HealthStatus::Unknown && age < start_period;
            prop_assert_eq!(monitor.pause(seconds(age)), seconds(if starting { 2 } else { 10 }));
            before = status;
        }
    }
}
