//! One blob from a registry into the content store: in order, continued where it stopped, big ones
//! in parts side by side. The bytes under way are bounded: by the number of parts and of streams, and in a
//! stream by a short queue. What stands still gives up its place (`gate`): parts are then continued in
//! one stream, and a stream holds nothing while it waits.

use crate::containerd::image::content::{Contents, Ingest, Opened, ingest_name};
use crate::containerd::image::document::Descriptor;
use crate::containerd::image::error::{PullError, RegistryError};
use crate::containerd::image::gate::{Gate, Pass};
use crate::containerd::image::lease::Lease;
use crate::containerd::image::options::PullTuning;
use crate::containerd::image::progress::ProgressMeter;
use crate::containerd::image::registry::BlobSource;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Code;

/// Bytes that go to containerd at once where a blob comes in one stream.
const PIECE: usize = 512 << 10;
/// Bytes that must have come for an attempt to count as a new beginning.
const HEADWAY: u64 = 1 << 20;
/// How often, and how far apart, a name that another writer holds is asked for.
const BUSY: (u32, Duration) = (100, Duration::from_millis(100));

/// Fetches blobs.
#[derive(Debug)]
pub struct Fetcher {
    contents: Contents,
    tuning: PullTuning,
    parts: Gate,
    streams: Arc<Gate>,
}

/// Bytes in order; a part's place is given back when containerd has it.
struct Piece {
    data: Vec<u8>,
    _pass: Option<Pass>,
}

/// A part that ended: where it begins, its bytes, its place.
type PartDone = (u64, Result<Vec<u8>, Stop>, Option<Pass>);

/// Why bytes stopped coming.
enum Stop {
    /// The registry failed, after so many attempts.
    Registry(u32, RegistryError),
    /// It does not know ranges, or stands still: from this offset on, all in one stream.
    InLine(u64),
    /// Nobody takes them any more; who took them knows why.
    Closed,
}

impl Fetcher {
    /// With these limits; streams share theirs with others.
    pub fn new(contents: Contents, tuning: PullTuning, streams: Arc<Gate>) -> Self {
        Self { contents, parts: Gate::new(tuning.parts), tuning, streams }
    }

    /// Fetches one blob, or takes it where it is already.
    ///
    /// # Errors
    /// [`PullError::Blob`], [`PullError::WrongBytes`], [`PullError::DiskFull`],
    /// [`PullError::Containerd`]. After the last two nothing partial is left.
    pub async fn fetch(
        &self,
        lease: &Lease,
        source: &BlobSource<'_>,
        blob: &Descriptor,
        meter: &ProgressMeter,
    ) -> Result<(), PullError> {
        let name = ingest_name(&blob.digest);
        let mut attempt = 1;
        loop {
            let Some(mut ingest) = self.open(lease, &name, blob).await? else {
                meter.add(blob.size);
                return Ok(());
            };
            meter.add(ingest.offset());
            // After wrong bytes nothing clever is tried any more.
            let in_parts = attempt == 1;
            let (sent, written) = self.transfer(&mut ingest, source, blob, in_parts, meter).await;
            let there = ingest.offset();
            let ended = match (sent, written) {
                (_, Err(status)) => Err(status),
                (Err(Stop::Registry(attempts, source_error)), _) => {
                    let (digest, host) = (blob.digest.clone(), source.host().to_owned());
                    let source = Box::new(source_error);
                    return Err(PullError::Blob { digest, host, attempts, source });
                }
                (_, Ok(())) => ingest.commit().await,
            };
            let status = match ended {
                Ok(_) => return Ok(()),
                Err(status) => status,
            };
            let error = PullError::containerd(format!("write blob {}", blob.digest), status.clone());
            if matches!(error, PullError::DiskFull { .. }) {
                self.contents.abort(&name).await;
                return Err(error);
            }
            let wrong =
                matches!(status.code(), Code::FailedPrecondition | Code::OutOfRange | Code::InvalidArgument);
            if wrong {
                self.contents.abort(&name).await;
                source.turn_away(true);
            }
            tracing::warn!(
                digest = %blob.digest, registry = source.host(), attempt, error = status.message(),
                "a blob could not be completed"
            );
            let retry = wrong || status.code() == Code::Unavailable;
            let Some(delay) = self.tuning.retry.after(attempt, None).filter(|_| retry) else {
                let (digest, host, words) =
                    (blob.digest.clone(), source.host().to_owned(), status.message().to_owned());
                return Err(match wrong {
                    true => PullError::WrongBytes { digest, host, attempts: attempt, words },
                    false => error,
                });
            };
            meter.take_back(there);
            attempt += 1;
            tokio::time::sleep(delay).await;
        }
    }

