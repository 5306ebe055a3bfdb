//! `ecsd local`: the same agent on one machine with no AWS account.
//!
//! Starts the embedded control plane in this process and the ordinary agent as a child, over real
//! sockets, shows what happens, and takes everything down again. What needs containerd or the host's
//! network beyond starting programs is handed in as [`HostHooks`]; nothing here talks to containerd.

mod agentlog;
mod args;
mod containerd;
mod follow;
mod hello;
mod hooks;
mod http;
mod logs;
mod process;
mod remote;
mod run;
mod session;
mod show;
mod statedir;
mod stats;
mod up;

pub use args::LocalArgs;
pub use hooks::{ContainerdTarget, HostHooks};
pub use statedir::runtime_dir;

use args::LocalCommand;
use std::sync::Arc;

/// Exit code of a command line that can't be.
pub const USAGE: u8 = 2;
/// Exit code of anything else that went wrong.
pub const FAILED: u8 = 1;

/// Runs the command and answers the exit code: 0, [`FAILED`] or [`USAGE`]. Errors are told on stderr.
pub async fn run(args: LocalArgs, hooks: Arc<dyn HostHooks>) -> u8 {
    let result = match args.command {
        LocalCommand::Run(run) => run::run(run, hooks).await,
        LocalCommand::Up(up) => up::up(up, hooks).await,
        LocalCommand::Ps(ps) => remote::ps(&ps.state).await,
        LocalCommand::Stats(stats) => stats::show(&stats).await,
        LocalCommand::Logs(logs) => logs::show(logs).await,
        LocalCommand::Stop(stop) => remote::stop(&stop).await,
        LocalCommand::Down(down) => remote::down(&down.state).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            show::complain(&error);
            if error.is::<UsageError>() { USAGE } else { FAILED }
        }
    }
}

/// What the user asked for can't be, as opposed to what went wrong on the way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);
