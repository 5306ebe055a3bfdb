//! containerd's content store: look, read, write. Everything that is written is held by a lease.

use crate::containerd::Connection;
use crate::containerd::calls::Calls;
use crate::containerd::image::error::PullError;
use crate::model::ImageDigest;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use prost_types::FieldMask;
use std::collections::HashMap;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

/// Bytes of one message; containerd takes up to 16 MiB.
const MESSAGE: usize = 1 << 20;

/// The content store, by way of one connection.
#[derive(Debug, Clone)]
pub struct Contents {
    conn: Connection,
}

/// What opening an ingest gave.
#[derive(Debug)]
pub enum Opened {
    /// The content is there already.
    Exists,
    /// Bytes can be written.
    Ingest(Box<Ingest>),
}

/// A blob being written. Dropped, what was written stays and can be continued under the same name.
#[derive(Debug)]
pub struct Ingest {
    name: String,
    offset: u64,
    total: u64,
    expected: String,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Contents {
    /// By way of `conn`.
    pub fn new(conn: Connection) -> Self {
        Self { conn }
    }

    fn client(&self) -> ContentClient<Calls> {
        ContentClient::new(self.conn.channel())
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// Where containerd does not say.
    pub async fn exists(&self, digest: &ImageDigest) -> Result<bool, PullError> {
        let request = self.conn.request(InfoRequest { digest: digest.to_string() });
        match self.client().info(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(PullError::containerd(format!("look for blob {digest}"), status)),
        }
    }

    /// A small blob; `None` where it is not there.
    ///
    /// # Errors
    /// Where it has more than `limit` bytes, or containerd does not give it.
    pub async fn read(&self, digest: &ImageDigest, limit: usize) -> Result<Option<Vec<u8>>, PullError> {
        let failed = |status| PullError::containerd(format!("read blob {digest}"), status);
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut stream = match self.client().read(self.conn.request(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed(status)),
        };
        let mut bytes = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(part)) if bytes.len() + part.data.len() > limit => {
                    let problem = format!("more than {limit} bytes");
                    return Err(PullError::Document { what: "blob", digest: digest.to_string(), problem });
                }
                Ok(Some(part)) => bytes.extend_from_slice(&part.data),
                Ok(None) => return Ok(Some(bytes)),
                // The server opens the blob only after the stream was answered.
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(failed(status)),
            }
        }
    }

    /// Opens the ingest of that name, new or where it was left. `expected` and `total` are checked
    /// by containerd at the end; without `expected` it takes what comes.
    ///
    /// # Errors
    /// Also `Unavailable`, where another writer has the name.
    pub async fn open(
        &self,
        lease: &str,
        name: &str,
        expected: Option<&ImageDigest>,
        total: u64,
    ) -> Result<Opened, tonic::Status> {
        let (requests, mut queue) = mpsc::channel(1);
        let expected = expected.map(ImageDigest::to_string).unwrap_or_default();
        let stat = WriteContentRequest {
            action: WriteAction::Stat as i32,
            r#ref: name.to_owned(),
            total: i64::try_from(total).unwrap_or(i64::MAX),
            expected: expected.clone(),
            ..WriteContentRequest::default()
        };
        // The channel has room for it: nobody has sent before.
        let _ = requests.try_send(stat);
        let stream = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
        let first = async {
            let answer = self.client().write(self.conn.request_in_lease(stream, lease)).await?;
            let mut answers = answer.into_inner();
            let first = answers.message().await?;
            Ok((answers, first))
        };
        match first.await {
            Ok((answers, Some(first))) => {
                let offset = u64::try_from(first.offset).unwrap_or_default();
                let name = name.to_owned();
                Ok(Opened::Ingest(Box::new(Ingest { name, offset, total, expected, requests, answers })))
            }
            Ok((_, None)) => Err(tonic::Status::unavailable("the content store closed the stream")),
            Err(status) if is_existing(&status) => Ok(Opened::Exists),
            Err(status) => Err(status),
        }
    }

    /// Drops what was written under that name. Nothing there is fine.
    pub async fn abort(&self, name: &str) {
        let request = self.conn.request(AbortRequest { r#ref: name.to_owned() });
        match self.client().abort(request).await {
            Err(status) if status.code() != Code::NotFound => {
                tracing::warn!(
                    ingest = name,
                    error = status.message(),
                    "a partial blob could not be dropped"
                );
            }
            _ => {}
        }
    }

    /// Writes a small blob in whole.
    ///
    /// # Errors
    /// Where containerd does not take it.
    pub async fn put(&self, lease: &str, digest: &ImageDigest, bytes: &[u8]) -> Result<(), PullError> {
        let name = ingest_name(digest);
        let failed = |status| PullError::containerd(format!("write blob {digest}"), status);
        let mut busy = 0;
        let mut ingest = loop {
            match self.open(lease, &name, Some(digest), bytes.len() as u64).await {
                Ok(Opened::Exists) => return Ok(()),
                Ok(Opened::Ingest(ingest)) => break ingest,
                // A writer that went away is noticed by containerd a moment later.
                Err(status) if status.code() == Code::Unavailable && busy < 20 => {
                    busy += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(status) => return Err(failed(status)),
            }
        };
        let start = usize::try_from(ingest.offset()).unwrap_or_default();
        let written = async {
            ingest.write(bytes.get(start..).unwrap_or_default().to_vec()).await?;
            ingest.commit().await.map(|_| ())
        };
        let written = written.await;
        if written.is_err() {
            self.abort(&name).await;
        }
        written.map_err(failed)
    }

    /// Sets labels of a blob; others stay.
    ///
    /// # Errors
    /// Where containerd does not.
    pub async fn label(
        &self,
        digest: &ImageDigest,
        labels: HashMap<String, String>,
    ) -> Result<(), PullError> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = Info { digest: digest.to_string(), labels, ..Info::default() };
        let request = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
        let done = self.client().update(self.conn.request(request)).await;
        done.map(|_| ()).map_err(|status| PullError::containerd(format!("label blob {digest}"), status))
    }
}

impl Ingest {
    /// Bytes that are there.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// containerd's.
    pub async fn write(&mut self, data: Vec<u8>) -> Result<(), tonic::Status> {
        if data.len() <= MESSAGE {
            return if data.is_empty() { Ok(()) } else { self.send(data).await };
        }
        for part in data.chunks(MESSAGE) {
            self.send(part.to_vec()).await?;
        }
        Ok(())
    }

    async fn send(&mut self, data: Vec<u8>) -> Result<(), tonic::Status> {
        let length = data.len() as u64;
        let answer = self.exchange(self.message(WriteAction::Write, data)).await?;
        self.offset += length;
        match u64::try_from(answer.offset) {
            Ok(offset) if offset == self.offset => Ok(()),
            _ => Err(tonic::Status::data_loss(format!("at {} of {}", answer.offset, self.offset))),
        }
    }

    /// Ends the blob: containerd compares size and digest with what was expected. Answers the
    /// digest.
    ///
    /// # Errors
    /// containerd's; `FailedPrecondition` where the content is not what was expected.
    pub async fn commit(mut self) -> Result<String, tonic::Status> {
        match self.exchange(self.message(WriteAction::Commit, Vec::new())).await {
            Ok(answer) => Ok(answer.digest),
            Err(status) if is_existing(&status) => Ok(self.expected),
            Err(status) => Err(status),
        }
    }

    fn message(&self, action: WriteAction, data: Vec<u8>) -> WriteContentRequest {
        WriteContentRequest {
            action: action as i32,
            r#ref: self.name.clone(),
            total: i64::try_from(self.total).unwrap_or(i64::MAX),
            expected: self.expected.clone(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            data,
            labels: HashMap::new(),
        }
    }

    async fn exchange(
        &mut self,
        message: WriteContentRequest,
    ) -> Result<WriteContentResponse, tonic::Status> {
        // A closed queue means a dead stream; the answer then tells why.
        let _ = self.requests.send(message).await;
        match self.answers.message().await? {
            Some(answer) => Ok(answer),
            None => Err(tonic::Status::unavailable("the content store closed the stream")),
        }
    }
}

/// The name under which a blob of that digest is written: the same for all, so that it is written
/// once and continued by whoever comes next.
pub fn ingest_name(digest: &ImageDigest) -> String {
    format!("ecsd-{digest}")
}

fn is_existing(status: &tonic::Status) -> bool {
    status.code() == Code::AlreadyExists
}
