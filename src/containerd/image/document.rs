//! Manifests, indexes and configurations: read strictly where they become paths or keys, tolerantly
//! everywhere else. Pure.

use crate::containerd::image::error::PullError;
use crate::model::ImageDigest;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What is asked for.
pub const MANIFEST_TYPES: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
/// Layers that an image may have.
const LAYERS: usize = 512;
/// Bytes that one layer may have.
const LAYER_BYTES: u64 = 1 << 40;

/// What a manifest says of one of its parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RawDescriptor {
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    /// Digest, unchecked.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// For what machine, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the processor.
    #[serde(default)]
    pub architecture: String,
    /// Go's name of the system.
    #[serde(default)]
    pub os: String,
    /// Kind of processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A part of an image, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// Digest.
    pub digest: ImageDigest,
    /// Bytes.
    pub size: u64,
}

/// A manifest, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a registry serves under a tag.
#[derive(Debug, Clone)]
pub enum Document {
    /// Manifests for several machines.
    Index(Vec<RawDescriptor>),
    /// One image.
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyDocument {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

impl Descriptor {
    /// Checks a descriptor.
    fn check(raw: &RawDescriptor, of: &ImageDigest) -> Result<Self, PullError> {
        let problem = |problem: String| document("manifest", of, problem);
        let digest = ImageDigest::parse(&raw.digest)
            .ok_or_else(|| problem(format!("{:?} is not a sha256 digest", clip(&raw.digest))))?;
        if raw.size > LAYER_BYTES {
            return Err(problem(format!("{digest} would have {} bytes", raw.size)));
        }
        Ok(Self { media_type: raw.media_type.clone(), digest, size: raw.size })
    }
}

/// Reads a manifest or an index. What it is, its content says: media types are often wrong.
///
/// # Errors
/// [`PullError::Document`].
pub fn parse(digest: &ImageDigest, bytes: &[u8]) -> Result<Document, PullError> {
    let problem = |problem: String| document("manifest", digest, problem);
    let any: AnyDocument = serde_json::from_slice(bytes).map_err(|e| problem(e.to_string()))?;
    if any.schema_version == Some(1) {
        return Err(problem("schema version 1 can't be run any more: push the image again".to_owned()));
    }
    match (any.manifests, any.config, any.layers) {
        (Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (None, Some(config), layers) => {
            let layers = layers.unwrap_or_default();
            if layers.len() > LAYERS {
                return Err(problem(format!("{} layers: {LAYERS} is the most", layers.len())));
            }
            Ok(Document::Manifest(Manifest {
                config: Descriptor::check(&config, digest)?,
                layers: layers.iter().map(|l| Descriptor::check(l, digest)).collect::<Result<_, _>>()?,
            }))
        }
        _ => {
            let kind = any.media_type.map(|t| clip(&t)).unwrap_or_default();
            Err(problem(format!("neither a manifest nor an index (media type {kind:?})")))
        }
    }
}

/// The manifest for this machine, and its place in the index.
///
/// # Errors
/// [`PullError::Platform`] where there is none.
pub fn choose(
    digest: &ImageDigest,
    manifests: &[RawDescriptor],
    machine: &Platform,
) -> Result<(usize, Descriptor), PullError> {
    let score = |offered: &Platform| {
        if offered.os != machine.os || offered.architecture != machine.architecture {
            return None;
        }
        // An exact kind before an unnamed one before any other.
        Some(match (&offered.variant, &machine.variant) {
            (a, b) if a == b => 2,
            (None, _) => 1,
            _ => 0,
        })
    };
    let fit = |(place, raw): (usize, &RawDescriptor)| {
        let score = raw.platform.as_ref().and_then(score)?;
        Some((score, std::cmp::Reverse(place)))
    };
    let best = manifests.iter().enumerate().filter_map(fit).max();
    // An index of one image without a platform is how archives are often written.
    let only = || (manifests.len() == 1 && manifests[0].platform.is_none()).then_some(0);
    match best.map(|(_, place)| place.0).or_else(only).and_then(|place| Some((place, manifests.get(place)?)))
    {
        Some((place, raw)) => Ok((place, Descriptor::check(raw, digest)?)),
        None => {
            let name = |p: &Platform| format!("{}/{}", clip(&p.os), clip(&p.architecture));
            let offered = manifests.iter().filter_map(|m| m.platform.as_ref()).filter(|p| p.os != "unknown");
            Err(PullError::Platform {
                digest: digest.clone(),
                wanted: name(machine),
                offered: offered.take(20).map(name).collect::<Vec<_>>().join(", "),
            })
        }
    }
}

/// This machine, in Go's words.
pub fn this_machine() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let variant = match architecture {
        "arm64" => Some("v8".to_owned()),
        "arm" => Some("v7".to_owned()),
        _ => None,
    };
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant }
}

/// Reads a configuration, and checks it against the manifest: one diff id a layer.
///
/// # Errors
/// [`PullError::Document`].
pub fn parse_config(manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfiguration, PullError> {
    let problem = |problem: String| document("image configuration", &manifest.config.digest, problem);
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(|e| problem(e.to_string()))?;
    let ids = config.rootfs().diff_ids();
    if ids.len() != manifest.layers.len() {
        let layers = manifest.layers.len();
        return Err(problem(format!("{} diff ids for {layers} layers", ids.len())));
    }
    if let Some(bad) = ids.iter().find(|id| ImageDigest::parse(id).is_none()) {
        return Err(problem(format!("diff id {:?} is not a sha256 digest", clip(bad))));
    }
    Ok(config)
}

/// The chain id after each layer (OCI image specification, "Layer ChainID").
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        let next = match chains.last() {
            None => diff.clone(),
            Some(parent) => format!("sha256:{}", hex::encode(Sha256::digest(format!("{parent} {diff}")))),
        };
        chains.push(next);
    }
    chains
}

