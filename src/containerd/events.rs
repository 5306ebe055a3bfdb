//! containerd's event stream: it only wakes us and adds what nothing else tells (an OOM kill, the
//! exit of a process whose shim died). `Tasks.Wait` and a new list are the truth (design, Events).
//!
//! Two traps (spec containerd-and-crates 3): the subscription answers only with its first event,
//! so a ping of our own is published until one comes; and a stream may die in silence, so it is
//! pinged for as long as it lives.

use crate::containerd::Connection;
use crate::containerd::health::EXEC_ID;
use crate::containerd::health::ends::Ends;
use crate::model::{ContainerId, ExitRecord, Wall};
use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::Message;
use prost_types::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

const PING_TOPIC: &str = "/ecsd/ping";
/// Until the stream has come up.
const FIRST_PINGS: Duration = Duration::from_millis(50);
/// While it lives.
const PINGS: Duration = Duration::from_secs(30);
/// A stream that has been silent for so long is dead: two pings were lost.
const SILENCE: Duration = Duration::from_secs(70);
const CALL: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// How many exits and kills are remembered; the oldest go first.
const REMEMBERED: usize = 1024;

/// What the event stream told, for those who wait.
#[derive(Debug)]
pub struct EventHub {
    seen: Mutex<Seen>,
    /// How often the stream came up; a change is the moment to ask again.
    established: watch::Sender<u64>,
    relist: Notify,
    /// Changes with every exit that is noted.
    exit_noted: watch::Sender<()>,
    /// Ends of health checks.
    pub(super) ends: Ends,
}

#[derive(Debug, Default)]
struct Seen {
    oom: Remembered<()>,
    /// With the process that ended.
    exits: Remembered<(ExitRecord, u32)>,
    begun: Remembered<Begun>,
}

/// The process of a container that this agent made: exits from before it, or of another, are not its own.
/// A creation that an earlier life of the agent had asked for may still be taken down while this one is made.
#[derive(Debug)]
struct Begun {
    at: Wall,
    /// Known once it is made.
    pid: Option<u32>,
}

/// The newest word on each of so many containers. Looked up by each who waits, at each exit.
#[derive(Debug)]
struct Remembered<T> {
    by_id: HashMap<String, T>,
    /// Oldest first.
    order: VecDeque<String>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("containerd did not take the subscription within {CALL:?}")]
    NoAnswer,
    #[error("no event for {SILENCE:?}, not even our own")]
    Silent,
    #[error("containerd closed it")]
    Closed,
    #[error("{}", .0.message())]
    Failed(#[from] Box<tonic::Status>),
}

impl Default for EventHub {
    fn default() -> Self {
        let established = watch::Sender::new(0);
        Self {
            seen: Mutex::default(),
            established,
            relist: Notify::new(),
            exit_noted: watch::Sender::new(()),
            ends: Ends::default(),
        }
    }
}

impl EventHub {
    /// Follows the stream for ever, through every loss of containerd. One task runs this for the
    /// life of the agent; dropping it is safe at any time.
    pub async fn follow(&self, connection: &Connection) {
        let mut retry = RETRY_FIRST;
        loop {
            let before = *self.established.borrow();
            let end = self.follow_once(connection).await;
            if *self.established.borrow() != before {
                retry = RETRY_FIRST;
            }
            if let Err(end) = end {
                tracing::info!(reason = %end, "the event stream of containerd ended; connecting again");
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MOST);
        }
    }

