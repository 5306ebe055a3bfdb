//! Signature Version 4 from its specification, on nothing but SHA-256: the tests' own judgement.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

pub const ACCESS_KEY: &str = "AKIDTEST";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const REGION: &str = "us-west-2";

pub fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    block[..key.len().min(64)].copy_from_slice(&key[..key.len().min(64)]);
    let pad = |with: u8| block.iter().map(|b| b ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36)[..], data].concat());
    Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).to_vec()
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8().unwrap().into_owned()
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

pub fn query(raw: &str) -> BTreeMap<String, String> {
    let pairs = raw.split('&').filter(|p| !p.is_empty());
    pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Checks a request's signature; answers the signed headers.
pub fn verify(
    method: &str,
    path: &str,
    raw_query: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> Result<String, String> {
    verify_for("ecs", method, path, raw_query, headers, body)
}

/// The same for another service.
pub fn verify_for(
    service: &str,
    method: &str,
    path: &str,
    raw_query: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> Result<String, String> {
    let authorization = headers.get("authorization").ok_or("no Authorization")?;
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("not AWS4-HMAC-SHA256")?;
    let parts: BTreeMap<&str, &str> = rest.split(", ").filter_map(|p| p.split_once('=')).collect();
    let get = |name: &str| parts.get(name).copied().ok_or(format!("no {name}"));
    let (credential, signed, signature) = (get("Credential")?, get("SignedHeaders")?, get("Signature")?);
    let scope = credential.strip_prefix(&format!("{ACCESS_KEY}/")).ok_or(format!("key of {credential}"))?;
    let date = headers.get("x-amz-date").ok_or("no X-Amz-Date")?;
    let expected_scope = format!("{}/{REGION}/{service}/aws4_request", &date[..8]);
    if scope != expected_scope {
        return Err(format!("scope {scope}, not {expected_scope}"));
    }
    let mut canonical_query: Vec<String> =
        query(raw_query).iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    canonical_query.sort();
    let mut canonical_headers = String::new();
    for name in signed.split(';') {
        let value = headers.get(name).ok_or(format!("signed header {name} is not there"))?;
        canonical_headers.push_str(&format!("{name}:{}\n", value.trim()));
    }
    let canonical = format!(
        "{method}\n{path}\n{}\n{canonical_headers}\n{signed}\n{}",
        canonical_query.join("&"),
        sha256(body)
    );
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = hmac(format!("AWS4{SECRET}").as_bytes(), &date.as_bytes()[..8]);
    for part in [REGION, service, "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    let own = hex::encode(hmac(&key, to_sign.as_bytes()));
    if own == signature { Ok(signed.to_owned()) } else { Err(format!("signature differs for\n{canonical}")) }
}
