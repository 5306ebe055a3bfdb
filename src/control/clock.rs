//! The service's clock (spec/control-plane.md 6.6). The SDK learns for itself how far this machine's
//! clock is off and signs the API's calls by that; what is learned here from the same answers serves
//! the signatures that the SDK does not make: both websockets' handshakes and the frames of telemetry.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::{DateTime, Format};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// `Date` counts whole seconds, and an answer takes its time: less than this is no difference.
const UNCERTAIN_MS: i64 = 5_000;

/// This machine's clock, put right by what the service says the time is. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct ServiceClock {
    ahead_ms: Arc<AtomicI64>,
}

impl ServiceClock {
    /// The service's time, as far as it is known.
    pub fn now(&self) -> SystemTime {
        let (now, ahead_ms) = (SystemTime::now(), self.ahead_ms.load(Ordering::Relaxed));
        let by = Duration::from_millis(ahead_ms.unsigned_abs());
        if ahead_ms < 0 { now.checked_sub(by) } else { now.checked_add(by) }.unwrap_or(now)
    }

    /// Takes the `Date` of an answer that came at `local`.
    fn learn(&self, date: &str, local: SystemTime) {
        let millis = |at: DateTime| at.to_millis().ok();
        let told = DateTime::from_str(date, Format::HttpDate).ok().and_then(millis);
        // A date that can't be read says nothing.
        let Some((told, here)) = told.zip(millis(local.into())) else { return };
        let ahead_ms = told.saturating_sub(here);
        let ahead_ms = if ahead_ms.abs() < UNCERTAIN_MS { 0 } else { ahead_ms };
        let known = self.ahead_ms.swap(ahead_ms, Ordering::Relaxed);
        if (known - ahead_ms).abs() >= UNCERTAIN_MS {
            tracing::warn!(
                ahead_ms,
                "this machine's clock differs from the service's: check its time synchronisation"
            );
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.learn(date, SystemTime::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_learned() {
        let clock = ServiceClock::default();
        let date = |at: SystemTime| DateTime::from(at).fmt(Format::HttpDate).unwrap();
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        clock.learn(&date(now - Duration::from_secs(2)), now);
        assert_eq!(clock.ahead_ms.load(Ordering::Relaxed), 0);
        clock.learn(&date(now - hour), now);
        assert!(clock.now() < now - hour + Duration::from_secs(60));
        clock.learn("yesterday", now);
        assert!(clock.now() < now, "nonsense changes nothing");
        clock.learn(&date(now), now);
        assert!(clock.now() >= now);
    }
}
