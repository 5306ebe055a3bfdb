//! Passwords of ECR's registries (spec/task-engine.md 3.4): GetAuthorizationToken, and the original's
//! cache of what it gave.

use super::account::Account;
use super::service::{self, Operation, ServiceError};
use crate::model::{EcrLogin, RegistryAuth, RoleCredentials};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use base64::Engine as _;
use serde::Deserialize;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Tokens kept; beyond it those go that were not used for longest.
const KEPT: usize = 100;
/// The longest that one is kept.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// A token counts as expired so long before it is, and up to twice as long, by chance.
const EARLY: Duration = Duration::from_secs(30 * 60);

const GET_TOKEN: Operation = Operation {
    service: "ecr",
    host: "api.ecr",
    dual_stack_host: "ecr",
    target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
};

/// No password for an image in ECR.
#[derive(Debug, thiserror::Error)]
pub enum EcrError {
    /// The instance has none to sign with.
    #[error("no AWS credentials for ecr:GetAuthorizationToken")]
    Credentials(#[source] CredentialsError),
    /// ECR gave none.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// ECR answered without one.
    #[error("ecr auth: missing AuthorizationData in ECR response for {image}")]
    Missing {
        /// The image.
        image: String,
    },
    /// It is for another registry, or can't be read.
    #[error("ecr auth: AuthorizationData is malformed for {image}: it is for {registry:?}")]
    Malformed {
        /// The image.
        image: String,
        /// Whose password it is.
        registry: String,
    },
}

/// Asks ECR. Clones share what is kept; Debug shows nothing of it.
#[derive(Clone)]
pub struct Ecr {
    account: Account,
    kept: Arc<Mutex<Vec<Token>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    credentials: String,
    role: String,
    login: EcrLogin,
}

#[derive(Clone)]
struct Token {
    key: Key,
    auth: RegistryAuth,
    registry: String,
    refresh_at: SystemTime,
    since: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthorizationData {
    authorization_token: String,
    proxy_endpoint: String,
    /// Seconds since 1970.
    expires_at: f64,
}

impl Ecr {
    /// In the name of `account`, and of roles by its HTTP client.
    pub fn new(account: Account) -> Self {
        Self { account, kept: Arc::default() }
    }

    /// User name and password for an image; in the name of `role` where there is one, else of the
    /// instance.
    ///
    /// # Errors
    /// [`EcrError`]
    pub async fn login(
        &self,
        image: &str,
        login: &EcrLogin,
        role: Option<&RoleCredentials>,
    ) -> Result<RegistryAuth, EcrError> {
        let key = Key {
            credentials: role.map(|role| role.id.0.clone()).unwrap_or_default(),
            role: role.map(|role| role.role_arn.clone()).unwrap_or_default(),
            login: login.clone(),
        };
        if let Some(token) = self.find(&key).filter(|token| serves(&token.registry, image)) {
            return Ok(token.auth);
        }
        let credentials = match role {
            Some(role) => role_credentials(role),
            None => self.account.credentials.get().await.map_err(EcrError::Credentials)?,
        };
        let body = match login.registry.as_str() {
            "" => json!({}),
            registry => json!({ "registryIds": [registry] }),
        };
        let (region, endpoint) = (&login.region, &login.endpoint);
        let answer: Answer =
            service::call(&self.account, &credentials, &GET_TOKEN, region, endpoint, &body).await?;
        let shown = || image.chars().take(256).collect::<String>();
        let data = answer.authorization_data.into_iter().next();
        let data = data.ok_or_else(|| EcrError::Missing { image: shown() })?;
        let registry: String = data.proxy_endpoint.chars().take(256).collect();
        // A password goes to the registry that it is for, and to no other.
        let auth = decode(&data.authorization_token).filter(|_| serves(&registry, image));
        let Some(auth) = auth else { return Err(EcrError::Malformed { image: shown(), registry }) };
        let expires = Duration::try_from_secs_f64(data.expires_at).unwrap_or_default();
        let early = EARLY.mul_f64(1.0 + super::backoff::random_fraction());
        let refresh_at = (SystemTime::UNIX_EPOCH + expires).checked_sub(early);
        let refresh_at = refresh_at.unwrap_or(SystemTime::UNIX_EPOCH);
        self.keep(Token { key, auth: auth.clone(), registry, refresh_at, since: Instant::now() });
        Ok(auth)
    }

    fn find(&self, key: &Key) -> Option<Token> {
        let now = self.account.clock.now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|token| token.since.elapsed() < LIFE && now < token.refresh_at);
        let place = kept.iter().position(|token| token.key == *key)?;
        // The end of the list was used last.
        let token = kept.remove(place);
        kept.push(token.clone());
        Some(token)
    }

