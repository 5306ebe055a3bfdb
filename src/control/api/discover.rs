//! DiscoverPollEndpoint (spec/control-plane.md 1.3): where ACS and TCS are.

use super::{ApiError, EcsApi};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// An answer is good for this long, and serves as a fall-back after it.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// The longest that one call may take, its attempts together.
const DEADLINE: Duration = Duration::from_secs(126);

/// Addresses of the websockets, without `/ws`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollEndpoints {
    /// ACS.
    pub acs: String,
    /// TCS.
    pub telemetry: String,
}

/// The last answer, and for which instance. The lock also makes calls wait for one another.
#[derive(Debug)]
pub(super) struct Cache {
    ttl: Duration,
    last: Mutex<Option<(String, PollEndpoints, Instant)>>,
}

impl Cache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, last: Mutex::default() }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(TTL)
    }
}

impl EcsApi {
    /// The addresses for an instance, from the cache, the service, or the cache after all.
    ///
    /// # Errors
    /// [`ApiError`] where the service can't be asked and never was.
    pub async fn discover_poll_endpoint(
        &self,
        cluster: &str,
        instance: &str,
    ) -> Result<PollEndpoints, ApiError> {
        let mut last = self.discovered.last.lock().await;
        let known = last.as_ref().filter(|(of, _, _)| of == instance);
        if let Some((_, endpoints, _)) = known.filter(|(_, _, at)| at.elapsed() < self.discovered.ttl) {
            return Ok(endpoints.clone());
        }
        match self.ask(cluster, instance).await {
            Ok(endpoints) => {
                *last = Some((instance.to_owned(), endpoints.clone(), Instant::now()));
                Ok(endpoints)
            }
            Err(error) => match known {
                Some((_, endpoints, _)) => {
                    tracing::warn!(%error, "Using the poll endpoints that were discovered earlier");
                    Ok(endpoints.clone())
                }
                None => Err(error),
            },
        }
    }

    async fn ask(&self, cluster: &str, instance: &str) -> Result<PollEndpoints, ApiError> {
        const OPERATION: &str = "DiscoverPollEndpoint";
        let call = self
            .client
            .discover_poll_endpoint()
            .cluster(cluster)
            .container_instance(instance)
            .customize()
            .mutate_request(self.finish([("zoneId".to_owned(), "".into())].into_iter().collect()))
            .send();
        let late = || ApiError::Transport {
            operation: OPERATION,
            message: format!("no answer within {DEADLINE:?}"),
        };
        let answer = tokio::time::timeout(DEADLINE, call).await.map_err(|_| late())?;
        let answer = answer.map_err(|e| ApiError::new(OPERATION, e))?;
        let missing = |member| ApiError::Incomplete { operation: OPERATION, member };
        Ok(PollEndpoints {
            acs: answer.endpoint.filter(|e| !e.is_empty()).ok_or_else(|| missing("endpoint"))?,
            telemetry: answer
                .telemetry_endpoint
                .filter(|e| !e.is_empty())
                .ok_or_else(|| missing("telemetryEndpoint"))?,
        })
    }
}
