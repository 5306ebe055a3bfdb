//! One task in a world where all goes well and every process ends as its fate says, so that what is told
//! in the end can be compared: with and without the agent's death on the way.

use super::shapes::arn;
use super::{Op, Process, World};
use ecsd::core::Event;
use ecsd::model::*;
use std::collections::BTreeMap;

/// What was told of a task in the end.
#[derive(Debug, PartialEq)]
pub struct Ending {
    pub reason: String,
    /// Exit code and reason.
    pub containers: BTreeMap<String, (Option<i32>, Option<String>)>,
    /// How many processes there were.
    pub processes: usize,
}

/// How long a process lives, and its exit code. The third of a container ends well.
fn fate(container: &str, processes_before: usize) -> Option<(u64, i32)> {
    match (container, processes_before) {
        ("immortal" | "side", _) => None,
        ("init", _) => Some((5, 0)),
        ("a", _) => Some((40, 7)),
        ("c", _) => Some((20, 5)),
        (_, 0 | 1) => Some((30, 3)),
        _ => Some((30, 0)),
    }
}

/// Runs a task to its end. The agent dies before the turns that are named, with what is under way done
/// or not by the bits.
pub fn run(shape: u8, deaths: &[(usize, u8)]) -> Ending {
    let mut world = World::new();
    world.settling = true;
    world.apply(Op::Run { task: 0, shape });
    for turn in 0..3000 {
        for (_, bits) in deaths.iter().filter(|(when, _)| *when == turn) {
            world.apply(Op::Crash { bits: *bits, away: 0 });
        }
        if !world.under_way.is_empty() {
            world.answer(0, false, 1);
        } else if !world.turn_of_time() {
            break;
        }
    }
    world.check_nothing_is_left();
    let told = &world.told[arn(0)];
    let changes = told.iter().flat_map(|report| &report.containers);
    let stopped = changes.filter(|change| change.status == ContainerStatus::Stopped);
    Ending {
        reason: told.last().unwrap().reason.clone(),
        containers: stopped.map(|c| (c.name.clone(), (c.exit_code, c.reason.clone()))).collect(),
        processes: world.exits.len(),
    }
}

impl World {
    /// Goes on to what happens next by itself; false where nothing does.
    fn turn_of_time(&mut self) -> bool {
        let next_end = self.processes.iter().filter_map(|(key, process)| {
            let Process::Running { since } = process else { return None };
            let before = self.exits.iter().filter(|(of, _)| of == key).count();
            let (seconds, code) = fate(&key.name, before)?;
            Some((Wall(since.0 + seconds * 1_000_000_000), key.clone(), code))
        });
        let next_end = next_end.min_by_key(|(at, ..)| *at);
        let until = |at: Wall| self.now.mono.plus(at.since(self.now.wall));
        match (next_end, self.state.next_deadline()) {
            (Some((at, key, code)), deadline) if deadline.is_none_or(|deadline| until(at) <= deadline) => {
                let at = until(at);
                self.advance_to(at);
                if let Some(exit) = self.end(&key, code) {
                    self.exited(key, exit);
                }
                true
            }
            (_, Some(deadline)) => {
                self.advance_to(deadline.max(self.now.mono));
                self.step(Event::Tick);
                true
            }
            (_, None) => false,
        }
    }
}
