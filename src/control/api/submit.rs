//! SubmitTaskStateChange (spec/control-plane.md 1.7, 5.3, 5.4): the [`Reporter`] of the engine.

use super::order::TaskOrder;
use super::{ApiError, EcsApi, retries};
use crate::control::backoff::{Backoff, random_fraction};
use crate::core::ReportOutcome;
use crate::model::{ContainerChange, NetworkBinding, TaskStateChange, Wall};
use crate::ports::Reporter;
use aws_sdk_ecs::types;
use aws_smithy_types::DateTime;
use aws_smithy_types::retry::RetryConfig;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// Bytes that the API takes of a reason.
const MAX_REASON: usize = 1024;
/// Bytes that the API takes of a runtime id and of a digest.
const MAX_ID: usize = 255;
/// Bindings that the API takes of one container.
const MAX_BINDINGS: usize = 100;

/// Retries of transient errors whose pauses grow (1.7).
const GROWING: u32 = 13;

/// How long to wait between attempts; shortened by tests.
#[derive(Debug, Clone)]
pub struct SubmitTimings {
    /// The first 13 retries of transient errors wait: the n-th one `2^n` times 30 to 60 of these.
    pub transient_unit: Duration,
    /// Every further one waits this.
    pub transient_most: Duration,
    /// The first retry of any other error waits this, the next ones 1.3 times more, to 30 times it.
    pub other_least: Duration,
}

impl Default for SubmitTimings {
    fn default() -> Self {
        Self {
            transient_unit: Duration::from_millis(1),
            transient_most: Duration::from_secs(300),
            other_least: Duration::from_secs(1),
        }
    }
}

impl SubmitTimings {
    /// Before the n-th retry of transient errors, the first of which is 1; `fraction` is the share of chance.
    fn transient(&self, retry: u32, fraction: f64) -> Duration {
        if retry > GROWING {
            return self.transient_most;
        }
        self.transient_unit.mul_f64(f64::from(1u32 << retry) * (30.0 + 30.0 * fraction))
    }
}

/// Reports for one cluster.
#[derive(Debug, Clone)]
pub struct InstanceReporter {
    pub(super) api: EcsApi,
    pub(super) cluster: String,
    ipv6_only: bool,
    pub(super) timings: SubmitTimings,
    pub(super) order: TaskOrder,
}

impl InstanceReporter {
    /// `cluster` as it was registered with.
    pub fn new(api: EcsApi, cluster: impl Into<String>) -> Self {
        Self {
            api,
            cluster: cluster.into(),
            ipv6_only: false,
            timings: SubmitTimings::default(),
            order: TaskOrder::default(),
        }
    }

    /// On an instance that has IPv6 only: bindings to all IPv4 addresses lead nowhere and are not told.
    /// (There are none to IPv6 addresses that `ECS_EXCLUDE_IPV6_PORTBINDING` could leave out.)
    pub fn with_ipv6_only(mut self, ipv6_only: bool) -> Self {
        self.ipv6_only = ipv6_only;
        self
    }

    /// With other waits.
    pub fn with_timings(mut self, timings: SubmitTimings) -> Self {
        self.timings = timings;
        self
    }

    async fn submit_until_settled(&self, change: &TaskStateChange) -> ReportOutcome {
        let _turn = self.order.turn(&change.task).await;
        let timings = &self.timings;
        let mut other = Backoff::new(timings.other_least, timings.other_least * 30, 0.2, 1.3);
        let mut transient = 0u32;
        let filtered = self.ipv6_only.then(|| without_ipv4_bindings(change));
        let change = filtered.as_ref().unwrap_or(change);
        loop {
            let attempt = self.api.submit_task_state_change(&self.cluster, change);
            let error = match self.order.call(attempt).await {
                Ok(()) => return ReportOutcome::Accepted,
                Err(error) => error,
            };
            let task = &change.task;
            if error.code() == "InvalidParameterException" {
                tracing::error!(%task, %error, "The control plane refused a state change for good; dropping it");
                return ReportOutcome::Refused;
            }
            let delay = if error.is_transient() {
                transient = transient.saturating_add(1);
                timings.transient(transient, random_fraction())
            } else {
                other.next_delay()
            };
            tracing::warn!(%task, %error, ?delay, "A state change could not be submitted; trying again");
            tokio::time::sleep(delay).await;
        }
    }
}

impl Reporter for InstanceReporter {
    fn submit<'a>(&'a self, change: &'a TaskStateChange) -> BoxFuture<'a, ReportOutcome> {
        Box::pin(self.submit_until_settled(change))
    }
}

