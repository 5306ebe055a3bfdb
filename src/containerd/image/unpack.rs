//! From layers in the content store to a chain of committed snapshots.

use crate::containerd::Connection;
use crate::containerd::image::bounds::{Seen, Watched};
use crate::containerd::image::document::Descriptor;
use crate::containerd::image::error::PullError;
use crate::containerd::image::flight::Locks;
use crate::containerd::image::lease::Lease;
use crate::containerd::image::options::UnpackBounds;
use crate::containerd::image::remote::{self, Named};
use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Kind, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
    UsageRequest,
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
    /// It may bring content itself.
    remote: bool,
    chains: Locks<String>,
    slots: Semaphore,
    bounds: UnpackBounds,
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
    pub fn new(
        conn: Connection,
        snapshotter: String,
        slots: usize,
        bounds: UnpackBounds,
        patience: Duration,
    ) -> Self {
        let slots = Semaphore::new(slots.max(1));
        let remote = remote::is_remote(&snapshotter);
        Self { conn, snapshotter, remote, chains: Locks::default(), slots, bounds, patience }
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

    /// Whether the snapshotter brings the first of `layers` itself; then the lease keeps it. Where it does not,
    /// or can't, the layer is to be brought to it.
    pub async fn is_provided(
        &self,
        lease: &Lease,
        named: Named<'_>,
        layers: &[Descriptor],
        (parent, chain): (&str, &str),
    ) -> bool {
        if !self.remote {
            return false;
        }
        let _turn = self.chains.lock(chain.to_owned()).await;
        let key = format!("ecsd-extract-{} {chain}", uuid::Uuid::new_v4().simple());
        let (snapshotter, parent) = (self.snapshotter.clone(), parent.to_owned());
        let labels = remote::labels(named, layers, chain);
        let prepare = PrepareSnapshotRequest { snapshotter, key: key.clone(), parent, labels };
        let mut snapshots = SnapshotsClient::new(self.conn.channel());
        match snapshots.prepare(self.conn.request_in_lease(prepare, lease.id())).await {
            Ok(_) => {
                self.remove(key).await;
                false
            }
            Err(status) if status.code() == Code::AlreadyExists => {
                self.hold(lease, chain).await.unwrap_or(false)
            }
            Err(status) => {
                let (snapshotter, error) = (&self.snapshotter, status.message());
                tracing::warn!(snapshotter, chain, error, "a layer is brought to the snapshotter instead");
                false
            }
        }
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
            labels: HashMap::from([(remote::CHAIN.to_owned(), layer.chain.to_owned())]),
        };
        let mounts = match snapshots.prepare(self.conn.request_in_lease(prepare, lease.id())).await {
            Ok(answer) => answer.into_inner().mounts,
            Err(status) if status.code() == Code::AlreadyExists && self.exists(layer.chain).await? => {
                return Ok(());
            }
            Err(status) => return Err(failed(status)),
        };
        let mut made = self.apply_within_bounds(lease, layer, &key, mounts).await;
        if made.is_ok() {
            let commit = CommitSnapshotRequest {
                snapshotter: self.snapshotter.clone(),
                name: layer.chain.to_owned(),
                key: key.clone(),
                labels: HashMap::from([(remote::CHAIN.to_owned(), layer.chain.to_owned())]),
            };
            match snapshots.commit(self.conn.request_in_lease(commit, lease.id())).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::AlreadyExists => {}
                Err(status) => made = Err(failed(status)),
            }
        }
        self.remove(key).await;
        made
    }

    async fn remove(&self, key: String) {
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.clone() };
        let removed = SnapshotsClient::new(self.conn.channel()).remove(self.conn.request(request)).await;
        if let Err(status) = removed {
            tracing::warn!(snapshot = key, error = status.message(), "a half unpacked layer is left");
        }
    }

    /// What is stopped here is unpacked no further once containerd notices that nobody waits.
    async fn apply_within_bounds(
        &self,
        lease: &Lease,
        layer: Layer<'_>,
        key: &str,
        mounts: Vec<Mount>,
    ) -> Result<(), PullError> {
        let of = layer.layer;
        let watched = Watched::begin(&mounts, of.size, &self.bounds).await;
        let applying = self.apply(lease, layer, mounts);
        let Some(mut watched) = watched else { return applying.await };
        tokio::pin!(applying);
        loop {
            // Where the look at the disk ends first, the layer goes on.
            let seen = tokio::select! {
                applied = &mut applying => return applied,
                seen = watched.until_suspicious() => seen,
            };
            match seen {
                Seen::Full(left) => return Err(watched.full(&of.digest, left)),
                Seen::MuchGone => {
                    let allowance = watched.allowance();
                    if self.usage(key).await.is_some_and(|taken| taken > allowance) {
                        return Err(PullError::Bomb { layer: of.digest.clone(), size: of.size, allowance });
                    }
                    watched.acquit();
                }
            }
        }
    }

    /// Bytes that a snapshot takes; `None` where containerd does not say.
    async fn usage(&self, key: &str) -> Option<u64> {
        let request = UsageRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let used = SnapshotsClient::new(self.conn.channel()).usage(self.conn.request(request)).await.ok()?;
        u64::try_from(used.into_inner().size).ok()
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
