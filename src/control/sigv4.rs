//! Signature Version 4 for what the SDK does not sign: the handshake of both websockets
//! (spec/control-plane.md 3.1) and each frame of telemetry (4.2).

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use std::time::SystemTime;

/// A request that can't be signed.
#[derive(Debug, thiserror::Error)]
#[error("{url}: can't be signed")]
pub struct SignError {
    /// The URL.
    pub url: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Signs `GET url` with the given body and answers the headers to add, `Authorization` first:
/// `X-Amz-Date`, and `X-Amz-Security-Token` where the credentials are temporary. The signed headers
/// are exactly `host;x-amz-date[;x-amz-security-token]`.
///
/// # Errors
/// [`SignError`]
pub fn sign_get(
    credentials: &Credentials,
    region: &str,
    url: &url::Url,
    body: &[u8],
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, SignError> {
    sign_get_for("ecs", credentials, region, url, body, now)
}

/// The same for another service than `ecs`.
///
/// # Errors
/// [`SignError`]
pub fn sign_get_for(
    service: &str,
    credentials: &Credentials,
    region: &str,
    url: &url::Url,
    body: &[u8],
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, SignError> {
    sign_request("GET", service, credentials, region, url, &[], body, now)
}

/// Signs `POST url`, with these headers besides `host` and `x-amz-date`.
///
/// # Errors
/// [`SignError`]
pub fn sign_post(
    service: &str,
    credentials: &Credentials,
    region: &str,
    url: &url::Url,
    headers: &[(&'static str, String)],
    body: &[u8],
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, SignError> {
    sign_request("POST", service, credentials, region, url, headers, body, now)
}

#[expect(clippy::too_many_arguments, reason = "all that a signature covers")]
fn sign_request(
    method: &str,
    service: &str,
    credentials: &Credentials,
    region: &str,
    url: &url::Url,
    headers: &[(&'static str, String)],
    body: &[u8],
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, SignError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| SignError { url: redacted(url), source };
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| failed(e.into()))?
        .into();
    // Signatures are of the http form of the URL; ws and wss are its upgrade.
    let host = host_header(url);
    let others = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = [("host", host.as_str())].into_iter().chain(others);
    let request = SignableRequest::new(method, url.as_str(), headers, SignableBody::Bytes(body))
        .map_err(|e| failed(e.into()))?;
    let (instructions, _) = sign(request, &params).map_err(|e| failed(e.into()))?.into_parts();
    let (signed, _) = instructions.into_parts();
    let mut out: Vec<(&'static str, String)> =
        signed.iter().filter_map(|h| Some((canonical(h.name())?, h.value().to_owned()))).collect();
    out.sort_by_key(|(name, _)| *name);
    Ok(out)
}

/// A frame of telemetry: signed like a request, its headers in front of the JSON, sorted, each line
/// ended with CRLF, then an empty line.
///
/// # Errors
/// [`SignError`]
pub fn sign_frame(
    credentials: &Credentials,
    region: &str,
    url: &url::Url,
    json: &str,
    now: SystemTime,
) -> Result<String, SignError> {
    let mut headers = sign_get(credentials, region, url, json.as_bytes(), now)?;
    headers.push(("Host", host_header(url)));
    headers.sort_by_key(|(name, _)| *name);
    let mut frame = String::with_capacity(json.len() + 1024);
    for (name, value) in headers {
        frame.push_str(name);
        frame.push_str(": ");
        frame.push_str(&value);
        frame.push_str("\r\n");
    }
    frame.push_str("\r\n");
    frame.push_str(json);
    Ok(frame)
}

/// `host[:port]`, the port only where it is not the scheme's own.
pub fn host_header(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn canonical(name: &str) -> Option<&'static str> {
    match name {
        "authorization" => Some("Authorization"),
        "x-amz-date" => Some("X-Amz-Date"),
        "x-amz-security-token" => Some("X-Amz-Security-Token"),
        _ => None,
    }
}

/// Without query: it names the cluster and the instance, and errors go to the log.
fn redacted(url: &url::Url) -> String {
    format!("{}://{}{}", url.scheme(), host_header(url), url.path())
}
