//! A spot instance that EC2 is about to take away drains itself (spec/control-plane.md 6.4), so that
//! the service stops its tasks in good order and starts them elsewhere.

use crate::control::imds::{Imds, paths};
use crate::control::{EcsApi, chain};
use std::time::Duration;

/// Between two looks: IMDS has no events, and the notice is two minutes long.
pub const POLL: Duration = Duration::from_secs(1);

/// Looks for a notice until there is one and the service has been told; then ends.
pub async fn drain_when_interrupted(
    imds: Imds,
    api: EcsApi,
    cluster: String,
    instance: String,
    poll: Duration,
) {
    if imds.is_disabled() {
        tracing::warn!(
            "ECS_ENABLE_SPOT_INSTANCE_DRAINING has no effect: there is no instance metadata service"
        );
        return;
    }
    loop {
        tokio::time::sleep(poll).await;
        let notice = match imds.find(paths::SPOT_ACTION).await {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(error = chain(&error), "no look at spot notices for now");
                continue;
            }
        };
        let Some(action) = interruption(&notice) else {
            tracing::warn!(notice, "a spot notice that names none of hibernate, stop, terminate");
            continue;
        };
        match api.drain_container_instance(&cluster, &instance).await {
            Ok(()) => {
                tracing::warn!(action, "EC2 takes this spot instance away: it is draining");
                return;
            }
            Err(error) => tracing::error!(%error, action, "the instance could not be drained; trying again"),
        }
    }
}

/// What EC2 will do, of `{"action": ..., "time": ...}`.
fn interruption(notice: &str) -> Option<&'static str> {
    let notice: serde_json::Value = serde_json::from_str(notice).ok()?;
    let action = notice.get("action")?.as_str()?;
    ["hibernate", "stop", "terminate"].into_iter().find(|known| *known == action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_the_instance_away_counts() {
        assert_eq!(interruption(r#"{"action":"stop","time":"2026-01-01T00:00:00Z"}"#), Some("stop"));
        for other in ["", "{}", r#"{"action":"noop"}"#, r#"{"action":7}"#, "<html>"] {
            assert_eq!(interruption(other), None, "{other}");
        }
    }
}
