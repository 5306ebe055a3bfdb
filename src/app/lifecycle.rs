//! Whether the instance is ready to be one: cloud-init has done its work, and a warm pool has let it go
//! (spec/control-plane.md 2.7). Called once each by the agent's start.

use crate::control::chain;
use crate::control::imds::{Imds, ImdsError, paths};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What cloud-init leaves behind.
pub const CLOUD_INIT_RESULT: &str = "/var/lib/cloud/data/result.json";
/// The state in which an instance serves.
const IN_SERVICE: &str = "InService";
/// Attempts at one question.
const ATTEMPTS: u32 = 3;

/// The instance is not fit to serve, and a restart of the agent does not cure it: exit code 5.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// cloud-init did not see the user data.
    #[error(
        "cloud-init found no data source ({result} says DataSourceNone), but this instance has user data: what it \
         should have set up is missing; start the instance anew"
    )]
    CloudInit {
        /// What cloud-init left behind.
        result: PathBuf,
    },
    /// IMDS fails.
    #[error("ECS_WARM_POOLS_CHECK: can't tell whether this instance is in service")]
    WarmPool(#[source] ImdsError),
    /// IMDS tells no state.
    #[error(
        "ECS_WARM_POOLS_CHECK: the instance metadata service told no target-lifecycle-state {looks} times: unset the \
         variable where the instance is in no Auto Scaling group"
    )]
    NoState {
        /// How often it was asked.
        looks: u32,
    },
}

/// Fails where cloud-init found no data source although the instance has user data: then what the
/// user data would have set up, the agent's configuration first, is missing.
///
/// # Errors
/// [`LifecycleError::CloudInit`]
pub async fn check_cloud_init(imds: &Imds, result: &Path) -> Result<(), LifecycleError> {
    // No cloud-init here, or none that could be read.
    let Ok(text) = tokio::fs::read(result).await else { return Ok(()) };
    let result_of = serde_json::from_slice::<serde_json::Value>(&text);
    let source =
        result_of.ok().and_then(|json| Some(json.get("v1")?.get("datasource")?.as_str()?.to_owned()));
    if !source.is_some_and(|source| source.starts_with("DataSourceNone")) {
        return Ok(());
    }
    match imds.find(paths::USER_DATA).await {
        Ok(Some(data)) if !data.is_empty() => Err(LifecycleError::CloudInit { result: result.to_owned() }),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(error = chain(&error), "cloud-init's result can't be checked");
            Ok(())
        }
    }
}

/// How a warm pool is waited for; shortened by tests.
#[derive(Debug, Clone)]
pub struct WarmPoolTimings {
    /// Between two looks.
    pub poll: Duration,
    /// Looks at a state that is not there yet, and failures one after the other later on.
    pub most: u32,
    /// Between two attempts at one look.
    pub retry: Duration,
}

impl Default for WarmPoolTimings {
    fn default() -> Self {
        Self { poll: Duration::from_secs(60), most: 120, retry: Duration::from_secs(1) }
    }
}

/// Waits until the instance is to be in service. IMDS has no events: it is polled.
///
/// # Errors
/// [`LifecycleError::WarmPool`], [`LifecycleError::NoState`]
pub async fn leave_warm_pool(imds: &Imds, timings: &WarmPoolTimings) -> Result<(), LifecycleError> {
    let (mut known, mut without) = (false, 0);
    loop {
        match look(imds, timings.retry).await {
            Ok(Some(state)) if state == IN_SERVICE => return Ok(()),
            Ok(Some(state)) => {
                if !known {
                    tracing::info!(state, "in a warm pool: registering when the instance goes into service");
                }
                (known, without) = (true, 0);
            }
            Ok(None) => without += 1,
            // Once it has answered, a failure is a hiccup.
            Err(error) if known => {
                tracing::warn!(error = chain(&error), "the warm pool's state is not known for now");
                without += 1;
            }
            Err(error) => return Err(LifecycleError::WarmPool(error)),
        }
        if without >= timings.most {
            return Err(LifecycleError::NoState { looks: without });
        }
        tokio::time::sleep(timings.poll).await;
    }
}

async fn look(imds: &Imds, retry: Duration) -> Result<Option<String>, ImdsError> {
    for _ in 1..ATTEMPTS {
        match imds.find(paths::TARGET_LIFECYCLE_STATE).await {
            Ok(state) => return Ok(state),
            Err(error @ ImdsError::Disabled) => return Err(error),
            Err(error) => tracing::debug!(error = chain(&error), "asking again"),
        }
        tokio::time::sleep(retry).await;
    }
    imds.find(paths::TARGET_LIFECYCLE_STATE).await
}
