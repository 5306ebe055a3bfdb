//! The passwords of registries that tasks bring along: what the task definition says, by the credentials
//! that ACS delivered, asked of ECR or Secrets Manager.

use crate::containerd::images::RegistryLogins;
use crate::control::ecr::Ecr;
use crate::control::{Account, CredentialsStore, chain, secrets};
use crate::model::{
    CredentialsId, EcrLogin, RegistryAuth, RegistryLogin, RoleCredentials, SecretLogin, StopReason,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// After a restart ACS delivers the credentials of tasks anew: so long is waited for them.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often they are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// The original's name for what goes wrong on the way to ECR's password.
const ECR_FAILED: &str = "CannotPullECRContainerError";

/// Asks ECR and Secrets Manager.
#[derive(Debug)]
pub struct Logins {
    account: Account,
    ecr: Ecr,
    roles: CredentialsStore,
    endpoints: Endpoints,
}

/// Other endpoints than the region's own, as the AWS SDKs take them; empty is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    ecr: String,
    secrets: String,
}

impl Endpoints {
    /// `AWS_ENDPOINT_URL_ECR`, `AWS_ENDPOINT_URL_SECRETS_MANAGER`, `AWS_ENDPOINT_URL`.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Self {
        let of = |name: &str| {
            let own = get(&format!("AWS_ENDPOINT_URL_{name}")).filter(|url| !url.is_empty());
            own.or_else(|| get("AWS_ENDPOINT_URL")).unwrap_or_default()
        };
        if get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|said| said.eq_ignore_ascii_case("true")) {
            return Self::default();
        }
        Self { ecr: of("ECR"), secrets: of("SECRETS_MANAGER") }
    }
}

impl Logins {
    /// In the name of the instance's `account`, or of the `roles` that ACS delivered.
    pub fn new(account: Account, roles: CredentialsStore, endpoints: Endpoints) -> Self {
        Self { ecr: Ecr::new(account.clone()), account, roles, endpoints }
    }

    async fn of_ecr(
        &self,
        image: &str,
        login: &EcrLogin,
        role: Option<&CredentialsId>,
    ) -> Result<RegistryAuth, StopReason> {
        let failed = |words: String| StopReason::new(ECR_FAILED, words);
        let role = match login.execution_role {
            false => None,
            true => {
                let role = self.role(role).await;
                Some(role.ok_or_else(|| failed("engine ecr credentials: not found".to_owned()))?)
            }
        };
        let mut login = login.clone();
        if login.endpoint.is_empty() {
            login.endpoint.clone_from(&self.endpoints.ecr);
        }
        self.ecr.login(image, &login, role.as_deref()).await.map_err(|error| failed(chain(&error)))
    }

    async fn of_secret(
        &self,
        login: &SecretLogin,
        role: Option<&CredentialsId>,
    ) -> Result<RegistryAuth, StopReason> {
        let failed = |words: String| StopReason::new("ResourceInitializationError", words);
        let role = self.role(role).await.ok_or_else(|| {
            failed("ASM auth resource: unable to find execution role credentials".to_owned())
        })?;
        let asked = secrets::registry_login(&self.account, &self.endpoints.secrets, login, &role).await;
        asked.map_err(|error| failed(format!("ASM auth resource: {}", chain(&error))))
    }

    /// The credentials of a task's execution role; `None` where it has none, or they do not come.
    async fn role(&self, id: Option<&CredentialsId>) -> Option<Arc<RoleCredentials>> {
        let id = id?;
        let looking = async {
            loop {
                if let Some(role) = self.roles.get(id) {
                    return role;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.ok()
    }
}

impl RegistryLogins for Logins {
    fn login<'a>(
        &'a self,
        image: &'a str,
        login: &'a RegistryLogin,
        role: Option<&'a CredentialsId>,
    ) -> BoxFuture<'a, Result<RegistryAuth, StopReason>> {
        match login {
            RegistryLogin::Ecr(ecr) => self.of_ecr(image, ecr, role).boxed(),
            RegistryLogin::Secret(secret) => self.of_secret(secret, role).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_those_of_the_service_before_those_of_all() {
        let of = |pairs: &'static [(&str, &str)]| {
            Endpoints::from_env(|name| Some(pairs.iter().find(|pair| pair.0 == name)?.1.to_owned()))
        };
        assert_eq!(of(&[]), Endpoints::default());
        let both = of(&[("AWS_ENDPOINT_URL", "http://all"), ("AWS_ENDPOINT_URL_ECR", "http://ecr")]);
        assert_eq!((both.ecr.as_str(), both.secrets.as_str()), ("http://ecr", "http://all"));
        let ignored = of(&[("AWS_ENDPOINT_URL", "x"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")]);
        assert_eq!(ignored, Endpoints::default());
    }
}
