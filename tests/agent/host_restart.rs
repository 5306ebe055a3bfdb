//! The host is restarted: every process has ended, `/run` is empty, what is on disk is there. Simulated on
//! this machine: everything that would end is ended, everything in memory removed, and the store is told
//! of another boot.

use crate::durability::{STAYS, all_stop_cleanly, counted, run_ready, start_again, starts};
use crate::support::host::{Host, cgroup_mounts, run, with_agent};
use ecsd::ports::{Store, StoreChange};
use ecsd::store::RedbStore;
use std::path::Path;

/// What a restart leaves of the kernel's state: nothing; or, worse than any restart, all that has no
/// process in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Empty,
    Stale,
}

/// Ends the processes of all containers, their shims and loggers, containerd and, where it runs, the agent.
fn end_everything(host: &mut Host) {
    host.containerd.kill();
    let mut pids = host.containerd.shims();
    pids.extend(host.loggers());
    for root in cgroup_mounts().into_iter().map(|mount| mount.join(host.cgroup_root())) {
        pids.extend(processes_in(&root));
    }
    for pid in pids {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

fn processes_in(cgroup: &Path) -> Vec<i32> {
    let listed = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = listed.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        pids.extend(processes_in(&entry.path()));
    }
    pids
}

fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.retain(|point| Path::new(point).starts_with(directory));
    points.reverse();
    for point in points {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// The machine goes down and comes up again; containerd runs, the agent does not.
async fn restart_host(host: &mut Host, tasks: &[&str], kernel: Kernel) {
    end_everything(host);
    host.until("every process has ended", |host| {
        let roots = cgroup_mounts().into_iter().map(|mount| mount.join(host.cgroup_root()));
        host.containerd.shims().is_empty() && roots.flat_map(|root| processes_in(&root)).next().is_none()
    })
    .await;
    // /run: containerd's and runc's state, the pins.
    let (state, pins) = (host.containerd.directory().join("state"), host.dir.path().join("run/netns"));
    unmount_below(&state);
    unmount_below(&pins);
    std::fs::remove_dir_all(&state).unwrap();
    for arn in tasks {
        let id = host.container_id(arn, "main");
        let _ = std::fs::remove_dir_all(Path::new("/run/containerd/runc/ecs").join(id));
    }
    if kernel == Kernel::Empty {
        std::fs::remove_dir_all(&pins).unwrap();
        crate::support::host::remove_cgroups(&host.cgroup_root());
        for name in host.links() {
            // Its other end may have gone with the namespace.
            let _ = std::process::Command::new("ip").args(["link", "del", &name]).output();
        }
        run("ip", &["link", "del", "ecs-br0"]);
        run("nft", &["delete", "table", "inet", "ecsd"]);
    }
    let store = RedbStore::open(&host.dir.path().join("data")).unwrap();
    assert!(store.load().unwrap().meta.contains_key("boot-id"));
    store.commit(&[StoreChange::PutMeta("boot-id", "the boot before".into())]).unwrap();
    drop(store);
    host.containerd.restart();
}

/// A task whose agent dies at that place.
async fn interrupted(host: &mut Host, name: &str, place: &str) -> String {
    std::fs::write(host.dir.path().join("crash"), place).unwrap();
    let task = host.run_task(counted(host, name, STAYS));
    for _ in 0..4500 {
        if host.agent_died() {
            std::fs::write(host.dir.path().join("crash"), "").unwrap();
            return task;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the agent does not come by {place}\n{}", host.agent_log());
}

async fn told_of_the_restart(host: &Host, arn: &str, code: Option<i64>, what: &str) {
    let task = host.until_status(arn, "STOPPED").await;
    let container = &task.containers[0];
    let reason = container.reason.as_deref().unwrap_or_default();
    assert_eq!(container.exit_code, code, "{task:#?}");
    assert_eq!(reason, format!("ContainerVanishedError: the host was restarted {what}"));
}

fn everything_has_ended(kernel: Kernel) {
    with_agent(move |mut host| async move {
        let file = host.dir.path().join("crash").display().to_string();
        host.set("ECSD_CRASH_FILE", &file);
        host.stop_agent().await;
        start_again(&mut host).await;
        let ran = run_ready(&host, "ran").await;
        let made = interrupted(&mut host, "made", "before-start:1").await;
        restart_host(&mut host, &[&ran, &made], kernel).await;
        start_again(&mut host).await;
        told_of_the_restart(&host, &ran, Some(255), "while the container ran").await;
        told_of_the_restart(&host, &made, None, "before the container was started").await;
        host.until_nothing_is_left().await;
        // What was not made yet is made now; and the next restart is seen as well.
        let pulled = interrupted(&mut host, "pulled", "before-create:1").await;
        restart_host(&mut host, &[&pulled], kernel).await;
        start_again(&mut host).await;
        host.until_status(&pulled, "RUNNING").await;
        host.until("it is ready", |host| host.logs(&pulled, "main").contains("ready")).await;
        assert_eq!((starts(&host, "ran"), starts(&host, "made"), starts(&host, "pulled")), (1, 0, 1));
        // A death of the agent alone is no restart of the host.
        host.kill_agent();
        start_again(&mut host).await;
        all_stop_cleanly(&host, &[pulled]).await;
    });
}

#[test]
fn a_restart_of_the_host_ends_all_tasks_truthfully() {
    everything_has_ended(Kernel::Empty);
}

#[test]
fn a_restart_of_the_host_that_leaves_stale_networks_and_cgroups_does_too() {
    everything_has_ended(Kernel::Stale);
}