    async fn follow_once(&self, connection: &Connection) -> Result<(), StreamEnd> {
        let mut client = EventsClient::new(connection.channel());
        let namespace = connection.namespace();
        let filters = ["/tasks/oom", "/tasks/exit", PING_TOPIC]
            // Bare slashes would quote a regular expression.
            .map(|topic| format!("namespace=={namespace},topic==\"{topic}\""))
            .to_vec();
        let subscribed = async {
            let answer = client.subscribe(connection.request(SubscribeRequest { filters })).await;
            answer.map(tonic::Response::into_inner).map_err(|status| StreamEnd::from(Box::new(status)))
        };
        // Dropping either half loses nothing: a ping is only a ping.
        let opened = async {
            tokio::select! {
                stream = subscribed => stream,
                () = pings(connection, FIRST_PINGS) => Err(StreamEnd::NoAnswer),
            }
        };
        let mut stream = timeout(CALL, opened).await.map_err(|_| StreamEnd::NoAnswer)??;
        self.established.send_modify(|times| *times = times.wrapping_add(1));
        // Whatever happened before this moment, it was not told here.
        self.relist.notify_one();
        let pings = pings(connection, PINGS);
        tokio::pin!(pings);
        loop {
            // Cancel-safe, though a ping that hangs never ends it: `message` keeps what it has read
            // inside the stream.
            let message = tokio::select! {
                message = timeout(SILENCE, stream.message()) => message.map_err(|_| StreamEnd::Silent)?,
                () = &mut pings => return Err(StreamEnd::Silent),
            };
            match message.map_err(Box::new)? {
                Some(envelope) => self.note(&envelope),
                None => return Err(StreamEnd::Closed),
            }
        }
    }

    fn note(&self, envelope: &Envelope) {
        let Some(event) = &envelope.event else { return };
        match envelope.topic.as_str() {
            "/tasks/oom" => {
                if let Ok(oom) = TaskOom::decode(event.value.as_slice()) {
                    self.seen().oom.keep(oom.container_id, ());
                }
            }
            "/tasks/exit" => {
                let Ok(exit) = TaskExit::decode(event.value.as_slice()) else { return };
                // Others are processes of exec.
                if exit.id == exit.container_id {
                    let record = exit_record(exit.exit_status, exit.exited_at.as_ref());
                    self.note_exit(exit.container_id, record, exit.pid);
                } else if exit.id == EXEC_ID {
                    self.ends.note(&exit.container_id, exit.pid, exit.exit_status);
                }
            }
            _ => {}
        }
    }

    /// What was found out about a container's end, whatever an event had told.
    pub fn note_oom(&self, id: &ContainerId, killed: bool) {
        match killed {
            true => self.seen().oom.keep(id.as_str().to_owned(), ()),
            false => self.seen().oom.forget(id.as_str()),
        }
    }

    fn note_exit(&self, container: String, exit: ExitRecord, pid: u32) {
        let mut seen = self.seen();
        let others = |begun: &Begun| exit.at < begun.at || begun.pid.is_some_and(|own| own != pid);
        if seen.begun.by_id.get(&container).is_some_and(others) {
            return;
        }
        seen.exits.keep(container, (exit, pid));
        drop(seen);
        self.exit_noted.send_replace(());
    }

    /// The kernel killed something of this container for memory.
    pub fn oom(&self, id: &ContainerId) -> bool {
        self.seen().oom.by_id.contains_key(id.as_str())
    }

    /// The exit that the stream told of this container.
    pub fn exit(&self, id: &ContainerId) -> Option<ExitRecord> {
        self.seen().exits.by_id.get(id.as_str()).map(|(exit, _)| exit.clone())
    }

