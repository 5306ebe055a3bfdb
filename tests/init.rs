//! The init program by itself: exit codes, signals, orphans, the terminal, what it costs. What it does in
//! a container is in `tests/agent/init.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::containerd::TempDir;

fn program(directory: &TempDir) -> PathBuf {
    ecsd::containerd::init::install(directory.path()).unwrap()
}

fn init(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg0("/sbin/docker-init").args(arguments).stdin(Stdio::null());
    command
}

/// A limit, never a measure.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// Starts it on a shell script, and waits for the line that the script writes first.
fn started(program: &Path, script: &str, environment: &[(&str, &str)]) -> (Child, String) {
    let mut command = init(program, &["--", "/bin/busybox", "sh", "-c", script]);
    let mut child = command.envs(environment.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

/// Processes whose parent is that one.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn its_exit_code_is_that_of_the_program() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    let script = directory.path().join("script");
    std::fs::write(&script, "echo \"$0 $1\"; exit 4").unwrap();
    let code = |arguments: &[&str]| init(&program, arguments).output().unwrap().status.code();
    for wanted in [0, 1, 7, 255] {
        assert_eq!(code(&["--", "/bin/busybox", "sh", "-c", &format!("exit {wanted}")]), Some(wanted));
    }
    assert_eq!(code(&["/bin/busybox", "false"]), Some(1), "without the two dashes");
    for (signal, wanted) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        assert_eq!(code(&["--", "/bin/busybox", "sh", "-c", &format!("kill -{signal} $$")]), Some(wanted));
    }
    for (name, wanted) in
        [("no-such-program", 127), ("/no/such/program", 127), ("/etc/passwd", 126), ("/etc", 126)]
    {
        let output = init(&program, &["--", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(wanted), "{name}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("exec {name} failed: ")), "{said}");
    }
    // Through PATH, and by the shell where a script names no interpreter.
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("/no/such/directory::/etc/passwd:{}", directory.path().display());
    let output = init(&program, &["--", "script", "one"]).env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{} one\n", script.display()));
    assert_eq!(code(&[]), Some(1), "nothing to run");
}

#[test]
fn signals_reach_the_program_and_it_alone() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    let script = "trap 'exit 31' USR1; trap 'exit 32' HUP; trap 'exit 33' TERM; trap 'exit 34' WINCH; \
                  echo ready; while :; do sleep 0.01; done";
    for (sent, code) in
        [(Signal::SIGUSR1, 31), (Signal::SIGHUP, 32), (Signal::SIGTERM, 33), (Signal::SIGWINCH, 34)]
    {
        let (mut child, _) = started(&program, script, &[]);
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{sent}");
    }
    // Stopped and continued: neither ends anything.
    let (mut child, _) = started(&program, script, &[]);
    let of_child = children(child.id());
    signal(&child, Signal::SIGTSTP);
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
    };
    until("the program stops", || state(of_child[0]) == 'T');
    assert_eq!(state(child.id()), 'S');
    signal(&child, Signal::SIGCONT);
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(33));
}

#[test]
fn the_whole_group_is_signalled_where_tinis_variable_asks_for_it() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    // The outer shell goes on after the signal, the inner one ends: where only the outer one gets it,
    // nothing ever ends.
    let script =
        "trap : USR1; sh -c 'trap \"exit 8\" USR1; echo ready; while :; do sleep 0.01; done'; exit $?";
    let (mut child, _) = started(&program, script, &[("TINI_KILL_PROCESS_GROUP", "1")]);
    signal(&child, Signal::SIGUSR1);
    let mut ended = None;
    until("both shells were signalled", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(8));
}

#[test]
fn the_program_leads_a_group_of_its_own_with_the_signals_that_it_was_given() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    let (mut child, _) = started(&program, "echo ready; sleep 600", &[]);
    let of_child = children(child.id())[0];
    let field = |pid: u32, index: usize| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(index).unwrap().to_owned()
    };
    assert_eq!(field(of_child, 2), of_child.to_string(), "its process group");
    let mask = |pid: u32, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let own = u32::try_from(nix::unistd::getpid().as_raw()).unwrap();
    assert_eq!(mask(of_child, "SigBlk:") & !mask(own, "SigBlk:"), 0);
    assert_eq!(mask(of_child, "SigIgn:") & (1 << 20 | 1 << 21), mask(own, "SigIgn:") & (1 << 20 | 1 << 21));
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn orphans_are_reaped() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    // A hundred grandchildren lose their parent at once, and end a little later.
    let script =
        "n=0; while [ $n -lt 100 ]; do (sleep 0.2 & exit 0); n=$((n+1)); done; echo ready; sleep 600";
    let (mut child, _) = started(&program, script, &[("TINI_SUBREAPER", "")]);
    let of_child = |child: &Child| children(child.id());
    until("the orphans came to it", || of_child(&child).len() > 50 || of_child(&child).len() == 1);
    until("all of them are reaped", || of_child(&child).len() == 1);
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn as_process_one_it_ends_all_that_is_left() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(&program);
    command.args(["--", "/bin/busybox", "sh", "-c", "echo $$; sleep 600 & exit 5"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    // The end of the output is the end of all that hold it: `sleep` was killed with the namespace.
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), child.wait().unwrap().code()), ("2\n", Some(5)));
}

#[test]
fn the_holder_reaps_ends_on_request_and_costs_nothing() {
    let directory = TempDir::new("init");
    let program = program(&directory);
    for sent in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = Command::new(&program).arg0("/pause").stdin(Stdio::null()).spawn().unwrap();
        let status = || std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        until("it waits", || status().contains("State:\tS"));
        let resident =
            status().lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned)).unwrap();
        let kib: u32 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 200, "{resident}");
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{sent}");
    }
    // As process 1: what nobody asked for passes it by, orphans are reaped, and all ends with it.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "/bin/busybox", "sh", "-c"]);
    command.arg("(sleep 0.1; echo late) & exec -a pause \"$0\"").arg(&program);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "late\n");
    let holder = children(child.id())[0];
    until("its child is reaped", || children(holder).is_empty());
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(holder).unwrap()), Signal::SIGHUP).unwrap();
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(holder).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
