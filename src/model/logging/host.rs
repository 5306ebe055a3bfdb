//! What a driver that speaks HTTP needs to know of the host. The shim starts loggers with none of the
//! agent's environment, so the agent hands it to them.

use std::collections::BTreeMap;
use std::fmt;

/// Variables that are handed on: proxies, certificates, AWS' chain of credentials.
pub const VARIABLES: &[&str] = &[
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HOME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_PROFILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// What a driver needs of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostNeeds {
    /// How to reach others from here.
    Reach,
    /// And the host's own credentials.
    Credentials,
}

/// Whether a variable leads to the host's own credentials.
pub fn is_of_credentials(variable: &str) -> bool {
    variable.starts_with("AWS_") || variable == "HOME"
}

/// Variables by name. Some are secrets, so Debug shows names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<BTreeMap<String, String>> for Environment {
    fn from(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Environment {
    /// Of [`VARIABLES`], those that are set.
    pub fn choose(set: impl Fn(&str) -> Option<String>) -> Self {
        Self(VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), set(name)?))).collect())
    }

    /// A variable that says something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Names and values: for the logger's file alone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The host, as far as a log driver cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogHost {
    /// Variables.
    pub environment: Environment,
    /// Where the agent's credentials endpoint listens, such as `http://127.0.0.1:51679`.
    pub credentials_endpoint: String,
    /// The region of the instance, where the options name none.
    pub region: String,
    /// There is no way out by IPv4: AWS is reached by its dual-stack endpoints.
    pub dual_stack: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_handed_on_and_no_value_is_shown() {
        let set = |name: &str| match name {
            "AWS_SECRET_ACCESS_KEY" | "PATH" => Some("CANARY".to_owned()),
            "HTTPS_PROXY" => Some(String::new()),
            _ => None,
        };
        let environment = Environment::choose(set);
        assert_eq!(environment.get("AWS_SECRET_ACCESS_KEY"), Some("CANARY"));
        assert_eq!((environment.get("PATH"), environment.get("HTTPS_PROXY")), (None, None));
        assert!(!format!("{environment:?}").contains("CANARY"));
    }
}
