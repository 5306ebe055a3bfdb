use super::*;
use futures_util::StreamExt;
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

fn ip(arguments: &str) {
    // A child of this thread, and so in this thread's namespace.
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn a_new_link_is_told_of_and_listed() {
    // A thread of its own in a namespace of its own, which goes with it.
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut changes = HostLinks.watch().unwrap();
            assert!(HostLinks.list().await.unwrap().is_empty(), "the loopback is no link to wait for");
            ip("link add eni1 address 0a:00:00:00:00:01 type veth peer name far address 0a:00:00:00:00:02");
            changes.next().await.unwrap();
            let two = [MacAddress([10, 0, 0, 0, 0, 1]), MacAddress([10, 0, 0, 0, 0, 2])];
            assert_eq!(HostLinks.list().await.unwrap(), two.into());
            ip("link del eni1");
            changes.next().await.unwrap();
        });
    });
    thread.join().unwrap();
}
