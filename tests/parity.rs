//! What can be observed from inside a container, under dockerd and under ecsd, side by side.
//!
//! Each task definition of the golden table (tests/fixtures/specs/cases.json), and those of
//! tests/fixtures/parity/tasks.json, is run by the whole agent with a probe for its program, which
//! prints all that a program can find out about its container. Dockerd runs the same image by the same
//! documents, as the original agent would ask it to. What the two print is compared line by line, after
//! what is random or the host's own (ids, addresses, inode numbers, paths of volumes) has been named.
//!
//! Differences that remain are in tests/fixtures/parity/differences.json; each belongs to a row of
//! docs/differences.md, "Inside a container". One more or one fewer fails.
//!
//! Where dockerd is not installed its recorded answers are compared with: tests/fixtures/parity/docker.json.
//! `ECSD_PARITY_RECORD=1` writes them anew (`make parity-record`). See docs/testing.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

#[path = "parity/agent.rs"]
mod agent;
#[path = "parity/cases.rs"]
mod cases;
#[path = "parity/differences.rs"]
mod differences;
#[path = "parity/docker.rs"]
mod docker;
#[path = "parity/recording.rs"]
mod recording;
#[allow(dead_code)]
#[path = "agent/scripted.rs"]
mod scripted;
#[path = "parity/seen.rs"]
mod seen;

use cases::Case;
use docker::Docker;
use recording::Recording;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::host::on_own_network;

/// Containers at once: as many as two processors have CPU shares for.
const AT_ONCE: usize = 8;

/// The host's files that containers see a part of: the same on every machine.
const HOSTS_FILES: [(&str, &str); 2] = [
    ("/etc/hosts", "127.0.0.1\tlocalhost\n10.77.0.1\tthe-host\n"),
    (
        "/etc/resolv.conf",
        "nameserver 127.0.0.53\nnameserver 10.77.0.53\nsearch parity.test\noptions ndots:1\n",
    ),
];

/// Mounts of this thread and its children alone, with files of our own in the host's place.
fn own_mounts(directory: &Path) {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(none, "/", none, MsFlags::MS_REC | propagation, none).unwrap();
    }
    for (path, text) in HOSTS_FILES {
        let file = directory.join(path.trim_start_matches("/etc/"));
        std::fs::write(&file, text).unwrap();
        mount(Some(&file), path, none, MsFlags::MS_BIND, none).unwrap();
    }
}

#[test]
fn a_container_sees_what_docker_would_show_it() {
    let cases = Case::all();
    let recorded = Recording::load();
    let docker = docker::program().map(|_| run_docker(&cases));
    if std::env::var_os("ECSD_PARITY_RECORD").is_some() {
        docker.as_ref().expect("dockerd is installed").save();
    } else if let Some(docker) = docker.as_ref().filter(|docker| docker.is_like(&recorded)) {
        let changed = docker.changes(&recorded);
        assert!(
            changed.is_empty(),
            "dockerd answers otherwise than recorded (make parity-record):\n{changed}"
        );
    }
    let docker = docker.unwrap_or_else(|| {
        eprintln!("dockerd is not installed: compared with the recorded answers of {}", recorded.version);
        recorded
    });
    let ecsd = run_ecsd(&cases);
    differences::check(&docker, &ecsd);
}

#[test]
fn the_recording_has_every_task_definition() {
    let recorded = Recording::load();
    let names: Vec<String> = Case::all().into_iter().map(|case| case.name).collect();
    let recorded: Vec<String> = recorded.rows.keys().cloned().collect();
    let missing: Vec<&String> = names.iter().filter(|name| !recorded.contains(name)).collect();
    let gone: Vec<&String> = recorded.iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty() && gone.is_empty(), "make parity-record: missing {missing:?}, gone {gone:?}");
    assert!(names.len() >= 40, "{}", names.len());
}

#[test]
fn every_difference_has_its_row_and_every_row_its_difference() {
    differences::documented();
}

fn run_docker(cases: &[Case]) -> Recording {
    let (send, receive) = std::sync::mpsc::channel();
    let cases = cases.to_vec();
    on_own_network(move || async move {
        let docker = Docker::start();
        let mut recording = Recording::of_this_host(docker.version());
        let (docker, next, rows) = (&docker, &AtomicUsize::new(0), &Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let seen = docker.run(case);
                        rows.lock().unwrap().insert(case.name.clone(), seen);
                    }
                });
            }
        });
        recording.rows = std::mem::take(&mut rows.lock().unwrap());
        send.send(recording).unwrap();
    });
    receive.recv().unwrap()
}

fn run_ecsd(cases: &[Case]) -> Recording {
    let (send, receive) = std::sync::mpsc::channel();
    let cases = cases.to_vec();
    on_own_network(move || async move {
        let mut recording = Recording::of_this_host("ecsd".to_owned());
        recording.rows = agent::run(&cases).await;
        send.send(recording).unwrap();
    });
    receive.recv().unwrap()
}
