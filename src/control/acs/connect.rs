//! The address of the ACS websocket (spec/control-plane.md 3.1).

use super::AcsContext;
use crate::control::ws::{self, WsError};

/// What the agent says it runs on: a value that the original passes bare, too.
pub const RUNTIME: &str = "containerd";

/// `<endpoint>/ws?...`, keys sorted. `send_credentials` asks ACS for the credentials of all tasks.
///
/// # Errors
/// [`WsError::Url`]
pub fn address(context: &AcsContext, endpoint: &str, send_credentials: bool) -> Result<url::Url, WsError> {
    let identity = &context.account.identity;
    ws::address(
        endpoint,
        &[
            ("agentHash", &identity.hash),
            ("agentVersion", &identity.version),
            ("clusterArn", &context.cluster),
            ("containerInstanceArn", &context.instance),
            ("dockerVersion", RUNTIME),
            ("protocolVersion", "2"),
            ("sendCredentials", if send_credentials { "true" } else { "false" }),
            ("seqNum", "1"),
        ],
    )
}
