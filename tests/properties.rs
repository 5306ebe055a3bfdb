//! The core's invariants, over random events in a small simulated world: lost, repeated and late
//! answers, exits told late or twice, stale listings, failures, processes that ignore signals, restarts,
//! and a crash at any step.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod simulation;

use ecsd::model::HealthStatus;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use simulation::shapes::{SHAPES, TASKS};
use simulation::{Op, World};

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

fn cases(cases: u32) -> ProptestConfig {
    let found = FileFailurePersistence::Direct("tests/properties.proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(found)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(500))]

    /// Whatever happens, every step keeps the invariants; and once events get through again, every
    /// task ends, is reported so, and leaves nothing.
    #[test]
    fn every_history_ends_well(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.settle();
    }

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
}
