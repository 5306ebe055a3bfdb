//! A private containerd: own root, state and socket in a temporary directory, no CRI. Killed, with
//! its shims and mounts, when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory of its own, removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(kind: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short: the path of a unix socket has 108 bytes at most.
        let path = std::env::temp_dir().join(format!("ecsd-{kind}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running containerd.
pub struct PrivateContainerd {
    child: Child,
    socket: PathBuf,
    directory: TempDir,
    bin_dir: Option<PathBuf>,
}

impl PrivateContainerd {
    /// Starts the containerd of `bin_dir`, or of [`chosen_bin_dir`], or of PATH, and waits until it
    /// serves.
    pub fn start(bin_dir: Option<&Path>) -> Self {
        Self::start_in(TempDir::new("ctd"), bin_dir)
    }

    /// Starts one whose whole disk is a tmpfs of that size.
    pub fn start_on_small_disk(mib: u64) -> Self {
        let directory = TempDir::new("ctd");
        let options = format!("size={mib}m");
        let root = directory.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, &root, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self::start_in(directory, None)
    }

    fn start_in(directory: TempDir, bin_dir: Option<&Path>) -> Self {
        let dir = directory.path();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
             \"io.containerd.cri.v1.runtime\", \"io.containerd.internal.v1.opt\", \
             \"io.containerd.internal.v1.tracing\", \"io.containerd.tracing.processor.v1.otlp\", \
             \"io.containerd.nri.v1.nri\", \"io.containerd.internal.v1.restart\"]\n\
             [grpc]\naddress = \"{0}/c.sock\"\n",
            dir.display()
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let socket = dir.join("c.sock");
        let bin_dir = bin_dir.map(Path::to_owned).or_else(chosen_bin_dir);
        let child = spawn(dir, bin_dir.as_deref());
        Self { child, socket, directory, bin_dir }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory of it all.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `ctr` of the same version, for this daemon and that namespace.
    pub fn ctr(&self, namespace: &str) -> Command {
        let program = self.bin_dir.as_ref().map_or_else(|| PathBuf::from("ctr"), |bin| bin.join("ctr"));
        let mut command = Command::new(program);
        command.arg("-a").arg(&self.socket).args(["-n", namespace]);
        command
    }

    /// Runs it to its end; it must succeed.
    pub fn run_ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        let output = self.ctr(namespace).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {text}{errors}");
        text
    }

    /// Process ids of this daemon's shims.
    pub fn shims(&self) -> Vec<i32> {
        let mut shims = processes_naming(&self.socket.display().to_string());
        shims.retain(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains("containerd-shim")
        });
        shims
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// SIGKILL; containers go on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it answers nobody, until [`Self::go_on`].
    pub fn stand_still(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Starts it again after [`Self::kill`].
    pub fn restart(&mut self) {
        self.child = spawn(self.directory.path(), self.bin_dir.as_deref());
    }
}

/// The directory of another containerd with its `ctr` and shim, where `ECSD_TEST_CONTAINERD_BIN` names
/// one. runc stays the system's.
pub fn chosen_bin_dir() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("ECSD_TEST_CONTAINERD_BIN").filter(|d| !d.is_empty())?);
    let all = ["containerd", "ctr", "containerd-shim-runc-v2"];
    let missing = all.iter().find(|program| !directory.join(program).is_file());
    assert!(missing.is_none(), "ECSD_TEST_CONTAINERD_BIN={}: no {missing:?} there", directory.display());
    Some(std::fs::canonicalize(directory).unwrap())
}

/// It is one of the 2.x line.
pub fn is_second_line() -> bool {
    chosen_bin_dir().is_some_and(|directory| directory.to_string_lossy().contains("/2."))
}

/// Process ids whose command line has this word.
pub fn processes_naming(word: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).split('\0').any(|part| part == word)
    })
    .collect()
}

fn spawn(dir: &Path, bin_dir: Option<&Path>) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let (program, path) = match bin_dir {
        Some(bin) => (bin.join("containerd"), format!("{}:{path}", bin.display())),
        None => (PathBuf::from("containerd"), path),
    };
    let mut child = Command::new(program)
        .arg("--config")
        .arg(dir.join("config.toml"))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("containerd is installed");
    wait_for_line(child.stderr.take().unwrap(), "successfully booted", "containerd");
    child
}

/// Waits until a program's output says `word`; goes on reading it after that.
pub fn wait_for_line(output: impl std::io::Read + Send + 'static, word: &'static str, program: &str) {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = String::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains(word) {
                let _ = tell.send(Ok(()));
            }
            if seen.len() < 20_000 {
                seen.push_str(&line);
                seen.push('\n');
            }
        }
        let _ = tell.send(Err(seen));
    });
    match told.recv_timeout(Duration::from_secs(60)) {
        Ok(Ok(())) => {}
        Ok(Err(output)) => panic!("{program} ended:\n{output}"),
        Err(_) => panic!("{program} did not become ready"),
    }
}

impl Drop for PrivateContainerd {
    fn drop(&mut self) {
        // Shims first, by our own socket in their command line: nobody else has it.
        for pid in processes_naming(&self.socket.display().to_string()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        self.kill();
        let prefix = self.directory.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mut points: Vec<&str> = points.filter(|point| point.starts_with(&prefix)).collect();
        points.reverse();
        for point in points {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
