//! The commands: the agent itself, `ecsd config`, `ecsd logs` and `ecsd local`.

mod config;
pub mod flags;
pub mod local;
mod logs;

use crate::app;
use crate::control::AgentIdentity;
use clap::Parser;
use flags::Flags;
use futures_util::future::BoxFuture;
use local::{ContainerdTarget, HostHooks, LocalArgs};
use std::path::Path;
use std::sync::Arc;

/// What `-license` prints.
const LICENSE: &str = include_str!("../../LICENSE");

/// Runs what the arguments (without the program's name) ask for; answers the exit code.
pub fn main(arguments: Vec<String>) -> u8 {
    if arguments.first().is_some_and(|first| first == "local") {
        return local_command(arguments);
    }
    if arguments.first().is_some_and(|first| first == "config") {
        return config::command(arguments);
    }
    if arguments.first().is_some_and(|first| first == "logs") {
        return logs::command(arguments);
    }
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(error) => {
            eprint!("ecsd: {error}\n\n{}", flags::usage());
            return app::TERMINAL;
        }
    };
    if flags.help {
        print!("{}", flags::usage());
    } else if flags.license {
        print!("{LICENSE}");
    } else if flags.version {
        let identity = AgentIdentity::default();
        println!(
            "Amazon ECS Agent:\n\tVersion: {}\n\tCommit: {}\n\tContainerRuntime: containerd",
            identity.version, identity.hash
        );
    } else if flags.healthcheck {
        return healthcheck();
    } else if flags.ecs_attributes {
        return app::print_attributes();
    } else {
        return app::run(&app::Overrides {
            log_level_driver: flags.log_level_driver.or_else(|| flags.log_level.clone()),
            log_level_on_instance: flags.log_level_on_instance.or(flags.log_level),
            accept_any_certificate: flags.accept_insecure_certificates,
            imds_disabled: flags.blackhole_ec2_metadata,
        });
    }
    app::DONE
}

/// Whether the agent on this host (or on `ECS_AGENT_HEALTHCHECK_HOST`) answers.
fn healthcheck() -> u8 {
    let host = std::env::var("ECS_AGENT_HEALTHCHECK_HOST").unwrap_or_else(|_| "localhost".to_owned());
    run(async move {
        match crate::tmds::healthcheck(&host).await {
            Ok(()) => app::DONE,
            Err(error) => {
                eprintln!("ecsd: {error}");
                app::FAILED
            }
        }
    })
}

// No doc comment: it would be the help's first line, instead of that of LocalArgs.
#[derive(Debug, Parser)]
#[command(name = "ecsd local", bin_name = "ecsd local", version)]
struct LocalCommand {
    #[command(flatten)]
    local: LocalArgs,
}

fn local_command(arguments: Vec<String>) -> u8 {
    // The word `local` stands for the program's name.
    match LocalCommand::try_parse_from(arguments) {
        Ok(command) => run(local::run(command.local, Arc::new(Host))),
        Err(error) => {
            // Help goes to standard output, errors to standard error; neither can be helped if it fails.
            let _ = error.print();
            if error.use_stderr() { local::USAGE } else { app::DONE }
        }
    }
}

fn run(command: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("ecsd: {error}");
            app::FAILED
        }
    }
}

/// containerd and the kernel, for `ecsd local`.
struct Host;

impl HostHooks for Host {
    fn load_image<'a>(
        &'a self,
        containerd: &'a ContainerdTarget,
        archive: &'a Path,
    ) -> BoxFuture<'a, anyhow::Result<Vec<String>>> {
        Box::pin(async move {
            let names = app::local_host::load_image(&containerd.socket, &containerd.namespace, archive).await;
            names.map_err(anyhow::Error::msg)
        })
    }

    fn teardown_host<'a>(
        &'a self,
        containerd: &'a ContainerdTarget,
        state_dir: &'a Path,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let runtime_dir = local::runtime_dir(state_dir);
            let down =
                app::local_host::take_down(&containerd.socket, &containerd.namespace, &runtime_dir).await;
            down.map_err(anyhow::Error::msg)
        })
    }
}