    fn keep(&self, token: Token) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|old| old.key != token.key);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(token);
    }
}

impl std::fmt::Debug for Ecr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ecr").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Credentials of a role as ACS delivered them, to sign with.
pub(super) fn role_credentials(role: &RoleCredentials) -> Credentials {
    let token = Some(role.session_token.clone()).filter(|token| !token.is_empty());
    Credentials::new(&role.access_key_id, &role.secret_access_key, token, None, "task role")
}

/// base64 of `user:password`.
fn decode(token: &str) -> Option<RegistryAuth> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
    let (username, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

/// Whether the password of the registry at `proxy_endpoint` is for an image: it is of the very registry,
/// or of the same registry by another of ECR's names (with IPv6 addresses, or FIPS).
fn serves(proxy_endpoint: &str, image: &str) -> bool {
    let registry = proxy_endpoint.strip_prefix("https://").unwrap_or(proxy_endpoint).trim_end_matches('/');
    let host = image.split('/').next().unwrap_or_default();
    let same = || Some(registry_of(registry)? == registry_of(host)?);
    !registry.is_empty() && (registry == host || same().unwrap_or(false))
}

/// Account and region of a registry of ECR: `<account>.dkr.ecr[-fips].<region>.<domain>` or
/// `<account>.dkr-ecr[-fips].<region>.on.<domain>`.
fn registry_of(host: &str) -> Option<(&str, &str)> {
    let (account, rest) = host.split_once('.')?;
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let forms = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."];
    let rest = forms.iter().find_map(|form| rest.strip_prefix(form)).filter(|_| digits)?;
    let (region, domain) = rest.split_once('.')?;
    let of_aws =
        ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "on.aws", "on.amazonwebservices.com.cn"];
    of_aws.contains(&domain).then_some((account, region))
}

/// Region and account of the image's registry, where that is one of ECR.
pub fn parts_of(image: &str) -> Option<(&str, &str)> {
    let (host, _) = image.split_once('/')?;
    registry_of(host).map(|(account, region)| (region, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_its_own_registry_alone() {
        let own = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        for image in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1",
            "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com/app:1",
            "123456789012.dkr-ecr.eu-west-1.on.aws/team/app@sha256:00",
        ] {
            assert!(serves(own, image), "{image}");
        }
        for image in [
            "123456789012.dkr.ecr.eu-west-2.amazonaws.com/app",
            "123456789013.dkr.ecr.eu-west-1.amazonaws.com/app",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example/app",
            "123456789012.dkr.ecr.eu-west-1.evil.example/app",
            "busybox",
            "",
        ] {
            assert!(!serves(own, image), "{image}");
        }
        assert!(!serves("", "busybox") && !serves("https://", "/x"));
        assert!(serves("https://127.0.0.1:5000", "127.0.0.1:5000/app"));
    }

    #[test]
    fn the_parts_of_an_image_in_ecr_are_found() {
        let parts = parts_of("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a/b:c");
        assert_eq!(parts, Some(("cn-north-1", "123456789012")));
        for other in [
            "busybox",
            "public.ecr.aws/x/y",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "1.dkr.ecr.r.amazonaws.com/x",
        ] {
            assert_eq!(parts_of(other), None, "{other}");
        }
    }

    #[test]
    fn tokens_are_kept_by_all_of_their_key_and_the_unused_go_first() {
        let ecr = Ecr::new(Account::new("r", None, crate::control::AgentIdentity::default()));
        let login = |region: &str| EcrLogin {
            region: region.into(),
            registry: String::new(),
            endpoint: String::new(),
            execution_role: false,
        };
        let key =
            |region: &str| Key { credentials: String::new(), role: String::new(), login: login(region) };
        let token = |region: &str, left: Duration| Token {
            key: key(region),
            auth: RegistryAuth { username: "AWS".into(), password: "CANARY".into() },
            registry: String::new(),
            refresh_at: SystemTime::now() + left,
            since: Instant::now(),
        };
        let hour = Duration::from_secs(3600);
        ecr.keep(token("old", Duration::ZERO));
        assert!(ecr.find(&key("old")).is_none(), "expired");
        (0..KEPT).for_each(|n| ecr.keep(token(&format!("r{n}"), hour)));
        assert!(ecr.find(&key("r0")).is_some());
        ecr.keep(token("new", hour));
        assert!(ecr.find(&key("r0")).is_some() && ecr.find(&key("r1")).is_none());
        let other = Key { credentials: "id".into(), ..key("r5") };
        assert!(ecr.find(&other).is_none());
        assert!(!format!("{ecr:?}").contains("CANARY"));
    }
}
