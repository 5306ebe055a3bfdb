//! Credentials that tasks with a role are given: none, fakes, or those of the developer. In memory
//! only; read by the payloads of new tasks and by the ACS sessions, which pass renewed ones on.
//!
//! Never in a log, an answer of the API, or a `Debug`.

use crate::control::acs::wire;
use crate::local::handle::LocalError;
use crate::local::shared::Shared;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until};

/// What knows no end is handed out for this long at a time: programs in containers then ask again.
const LEASE: Duration = Duration::from_secs(60 * 60);
/// Renewed this long before the end, or at half-time where that is later.
const BEFORE_THE_END: Duration = Duration::from_secs(15 * 60);
/// Between attempts while the source has none.
const RETRY: Duration = Duration::from_secs(30);
/// However short the source's credentials live.
const AT_LEAST: Duration = Duration::from_secs(1);

/// Which credentials tasks get that name a `taskRoleArn` or an `executionRoleArn`. Tasks that name
/// neither never get any.
#[derive(Clone, Default)]
pub enum TaskCredentials {
    /// None, as for a role that could not be assumed.
    #[default]
    None,
    /// Well-formed ones that no AWS service takes.
    Fake,
    /// What this gives, asked again before they expire. The role's name changes nothing about them.
    From(SharedCredentialsProvider),
}

impl std::fmt::Debug for TaskCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fake => "Fake",
            Self::From(_) => "From(..)",
        })
    }
}

/// Credentials as tasks have them now.
#[derive(Clone)]
pub struct Held {
    credentials: Credentials,
    ends: SystemTime,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Held {
    fn is_same(&self, other: &Self) -> bool {
        self.ends == other.ends
            && self.credentials.secret_access_key() == other.credentials.secret_access_key()
    }

    /// As ACS carries them, for one role of one task.
    pub fn wire(&self, id: &str, role_arn: &str) -> wire::RoleCredentials {
        wire::RoleCredentials {
            credentials_id: id.to_owned(),
            role_arn: role_arn.to_owned(),
            access_key_id: self.credentials.access_key_id().to_owned(),
            secret_access_key: self.credentials.secret_access_key().to_owned(),
            session_token: self.credentials.session_token().unwrap_or_default().to_owned(),
            // Whole seconds: what some SDKs' date parsers expect.
            expiration: DateTime::from_secs(DateTime::from(self.ends).secs())
                .fmt(Format::DateTime)
                .unwrap_or_default(),
        }
    }
}

/// The first ones; `None` where tasks get none.
///
/// # Errors
/// [`LocalError::Credentials`]
pub async fn first(source: &TaskCredentials) -> Result<Option<Arc<Held>>, LocalError> {
    match source {
        TaskCredentials::None => Ok(None),
        other => other.get().await.map(Some).map_err(|source| LocalError::Credentials { source }),
    }
}

/// Renews them before they end, for ever.
pub async fn renew(source: TaskCredentials, shared: Arc<Shared>) {
    loop {
        let Some(held) = shared.credentials.borrow().clone() else { return std::future::pending().await };
        let left = held.ends.duration_since(SystemTime::now()).unwrap_or_default();
        let wait = left.saturating_sub(BEFORE_THE_END).max(left / 2).max(AT_LEAST);
        sleep_until(Instant::now() + wait).await;
        loop {
            match source.get().await {
                Ok(renewed) => {
                    // A cache may give the same ones until shortly before their end.
                    shared.credentials.send_if_modified(|now| {
                        let is_new = now.as_ref().is_none_or(|old| !old.is_same(&renewed));
                        *now = Some(Arc::clone(&renewed));
                        is_new
                    });
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "no new credentials for tasks; trying again");
                    sleep_until(Instant::now() + RETRY).await;
                }
            }
        }
    }
}

impl TaskCredentials {
    async fn get(&self) -> Result<Arc<Held>, aws_credential_types::provider::error::CredentialsError> {
        let credentials = match self {
            Self::From(provider) => provider.provide_credentials().await?,
            Self::None | Self::Fake => Credentials::new(
                "ASIAFAKEFAKEFAKEFAKE",
                "fake/secret/of/ecsd/local/that/opens/nothing",
                Some("fake-session-token-of-ecsd-local".to_owned()),
                None,
                "fake",
            ),
        };
        let ends = credentials.expiry().unwrap_or_else(|| SystemTime::now() + LEASE);
        Ok(Arc::new(Held { credentials, ends }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn debug_keeps_secrets_and_the_end_is_a_date() {
        let given = Credentials::new("AKIDCANARY", "SECRETCANARY", Some("TOKENCANARY".into()), None, "test");
        let source = TaskCredentials::From(SharedCredentialsProvider::new(given));
        let held = first(&source).await.unwrap().unwrap();
        assert!(!format!("{source:?} {held:?}").contains("CANARY"));
        let wire = held.wire("id", "arn");
        assert_eq!((wire.secret_access_key.as_str(), wire.role_arn.as_str()), ("SECRETCANARY", "arn"));
        assert!(wire.expiration.len() == 20 && wire.expiration.ends_with('Z'), "{}", wire.expiration);
        assert!(first(&TaskCredentials::None).await.unwrap().is_none());
    }
}
