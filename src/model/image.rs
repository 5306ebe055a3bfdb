//! Images as the engine speaks of them.

use crate::model::time::Wall;
use std::fmt;

/// `sha256:<64 hexadecimal digits>` of a manifest or an index.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageDigest(String);

impl ImageDigest {
    /// Checks and takes a digest. `None` for anything but sha256.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let fit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (digits.len() == 64 && digits.bytes().all(fit)).then(|| Self(text.to_owned()))
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a look at the registry (or at the local images) told about a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Digest of what the tag points at: the index of a multi-platform image. `None` where the
    /// registry could not be asked and a local image serves.
    pub digest: Option<ImageDigest>,
    /// The image is unpacked already and nothing has to be fetched.
    pub local: bool,
}

/// A pull under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullUnderWay {
    /// The image, by its full name.
    pub image: String,
    /// Since when.
    pub started_at: Wall,
    /// Bytes on the disk, of the layers that have to be fetched.
    pub bytes_done: u64,
    /// All bytes of those layers.
    pub bytes_total: u64,
    /// How fast they came in the last seconds.
    pub bytes_per_second: u64,
    /// Layers unpacked, or unpacked already.
    pub layers_done: usize,
    /// All layers; 0 until the manifest is there.
    pub layers_total: usize,
    /// What it waits for while no bytes come.
    pub waiting_for: Option<String>,
}

/// User name and password for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Secret.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// `ECS_IMAGE_PULL_BEHAVIOR` (spec/task-engine.md 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullBehavior {
    /// Ask the registry; where that fails, a local image may serve.
    #[default]
    Default,
    /// Ask the registry; a failure is final.
    Always,
    /// Ask the registry only for what this agent never pulled.
    Once,
    /// Ask the registry only for what is not there.
    PreferCached,
}
