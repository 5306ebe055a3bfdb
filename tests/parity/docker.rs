//! A private dockerd with a private containerd, in this thread's namespaces; asked over its API, as the
//! original agent does.

use super::cases::{Case, image};
use super::own_mounts;
use super::seen::{Seen, Surroundings, default_nofile, own_status};
use crate::support::containerd::{PrivateContainerd, TempDir};
use crate::support::host::{PATIENCE, remove_cgroups};
use ecsd::containerd::spec::capabilities;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The version that the original agent asks in, unless the daemon is too new for it.
const API: &str = "v1.21";

/// Where dockerd is, if it is.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("dockerd")).find(|program| program.is_file())
}

pub struct Docker {
    daemon: Child,
    directory: TempDir,
    containerd: PrivateContainerd,
    cgroup: String,
}

impl Docker {
    pub fn start() -> Self {
        let directory = TempDir::new("parity-docker");
        own_mounts(directory.path());
        let containerd = PrivateContainerd::start(None);
        let at = directory.path().to_owned();
        let path = |name: &str| at.join(name);
        let log = std::fs::File::create(path("log")).unwrap();
        let runtime = path("runtime");
        std::fs::write(&runtime, lenient_runtime()).unwrap();
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
        // The firewall is nothing that a container sees.
        let daemon = Command::new("dockerd")
            .args(["--iptables=false", "--ip6tables=false", "--host"])
            .arg(format!("unix://{}", path("docker.sock").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg(format!("--add-runtime=lenient={}", runtime.display()))
            .arg(format!("--default-ulimit=nofile={}:{}", default_nofile().0, default_nofile().1))
            .args(["--default-runtime=lenient", "--containerd"])
            .arg(containerd.socket())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let cgroup = directory.path().file_name().unwrap().to_string_lossy().replace('-', "_");
        let mut docker = Self { daemon, directory, containerd, cgroup };
        let begun = Instant::now();
        while UnixStream::connect(path("docker.sock")).is_err() {
            let ended = docker.daemon.try_wait().unwrap().is_some();
            assert!(begun.elapsed() < PATIENCE && !ended, "{}", docker.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        docker.expect("POST", "/images/load", &image(), "application/x-tar");
        docker
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn version(&self) -> String {
        let answer: Value = serde_json::from_slice(&self.expect("GET", "/version", b"", "")).unwrap();
        answer["Version"].as_str().unwrap().to_owned()
    }

    /// One call: status and body.
    fn call(&self, method: &str, path: &str, body: &[u8], kind: &str) -> (u16, Vec<u8>) {
        let mut stream = UnixStream::connect(self.directory.path().join("docker.sock")).unwrap();
        // By HTTP/1.0 the end of the answer is the end of the connection.
        let head = format!(
            "{method} /{API}{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_off(end + 4))
    }

    fn expect(&self, method: &str, path: &str, body: &[u8], kind: &str) -> Vec<u8> {
        let (status, answer) = self.call(method, path, body, kind);
        assert!(status < 300, "{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        answer
    }

    /// Runs a task's containers; what the last of them sees.
    pub fn run(&self, case: &Case) -> Seen {
        let task = uuid::Uuid::new_v4().simple().to_string();
        let base = self.directory.path().to_owned();
        let names: BTreeMap<String, String> = case
            .containers
            .iter()
            .map(|c| (c.name.clone(), format!("ecs-parity-1-{}-{}", c.name, &task[..20])))
            .collect();
        let mut ids = BTreeMap::new();
        let mut seen = Err("no container".to_owned());
        for container in &case.containers {
            let name = &names[&container.name];
            let mut request = case.docker_request(container, &names, &base);
            request["HostConfig"]["CgroupParent"] = json!(format!("/{}/{task}", self.cgroup));
            seen = self
                .launch(name, &request)
                .inspect(|id| drop(ids.insert(container.name.clone(), id.clone())));
            if seen.is_err() {
                break;
            }
        }
        let seen = seen.map(|id| {
            let tty = case.probed().config.get("Tty") == Some(&json!(true));
            let text = self.until_written(case, &id, tty, &base);
            let bundle =
                self.containerd.directory().join("state/io.containerd.runtime.v2.task/moby").join(&id);
            Surroundings::new(&ids, &names, &bundle).read(case, &text)
        });
        for name in names.values() {
            self.call("DELETE", &format!("/containers/{name}?force=1&v=1"), b"", "");
        }
        seen.unwrap_or_else(|words| Seen::refused(&words))
    }

    fn launch(&self, name: &str, request: &Value) -> Result<String, String> {
        let words = |answer: &[u8]| String::from_utf8_lossy(answer).trim().to_owned();
        let body = request.to_string();
        let path = format!("/containers/create?name={name}");
        let (status, answer) = self.call("POST", &path, body.as_bytes(), "application/json");
        if status >= 300 {
            return Err(words(&answer));
        }
        let made: Value = serde_json::from_slice(&answer).unwrap();
        let id = made["Id"].as_str().unwrap().to_owned();
        match self.call("POST", &format!("/containers/{id}/start"), b"", "application/json") {
            (status, _) if status < 300 => Ok(id),
            (_, answer) => Err(words(&answer)),
        }
    }

    /// What the probe wrote, when it is done.
    fn until_written(&self, case: &Case, id: &str, tty: bool, base: &Path) -> String {
        let begun = Instant::now();
        loop {
            let text = match case.is_silent() {
                true => std::fs::read_to_string(case.out(base).join("seen")).unwrap_or_default(),
                false => {
                    let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
                    let log = self.expect("GET", &path, b"", "");
                    String::from_utf8_lossy(&if tty { log } else { without_frames(&log) }).into_owned()
                }
            };
            if text.contains("== end") {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{}: the probe does not end\n{text}", case.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// runc, without the capabilities that this host lacks: dockerd asks for all there are, and a kernel that
/// can't give one would give none.
fn lenient_runtime() -> String {
    let bounding = u64::from_str_radix(&own_status("CapBnd"), 16).unwrap();
    let missing = capabilities::ALL.iter().enumerate().filter(|(bit, _)| bounding & (1 << bit) == 0);
    let removals: String = missing.map(|(_, name)| format!(" -e 's/\"CAP_{name}\",//g'")).collect();
    let edit = if removals.is_empty() {
        ":".to_owned()
    } else {
        format!("sed -i{removals} \"$bundle/config.json\"")
    };
    format!(
        "#!/bin/sh\nfor word in \"$@\"; do\n  case $before in --bundle|-b) bundle=$word ;; esac\n  before=$word\ndone\n\
         [ -z \"$bundle\" ] || {edit}\nexec runc \"$@\"\n"
    )
}

/// A log without the eight bytes before each piece.
fn without_frames(mut log: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while let [_, _, _, _, a, b, c, d, rest @ ..] = log {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        text.extend(&rest[..length]);
        log = &rest[length..];
    }
    text
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
        remove_cgroups(&self.cgroup);
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- dockerd's last lines\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}
