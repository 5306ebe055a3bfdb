//! The commands: the agent itself, and `ecsd local`.

pub mod flags;

use crate::app;
use crate::control::AgentIdentity;
use flags::Flags;

/// What `-license` prints.
const LICENSE: &str = include_str!("../../LICENSE");

/// Runs what the arguments (without the program's name) ask for; answers the exit code.
pub fn main(arguments: Vec<String>) -> u8 {
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
        return app::run(&flags);
    }
    app::DONE
}

/// Whether the agent on this host (or on `ECS_AGENT_HEALTHCHECK_HOST`) answers.
fn healthcheck() -> u8 {
    let host = std::env::var("ECS_AGENT_HEALTHCHECK_HOST").unwrap_or_else(|_| "localhost".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(crate::tmds::healthcheck(&host))) {
        Ok(Ok(())) => app::DONE,
        Ok(Err(error)) => {
            eprintln!("ecsd: {error}");
            app::FAILED
        }
        Err(error) => {
            eprintln!("ecsd: {error}");
            app::FAILED
        }
    }
}
