//! The core's invariants, over random events in a small simulated world: lost, repeated and late
//! answers, exits told late or twice, stale listings, failures, processes that ignore signals, restarts,
//! and a crash at any step. Numbers are those of docs/architecture.md:
//!
//! | | held by |
//! |---|---|
//! | 1, 2, 3, 4, 12 | `simulation::check`, after every step of every history; 3 also `nobody_is_starved`, 12 also `a_stop_before_the_start_wins` |
//! | 5, 7, 11 | the end of every history: whatever was lost, everything ends, is told and leaves nothing |
//! | 6 | `check_started`, `check_restart`; `a_death_at_any_moment_changes_no_report` |
//! | 8 | `secrets_are_in_no_text_and_no_record` |
//! | 9 | `check_begun`: no container is made whose image was cleaned up |
//! | 10 | src/core/attach_tests.rs |

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod simulation;

use ecsd::control::payload::{convert, to_stored};
use ecsd::model::HealthStatus;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm};
use simulation::hall::{Hall, Visit};
use simulation::shapes::{SHAPES, TASKS};
use simulation::{Op, World, fate};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..TASKS, 0..SHAPES).prop_map(|(task, shape)| Op::Run { task, shape }),
        2 => (0..TASKS).prop_map(Op::Stop),
        16 => any::<u8>().prop_map(Op::Answer),
        2 => any::<u8>().prop_map(Op::AnswerLost),
        2 => any::<u8>().prop_map(Op::AnswerTwice),
        2 => any::<u8>().prop_map(Op::Fail),
        4 => (any::<u8>(), 0i32..3).prop_map(|(container, code)| Op::Exit { container, code }),
        1 => (any::<u8>(), 0i32..3).prop_map(|(container, code)| Op::ExitUnseen { container, code }),
        1 => any::<u8>().prop_map(Op::ExitTold),
        3 => (any::<u8>(), health()).prop_map(|(container, status)| Op::Health { container, status }),
        4 => (0u32..40_000).prop_map(Op::Pass),
        1 => Just(Op::PassHours),
        2 => Just(Op::Reconcile),
        1 => Just(Op::Look),
        1 => any::<bool>().prop_map(|stale| Op::Listed { stale }),
        1 => Just(Op::CleanImages),
        1 => (any::<u8>(), 0u8..40).prop_map(|(bits, away)| Op::Crash { bits, away }),
    ]
}

fn health() -> impl Strategy<Value = HealthStatus> {
    use HealthStatus::{Healthy, Unhealthy, Unknown};
    prop_oneof![3 => Just(Healthy), 1 => Just(Unhealthy), 1 => Just(Unknown)]
}

/// More of what goes wrong.
fn bad_op() -> impl Strategy<Value = Op> {
    let crash = (any::<u8>(), 0u8..40).prop_map(|(bits, away)| Op::Crash { bits, away });
    prop_oneof![
        6 => op(),
        1 => crash,
        1 => any::<u8>().prop_map(Op::AnswerLost),
        1 => (any::<u8>(), 0i32..3).prop_map(|(container, code)| Op::ExitUnseen { container, code }),
        1 => any::<bool>().prop_map(|stale| Op::Listed { stale }),
        1 => Just(Op::Look),
    ]
}

fn cases(cases: u32) -> ProptestConfig {
    let found = FileFailurePersistence::Direct("tests/properties.proptest-regressions");
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(found)),
        // Cheap: an unoptimised ChaCha would take a third of the time.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    }
}

fn ends_well(ops: Vec<Op>) {
    let mut world = World::new();
    for op in ops {
        world.apply(op);
    }
    world.settle();
}

proptest! {
    #![proptest_config(cases(5000))]

    /// Whatever happens, every step keeps the invariants; and once events get through again, every
    /// task ends, is reported so, and leaves nothing.
    #[test]
    fn every_history_ends_well(ops in prop::collection::vec(op(), 1..70)) {
        ends_well(ops);
    }

    #[test]
    fn every_bad_history_ends_well(ops in prop::collection::vec(bad_op(), 1..70)) {
        ends_well(ops);
    }
}

