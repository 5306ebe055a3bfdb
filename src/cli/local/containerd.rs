//! Which containerd a session uses: one that is named, one that runs already, or a private one.

use super::hooks::ContainerdTarget;
use super::process::{Program, need};
use super::show::say;
use super::statedir::{OWNER_VARIABLE, StateDir};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

const USUAL_SOCKET: &str = "/run/containerd/containerd.sock";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_GRACE: Duration = Duration::from_secs(15);
/// sun_path, less its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// The containerd of a session, and its process where it is private.
#[derive(Debug)]
pub struct Containerd {
    /// Where it is.
    pub target: ContainerdTarget,
    program: Option<Program>,
}

impl Containerd {
    /// Finds one, or starts one.
    ///
    /// # Errors
    /// Where the named one does not answer, or none can be started.
    pub async fn get(named: Option<&Path>, namespace: &str, dir: &StateDir) -> anyhow::Result<Self> {
        let target = |socket: PathBuf, is_private| ContainerdTarget {
            socket,
            namespace: namespace.to_owned(),
            is_private,
        };
        if let Some(socket) = named {
            if !answers(socket).await {
                bail!(
                    "no containerd answers at {}: start it, or leave --containerd out to have a private one started",
                    socket.display()
                );
            }
            return Ok(Self { target: target(socket.to_owned(), false), program: None });
        }
        if answers(Path::new(USUAL_SOCKET)).await {
            return Ok(Self { target: target(USUAL_SOCKET.into(), false), program: None });
        }
        let (socket, program) = start(dir).await?;
        Ok(Self { target: target(socket, true), program: Some(program) })
    }

    /// Ends a private one; leaves any other alone.
    pub async fn stop(&mut self) {
        if let Some(program) = &mut self.program {
            program.stop(STOP_GRACE).await;
        }
    }
}

async fn answers(socket: &Path) -> bool {
    matches!(timeout(ANSWER_TIMEOUT, UnixStream::connect(socket)).await, Ok(Ok(_)))
}

async fn start(dir: &StateDir) -> anyhow::Result<(PathBuf, Program)> {
    let binary =
        need("containerd", "no containerd runs here, and a private one can't be started without it")?;
    let home = dir.containerd();
    std::fs::create_dir_all(&home).with_context(|| format!("can't make {}", home.display()))?;
    let socket = home.join("containerd.sock");
    // containerd itself appends ".ttrpc" for its second socket.
    if socket.as_os_str().len() + ".ttrpc".len() > MAX_SOCKET_PATH {
        bail!("{} is too long for a socket path: choose a shorter --dir", socket.display());
    }
    let _ = std::fs::remove_file(&socket);
    let config = home.join("config.toml");
    std::fs::write(&config, configuration(&home)?)
        .with_context(|| format!("can't write {}", config.display()))?;
    let log_path = home.join("containerd.log");
    let log =
        std::fs::File::create(&log_path).with_context(|| format!("can't write {}", log_path.display()))?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(&config).env(OWNER_VARIABLE, dir.root());
    command.stdout(log.try_clone()?).stderr(log);
    let mut program = Program::spawn("containerd", command)?;
    say(format_args!("containerd  private one starting in {}", home.display()));
    // It tells nobody when it listens; its end is an event.
    let ready = async {
        while !answers(&socket).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = ready => return Ok((socket, program)),
        _ = program.ended() => {}
        () = sleep(START_TIMEOUT) => {}
    }
    program.stop(STOP_GRACE).await;
    let log = std::fs::read_to_string(&log_path).unwrap_or_default();
    let last: Vec<_> = log.lines().rev().take(5).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
    bail!("the private containerd did not start; the end of {}:\n  {last}", log_path.display())
}

/// Version 2 is read by containerd 1.6, 1.7 and 2.x; CRI goes by one name in 1.x and by two in 2.x.
fn configuration(home: &Path) -> anyhow::Result<String> {
    let text = |name: &str| -> anyhow::Result<String> {
        let path = home.join(name);
        let path = path.to_str().context("the path of --dir is not UTF-8")?;
        if path.contains(['"', '\\', '\n']) {
            bail!("--dir {path} holds a quote, a backslash or a line end: choose another");
        }
        Ok(format!("\"{path}\""))
    };
    Ok(format!(
        "version = 2\nroot = {}\nstate = {}\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
         \"io.containerd.cri.v1.runtime\"]\n\
         [grpc]\n  address = {}\n\
         [debug]\n  level = \"warn\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {}\n",
        text("root")?,
        text("state")?,
        text("containerd.sock")?,
        text("opt")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_directories_do_not_reach_the_configuration() {
        assert!(configuration(Path::new("/a\"b")).is_err());
        let text = configuration(Path::new("/x")).unwrap();
        assert!(
            text.contains("address = \"/x/containerd.sock\"") && text.contains("io.containerd.cri.v1.images")
        );
    }
}
