//! `ecsd local up`: a cluster that stays.

use super::args::UpArgs;
use super::hooks::HostHooks;
use super::process::Interrupts;
use super::session::Session;
use super::show::{StatePrinter, say};
use super::{FAILED, hello, show};
use crate::local::Change;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Runs the command.
pub async fn up(args: UpArgs, hooks: Arc<dyn HostHooks>) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::new()?;
    // The hello image is of use here only where it can be made.
    let images: Vec<String> = super::process::find("busybox")
        .map(|_| format!("{}:latest", hello::REPOSITORY))
        .into_iter()
        .collect();
    let mut session =
        Session::start(&args.host, &images, args.keep, hooks, &mut interrupts, |_| Ok(())).await?;
    let endpoint = session.handle.endpoint();
    say(format_args!("cluster     local at {endpoint} (files in {})", session.dir.root().display()));
    say(format_args!("            export AWS_ENDPOINT_URL_ECS={endpoint} AWS_DEFAULT_REGION={}", region()));
    say("            export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local");
    say("            end it by Ctrl-C, or by: ecsd local down");
    let mut changes = session.handle.subscribe();
    let mut states = StatePrinter::default();
    let code = loop {
        // Cancel-safe: channel, child and signal streams keep what they have.
        tokio::select! {
            () = interrupts.next() => break 0,
            status = session.agent.ended() => {
                show::complain(&session.agent_ended(status));
                break FAILED;
            }
            change = changes.recv() => match change {
                Ok(Change::Task(task)) => states.show(&task),
                Ok(Change::Instance { is_connected, .. }) => {
                    say(if is_connected { "agent       connected" } else { "agent       disconnected" });
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break FAILED,
            },
        }
    };
    say("cluster     stopping");
    session.stop().await;
    say("cluster     taken down");
    Ok(code)
}

fn region() -> String {
    crate::local::Options::default().region
}
