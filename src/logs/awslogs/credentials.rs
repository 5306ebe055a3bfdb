//! With which credentials CloudWatch Logs is called: those of `awslogs-credentials-endpoint`, or else of
//! the host, by AWS' chain as dockerd goes through it (environment, shared file, instance role).
//! They are kept until shortly before they run out, and reach no error and no Debug.

use crate::logs::http::{Answer, Client, HttpError, Request};
use crate::model::logging::{Environment, Hidden};
use aws_credential_types::Credentials;
use serde::Deserialize;
use std::time::{Duration, Instant, SystemTime};
use url::Url;

/// Credentials are fetched again this long before they run out.
const BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);
/// Credentials without an expiry may sit in a file that someone rewrites.
const RELOAD: Duration = Duration::from_secs(60);
/// The instance metadata service.
const IMDS: &str = "http://169.254.169.254";
const IMDS_ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// There are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Who has them could not be asked.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Who has them said no. Its words are kept: they hold no secret.
    #[error("{from} answered {status} {words}")]
    Refused {
        /// Who.
        from: &'static str,
        /// The status.
        status: u16,
        /// What it said, cut.
        words: String,
    },
    /// What came holds none.
    #[error("{from} gave no credentials")]
    Strange {
        /// Who.
        from: &'static str,
    },
    /// There is nobody to ask.
    #[error(
        "the host has no credentials: none in the agent's environment, none in {file}, and IMDS is disabled by \
         AWS_EC2_METADATA_DISABLED; give the task an execution role, or the host a role"
    )]
    None {
        /// The shared file.
        file: String,
    },
}

/// Where credentials come from.
#[derive(Debug)]
enum Source {
    /// The agent's own endpoint.
    Endpoint { client: Client, path: Hidden },
    /// The host's.
    Host { environment: Environment, imds: Option<Client> },
}

/// A source, and what it gave last.
#[derive(Debug)]
pub struct CredentialsSource {
    source: Source,
    held: Option<(Credentials, Instant)>,
}

impl CredentialsSource {
    /// From the agent's endpoint, by the path there.
    ///
    /// # Errors
    /// [`HttpError`]
    pub fn endpoint(base: &Url, path: &Hidden, environment: &Environment) -> Result<Self, HttpError> {
        let client = Client::new(base, environment)?;
        Ok(Self { source: Source::Endpoint { client, path: path.clone() }, held: None })
    }

    /// From the host.
    pub fn host(environment: Environment) -> Self {
        Self { source: Source::Host { environment, imds: None }, held: None }
    }

    /// Valid credentials. Those that have not run out yet outlive a failure to get new ones.
    ///
    /// # Errors
    /// [`CredentialsError`]
    pub fn get(&mut self) -> Result<Credentials, CredentialsError> {
        if let Some((held, since)) = &self.held
            && is_fresh(held, since.elapsed())
        {
            return Ok(held.clone());
        }
        match self.source.fetch() {
            Ok(credentials) => {
                self.held = Some((credentials.clone(), Instant::now()));
                Ok(credentials)
            }
            Err(error) => match &self.held {
                Some((old, _)) if old.expiry().is_none_or(|at| at > SystemTime::now()) => Ok(old.clone()),
                _ => Err(error),
            },
        }
    }

    /// CloudWatch does not take them: the next call asks again.
    pub fn forget(&mut self) {
        self.held = None;
    }
}

fn is_fresh(credentials: &Credentials, age: Duration) -> bool {
    match credentials.expiry() {
        Some(at) => at > SystemTime::now() + BEFORE_EXPIRY,
        None => age < RELOAD,
    }
}

impl Source {
    fn fetch(&mut self) -> Result<Credentials, CredentialsError> {
        match self {
            Self::Endpoint { client, path } => {
                let from = "the agent's credentials endpoint";
                let answer = get(client, from, path.get(), &[])?;
                read(&answer, from)
            }
            Self::Host { environment, imds } => {
                let shared = || from_file(environment);
                match from_variables(environment).or_else(shared) {
                    Some(credentials) => Ok(credentials),
                    None => from_instance(environment, imds),
                }
            }
        }
    }
}

fn get(
    client: &mut Client,
    from: &'static str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, CredentialsError> {
    asked(client, from, Request { method: "GET", path, headers, body: b"" })
}

fn asked(client: &mut Client, from: &'static str, request: Request<'_>) -> Result<Answer, CredentialsError> {
    let answer = client.send(&request)?;
    match answer.status {
        200 => Ok(answer),
        status => {
            let words = String::from_utf8_lossy(&answer.body).chars().take(256).collect();
            Err(CredentialsError::Refused { from, status, words })
        }
    }
}

/// As both the agent and IMDS write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