    /// Opens the ingest; `None` where the blob is there.
    async fn open(
        &self,
        lease: &Lease,
        name: &str,
        blob: &Descriptor,
    ) -> Result<Option<Box<Ingest>>, PullError> {
        let mut busy = 0;
        loop {
            let opened = self.contents.open(lease.id(), name, Some(&blob.digest), blob.size).await;
            match opened {
                Ok(Opened::Exists) => return Ok(None),
                Ok(Opened::Ingest(ingest)) if ingest.offset() > blob.size => {
                    drop(ingest);
                    self.contents.abort(name).await;
                }
                Ok(Opened::Ingest(ingest)) => return Ok(Some(ingest)),
                // Held by a writer that went away a moment ago (or by one of another agent).
                Err(status) if status.code() == Code::Unavailable && busy < BUSY.0 => {
                    busy += 1;
                    tokio::time::sleep(BUSY.1).await;
                }
                Err(status) => {
                    return Err(PullError::containerd(format!("write blob {}", blob.digest), status));
                }
            }
        }
    }

    /// Moves bytes until the blob is whole or something failed. The two sides run side by side, so
    /// that the network goes on while containerd writes.
    async fn transfer(
        &self,
        ingest: &mut Ingest,
        source: &BlobSource<'_>,
        blob: &Descriptor,
        in_parts: bool,
        meter: &ProgressMeter,
    ) -> (Result<(), Stop>, Result<(), tonic::Status>) {
        let (queue, mut pieces) = mpsc::channel::<Piece>(1);
        let begin = ingest.offset();
        let produce = async move {
            let mut offset = begin;
            if in_parts && blob.size - offset > 2 * self.tuning.part_bytes {
                match self.by_parts(source, offset..blob.size, &queue).await {
                    Err(Stop::InLine(at)) => offset = at,
                    done => return done,
                }
            }
            self.in_line(source, offset..blob.size, &queue).await
        };
        // Ending drops the receiver, which ends `produce` as well.
        let consume = async move {
            while let Some(piece) = pieces.recv().await {
                let length = piece.data.len() as u64;
                ingest.write(piece.data).await?;
                meter.add(length);
            }
            Ok(())
        };
        futures_util::future::join(produce, consume).await
    }

    /// Parts side by side, handed on in order.
    async fn by_parts(
        &self,
        source: &BlobSource<'_>,
        range: Range<u64>,
        queue: &mpsc::Sender<Piece>,
    ) -> Result<(), Stop> {
        let size = self.tuning.part_bytes.max(1);
        let mut next = range.start;
        let mut pending: FuturesOrdered<BoxFuture<'_, PartDone>> = FuturesOrdered::new();
        loop {
            while next < range.end && pending.len() < self.tuning.parts_per_layer.max(1) {
                // Only who has nothing under way waits for a place: nobody holds one and waits.
                let pass = match pending.is_empty() {
                    true => self.parts.enter(source.host()).await,
                    false => match self.parts.try_enter(source.host()) {
                        Some(pass) => pass,
                        None => break,
                    },
                };
                let part = next..(next + size).min(range.end);
                next = part.end;
                pending.push_back(self.part_with(source, part, Some(pass)).boxed());
            }
            let Some((start, part, pass)) = pending.next().await else { return Ok(()) };
            let restart = |stop| if let Stop::InLine(_) = stop { Stop::InLine(start) } else { stop };
            let data = part.map_err(restart)?;
            queue.send(Piece { data, _pass: pass }).await.map_err(|_| Stop::Closed)?;
        }
    }

    async fn part_with(&self, source: &BlobSource<'_>, part: Range<u64>, pass: Option<Pass>) -> PartDone {
        (part.start, self.part(source, part).await, pass)
    }

