//! The init program of ours in containers; by itself it is tested in `tests/init.rs`.

use crate::support::host::{container, family, with_agent};
use ecsd::containerd::image::archive::{RootfsConfig, RootfsContent, RootfsFile};
use ecsd::containerd::image::import::build_rootfs_image;
use serde_json::{Value, json};

fn with_init(more: Value) -> Value {
    let mut all = json!({"linuxParameters": {"initProcessEnabled": true}});
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
    all
}

#[test]
fn init_is_process_one_and_the_exit_is_the_containers_own() {
    with_agent(|host| async move {
        // Orphans end beside it; at the stop signal it ends with a code of its own.
        let script = "trap 'exit 7' TERM; for n in 1 2 3; do (sleep 0.1 & exit 0); done; \
                      while :; do sleep 0.1; done";
        let terminal = json!({"pseudoTerminal": true, "interactive": true});
        let arn = host.run_task(family(
            "init",
            [
                container("main", script, with_init(json!({}))),
                container("terminal", "sleep 3600", with_init(terminal)),
                container("without", "sleep 3600", json!({})),
            ],
        ));
        host.until_status(&arn, "RUNNING").await;
        let first = |name: &str| host.exec(&arn, name, &["cat", "/proc/1/comm"]).trim().to_owned();
        assert_eq!((first("main"), first("without")), ("docker-init".into(), "sleep".into()));
        let zombies =
            || host.exec(&arn, "main", &["sh", "-c", "grep -l 'State:.Z' /proc/[0-9]*/status || true"]);
        host.until("orphans are reaped", |_| zombies().trim().is_empty()).await;
        // Field 5 of stat is the process group, field 8 the terminal's foreground group.
        let stat_of_child = "set -- $(cat /proc/1/task/1/children); cat /proc/$1/stat";
        let stat = host.exec(&arn, "terminal", &["sh", "-c", stat_of_child]);
        let fields: Vec<&str> = stat.split_whitespace().collect();
        assert_eq!((fields[4], fields[7]), (fields[0], fields[0]), "{stat}");
        host.control.stop_task(&arn, "test").unwrap();
        let task = host.until_status(&arn, "STOPPED").await;
        let code = |name: &str| task.containers.iter().find(|c| c.name == name).unwrap().exit_code;
        assert_eq!((code("main"), code("terminal")), (Some(7), Some(143)), "{task:#?}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn init_tells_how_a_program_ended_and_that_there_is_none() {
    with_agent(|host| async move {
        let connection = ecsd::containerd::Connection::new(host.containerd.socket(), "ecs").unwrap();
        let images = ecsd::containerd::ImageService::new(connection, Default::default());
        // Nothing but one program: no /sbin, no shell, no libraries.
        let content = RootfsContent::Bytes(std::fs::read("/bin/busybox").unwrap());
        let files = [RootfsFile { path: "/echo".into(), mode: 0o755, content }];
        build_rootfs_image(&images, "ecsd.test/scratch:1", &files, &RootfsConfig::default()).await.unwrap();
        let scratch = json!({"image": "ecsd.test/scratch:1", "command": ["/echo", "from", "scratch"]});
        for (name, script, more, code) in [
            ("killed", "kill -9 $$", json!({}), 137),
            ("aborted", "kill -ABRT $$", json!({}), 134),
            ("absent", "", json!({"command": ["/no/such/program"]}), 127),
            ("denied", "", json!({"command": ["/etc/hosts"]}), 126),
            ("scratch", "", scratch, 0),
        ] {
            let arn = host.run_task(family(name, [container("main", script, with_init(more))]));
            let task = host.until_status(&arn, "STOPPED").await;
            assert_eq!(task.containers[0].exit_code, Some(code), "{task:#?}");
            if name == "scratch" {
                assert_eq!(host.logs(&arn, "main"), "from scratch\n");
            }
        }
    });
}