fn read(answer: &Answer, from: &'static str) -> Result<Credentials, CredentialsError> {
    // The parser's own words may hold what it read.
    let strange = || CredentialsError::Strange { from };
    let document: Document = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
    let expiry = match document.expiration.filter(|text| !text.is_empty()) {
        Some(text) => Some(humantime::parse_rfc3339(&text).map_err(|_| strange())?),
        None => None,
    };
    if document.access_key_id.is_empty() || document.secret_access_key.is_empty() {
        return Err(strange());
    }
    let token = document.token.filter(|token| !token.is_empty());
    Ok(Credentials::new(document.access_key_id, document.secret_access_key, token, expiry, "ecsd-logger"))
}

fn from_variables(environment: &Environment) -> Option<Credentials> {
    let key = environment.get("AWS_ACCESS_KEY_ID")?;
    let secret = environment.get("AWS_SECRET_ACCESS_KEY")?;
    let token = environment.get("AWS_SESSION_TOKEN").map(str::to_owned);
    Some(Credentials::new(key, secret, token, None, "ecsd-logger"))
}

fn shared_file(environment: &Environment) -> String {
    let at_home = || format!("{}/.aws/credentials", environment.get("HOME").unwrap_or("/root"));
    environment.get("AWS_SHARED_CREDENTIALS_FILE").map_or_else(at_home, str::to_owned)
}

/// A profile of the shared file. One that can't be read is none, as it is to the SDK.
fn from_file(environment: &Environment) -> Option<Credentials> {
    let text = std::fs::read_to_string(shared_file(environment)).ok()?;
    profile(&text, environment.get("AWS_PROFILE").unwrap_or("default"))
}

fn profile(text: &str, wanted: &str) -> Option<Credentials> {
    let (mut within, mut key, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            within = name.trim() == wanted;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| within) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Credentials::new(key?, secret?, token, None, "ecsd-logger"))
}

/// The instance's role, by IMDS version 2.
fn from_instance(
    environment: &Environment,
    kept: &mut Option<Client>,
) -> Result<Credentials, CredentialsError> {
    let from = "the instance metadata service";
    if environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(CredentialsError::None { file: shared_file(environment) });
    }
    let client = match kept {
        Some(client) => client,
        None => {
            let base = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(IMDS);
            let url = Url::parse(base).map_err(|_| HttpError::Url { url: base.to_owned() })?;
            kept.insert(Client::new(&url, environment)?)
        }
    };
    let text = |answer: Answer| String::from_utf8_lossy(&answer.body).trim().to_owned();
    let lifetime = [("X-aws-ec2-metadata-token-ttl-seconds", "21600")];
    let request = Request { method: "PUT", path: "/latest/api/token", headers: &lifetime, body: b"" };
    let token = text(asked(client, from, request)?);
    let headers = [("X-aws-ec2-metadata-token", token.as_str())];
    let roles = text(get(client, from, IMDS_ROLES, &headers)?);
    let role = roles.lines().next().unwrap_or_default();
    read(&get(client, from, &format!("{IMDS_ROLES}{role}"), &headers)?, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Answer {
        Answer { status: 200, body: text.as_bytes().to_vec(), ..Answer::default() }
    }

    #[test]
    fn the_agents_and_imds_documents_are_read_and_never_shown() {
        let text = r#"{"RoleArn":"r","AccessKeyId":"AK","SecretAccessKey":"CANARY","Token":"t","Expiration":"2026-01-02T03:04:05Z","Code":"Success"}"#;
        let found = read(&body(text), "x").unwrap();
        assert_eq!((found.access_key_id(), found.session_token()), ("AK", Some("t")));
        assert_eq!(found.expiry(), humantime::parse_rfc3339("2026-01-02T03:04:05Z").ok());
        assert!(!format!("{found:?}").contains("CANARY"));
        for text in
            ["CANARY", r#"{"AccessKeyId":"CANARY"}"#, r#"{"AccessKeyId":"","SecretAccessKey":"CANARY"}"#]
        {
            assert!(!read(&body(text), "x").unwrap_err().to_string().contains("CANARY"));
        }
    }

    #[test]
    fn profiles_are_kept_apart() {
        let text = "[other]\naws_access_key_id=A\naws_secret_access_key=B\n# [x]\n[default]\n aws_access_key_id = C\naws_secret_access_key = D=\naws_session_token = E\n[half]\naws_access_key_id = F\n";
        let of = |name| profile(text, name);
        assert_eq!(of("other").unwrap().access_key_id(), "A");
        let default = of("default").unwrap();
        assert_eq!((default.secret_access_key(), default.session_token()), ("D=", Some("E")));
        assert!(of("half").is_none() && of("absent").is_none());
    }

    #[test]
    fn variables_win_and_without_any_source_it_says_so() {
        let pairs = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "B")];
        let mut source = CredentialsSource::host(pairs.into_iter().collect());
        assert_eq!(source.get().unwrap().access_key_id(), "A");
        let nothing =
            [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_SHARED_CREDENTIALS_FILE", "/absent/file")];
        let words = CredentialsSource::host(nothing.into_iter().collect()).get().unwrap_err().to_string();
        assert!(words.contains("/absent/file"), "{words}");
    }
}
