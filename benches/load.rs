//! What many tasks at once cost the agent: memory and descriptors, idle, with all of them, and after.
//!
//! `cargo bench --bench load [-- --tasks N --rounds N]` as root. Prints the table of
//! docs/performance.md; that nothing is left of them is tests/load.rs's to see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};
use support::host::{Host, with_agent};
use support::load::{Load, descriptors, memory};

/// The most that the agent may have resident, in MiB.
const GOAL_MIB: f64 = 30.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (tasks, rounds) = (number("--tasks", 200), number("--rounds", 3).max(1));
    with_agent(move |host| async move {
        println!("| of the agent's process | resident, MiB | anonymous, MiB | descriptors |");
        println!("|---|---|---|---|");
        row("idle", &host);
        let mut most = 0;
        for round in 1..=rounds {
            let begun = Instant::now();
            let load = Load::start(&host, tasks);
            let up = async {
                load.is_up(&host).await;
                begun.elapsed()
            };
            let peak = async {
                let mut peak = 0;
                loop {
                    peak = memory(&host).0.max(peak);
                    most = peak.max(most);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            // The watch never ends by itself.
            let took = tokio::select! { took = up => took, () = peak => Duration::ZERO };
            row(&format!("round {round}: {} of {tasks} tasks run, after {took:.1?}", load.long.len()), &host);
            let begun = Instant::now();
            load.stop(&host).await;
            row(&format!("round {round}: all have stopped, after {:.1?}", begun.elapsed()), &host);
            host.until_nothing_is_left().await;
            row(&format!("round {round}: all are cleaned up, after {:.1?}", begun.elapsed()), &host);
        }
        let most = most as f64 / 1024.0;
        println!();
        println!("The most while tasks were launched: {most:.1} MiB resident; to reach: {GOAL_MIB} MiB");
    });
}

fn row(what: &str, host: &Host) {
    let (resident, anonymous) = memory(host);
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!("| {what} | {:.1} | {:.1} | {} |", mib(resident), mib(anonymous), descriptors(host));
}