impl EcsApi {
    /// One attempt.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn submit_task_state_change(
        &self,
        cluster: &str,
        change: &TaskStateChange,
    ) -> Result<(), ApiError> {
        let containers: Vec<_> = change.containers.iter().map(container).collect();
        let call = self
            .client
            .submit_task_state_change()
            .cluster(cluster)
            .task(change.task.as_str())
            .status(change.status.backend_word())
            .reason(cut(&change.reason, MAX_REASON))
            .set_containers(Some(containers).filter(|c| !c.is_empty()))
            .set_pull_started_at(change.pull_started_at.map(timestamp))
            .set_pull_stopped_at(change.pull_stopped_at.map(timestamp))
            .set_execution_stopped_at(change.execution_stopped_at.map(timestamp))
            .customize()
            .mutate_request(self.finish(serde_json::Map::new()))
            // The loop above retries, by the original's schedule and without a quota.
            .config_override(aws_sdk_ecs::Config::builder().retry_config(retries(RetryConfig::disabled())));
        call.send().await.map(drop).map_err(|e| ApiError::new("SubmitTaskStateChange", e))
    }
}

fn without_ipv4_bindings(change: &TaskStateChange) -> TaskStateChange {
    let mut change = change.clone();
    for container in &mut change.containers {
        container.bindings.retain(|binding| !binding.bind_ip.is_unspecified());
    }
    change
}

fn container(change: &ContainerChange) -> types::ContainerStateChange {
    let ranges = change.bindings.iter().any(|b| b.is_range);
    if ranges && change.bindings.len() > MAX_BINDINGS {
        tracing::warn!(container = %change.name, bindings = change.bindings.len(),
            "Reporting only the first 100 network bindings");
    }
    let most = if ranges { MAX_BINDINGS } else { usize::MAX };
    let bindings: Vec<_> = change.bindings.iter().take(most).map(binding).collect();
    types::ContainerStateChange::builder()
        .container_name(&change.name)
        .status(change.status.backend_word())
        .set_runtime_id(change.runtime_id.as_ref().map(|id| cut(id.as_str(), MAX_ID)))
        .set_image_digest(change.digest.as_ref().map(|d| cut(d.as_str(), MAX_ID)))
        .set_exit_code(change.exit_code)
        .set_reason(change.reason.as_deref().filter(|r| !r.is_empty()).map(|r| cut(r, MAX_REASON)))
        .set_network_bindings(Some(bindings).filter(|b| !b.is_empty()))
        .build()
}

fn binding(binding: &NetworkBinding) -> types::NetworkBinding {
    let out = types::NetworkBinding::builder()
        .bind_ip(binding.bind_ip.to_string())
        .protocol(binding.protocol.word().into());
    if binding.is_range {
        let range =
            |first: u16| format!("{first}-{}", u32::from(first) + u32::from(binding.count.max(1)) - 1);
        out.container_port_range(range(binding.container_port))
            .host_port_range(range(binding.host_port))
            .build()
    } else {
        out.container_port(i32::from(binding.container_port)).host_port(i32::from(binding.host_port)).build()
    }
}

/// Milliseconds, as the original sends them.
fn timestamp(at: Wall) -> DateTime {
    DateTime::from_millis(i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX))
}

/// The first `most` bytes, less what would cut a character in two.
fn cut(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn pauses_are_the_originals_of_one_day() {
        let timings = SubmitTimings::default();
        let seconds = |retry, fraction| timings.transient(retry, fraction).as_secs_f64();
        for (retry, least, most) in [(1, 0.06, 0.12), (2, 0.12, 0.24), (7, 3.84, 7.68), (13, 245.76, 491.52)]
        {
            assert!((seconds(retry, 0.0) - least).abs() < 1e-6, "{retry}");
            assert!((seconds(retry, 1.0) - most).abs() < 1e-6, "{retry}");
        }
        assert!([14, 15, 298, u32::MAX].iter().all(|retry| seconds(*retry, 0.5) == 300.0));
        let day: f64 = (1..=298).map(|retry| seconds(retry, 0.5)).sum();
        assert!((86_000.0..87_000.0).contains(&day), "{day}");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("", 2), "");
    }

    #[test]
    fn ranges_are_one_binding() {
        let range = NetworkBinding {
            bind_ip: std::net::Ipv4Addr::UNSPECIFIED,
            container_port: 9000,
            host_port: 65532,
            count: 4,
            is_range: true,
            protocol: Protocol::Tcp,
        };
        let out = binding(&range);
        assert_eq!(out.container_port_range(), Some("9000-9003"));
        assert_eq!(out.host_port_range(), Some("65532-65535"));
        assert_eq!((out.container_port(), out.host_port()), (None, None));
    }
}