/// Histories that failed once, as they were when they had been cut down.
#[test]
fn histories_that_failed_once() {
    let answers = |count: usize| std::iter::repeat_n(Op::Answer(0), count);
    // A listing that began before a start was answered, told after it: the container was taken for gone.
    let mut stale = vec![Op::Run { task: 0, shape: 7 }, Op::Answer(0), Op::Answer(178), Op::Fail(47)];
    stale.extend([Op::Pass(15_746)].into_iter().chain(answers(7)));
    stale.extend([Op::AnswerTwice(0), Op::AnswerTwice(0), Op::Answer(0), Op::Look, Op::Answer(0)]);
    stale.extend([Op::Listed { stale: true }, Op::Exit { container: 126, code: 0 }]);
    // A start that was said to have failed, a death while what was left was given back: it was restarted.
    let doubted = [Op::Run { task: 0, shape: 9 }, Op::Answer(164), Op::Answer(191), Op::Answer(216)];
    let mut doubted = doubted.to_vec();
    doubted.extend([Op::Answer(187), Op::AnswerLost(0), Op::Answer(0), Op::Fail(0), Op::Answer(0)]);
    doubted.push(Op::Crash { bits: 0, away: 0 });
    [stale, doubted].into_iter().for_each(ends_well);
}

proptest! {
    #![proptest_config(cases(500))]

    /// A stop that is known before a process was started wins: nothing is started any more.
    #[test]
    fn a_stop_before_the_start_wins(steps in 0usize..12, shape in 0..SHAPES) {
        let mut world = World::new();
        world.apply(Op::Run { task: 0, shape });
        for step in 0..steps {
            world.apply(Op::Answer(u8::try_from(step).unwrap()));
        }
        world.apply(Op::Stop(0));
        world.forbid_starts();
        world.settle();
    }

    /// The agent dies once or twice, anywhere between the payload and the clean-up: the same is told in
    /// the end, and there were as many processes.
    #[test]
    fn a_death_at_any_moment_changes_no_report(
        shape in 0..SHAPES, deaths in prop::collection::vec((0usize..60, any::<u8>()), 1..3),
    ) {
        prop_assert_eq!(fate::run(shape, &deaths), fate::run(shape, &[]));
    }

    /// Credentials are in no `Debug` of what they came in or became, and in nothing that is stored.
    #[test]
    fn secrets_are_in_no_text_and_no_record(secrets in prop::array::uniform6("[A-Za-z0-9+/]{20,40}")) {
        let credentials = |id: &str, at: usize| serde_json::json!({
            "credentialsId": id, "roleArn": "arn:aws:iam::1:role/r", "expiration": "2036-01-01T00:00:00Z",
            "accessKeyId": secrets[at], "secretAccessKey": secrets[at + 1], "sessionToken": secrets[at + 2],
        });
        let task = serde_json::json!({
            "arn": "arn:aws:ecs:us-east-1:1:task/c/t", "desiredStatus": "RUNNING", "family": "f", "version": "1",
            "roleCredentials": credentials("task", 0), "executionRoleCredentials": credentials("execution", 3),
            "containers": [{"name": "main", "image": "img", "essential": true}],
        });
        let wire = serde_json::from_value(task).unwrap();
        let converted = convert(&wire).unwrap();
        let role = converted.role.clone().unwrap();
        prop_assert_eq!(&role.secret_access_key, &secrets[1], "it did arrive");
        let stored = to_stored(&wire, &[]);
        // Access key ids are no secrets, but nobody needs to read them either: not stored.
        for (what, text) in [
            ("wire", format!("{wire:?} {wire:#?}")),
            ("task", format!("{converted:?} {converted:#?}")),
            ("credentials", format!("{role:?}")),
            ("record", stored),
        ] {
            let told: Vec<_> = [1, 2, 4, 5].into_iter().filter(|at| text.contains(&secrets[*at])).collect();
            prop_assert!(told.is_empty(), "{}: {:?}", what, told);
            prop_assert!(what != "record" || !text.contains(&secrets[0]) && !text.contains(&secrets[3]));
        }
    }
}

fn visit() -> impl Strategy<Value = Visit> {
    let amount = || prop_oneof![Just(0u64), 1u64..=100, 1u64..=1000];
    prop_oneof![
        3 => (amount(), amount(), prop::option::weighted(0.3, 1u16..4))
            .prop_map(|(cpu, memory_mib, port)| Visit::Comes { cpu, memory_mib, port }),
        2 => any::<u8>().prop_map(Visit::Ends),
    ]
}

proptest! {
    #![proptest_config(cases(300))]

    /// Later tasks overtake the first that waits only so often, unless they take nothing that it lacks;
    /// and when all that run have ended, nobody waits.
    #[test]
    fn nobody_is_starved(visits in prop::collection::vec(visit(), 1..100)) {
        let mut hall = Hall::new();
        for visit in visits {
            hall.apply(visit);
        }
        hall.everybody_leaves();
    }
}
