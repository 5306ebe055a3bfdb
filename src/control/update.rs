//! Updates of the agent (spec/control-plane.md 6.3): a new one is fetched and laid down for the
//! supervisor, which starts it when this one exits with code 42.
//!
//! ```text
//!  NONE ──stage──> DOWNLOADING ──hash fits──> DOWNLOADED ──perform──> ack, exit 42
//!   ^ failure: Nack │    ^                          │
//!   └───────────────┘    └── stage of another: Nack the old
//! ```
//! Asked by the ACS session, which goes on reading meanwhile; outlives its connections. It writes to
//! its directory and nowhere else, and leaves nothing there of what did not check.

mod download;

pub use download::UpdateError;

use super::acs::UpdateAsk;
use super::acs::wire::{self, encode};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages that may wait for one download.
const MAX_WAITING: usize = 16;

/// Where updates go and what they may cost.
#[derive(Debug, Clone)]
pub struct UpdateOptions {
    /// `ECS_UPDATE_DOWNLOAD_DIR`; made where it is missing.
    pub directory: PathBuf,
    /// How long a download may take.
    pub limit: Duration,
    /// How large it may be, in bytes.
    pub most_bytes: u64,
    /// How the agent introduces itself.
    pub user_agent: String,
}

impl UpdateOptions {
    /// With the original's limit of 15 minutes, and of 1 GiB.
    pub fn new(directory: PathBuf, user_agent: String) -> Self {
        Self { directory, limit: Duration::from_secs(15 * 60), most_bytes: 1 << 30, user_agent }
    }
}

/// What the session is to do.
#[derive(Debug)]
pub(super) enum Answer {
    /// Write this frame.
    Frame(String),
    /// Write this frame; then the agent ends.
    Perform(String),
}

/// How far the update is.
enum Stage {
    None,
    Downloading { signature: String, waiting: Vec<wire::AckRequest> },
    Downloaded { signature: String, message: wire::AckRequest },
}

/// Works through what is asked, in order, until nobody asks any more.
pub(super) async fn run(
    options: UpdateOptions,
    mut asks: mpsc::Receiver<UpdateAsk>,
    answers: mpsc::Sender<Answer>,
) {
    let mut updater = Updater { options, stage: Stage::None, download: None };
    loop {
        // The channel keeps what is not taken, and the download stays in the updater.
        let replies = tokio::select! {
            ask = asks.recv() => match ask {
                Some(UpdateAsk::Stage(message)) => updater.stage(message),
                Some(UpdateAsk::Perform(message)) => vec![updater.perform(message)],
                None => return,
            },
            result = downloaded(&mut updater.download) => updater.finish(result),
        };
        for reply in replies {
            if answers.send(reply).await.is_err() {
                return;
            }
        }
    }
}

type Download = BoxFuture<'static, Result<(), UpdateError>>;

async fn downloaded(download: &mut Option<Download>) -> Result<(), UpdateError> {
    match download {
        Some(download) => download.await,
        None => std::future::pending().await,
    }
}

struct Updater {
    options: UpdateOptions,
    stage: Stage,
    /// There exactly while the stage is DOWNLOADING.
    download: Option<Download>,
}

impl Updater {
    fn stage(&mut self, message: wire::StageUpdateMessage) -> Vec<Answer> {
        let ack = ack(message.message_id, message.cluster_arn, message.container_instance_arn);
        let info = message.update_info.unwrap_or_default();
        let missing = match (info.location.is_empty(), info.signature.is_empty()) {
            (true, _) => Some("No location given"),
            (_, true) => Some("No signature given"),
            _ => None,
        };
        if let Some(missing) = missing {
            let mut replies = self.give_up(&ack.message_id);
            replies.push(nack(ack, format!("Invalid update: {missing}")));
            return replies;
        }
        match &mut self.stage {
            // Answered together when the download is done.
            Stage::Downloading { signature, waiting } if *signature == info.signature => {
                if waiting.len() < MAX_WAITING {
                    waiting.push(ack);
                }
                return Vec::new();
            }
            Stage::Downloaded { signature, .. } if *signature == info.signature => {
                return vec![Answer::Frame(encode(&ack))];
            }
            _ => {}
        }
        let replies = self.give_up(&ack.message_id);
        tracing::info!(message = ack.message_id, "staging an update of the agent");
        let (options, signature) = (self.options.clone(), info.signature.clone());
        self.download =
            Some(Box::pin(async move { download::stage(&options, &info.location, &info.signature).await }));
        self.stage = Stage::Downloading { signature, waiting: vec![ack] };
        replies
    }

    /// Leaves whatever was staged for a newer one.
    fn give_up(&mut self, newer: &str) -> Vec<Answer> {
        self.download = None;
        let old = match std::mem::replace(&mut self.stage, Stage::None) {
            Stage::None => Vec::new(),
            Stage::Downloading { waiting, .. } => waiting,
            Stage::Downloaded { message, .. } => vec![message],
        };
        old.into_iter().map(|old| nack(old, format!("New update arrived: {newer}"))).collect()
    }

    fn finish(&mut self, result: Result<(), UpdateError>) -> Vec<Answer> {
        self.download = None;
        let Stage::Downloading { signature, waiting } = std::mem::replace(&mut self.stage, Stage::None)
        else {
            return Vec::new();
        };
        match result {
            Ok(()) => {
                tracing::info!(directory = %self.options.directory.display(), "an update of the agent is staged");
                if let Some(message) = waiting.last().cloned() {
                    self.stage = Stage::Downloaded { signature, message };
                }
                waiting.iter().map(|ack| Answer::Frame(encode(ack))).collect()
            }
            Err(error) => {
                let error = super::chain(&error);
                tracing::error!(error, "an update of the agent could not be staged");
                waiting.into_iter().map(|ack| nack(ack, format!("Unable to download: {error}"))).collect()
            }
        }
    }

    fn perform(&mut self, message: wire::PerformUpdateMessage) -> Answer {
        let ack = ack(message.message_id, message.cluster_arn, message.container_instance_arn);
        match self.stage {
            Stage::Downloaded { .. } => Answer::Perform(encode(&ack)),
            _ => nack(ack, "Cannot perform update; update not downloaded".to_owned()),
        }
    }
}

fn ack(message_id: String, cluster: String, container_instance: String) -> wire::AckRequest {
    wire::AckRequest { cluster, container_instance, message_id }
}

fn nack(ack: wire::AckRequest, reason: String) -> Answer {
    let wire::AckRequest { cluster, container_instance, message_id } = ack;
    Answer::Frame(encode(&wire::NackRequest { cluster, container_instance, message_id, reason }))
}
