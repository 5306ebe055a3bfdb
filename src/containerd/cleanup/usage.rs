//! When an image came and when it was last used: kept as a label of its record in containerd, so that
//! it lives exactly as long as the record and survives the agent.
//!
//! `ecsd/usage`: `<since> <used> <digest>`, both times RFC 3339 with seconds. Where the digest is not the
//! record's, the name has come to stand for another image, of which nothing is noted yet.

use crate::containerd::Connection;
use crate::containerd::cleanup::policy::ImageRecord;
use crate::containerd::image::error::PullError;
use crate::containerd::image::record::{self, Origin};
use crate::model::{ImageDigest, Wall};
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{Image, ListImagesRequest, UpdateImageRequest};
use containerd_client::types::Descriptor;
use prost_types::FieldMask;
use std::collections::HashMap;
use tonic::Code;

const USAGE: &str = "ecsd/usage";

/// What is noted of a record's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    since: Wall,
    used: Wall,
}

impl Usage {
    /// What a label says of that image; `None` where it is about another one, or is not ours.
    fn read(label: &str, target: &ImageDigest) -> Option<Self> {
        let mut words = label.split(' ');
        let (since, used, of) = (words.next()?, words.next()?, words.next()?);
        let moment = |text: &str| humantime::parse_rfc3339(text).ok().map(Wall::from);
        let usage = Self { since: moment(since)?, used: moment(used)? };
        (of == target.as_str() && words.next().is_none()).then_some(usage)
    }

    fn write(self, target: &ImageDigest) -> String {
        let text = |at: Wall| humantime::format_rfc3339_seconds(at.to_system_time());
        format!("{} {} {target}", text(self.since), text(self.used))
    }
}

/// Notes that the image of that name is in use at this moment. A name that has no record is fine.
///
/// # Errors
/// Where containerd does not.
pub async fn note(conn: &Connection, name: &str, now: Wall) -> Result<(), PullError> {
    let failed = |status| PullError::containerd(format!("note the use of image {name}"), status);
    let filters = vec![format!("name=={name:?}")];
    let answer = ImagesClient::new(conn.channel()).list(conn.request(ListImagesRequest { filters })).await;
    let Some((image, target)) = answer.map_err(failed)?.into_inner().images.pop().and_then(|image| {
        let target = ImageDigest::parse(&image.target.as_ref()?.digest)?;
        Some((image, target))
    }) else {
        return Ok(());
    };
    let known = image.labels.get(USAGE).and_then(|label| Usage::read(label, &target));
    let usage = Usage { since: known.map_or(now, |known| known.since), used: now };
    set(conn, name, USAGE, usage.write(&target)).await.or_else(|status| match status.code() {
        Code::NotFound => Ok(()),
        _ => Err(failed(status)),
    })
}

/// Notes that a registry has the image of that name, though it was not pulled from there.
///
/// # Errors
/// Where containerd does not.
pub async fn adopt(conn: &Connection, name: &str) -> Result<(), PullError> {
    let failed = |status| PullError::containerd(format!("note the registry of image {name}"), status);
    set(conn, name, record::ORIGIN, Origin::Registry.word().to_owned()).await.map_err(failed)
}

async fn set(conn: &Connection, name: &str, key: &str, value: String) -> Result<(), tonic::Status> {
    let image = Image {
        name: name.to_owned(),
        labels: HashMap::from([(key.to_owned(), value)]),
        // Not looked at, as the mask has it; but containerd 2 dies of a request without one.
        target: Some(Descriptor::default()),
        ..Image::default()
    };
    let update = UpdateImageRequest {
        image: Some(image),
        update_mask: Some(FieldMask { paths: vec![format!("labels.{key}")] }),
        source_date_epoch: None,
    };
    ImagesClient::new(conn.channel()).update(conn.request(update)).await.map(|_| ())
}

/// Every image record of our namespace.
///
/// # Errors
/// Where containerd does not say.
pub async fn list(conn: &Connection) -> Result<Vec<ImageRecord>, PullError> {
    let request = conn.request(ListImagesRequest { filters: Vec::new() });
    let answer = ImagesClient::new(conn.channel()).list(request).await;
    let answer = answer.map_err(|status| PullError::containerd("list images", status))?;
    Ok(answer.into_inner().images.into_iter().filter_map(image_record).collect())
}

fn image_record(image: Image) -> Option<ImageRecord> {
    let label = image.labels.get(USAGE).cloned();
    let local = record::local(image)?;
    let usage = label.and_then(|label| Usage::read(&label, &local.target));
    // Of a record that nobody has touched since, this is when it came to stand for its image.
    let Usage { since, used } = usage.unwrap_or(Usage { since: local.updated_at, used: local.updated_at });
    Some(ImageRecord {
        tracked: usage.is_some() || local.origin == Origin::Registry,
        name: local.name,
        target: local.target,
        origin: local.origin,
        since,
        used,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written_and_only_for_its_image() {
        let digest = |n: u8| ImageDigest::parse(&format!("sha256:{n:064x}")).unwrap();
        let usage = Usage { since: Wall(1_700_000_000_000_000_000), used: Wall(1_700_000_060_000_000_000) };
        let label = usage.write(&digest(1));
        assert!(label.starts_with("2023-11-14T22:13:20Z 2023-11-14T22:14:20Z sha256:00"), "{label}");
        assert_eq!(Usage::read(&label, &digest(1)), Some(usage));
        assert_eq!(Usage::read(&label, &digest(2)), None);
        for bad in ["", "a b c", "2023-11-14T22:13:20Z", &format!("{label} more"), "9999999999999"] {
            assert_eq!(Usage::read(bad, &digest(1)), None, "{bad}");
        }
    }
}