fn document(what: &'static str, digest: &ImageDigest, problem: String) -> PullError {
    PullError::Document { what, digest: digest.to_string(), problem }
}

/// The beginning of a text that others wrote.
fn clip(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_digest() -> ImageDigest {
        crate::containerd::image::registry::digest_of(b"x")
    }

    fn offered(os: &str, architecture: &str, variant: Option<&str>) -> RawDescriptor {
        let platform = Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        };
        RawDescriptor {
            media_type: OCI_MANIFEST.into(),
            digest: crate::containerd::image::registry::digest_of(format!("{platform:?}").as_bytes())
                .to_string(),
            size: 1,
            platform: Some(platform),
            annotations: None,
        }
    }

    #[test]
    fn the_machines_own_manifest_is_chosen() {
        let arm = Platform { os: "linux".into(), architecture: "arm64".into(), variant: Some("v8".into()) };
        let index = [
            offered("windows", "arm64", None),
            offered("linux", "amd64", None),
            offered("linux", "arm64", None),
            offered("linux", "arm64", Some("v8")),
            offered("unknown", "unknown", None),
        ];
        assert_eq!(choose(&some_digest(), &index, &arm).unwrap().0, 3);
        assert_eq!(choose(&some_digest(), &index[..3], &arm).unwrap().0, 2);
        let none = choose(&some_digest(), &index[..2], &arm).unwrap_err().to_string();
        assert!(none.contains("linux/arm64") && none.contains("linux/amd64"), "{none}");
    }

    #[test]
    fn hostile_documents_are_refused() {
        let d = some_digest();
        for text in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"config":{"digest":"sha256:../x","size":1},"layers":[]}"#,
            r#"{"config":{"digest":"sha256:0","size":-1},"layers":[]}"#,
            r#"{"manifests":[],"config":{"digest":"","size":1}}"#,
        ] {
            assert!(parse(&d, text.as_bytes()).is_err(), "{text}");
        }
        let huge = format!(r#"{{"config":{{"digest":"{d}","size":99999999999999}}}}"#);
        assert!(parse(&d, huge.as_bytes()).is_err());
        let many = format!(r#"{{"digest":"{d}","size":1}},"#).repeat(600);
        let many =
            format!(r#"{{"config":{{"digest":"{d}","size":1}},"layers":[{}]}}"#, many.trim_end_matches(','));
        assert!(parse(&d, many.as_bytes()).is_err());
    }

    #[test]
    fn chains_follow_the_specification() {
        let ids: Vec<String> =
            ["a", "b"].iter().map(|s| format!("sha256:{}", hex::encode(Sha256::digest(s)))).collect();
        let chains = chain_ids(&ids);
        let second = format!("sha256:{}", hex::encode(Sha256::digest(format!("{} {}", ids[0], ids[1]))));
        assert_eq!(chains, [ids[0].clone(), second]);
        assert!(chain_ids(&[]).is_empty());
    }
}
