//! An image of a registry, and whom that is asked as; and where the passwords come from that tasks bring
//! along.

use crate::containerd::image::hosts::Endpoint;
use crate::containerd::image::reference::Reference;
use crate::containerd::image::registry::digest_of;
use crate::model::{CredentialsId, RegistryAuth, RegistryLogin, StopReason};
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// Turns what a task definition says of a registry's password into that password.
pub trait RegistryLogins: fmt::Debug + Send + Sync {
    /// User name and password for `image`, as written in the task definition; in the name of `role`
    /// where that is asked for.
    ///
    /// # Errors
    /// Why there is none, by the original's name.
    fn login<'a>(
        &'a self,
        image: &'a str,
        login: &'a RegistryLogin,
        role: Option<&'a CredentialsId>,
    ) -> BoxFuture<'a, Result<RegistryAuth, StopReason>>;
}

/// An image of a registry, and whom that is asked as. Cheap to clone; Debug shows no secret.
#[derive(Clone)]
pub struct Access {
    reference: Reference,
    endpoints: Arc<[Endpoint]>,
    login: Option<Arc<Login>>,
}

struct Login {
    auth: RegistryAuth,
    who: String,
}

impl Access {
    /// By way of these hosts, the first in front; as `login`, without one as the agent is configured.
    pub fn new(reference: Reference, endpoints: Vec<Endpoint>, login: Option<RegistryAuth>) -> Self {
        let named = |auth: RegistryAuth| {
            let who = digest_of(format!("{}\0{}", auth.username, auth.password).as_bytes()).to_string();
            Arc::new(Login { auth, who })
        };
        Self { reference, endpoints: endpoints.into(), login: login.map(named) }
    }

    /// The hosts that serve it.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The image.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// User name and password that the task brought along.
    pub fn login(&self) -> Option<&RegistryAuth> {
        self.login.as_ref().map(|login| &login.auth)
    }

    /// Different for each user and password that a task brought along, empty for none: what one may see
    /// is not shown to the other. Secret as the password is.
    pub fn who(&self) -> &str {
        self.login.as_ref().map_or("", |login| &login.who)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("reference", &self.reference).field("login", &self.login()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_keeps_secrets_and_each_user_is_another() {
        let as_user = |password: &str| {
            let auth = RegistryAuth { username: "u".into(), password: password.into() };
            Access::new(Reference::parse("r.example/a").unwrap(), Vec::new(), Some(auth))
        };
        let (one, other) = (as_user("CANARY1"), as_user("CANARY2"));
        assert_ne!(one.who(), other.who());
        assert_eq!(one.who(), as_user("CANARY1").who());
        let shown = format!("{one:?}");
        assert!(!shown.contains("CANARY") && !shown.contains(one.who()), "{shown}");
        assert_eq!(Access::new(Reference::parse("a").unwrap(), Vec::new(), None).who(), "");
    }
}
