//! containerd's image records: a name, and the digest that it stands for. A record keeps all that
//! belongs to its image.

use crate::containerd::Connection;
use crate::containerd::image::document::Descriptor;
use crate::containerd::image::error::PullError;
use crate::model::{ImageDigest, Wall};
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use containerd_client::types::Descriptor as WireDescriptor;
use prost_types::FieldMask;
use std::collections::HashMap;
use tonic::Code;

/// Label that says where an image came from.
pub(crate) const ORIGIN: &str = "ecsd/origin";

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This agent pulled it.
    Registry,
    /// This agent loaded it from an archive.
    Archive,
    /// Somebody else put it there.
    Foreign,
}

/// An image that containerd has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Name of its record.
    pub name: String,
    /// Digest of its manifest, or of its index.
    pub target: ImageDigest,
    /// Where it came from.
    pub origin: Origin,
    /// When its record was made.
    pub created_at: Wall,
    /// When its record was last changed.
    pub updated_at: Wall,
}

impl Origin {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Archive => "archive",
            Self::Foreign => "",
        }
    }
}

/// The record of that name.
///
/// # Errors
/// Where containerd does not say.
pub async fn get(conn: &Connection, name: &str) -> Result<Option<LocalImage>, PullError> {
    let request = conn.request(GetImageRequest { name: name.to_owned() });
    match ImagesClient::new(conn.channel()).get(request).await {
        Ok(answer) => Ok(answer.into_inner().image.and_then(local)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(PullError::containerd(format!("look for image {name}"), status)),
    }
}

/// Every record of our namespace.
///
/// # Errors
/// Where containerd does not say.
pub async fn list(conn: &Connection) -> Result<Vec<LocalImage>, PullError> {
    let request = conn.request(ListImagesRequest { filters: Vec::new() });
    let answer = ImagesClient::new(conn.channel()).list(request).await;
    let answer = answer.map_err(|status| PullError::containerd("list images", status))?;
    Ok(answer.into_inner().images.into_iter().filter_map(local).collect())
}

/// Makes the name stand for `target`.
///
/// # Errors
/// Where containerd does not.
pub async fn put(
    conn: &Connection,
    lease: &str,
    name: &str,
    target: &Descriptor,
    origin: Origin,
) -> Result<(), PullError> {
    let failed = |status| PullError::containerd(format!("record image {name}"), status);
    let image = Image {
        name: name.to_owned(),
        labels: HashMap::from([(ORIGIN.to_owned(), origin.word().to_owned())]),
        target: Some(WireDescriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.to_string(),
            size: i64::try_from(target.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        }),
        ..Image::default()
    };
    let mut client = ImagesClient::new(conn.channel());
    let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
    match client.create(conn.request_in_lease(create, lease)).await {
        Ok(_) => return Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(failed(status)),
    }
    let update = UpdateImageRequest {
        image: Some(image),
        update_mask: Some(FieldMask { paths: vec!["target".to_owned(), format!("labels.{ORIGIN}")] }),
        source_date_epoch: None,
    };
    client.update(conn.request_in_lease(update, lease)).await.map(|_| ()).map_err(failed)
}

/// Removes a record, and with it whatever nothing else needs. Not there is fine.
///
/// # Errors
/// Where containerd does not.
pub async fn remove(conn: &Connection, name: &str) -> Result<(), PullError> {
    let request = DeleteImageRequest { name: name.to_owned(), sync: true, target: None };
    match ImagesClient::new(conn.channel()).delete(conn.request(request)).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(PullError::containerd(format!("remove image {name}"), status)),
    }
}

/// What a record says; `None` where its digest is none that we know.
pub(crate) fn local(image: Image) -> Option<LocalImage> {
    let wall = |at: Option<prost_types::Timestamp>| {
        let at = at.unwrap_or_default();
        let seconds = u64::try_from(at.seconds).unwrap_or_default();
        Wall(
            seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(at.nanos).unwrap_or_default()),
        )
    };
    let origin = match image.labels.get(ORIGIN).map(String::as_str) {
        Some("registry") => Origin::Registry,
        Some("archive") => Origin::Archive,
        _ => Origin::Foreign,
    };
    Some(LocalImage {
        name: image.name,
        target: ImageDigest::parse(&image.target?.digest)?,
        origin,
        created_at: wall(image.created_at),
        updated_at: wall(image.updated_at),
    })
}
