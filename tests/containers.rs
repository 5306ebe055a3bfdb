//! Containers against a real containerd: create, start, exit, stop, crash, clean up. Needs root,
//! containerd, runc and a static busybox; makes everything below a temporary directory.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "containers/health.rs"]
mod health;
mod support;

use ecsd::core::Observed;
use ecsd::model::{
    ContainerId, MountPoint, NetworkMode, PortMapping, PortRange, Protocol, StopReason, TaskSpec, VolumeFrom,
};
use ecsd::ports::{ContainerExit, Containers, CreatePlan, NetworkAttachment};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;
use support::bench::{Bench, container, docker, mount, task};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

/// Creates and starts.
async fn launch(bench: &Bench, plan: &CreatePlan) -> Result<(), StopReason> {
    bench.service.create(plan).await?;
    bench.service.start(&plan.id).await.map(|_| ())
}

async fn exit(service: &impl Containers, id: &ContainerId) -> ContainerExit {
    timeout(LONG, service.wait(id)).await.expect("it ends").expect("it ran")
}

async fn clean_up(bench: &Bench, id: &ContainerId) {
    timeout(LONG, bench.service.release(id)).await.unwrap().unwrap();
    bench.service.remove(id).await.unwrap();
}

/// Runs a script to its end in a directory of the host at /out; answers code and what it wrote.
async fn run(bench: &Bench, spec: TaskSpec, name: &str) -> (ContainerExit, String) {
    let out = bench.path(format!("out-{}", spec.id()));
    std::fs::create_dir_all(&out).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut plan = bench.plan(&spec, name);
    mount(&mut plan, &out, "/out");
    plan.agent_environment.insert("BOTH".into(), "agent".into());
    plan.agent_environment.insert("AGENT".into(), "1".into());
    launch(bench, &plan).await.unwrap();
    let ended = exit(&*bench.service, &plan.id).await;
    clean_up(bench, &plan.id).await;
    (ended, std::fs::read_to_string(out.join("f")).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_sees_is_what_docker_would_show() {
    let bench = Bench::start();
    let script = "exec >/out/f 2>&1; id; env; pwd; hostname; grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status; \
                  cat /proc/self/limits | grep files; busybox cat /data/seed; cat /etc/hostname; \
                  unshare -m true && echo UNSHARED; cat /proc/kcore | head -c 1 | wc -c; exit 3";
    let mut spec = task(
        "sees",
        &[(
            "main",
            &format!(
                "{{ b() {{ busybox \"$@\"; }}; for n in id env hostname grep cat unshare head wc; do eval \"$n() {{ busybox $n \\\"\\$@\\\"; }}\"; done; {script}; }}"
            ),
        )],
    );
    spec.containers[0].environment.insert("MINE".into(), "a b".into());
    let (ended, seen) = run(&bench, spec.clone(), "main").await;
    assert_eq!(ended.exit.code, Some(3), "{seen}");
    for line in [
        "uid=0(root) gid=0(root) groups=0(root),10(wheel)",
        "FROM_IMAGE=1",
        "BOTH=agent",
        "AGENT=1",
        "MINE=a b",
        "HOME=/root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "CapEff:\t00000000a80425fb",
        "from the image",
    ] {
        assert!(seen.lines().any(|l| l == line), "{line:?} in\n{seen}");
    }
    assert!(!seen.contains("UNSHARED"), "{seen}");

    // Another user, directory, host name, and a network of its own.
    let netns = format!("ecsd-{}", std::process::id());
    let ip = |args: &[&str]| assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    ip(&["netns", "add", &netns]);
    spec = task(
        "other",
        &[(
            "main",
            "busybox id; busybox pwd; busybox hostname; busybox cat /etc/hosts /etc/resolv.conf; busybox ip link; busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start; busybox stat -c '%u %a' /data /data/seed; echo a > /data/new && echo VOLUME",
        )],
    );
    spec.containers[0].command[3] = format!("exec >/out/f 2>&1; {}", spec.containers[0].command[3]);
    spec.containers[0].docker = docker(
        json!({"User": "web", "WorkingDir": "/not/there/yet", "Hostname": "me"}),
        json!({"LogConfig": {"Type": "none"}, "ExtraHosts": ["db:10.9.9.9"], "Dns": ["10.1.1.1"]}),
    );
    let plan_network = |plan: &mut CreatePlan| {
        plan.network = NetworkAttachment::Namespace {
            path: format!("/run/netns/{netns}").into(),
            ipv4: Some([172, 17, 0, 9].into()),
        };
    };
    let out = bench.path("out2");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut plan = bench.plan(&spec, "main");
    mount(&mut plan, &out, "/out");
    plan_network(&mut plan);
    let launched = launch(&bench, &plan).await;
    let ended = match launched {
        Ok(()) => Some(exit(&*bench.service, &plan.id).await),
        Err(_) => None,
    };
    ip(&["netns", "del", &netns]);
    launched.unwrap();
    let seen = std::fs::read_to_string(out.join("f")).unwrap();
    assert_eq!(ended.unwrap().exit.code, Some(0), "{seen}");
    for line in [
        "uid=33(web) gid=34(www) groups=34(www),63(audio)",
        "/not/there/yet",
        "me",
        "10.9.9.9\tdb",
        "172.17.0.9\tme",
        "nameserver 10.1.1.1",
        "0",
        "33 755",
        "33 600",
        "VOLUME",
    ] {
        assert!(seen.lines().any(|l| l == line), "{line:?} in\n{seen}");
    }
    assert!(seen.contains("lo:") && !seen.contains("eth0"), "{seen}");
    clean_up(&bench, &plan.id).await;
    assert_eq!(bench.ctr(&["snapshots", "ls"]).lines().count(), 3, "two layers and a heading");
}

/// A network namespace that goes with the test.
struct Netns(String);

impl Netns {
    fn new(name: &str) -> Self {
        let name = format!("ecsd-{name}-{}", std::process::id());
        assert!(std::process::Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }

    fn attachment(&self, ipv4: [u8; 4]) -> NetworkAttachment {
        NetworkAttachment::Namespace {
            path: format!("/run/netns/{}", self.0).into(),
            ipv4: Some(ipv4.into()),
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documents_ask_for_is_seen_from_inside() {
    let bench = Bench::start();
    let (db_net, web_net) = (Netns::new("db"), Netns::new("web"));
    let script = "exec >/out/f 2>&1; busybox grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; busybox id -G; \
                  busybox cat /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn; \
                  busybox grep -E ' (/dev/shm|/run|/proc/acpi) ' /proc/mounts; busybox head -c 1 /proc/kcore | busybox wc -c; \
                  busybox stat -c '%F %t,%T' /dev/hole; busybox touch /x || echo READONLY; \
                  busybox env | busybox grep ^DB; busybox cat /etc/hosts; echo > /cache/new; busybox cat /proc/1/comm";
    let mut spec = task("inside", &[("db", "busybox sleep 1000"), ("web", script)]);
    spec.network_mode = NetworkMode::Bridge;
    spec.containers[0].environment.insert("PASSWORD".into(), "x".into());
    spec.containers[0].ports.push(PortMapping {
        container: PortRange { first: 5432, count: 1, is_range: false },
        host_port: 0,
        protocol: Protocol::Tcp,
    });
    spec.containers[1].links.push("db:db-1".into());
    spec.containers[1].docker = docker(
        json!({"Volumes": {"/cache": {}}}),
        json!({
            "LogConfig": {"Type": "none"}, "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "Init": true, "GroupAdd": ["audio", "4000"],
            "SecurityOpt": ["no-new-privileges"], "Sysctls": {"kernel.msgmax": "4321", "net.core.somaxconn": "99"},
            "ShmSize": 1048576, "Tmpfs": {"/run": "size=2m,exec,mode=700"}, "ReadonlyRootfs": true,
            "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/hole"}], "DeviceCgroupRules": ["c 1:7 r"],
            "MaskedPaths": ["/proc/kcore"], "ExtraHosts": ["six:fd00::1"]
        }),
    );
    let mut db = bench.plan(&spec, "db");
    db.network = db_net.attachment([172, 17, 0, 2]);
    launch(&bench, &db).await.unwrap();
    let out = bench.path("out-inside");
    std::fs::create_dir_all(&out).unwrap();
    let mut web = bench.plan(&spec, "web");
    web.network = web_net.attachment([172, 17, 0, 3]);
    mount(&mut web, &out, "/out");
    launch(&bench, &web).await.unwrap();
    let ended = exit(&*bench.service, &web.id).await;
    let seen = std::fs::read_to_string(out.join("f")).unwrap();
    clean_up(&bench, &web.id).await;
    bench.service.kill(&db.id).await.unwrap();
    exit(&*bench.service, &db.id).await;
    clean_up(&bench, &db.id).await;
    assert_eq!(ended.exit.code, Some(0), "{seen}");
    let names = format!("172.17.0.2\tdb-1 {} {}", db.id.short(), spec.docker_name("db"));
    for line in [
        "CapEff:\t0000000000001000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "0 10 63 4000",
        "4321",
        "99",
        "character special file 1,5",
        "READONLY",
        "DB_1_PORT=tcp://172.17.0.2:5432",
        "DB_1_PORT_5432_TCP_PROTO=tcp",
        "DB_1_ENV_PASSWORD=x",
        "fd00::1\tsix",
        &names,
        "docker-init",
    ] {
        assert!(seen.lines().any(|l| l == line), "{line:?} in\n{seen}");
    }
    let mount =
        |path: &str| seen.lines().find(|l| l.contains(&format!(" {path} "))).unwrap_or_default().to_owned();
    assert!(mount("/dev/shm").contains("size=1024k"), "{seen}");
    let run = mount("/run");
    assert!(run.contains("size=2048k") && run.contains("mode=700") && !run.contains("noexec"), "{seen}");
    assert_eq!(mount("/proc/acpi"), "", "only what was asked for is hidden: {seen}");
    assert!(seen.lines().any(|l| l == "0"), "/proc/kcore is hidden: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_asked_for_and_then_forced() {
    let bench = Bench::start();
    let polite = "trap 'exit 7' USR1; while :; do busybox sleep 0.05; done";
    let deaf = "trap '' USR1 TERM; while :; do busybox sleep 0.05; done";
    let spec = task("stop", &[("polite", polite), ("deaf", deaf)]);
    let (polite, deaf) = (bench.plan(&spec, "polite"), bench.plan(&spec, "deaf"));
    // Both at once: they race for the task's one shim.
    let (one, two) = tokio::join!(launch(&bench, &polite), launch(&bench, &deaf));
    one.unwrap();
    two.unwrap();
    assert_eq!(bench.daemon.shims().len(), 1, "a task has one shim");
    // Again is fine.
    bench.service.create(&polite).await.unwrap();
    bench.service.start(&polite.id).await.unwrap();
    let list = bench.service.list().await.unwrap();
    assert_eq!(list.get(&spec.key("polite")), Some(&Observed::Running));

    // The script may not have come to its trap yet: the signal is sent until it is heard.
    let ended = async {
        let wait = exit(&*bench.service, &polite.id);
        tokio::pin!(wait);
        loop {
            bench.service.signal(&polite.id).await.unwrap();
            tokio::select! { ended = &mut wait => break ended, () = tokio::time::sleep(Duration::from_millis(100)) => {} }
        }
    };
    let code = ended.await.exit.code;
    assert!(code == Some(7) || code == Some(128 + 10), "{code:?}");
    bench.service.signal(&deaf.id).await.unwrap();
    assert!(timeout(Duration::from_millis(500), bench.service.wait(&deaf.id)).await.is_err());
    bench.service.kill(&deaf.id).await.unwrap();
    let ended = exit(&*bench.service, &deaf.id).await;
    assert_eq!((ended.exit.code, ended.oom_killed), (Some(137), false));
    let list = bench.service.list().await.unwrap();
    assert!(matches!(list.get(&spec.key("deaf")), Some(Observed::Exited(e)) if e.exit.code == Some(137)));

    // What is gone already is no error, however often it is asked for.
    for _ in 0..2 {
        bench.service.signal(&deaf.id).await.unwrap();
        bench.service.kill(&deaf.id).await.unwrap();
        clean_up(&bench, &deaf.id).await;
    }
    clean_up(&bench, &polite.id).await;
    assert!(bench.service.wait(&deaf.id).await.is_none());
    assert!(bench.service.list().await.unwrap().is_empty());
    assert!(bench.daemon.shims().is_empty(), "the shim ends with its last container");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_told_in_the_runtimes_words() {
    let bench = Bench::start();
    let mut spec = task("bad", &[("good", "exec busybox sleep 60"), ("bad", "")]);
    spec.containers[1].command = vec!["/no/such/binary".into()];
    let good = bench.plan(&spec, "good");
    launch(&bench, &good).await.unwrap();
    let bad = bench.plan(&spec, "bad");
    let reason = launch(&bench, &bad).await.unwrap_err();
    assert_eq!(reason.name, "CannotStartContainerError");
    let words = "OCI runtime create failed: runc create failed: unable to start container process: exec: \
                 \"/no/such/binary\": stat /no/such/binary: no such file or directory";
    assert!(reason.message.contains(words), "{reason}");
    assert!(bench.service.wait(&bad.id).await.is_none());
    clean_up(&bench, &bad.id).await;
    assert_eq!(bench.service.list().await.unwrap().get(&spec.key("good")), Some(&Observed::Running));

    let mut unknown_volume = container("c", "");
    unknown_volume.mounts.push(MountPoint {
        volume: "nope".into(),
        container_path: "/x".into(),
        read_only: false,
    });
    let mut unknown_user = container("c", "");
    unknown_user.docker = docker(json!({"User": "nobody"}), json!({}));
    let mut bad_signal = container("c", "");
    bad_signal.docker = docker(json!({"StopSignal": "SIGNOPE"}), json!({}));
    let mut no_command = container("c", "");
    no_command.docker =
        docker(json!({"Entrypoint": ["/absent"], "Cmd": []}), json!({"LogConfig": {"Type": "none"}}));
    for (container, words) in [
        (unknown_volume, "HostConfigError: Invalid volume referenced: nope"),
        (
            unknown_user,
            "CannotCreateContainerError: unable to find user nobody: no matching entries in passwd file",
        ),
        (bad_signal, "CannotCreateContainerError: invalid signal: SIGNOPE"),
        (no_command, "CannotStartContainerError: "),
    ] {
        let mut spec = task("refused", &[]);
        spec.containers.push(container);
        let reason = bench.service.create(&bench.plan(&spec, "c")).await.unwrap_err().to_string();
        assert!(reason.starts_with(words), "{reason}");
    }
    clean_up(&bench, &bench.plan(&task("refused", &[]), "c").id).await;
    bench.service.kill(&good.id).await.unwrap();
    exit(&*bench.service, &good.id).await;
    clean_up(&bench, &good.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_reach_the_kernel_and_an_oom_kill_is_told() {
    let bench = Bench::start();
    let mut spec =
        task("limits", &[("main", "exec busybox sleep 60"), ("eats", "busybox tail /dev/zero; exit 9")]);
    spec.containers[0].memory_mib = 32;
    spec.containers[0].cpu_shares = 512;
    spec.containers[1].memory_mib = 16;
    let host = json!({"LogConfig": {"Type": "none"}, "PidsLimit": 50, "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "CpuPeriod": 100000, "CpuQuota": 50000, "OomScoreAdj": 500, "Tmpfs": {"/t": "size=1m"}, "ReadonlyRootfs": true});
    spec.containers[0].docker = docker(json!({}), host);
    let main = bench.plan(&spec, "main");
    launch(&bench, &main).await.unwrap();
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        let value = |controller: &str, file: &str| {
            let path = format!("/sys/fs/cgroup/{controller}{}/{file}", main.cgroup);
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
        };
        assert_eq!(value("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(value("cpu", "cpu.shares"), "512");
        assert_eq!(value("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(value("pids", "pids.max"), "50");
        let pid = value("pids", "cgroup.procs");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files: Vec<&str> =
            limits.lines().find(|l| l.starts_with("Max open files")).unwrap().split_whitespace().collect();
        assert_eq!(files[3..5], ["100", "200"]);
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(mounts.lines().any(|l| l.contains(" / / ro,")), "{mounts}");
        assert!(mounts.lines().any(|l| l.contains(" /t ") && l.contains("size=1024k")), "{mounts}");
    }
    let eats = bench.plan(&spec, "eats");
    launch(&bench, &eats).await.unwrap();
    let ended = exit(&*bench.service, &eats.id).await;
    assert!(ended.oom_killed, "{ended:?}");
    bench.service.kill(&main.id).await.unwrap();
    exit(&*bench.service, &main.id).await;
    for id in [&main.id, &eats.id] {
        clean_up(&bench, id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_containerd_or_of_the_agent_loses_no_exit() {
    let mut bench = Bench::start();
    let spec = task(
        "crash",
        &[
            ("lives", "while [ ! -e /out/end ]; do busybox sleep 0.05; done; exit 5"),
            ("ends", "while [ ! -e /out/go ]; do busybox sleep 0.05; done; exit 9"),
        ],
    );
    let out = bench.path("out");
    std::fs::create_dir_all(&out).unwrap();
    let mut plans = Vec::new();
    for name in ["lives", "ends"] {
        let mut plan = bench.plan(&spec, name);
        mount(&mut plan, &out, "/out");
        launch(&bench, &plan).await.unwrap();
        plans.push(plan);
    }
    let service = bench.service.clone();
    let follower = {
        let service = service.clone();
        tokio::spawn(async move { service.follow_events().await })
    };
    let waiting = {
        let (service, id) = (service.clone(), plans[0].id.clone());
        tokio::spawn(async move { service.wait(&id).await })
    };
    bench.daemon.kill();
    // This one ends while nobody looks.
    std::fs::write(out.join("go"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    bench.daemon.restart();
    timeout(LONG, service.relist_due()).await.expect("a loss is told");

    // A new agent finds both, and the exit of the one.
    let again = bench.restarted_service();
    let list = again.list().await.unwrap();
    assert_eq!(list.get(&spec.key("lives")), Some(&Observed::Running));
    // containerd 1.7 and later forget what ended while they were down: its code is lost with them.
    let seen = list.get(&spec.key("ends"));
    let forgotten =
        std::env::var_os("ECSD_TEST_CONTAINERD_BIN").is_some() && seen == Some(&Observed::Created);
    if !forgotten {
        assert!(matches!(seen, Some(Observed::Exited(e)) if e.exit.code == Some(9)), "{list:?}");
        assert_eq!(exit(&*again, &plans[1].id).await.exit.code, Some(9));
    }
    // The wait from before the crash is still good.
    std::fs::write(out.join("end"), "").unwrap();
    let ended = timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(ended.exit.code, Some(5));
    for plan in &plans {
        again.release(&plan.id).await.unwrap();
        again.remove(&plan.id).await.unwrap();
    }
    assert!(again.list().await.unwrap().is_empty());
    follower.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_dies_takes_its_container_along_and_everything_can_be_removed() {
    let bench = Bench::start();
    let service = bench.service.clone();
    let follower = {
        let service = service.clone();
        tokio::spawn(async move { service.follow_events().await })
    };
    let spec = task("shim", &[("main", "exec busybox sleep 600")]);
    let plan = bench.plan(&spec, "main");
    launch(&bench, &plan).await.unwrap();
    let shim = nix::unistd::Pid::from_raw(bench.daemon.shims()[0]);
    let waiting = {
        let (service, id) = (service.clone(), plan.id.clone());
        tokio::spawn(async move { service.wait(&id).await })
    };
    nix::sys::signal::kill(shim, nix::sys::signal::SIGKILL).unwrap();
    let ended = timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(ended.expect("containerd tells of it").exit.code, Some(137));
    clean_up(&bench, &plan.id).await;
    assert!(service.list().await.unwrap().is_empty());
    follower.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_deletion_and_the_next_creation_do_not_meet() {
    let bench = Bench::start();
    let spec = task("meet", &[("a", "exit 0"), ("b", "exit 4")]);
    let (a, b) = (bench.plan(&spec, "a"), bench.plan(&spec, "b"));
    for _ in 0..12 {
        launch(&bench, &a).await.unwrap();
        exit(&*bench.service, &a.id).await;
        let (released, launched) = tokio::join!(bench.service.release(&a.id), launch(&bench, &b));
        released.unwrap();
        launched.unwrap();
        assert_eq!(exit(&*bench.service, &b.id).await.exit.code, Some(4));
        for id in [&a.id, &b.id] {
            clean_up(&bench, id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_stays_open_and_its_output_is_logged() {
    let bench = Bench::start();
    let logger = bench.path("logger.sh");
    let script = "#!/bin/sh\nexec 5>&-\n/bin/busybox cat <&3 > \"$(dirname \"$2\")/seen\"\n";
    std::fs::write(&logger, script).unwrap();
    std::fs::set_permissions(&logger, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Nobody types: whoever reads waits, where an empty standard input would end at once.
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo TERMINAL $TERM; busybox timeout 1 busybox cat; [ $? = 143 ] && echo OPEN; exit 5";
    let mut spec = task("terminal", &[("main", script)]);
    spec.containers[0].docker = docker(json!({"Tty": true, "OpenStdin": true}), json!({}));
    let plan = bench.plan(&spec, "main");
    launch(&bench, &plan).await.unwrap();
    let ended = exit(&*bench.service, &plan.id).await;
    clean_up(&bench, &plan.id).await;
    let seen = std::fs::read_to_string(plan.directory.join("seen")).unwrap();
    assert_eq!(ended.exit.code, Some(5), "{seen}");
    assert!(seen.starts_with("TERMINAL xterm\r\n") && seen.ends_with("OPEN\r\n"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_shared_and_filled_and_output_reaches_the_logger() {
    let bench = Bench::start();
    let logger = bench.path("logger.sh");
    let script = "#!/bin/sh\nexec 5>&-\n/bin/busybox cat <&3 > \"$(dirname \"$2\")/seen\"\n";
    std::fs::write(&logger, script).unwrap();
    std::fs::set_permissions(&logger, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = task(
        "volumes",
        &[
            ("one", "echo hello; echo x > /vol/from-one"),
            ("two", "busybox cat /data/mine /vol/from-one && ! echo y > /vol/z"),
        ],
    );
    spec.containers[0].docker = docker(
        json!({}),
        json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "Binds": ["named:/vol", "named:/data"]}),
    );
    spec.containers[1].docker = docker(json!({}), json!({}));
    spec.containers[1].volumes_from.push(VolumeFrom { container: "one".into(), read_only: true });
    let volume = bench.path("volumes/named/_data");
    let one = bench.plan(&spec, "one");
    let two = bench.plan(&spec, "two");
    launch(&bench, &one).await.unwrap();
    assert_eq!(exit(&*bench.service, &one.id).await.exit.code, Some(0));
    assert_eq!(std::fs::read_to_string(volume.join("seed")).unwrap(), "from the image\n");
    assert_eq!(volume.join("seed").metadata().unwrap().uid(), 33);
    std::fs::write(volume.join("mine"), "m\n").unwrap();
    launch(&bench, &two).await.unwrap();
    assert_eq!(exit(&*bench.service, &two.id).await.exit.code, Some(0));
    for id in [&one.id, &two.id] {
        clean_up(&bench, id).await;
    }
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(one.directory.join("logger.json")).unwrap()).unwrap();
    assert_eq!((&config["driver"], &config["options"]), (&json!("json-file"), &json!({"max-size": "1m"})));
    assert_eq!(config["container"]["id"], one.id.as_str());
    assert!(config["path"].as_str().unwrap().ends_with("-json.log"));
    assert_eq!(one.directory.join("logger.json").metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(one.directory.join("seen")).unwrap(), "hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_the_same_container_goes_on_with_its_files() {
    let bench = Bench::start();
    let script = "echo . >>/n; busybox wc -l </n >>/out/f; test $(busybox wc -l </n) -gt 2 && busybox sleep 1000; exit 4";
    let spec = task("again", &[("main", script)]);
    let mut plan = bench.plan(&spec, "main");
    let out = bench.path("out-again");
    std::fs::create_dir_all(&out).unwrap();
    mount(&mut plan, &out, "/out");
    launch(&bench, &plan).await.unwrap();
    for _ in 0..2 {
        assert_eq!(exit(&*bench.service, &plan.id).await.exit.code, Some(4));
        bench.service.restart(&plan.id).await.unwrap();
    }
    let listed = async || bench.service.list().await.unwrap().get(&spec.key("main")).cloned();
    assert_eq!(listed().await, Some(Observed::Running));
    // Once more, as after a crash: one that runs is left alone.
    bench.service.restart(&plan.id).await.unwrap();
    let told = || std::fs::read_to_string(out.join("f")).unwrap_or_default();
    timeout(LONG, async {
        while told().lines().count() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("three lines are written");
    assert_eq!(told(), "1\n2\n3\n");
    assert_eq!(bench.daemon.shims().len(), 1);
    // What is to be given back may still run: a start that seemed to fail, but did not.
    clean_up(&bench, &plan.id).await;
    assert_eq!(listed().await, None);
    assert!(bench.daemon.shims().is_empty());
}
