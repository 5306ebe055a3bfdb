//! Snapshotters that bring the content of layers themselves (SOCI, stargz, nydus): what they are told, so
//! that they can. It is what containerd's CRI tells them.

use crate::containerd::image::document::Descriptor;
use crate::model::ImageDigest;
use std::collections::HashMap;

/// Those of containerd itself: to them layers are brought.
const LOCAL: [&str; 7] = ["overlayfs", "native", "btrfs", "zfs", "devmapper", "blockfile", "erofs"];
/// Bytes of a label's name and value together that containerd takes.
const LABEL: usize = 4096;
/// The chain that a snapshot is for. Remote snapshotters answer AlreadyExists where they provide it.
pub const CHAIN: &str = "containerd.io/snapshot.ref";

/// What an image is called, for a snapshotter that looks it up by itself.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The reference.
    pub image: &'a str,
    /// Its manifest.
    pub manifest: &'a ImageDigest,
}

/// Whether a snapshotter of that name may bring content itself.
pub fn is_remote(snapshotter: &str) -> bool {
    !LOCAL.contains(&snapshotter)
}

/// The labels of the first of `layers`, which is to become `chain`.
pub fn labels(named: Named<'_>, layers: &[Descriptor], chain: &str) -> HashMap<String, String> {
    let label = |name: &str| format!("containerd.io/snapshot/cri.{name}");
    let mut all = HashMap::from([
        (CHAIN.to_owned(), chain.to_owned()),
        (label("image-ref"), named.image.to_owned()),
        (label("manifest-digest"), named.manifest.to_string()),
    ]);
    if let Some(layer) = layers.first() {
        all.insert(label("layer-digest"), layer.digest.to_string());
    }
    let key = label("image-layers");
    let mut list = String::new();
    for layer in layers {
        let comma = if list.is_empty() { "" } else { "," };
        if key.len() + list.len() + comma.len() + layer.digest.as_str().len() > LABEL {
            break;
        }
        list.push_str(comma);
        list.push_str(layer.digest.as_str());
    }
    all.insert(key, list);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::image::registry::digest_of;

    #[test]
    fn labels_tell_of_the_image_and_fit() {
        assert!(is_remote("soci") && is_remote("stargz") && !is_remote("overlayfs"));
        let layer =
            |n: u32| Descriptor { media_type: String::new(), digest: digest_of(&n.to_le_bytes()), size: 1 };
        let layers: Vec<Descriptor> = (0..200).map(layer).collect();
        let manifest = digest_of(b"m");
        let all = labels(Named { image: "r.example/a:1", manifest: &manifest }, &layers, "sha256:chain");
        assert_eq!(all["containerd.io/snapshot/cri.image-ref"], "r.example/a:1");
        assert_eq!(all["containerd.io/snapshot/cri.layer-digest"], layers[0].digest.as_str());
        assert_eq!(all[CHAIN], "sha256:chain");
        let listed = &all["containerd.io/snapshot/cri.image-layers"];
        assert!(listed.starts_with(layers[0].digest.as_str()) && listed.split(',').count() == 56, "{listed}");
        assert!(all.iter().all(|(key, value)| key.len() + value.len() <= LABEL));
    }
}