    /// One part. It is tried twice and may not stand still: what is worse than that goes on in one stream,
    /// which has more patience and holds no place meanwhile.
    async fn part(&self, source: &BlobSource<'_>, part: Range<u64>) -> Result<Vec<u8>, Stop> {
        let wanted = part.end - part.start;
        let length = usize::try_from(wanted).unwrap_or_default();
        let in_line = || Stop::InLine(part.start);
        let mut data = Vec::new();
        let mut failed_before = false;
        loop {
            let at = part.start + data.len() as u64;
            let opened = timeout(self.tuning.stall, source.open(Some(at..part.end))).await;
            let failed = match opened.map_err(|_| in_line())? {
                Ok(body) if body.offset != at || (at == 0 && body.whole) => return Err(in_line()),
                Ok(mut body) => loop {
                    let piece = timeout(self.tuning.stall, body.body.next()).await;
                    match piece.map_err(|_| in_line())? {
                        Ok(Some(piece)) => {
                            data.reserve_exact(length - data.len());
                            data.extend_from_slice(&piece[..piece.len().min(length - data.len())]);
                            if data.len() == length {
                                // The end of the body is waited for, so that the connection serves again.
                                while let Ok(Ok(Some(_))) = timeout(self.tuning.stall, body.body.next()).await
                                {
                                }
                                return Ok(data);
                            }
                        }
                        Ok(None) => break short(source, data.len() as u64, wanted),
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            if failed_before && part.start + data.len() as u64 == at {
                return Err(in_line());
            }
            failed_before = true;
            self.pause(source, 1, failed).await?;
        }
    }

    /// One stream, begun again where it broke.
    async fn in_line(
        &self,
        source: &BlobSource<'_>,
        range: Range<u64>,
        queue: &mpsc::Sender<Piece>,
    ) -> Result<(), Stop> {
        let (mut at, end) = (range.start, range.end);
        let (mut attempt, mut since) = (1, at);
        while at < end {
            let failed = match source.open((at > 0).then_some(at..end)).await {
                // Who has no answer yet holds no place.
                Ok(body) => match self.drain(source, body, &mut at, end, queue).await? {
                    None => return Ok(()),
                    Some(failed) => failed,
                },
                Err(error) => error,
            };
            if at - since >= HEADWAY {
                attempt = 1;
            }
            since = at;
            self.pause(source, attempt, failed).await?;
            attempt += 1;
        }
        Ok(())
    }

    /// Hands on a body from `at` on; answers what broke it.
    async fn drain(
        &self,
        source: &BlobSource<'_>,
        mut body: crate::containerd::image::registry::BlobBody,
        at: &mut u64,
        end: u64,
        queue: &mpsc::Sender<Piece>,
    ) -> Result<Option<RegistryError>, Stop> {
        let mut pass = Some(self.streams.enter(source.host()).await);
        let mut skip = *at - body.offset.min(*at);
        let mut gathered = Vec::new();
        let mut broken = None;
        loop {
            let next = match timeout(self.tuning.stall, body.body.next()).await {
                Ok(next) => next,
                Err(_) => {
                    if !gathered.is_empty() {
                        let data = std::mem::take(&mut gathered);
                        queue.send(Piece { data, _pass: None }).await.map_err(|_| Stop::Closed)?;
                    }
                    pass = None;
                    body.body.next().await
                }
            };
            if pass.is_none() {
                pass = Some(self.streams.enter(source.host()).await);
            }
            let (mut piece, ended) = match next {
                Ok(Some(piece)) => (piece, false),
                Ok(None) => (bytes::Bytes::new(), true),
                Err(error) => {
                    broken = Some(error);
                    (bytes::Bytes::new(), true)
                }
            };
            let unwanted = piece.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= unwanted as u64;
            bytes::Buf::advance(&mut piece, unwanted);
            let room = usize::try_from(end - *at).unwrap_or(usize::MAX);
            // More than the manifest promises is not read: the digest will tell.
            gathered.extend_from_slice(&piece[..piece.len().min(room)]);
            *at += piece.len().min(room) as u64;
            if !gathered.is_empty() && (gathered.len() >= PIECE || ended || *at == end) {
                let data = std::mem::take(&mut gathered);
                queue.send(Piece { data, _pass: None }).await.map_err(|_| Stop::Closed)?;
            }
            if *at == end {
                return Ok(None);
            }
            if ended {
                return Ok(Some(broken.unwrap_or_else(|| short(source, *at, end))));
            }
        }
    }

    /// Waits before the next attempt; the last failure is the answer.
    async fn pause(&self, source: &BlobSource<'_>, attempt: u32, failed: RegistryError) -> Result<(), Stop> {
        let delay = self.tuning.retry.after(attempt, failed.wish()).filter(|_| failed.is_transient());
        let Some(delay) = delay else { return Err(Stop::Registry(attempt, failed)) };
        tracing::warn!(
            digest = %source.digest(), registry = source.host(), attempt, error = %failed,
            "a blob stopped coming; it is continued"
        );
        source.turn_away(false);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

fn short(source: &BlobSource<'_>, got: u64, wanted: u64) -> RegistryError {
    let what = format!("GET blob {}", source.digest());
    RegistryError::Short { host: source.host().to_owned(), what, got, wanted }
}
