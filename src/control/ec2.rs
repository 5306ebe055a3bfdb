//! EC2's DescribeTags, the one call that the agent makes to EC2 (spec/control-plane.md 2.4): the
//! Query protocol by hand, signed by `aws-sigv4`, its XML read by the SDK's reader. A whole SDK client
//! for it would be megabytes of program.

use super::account::Account;
use super::http::GetError;
use super::sigv4::{self, SignError};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_xml::decode::{Document, XmlDecodeError, try_data};
use std::collections::BTreeMap;
use std::time::Duration;

/// One attempt.
const ROUND_TRIP: Duration = Duration::from_secs(42);
/// Attempts.
const ATTEMPTS: u32 = 5;
/// The longest answer: 50 tags have some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;
const VERSION: &str = "2016-11-15";

/// The instance's tags could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    /// Not an address.
    #[error("{endpoint:?} is no address of EC2")]
    Endpoint {
        /// The address.
        endpoint: String,
    },
    /// No credentials to sign with.
    #[error("no AWS credentials for ec2:DescribeTags")]
    Credentials(#[source] CredentialsError),
    /// Could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No answer.
    #[error("EC2 can't be asked for the tags of {instance}")]
    Transport {
        /// Instance.
        instance: String,
        /// Why.
        #[source]
        source: GetError,
    },
    /// EC2 said no.
    #[error(
        "EC2 refused to tell the tags of {instance}: HTTP {status} {code}: {message} (the instance role needs \
             ec2:DescribeTags)"
    )]
    Refused {
        /// Instance.
        instance: String,
        /// HTTP status.
        status: u16,
        /// EC2's code.
        code: String,
        /// Its words.
        message: String,
    },
    /// An answer that is not what it should be.
    #[error("EC2's answer about the tags of {instance} can't be read")]
    Answer {
        /// Instance.
        instance: String,
        /// Why.
        #[source]
        source: XmlDecodeError,
    },
}

/// Waits between attempts; shortened by tests.
#[derive(Debug, Clone)]
pub struct Ec2Timings {
    /// The n-th pause is up to `2^n` of these.
    pub unit: Duration,
}

impl Default for Ec2Timings {
    fn default() -> Self {
        Self { unit: Duration::from_secs(1) }
    }
}

/// `https://ec2.<region>.<suffix>`, with IPv6 addresses too where the instance has no others.
pub fn endpoint(region: &str, dual_stack: bool) -> String {
    format!("https://ec2.{region}.{}", super::endpoints::domain(region, dual_stack))
}

/// The instance's tags, without those that AWS itself has made: keys or values that begin with
/// `aws:`, in any case of letters.
///
/// # Errors
/// [`Ec2Error`], after five attempts.
pub async fn instance_tags(
    account: &Account,
    endpoint: &str,
    instance: &str,
    timings: &Ec2Timings,
) -> Result<BTreeMap<String, String>, Ec2Error> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match ask(account, endpoint, instance).await {
            Ok(tags) => return Ok(tags),
            Err(error) => error,
        };
        let again = match &error {
            Ec2Error::Transport { .. } | Ec2Error::Credentials(_) => true,
            Ec2Error::Refused { status, code, .. } => *status >= 500 || code == "RequestLimitExceeded",
            _ => false,
        };
        if !again || attempt == ATTEMPTS {
            return Err(error);
        }
        let delay = timings.unit.mul_f64(f64::from(1u32 << attempt) * super::backoff::random_fraction());
        tracing::warn!(error = super::chain(&error), ?delay, "asking EC2 for the instance's tags again");
        tokio::time::sleep(delay).await;
    }
}

async fn ask(
    account: &Account,
    endpoint: &str,
    instance: &str,
) -> Result<BTreeMap<String, String>, Ec2Error> {
    let bad = || Ec2Error::Endpoint { endpoint: endpoint.chars().take(256).collect() };
    let mut url = url::Url::parse(endpoint).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad());
    }
    url.query_pairs_mut().extend_pairs([
        ("Action", "DescribeTags"),
        ("Filter.1.Name", "resource-id"),
        ("Filter.1.Value.1", instance),
        ("Filter.2.Name", "resource-type"),
        ("Filter.2.Value.1", "instance"),
        ("MaxResults", "50"),
        ("Version", VERSION),
    ]);
    let credentials = account.credentials.get().await.map_err(Ec2Error::Credentials)?;
    let signed = sigv4::sign_get_for("ec2", &credentials, &account.region, &url, b"", account.clock.now())?;
    let mut headers = signed;
    headers.push(("User-Agent", account.identity.user_agent()));
    let (status, body) = account
        .http
        .get(&url, &headers, ROUND_TRIP, MAX_ANSWER)
        .await
        .map_err(|source| Ec2Error::Transport { instance: instance.to_owned(), source })?;
    let body = String::from_utf8_lossy(&body);
    if status != 200 {
        let (code, message) = refusal(&body);
        return Err(Ec2Error::Refused { instance: instance.to_owned(), status, code, message });
    }
    let tags = tags(&body).map_err(|source| Ec2Error::Answer { instance: instance.to_owned(), source })?;
    let own = |text: &str| !text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("aws:"));
    Ok(tags.into_iter().filter(|(key, value)| own(key) && own(value)).collect())
}

/// `DescribeTagsResponse/tagSet/item/{key,value}`.
fn tags(xml: &str) -> Result<BTreeMap<String, String>, XmlDecodeError> {
    // The reader takes a document that breaks off for one that ends.
    if !xml.trim_end().ends_with("</DescribeTagsResponse>") {
        return Err(XmlDecodeError::custom("not a whole DescribeTagsResponse"));
    }
    let mut document = Document::new(xml);
    let mut root = document.root_element()?;
    let mut found = BTreeMap::new();
    while let Some(mut set) = root.next_tag() {
        if !set.start_el().matches("tagSet") {
            continue;
        }
        while let Some(mut item) = set.next_tag() {
            let (mut key, mut value) = (None, String::new());
            while let Some(mut member) = item.next_tag() {
                match member.start_el().local() {
                    "key" => key = Some(try_data(&mut member)?.into_owned()),
                    "value" => value = try_data(&mut member)?.into_owned(),
                    _ => {}
                }
            }
            if let Some(key) = key {
                found.insert(key, value);
            }
        }
    }
    Ok(found)
}

/// `Response/Errors/Error/{Code,Message}`; the beginning of the body where it is something else.
fn refusal(xml: &str) -> (String, String) {
    let between = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.chars().take(512).collect::<String>())
    };
    match between("Code") {
        Some(code) => (code, between("Message").unwrap_or_default()),
        None => (String::new(), xml.chars().take(512).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_with_their_entities() {
        let xml = r#"<?xml version="1.0"?><DescribeTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
            <requestId>x</requestId><tagSet>
            <item><resourceId>i</resourceId><key>a&amp;b</key><value>1 &lt; 2</value></item>
            <item><key>empty</key><value/></item></tagSet></DescribeTagsResponse>"#;
        let found = tags(xml).unwrap();
        assert_eq!(found["a&b"], "1 < 2");
        assert_eq!(found["empty"], "");
        for bad in ["", "<html></html>", "<DescribeTagsResponse><tagSet><item><key>x", "{}"] {
            assert!(tags(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_follow_the_partition() {
        assert_eq!(endpoint("us-gov-west-1", false), "https://ec2.us-gov-west-1.amazonaws.com");
        assert_eq!(endpoint("cn-north-1", false), "https://ec2.cn-north-1.amazonaws.com.cn");
        assert_eq!(endpoint("eu-west-1", true), "https://ec2.eu-west-1.api.aws");
    }
}