    /// The exit of this container, once the stream tells of it.
    pub async fn exit_told(&self, id: &ContainerId) -> ExitRecord {
        // Subscribed before looking: nothing noted in between is missed.
        let mut noted = self.exit_noted.subscribe();
        loop {
            if let Some(exit) = self.exit(id) {
                return exit;
            }
            if noted.changed().await.is_err() {
                // Nobody is left to tell.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The same; `None` where nothing was told after `most`.
    pub async fn exit_within(&self, id: &ContainerId, most: Duration) -> Option<ExitRecord> {
        timeout(most, self.exit_told(id)).await.ok()
    }

    /// A process of this container is about to be made: what was told of one before it is forgotten, and
    /// what is still to come of that one is not taken for its own.
    pub fn begin(&self, id: &ContainerId) {
        let mut seen = self.seen();
        seen.forget(id);
        seen.begun.keep(id.as_str().to_owned(), Begun { at: now(), pid: None });
    }

    /// The process of this container was made: what is told of another is not its own.
    pub fn made(&self, id: &ContainerId, pid: u32) {
        let mut seen = self.seen();
        if let Some(begun) = seen.begun.by_id.get_mut(id.as_str()) {
            begun.pid = Some(pid);
        }
        if seen.exits.by_id.get(id.as_str()).is_some_and(|(_, ended)| *ended != pid) {
            seen.exits.forget(id.as_str());
        }
    }

    /// Forgets a container.
    pub fn forget(&self, id: &ContainerId) {
        self.seen().forget(id);
    }

    /// Resolves when the stream came up, or after `most`: when to ask again what failed.
    pub async fn reconnected(&self, most: Duration) {
        let mut established = self.established.subscribe();
        let _ = timeout(most, established.changed()).await;
    }

    /// Resolves when the stream came up, the first time and after each loss. For one caller.
    pub async fn relist_due(&self) {
        self.relist.notified().await;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Maps and queues that no panic can leave half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn forget(&mut self, id: &ContainerId) {
        self.oom.forget(id.as_str());
        self.exits.forget(id.as_str());
        self.begun.forget(id.as_str());
    }
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Remembered<T> {
    fn keep(&mut self, id: String, what: T) {
        self.forget(&id);
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.by_id.insert(id, what);
    }

    fn forget(&mut self, id: &str) {
        if self.by_id.remove(id).is_some() {
            self.order.retain(|of| of != id);
        }
    }
}

/// Publishes a ping of our own every now and then, for ever. One that fails shows in the stream itself.
async fn pings(connection: &Connection, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let event = Some(Any { type_url: "ecsd.Ping".to_owned(), value: Vec::new() });
        let request = connection.request(PublishRequest { topic: PING_TOPIC.to_owned(), event });
        let _ = EventsClient::new(connection.channel()).publish(request).await;
    }
}

/// containerd's status and time of an exit.
pub fn exit_record(status: u32, at: Option<&prost_types::Timestamp>) -> ExitRecord {
    let at = at.map(wall).filter(|at| at.0 > 0).unwrap_or_else(now);
    ExitRecord { code: i32::try_from(status).ok(), at }
}

/// A moment as protobuf writes it; before 1970 is 1970.
pub fn wall(at: &prost_types::Timestamp) -> Wall {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    Wall(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(at.nanos).unwrap_or(0)))
}

/// This moment.
pub fn now() -> Wall {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;

    fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
        Envelope {
            topic: topic.into(),
            event: Some(Any { type_url: "x".into(), value }),
            ..Envelope::default()
        }
    }

    #[test]
    fn events_are_remembered_by_container_and_only_so_many() {
        let hub = EventHub::default();
        let id = ContainerId::from_recorded("c");
        hub.note(&envelope("/tasks/oom", TaskOom { container_id: "c".into() }.encode_to_vec()));
        let exit = |container: &str, id: &str| TaskExit {
            container_id: container.into(),
            id: id.into(),
            exit_status: 137,
            exited_at: Some(Timestamp { seconds: 2, nanos: 5 }),
            ..TaskExit::default()
        };
        hub.note(&envelope("/tasks/exit", exit("c", "exec-1").encode_to_vec()));
        assert!(hub.oom(&id) && hub.exit(&id).is_none());
        hub.note(&envelope("/tasks/exit", exit("c", "c").encode_to_vec()));
        assert_eq!(hub.exit(&id), Some(ExitRecord { code: Some(137), at: Wall(2_000_000_005) }));
        hub.note(&envelope("/tasks/exit", b"\xff\xff junk".to_vec()));
        hub.begin(&id);
        assert!(!hub.oom(&id) && hub.exit(&id).is_none());
        // Late news of the process before.
        hub.note(&envelope("/tasks/exit", exit("c", "c").encode_to_vec()));
        assert!(hub.exit(&id).is_none());
        // One that was being made before, and is taken down only now.
        let record = ExitRecord { code: Some(1), at: now() };
        hub.note_exit("c".to_owned(), record.clone(), 7);
        hub.made(&id, 8);
        hub.note_exit("c".to_owned(), record.clone(), 7);
        assert!(hub.exit(&id).is_none());
        hub.note_exit("c".to_owned(), record.clone(), 8);
        assert_eq!(hub.exit(&id), Some(record));
        hub.forget(&id);
        assert!(hub.exit(&id).is_none());
        assert!(hub.seen().begun.order.is_empty());
        for n in 0..3000 {
            let id = n.to_string();
            hub.note(&envelope("/tasks/exit", exit(&id, &id).encode_to_vec()));
        }
        let seen = hub.seen();
        assert_eq!((seen.exits.order.len(), seen.exits.by_id.len()), (REMEMBERED, REMEMBERED));
    }
}
