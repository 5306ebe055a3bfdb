//! From layers in the content store to a chain of committed snapshots.

use crate::containerd::Connection;
use crate::containerd::image::document::Descriptor;
use crate::containerd::image::error::PullError;
use crate::containerd::image::flight::Locks;
use crate::containerd::image::lease::Lease;
use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Kind, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types::{Descriptor as WireDescriptor, Mount};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Code;

/// Unpacks layers, each chain once at a time.
#[derive(Debug)]
pub struct Unpacker {
    conn: Connection,
    snapshotter: String,
    chains: Locks<String>,
    slots: Semaphore,
    /// How long a layer has its slot.
    patience: Duration,
}

/// One layer to unpack.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The layer.
    pub layer: &'a Descriptor,
    /// What it unpacks to.
    pub diff_id: &'a str,
    /// Snapshot below; empty for the lowest layer.
    pub parent: &'a str,
    /// Snapshot to make.
    pub chain: &'a str,
}

impl Unpacker {
    /// At most `slots` layers at once, but for those that have taken longer than `patience`.
    pub fn new(conn: Connection, snapshotter: String, slots: usize, patience: Duration) -> Self {
        Self { conn, snapshotter, chains: Locks::default(), slots: Semaphore::new(slots.max(1)), patience }
    }

    /// The snapshotter's name.
    pub fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Whether a chain is unpacked.
    ///
    /// # Errors
    /// Where containerd does not say.
    pub async fn exists(&self, chain: &str) -> Result<bool, PullError> {
        if chain.is_empty() {
            return Ok(true);
        }
        let request = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: chain.to_owned() };
        match SnapshotsClient::new(self.conn.channel()).stat(self.conn.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().info.is_some_and(|i| i.kind == Kind::Committed as i32)),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(PullError::containerd(format!("look for snapshot {chain}"), status)),
        }
    }

    /// Whether a chain is unpacked; if it is, the lease keeps it so.
    ///
    /// # Errors
    /// Where containerd does not say.
    pub async fn hold(&self, lease: &Lease, chain: &str) -> Result<bool, PullError> {
        // First hold, then look: nothing can take it away in between.
        lease.hold(&format!("snapshots/{}", self.snapshotter), chain).await?;
        self.exists(chain).await
    }

    /// Unpacks one layer; somebody else having done so is fine.
    ///
    /// # Errors
    /// [`PullError`]; nothing half unpacked is left.
    pub async fn unpack(&self, lease: &Lease, layer: Layer<'_>) -> Result<(), PullError> {
        let _turn = self.chains.lock(layer.chain.to_owned()).await;
        if self.hold(lease, layer.chain).await? {
            return Ok(());
        }
        // Never closed; a closed semaphore would only mean no limit.
        let slot = self.slots.acquire().await.ok();
        let unpacking = self.unpack_now(lease, layer);
        tokio::pin!(unpacking);
        match tokio::time::timeout(self.patience, &mut unpacking).await {
            Ok(unpacked) => unpacked,
            Err(_) => {
                drop(slot);
                unpacking.await
            }
        }
    }

    async fn unpack_now(&self, lease: &Lease, layer: Layer<'_>) -> Result<(), PullError> {
        let key = format!("ecsd-extract-{} {}", uuid::Uuid::new_v4().simple(), layer.chain);
        let what = format!("unpack layer {}", layer.layer.digest);
        let failed = |status| PullError::containerd(what.clone(), status);
        let mut snapshots = SnapshotsClient::new(self.conn.channel());
        let prepare = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: layer.parent.to_owned(),
            // Remote snapshotters answer AlreadyExists where they provide the chain themselves.
            labels: HashMap::from([("containerd.io/snapshot.ref".to_owned(), layer.chain.to_owned())]),
        };
        let mounts = match snapshots.prepare(self.conn.request_in_lease(prepare, lease.id())).await {
            Ok(answer) => answer.into_inner().mounts,
            Err(status) if status.code() == Code::AlreadyExists && self.exists(layer.chain).await? => {
                return Ok(());
            }
            Err(status) => return Err(failed(status)),
        };
        let mut made = self.apply(lease, layer, mounts).await;
        if made.is_ok() {
            let commit = CommitSnapshotRequest {
                snapshotter: self.snapshotter.clone(),
                name: layer.chain.to_owned(),
                key: key.clone(),
                labels: HashMap::from([("containerd.io/snapshot.ref".to_owned(), layer.chain.to_owned())]),
            };
            match snapshots.commit(self.conn.request_in_lease(commit, lease.id())).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::AlreadyExists => {}
                Err(status) => made = Err(failed(status)),
            }
        }
        let remove = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key };
        if let Err(status) = snapshots.remove(self.conn.request(remove)).await {
            tracing::warn!(layer = %layer.layer.digest, error = status.message(), "a half unpacked layer is left");
        }
        made
    }

    async fn apply(&self, lease: &Lease, layer: Layer<'_>, mounts: Vec<Mount>) -> Result<(), PullError> {
        let diff = WireDescriptor {
            media_type: layer.layer.media_type.clone(),
            digest: layer.layer.digest.to_string(),
            size: i64::try_from(layer.layer.size).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        let request = ApplyRequest { diff: Some(diff), mounts, payloads: HashMap::new(), sync_fs: false };
        let applied =
            DiffClient::new(self.conn.channel()).apply(self.conn.request_in_lease(request, lease.id())).await;
        let applied = applied.map_err(|status| {
            PullError::containerd(format!("unpack layer {}", layer.layer.digest), status)
        })?;
        let found = applied.into_inner().applied.map(|d| d.digest).unwrap_or_default();
        if found == layer.diff_id {
            return Ok(());
        }
        let promised = layer.diff_id.to_owned();
        Err(PullError::DiffId { layer: layer.layer.digest.clone(), found, promised })
    }
}
