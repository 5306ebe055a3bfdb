use super::*;
use crate::store::MemoryStore;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Tells of each change.
fn changes(receiver: watch::Receiver<BTreeSet<MacAddress>>) -> BoxStream<'static, ()> {
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok().map(|()| ((), receiver))
    }))
}

/// The host's links, and whether anybody watches them.
struct FakeLinks(watch::Sender<BTreeSet<MacAddress>>, Watching);

/// What a watch of the links is like.
#[derive(Clone, Copy)]
enum Watching {
    Tells,
    /// The kernel's messages were lost.
    Silent,
    Refused,
}

impl Links for FakeLinks {
    fn list(&self) -> BoxFuture<'_, io::Result<BTreeSet<MacAddress>>> {
        Box::pin(async { Ok(self.0.borrow().clone()) })
    }
    fn watch(&self) -> io::Result<BoxStream<'static, ()>> {
        match self.1 {
            Watching::Tells => Ok(changes(self.0.subscribe())),
            Watching::Silent => Ok(Box::pin(futures_util::stream::pending())),
            Watching::Refused => Err(io::Error::other("no more sockets")),
        }
    }
}

/// Takes what is told.
struct FakeReporter(mpsc::UnboundedSender<String>);

impl AttachmentReporter for FakeReporter {
    fn attached<'a>(&'a self, attachment: &'a Attachment) -> BoxFuture<'a, ReportOutcome> {
        Box::pin(async {
            self.0.send(attachment.arn.clone()).unwrap();
            ReportOutcome::Accepted
        })
    }
}

struct Host {
    store: MemoryStore,
    links: Arc<FakeLinks>,
    told: mpsc::UnboundedReceiver<String>,
    announce: mpsc::Sender<Announcement>,
    service: tokio::task::JoinHandle<()>,
    _tasks: watch::Sender<TasksView>,
}

impl Host {
    fn start(store: &MemoryStore) -> Self {
        Self::start_where(store, Watching::Tells, LONG)
    }

    fn start_where(store: &MemoryStore, watching: Watching, reconcile: Duration) -> Self {
        let links = Arc::new(FakeLinks(watch::channel(BTreeSet::new()).0, watching));
        let (tell, told) = mpsc::unbounded_channel();
        let (announce, inbox) = mpsc::channel(1);
        let (tasks, view) = watch::channel(TasksView::new(BTreeMap::new()));
        let service = Service {
            store: Arc::new(store.clone()),
            links: links.clone(),
            reporter: Arc::new(FakeReporter(tell)),
            tasks: view,
            reconcile,
        };
        let stored = store.load().unwrap().attachments;
        let service = tokio::spawn(service.run(stored, inbox));
        Self { store: store.clone(), links, told, announce, service, _tasks: tasks }
    }

    async fn announce(&self, attachment: &Attachment) -> Result<(), ()> {
        let (respond, answer) = oneshot::channel();
        self.announce.send((vec![attachment.clone()], respond)).await.unwrap();
        answer.await.unwrap()
    }

    /// Waits until the store holds what `wanted` says of the attachments.
    async fn stored(&self, wanted: impl Fn(&[Attachment]) -> bool) {
        while !wanted(&self.store.load().unwrap().attachments) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.service.abort();
    }
}

fn attachment(n: u8, wait: Duration) -> Attachment {
    let Wall(now) = SystemTime::now().into();
    let expires_at = Wall(now + u64::try_from(wait.as_nanos()).unwrap());
    Attachment { arn: format!("a{n}"), mac: MacAddress([n; 6]), task: None, expires_at, sent: false }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_announced_interface_is_stored_then_told_once_it_is_here_and_never_again() {
    let store = MemoryStore::default();
    let mut host = Host::start(&store);
    let one = attachment(1, LONG);
    host.announce(&one).await.unwrap();
    assert_eq!(store.load().unwrap().attachments, std::slice::from_ref(&one));
    assert!(host.told.try_recv().is_err());
    host.links.0.send_modify(|links| links.extend([one.mac]));
    assert_eq!(host.told.recv().await.unwrap(), "a1");
    host.stored(|all| all[0].sent).await;
    // Neither a message that comes again, nor the link, nor a restart makes it told again.
    host.announce(&one).await.unwrap();
    drop(host);
    let mut host = Host::start(&store);
    host.links.0.send_modify(|links| links.extend([one.mac]));
    let two = attachment(2, LONG);
    host.announce(&two).await.unwrap();
    host.links.0.send_modify(|links| links.extend([two.mac]));
    assert_eq!(host.told.recv().await.unwrap(), "a2");
}

#[tokio::test]
async fn what_expires_is_dropped_and_what_does_not_outlives_a_restart() {
    let store = MemoryStore::default();
    let host = Host::start(&store);
    host.announce(&attachment(1, Duration::from_millis(200))).await.unwrap();
    host.announce(&attachment(2, LONG)).await.unwrap();
    host.stored(|all| all.len() == 1).await;
    drop(host);
    store
        .commit(&[StoreChange::PutAttachment(Attachment { expires_at: Wall(1), ..attachment(3, LONG) })])
        .unwrap();
    let mut host = Host::start(&store);
    host.stored(|all| all.len() == 1).await;
    let here = [1, 2, 3].map(|n| MacAddress([n; 6]));
    host.links.0.send_replace(here.into());
    assert_eq!(host.told.recv().await.unwrap(), "a2");
    host.stored(|all| all[0].sent).await;
    assert!(host.told.try_recv().is_err());
    assert_eq!(host.links.0.receiver_count(), 0, "nothing is awaited, so nothing is watched");
}

#[tokio::test]
async fn links_are_looked_at_again_where_the_kernel_told_nothing() {
    for watching in [Watching::Silent, Watching::Refused] {
        let mut host = Host::start_where(&MemoryStore::default(), watching, Duration::from_millis(10));
        let one = attachment(1, LONG);
        host.announce(&one).await.unwrap();
        host.links.0.send_modify(|links| links.extend([one.mac]));
        assert_eq!(host.told.recv().await.unwrap(), "a1");
    }
}
