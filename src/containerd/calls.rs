//! How long containerd may take: every call ends, whatever hangs behind it (a shim, a disk, the
//! daemon itself), and [`limit_of`] is the one table that says when. [`Calls`] is the channel that
//! all service clients are made of, so that nobody can call past it.
//!
//! A limit here is the last resort. Who has a shorter one (an effect, the doctor) drops the call;
//! containerd then sees it cancelled.
//!
//! Where the connection breaks under a call, or there is none, the call is made again for a while:
//! containerd restarts in a second or so, and no task should pay for that. All that is called may be
//! called twice (`ports`): what is found made already is ours.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

/// When a call has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// From the request to the end of the answer.
    Whole(Duration),
    /// From the request to the head of the answer, and again for each message that is waited for.
    Each(Duration),
    /// Never: who calls watches over it.
    Watched,
}

/// The limit of a method, such as `Tasks/Create`.
///
/// | what | limit |
/// |---|---|
/// | looking something up in containerd's database | 30 s, the original's for an inspect |
/// | changing something there, or a snapshot | 2 min: a disk may be slow |
/// | removing an image or a lease, and all that only they held | 3 min, the original's |
/// | creating, starting, unpacking, committing | the effect's own; 2 h at the most, as a pull |
/// | asking a shim about its process | 10 s; containerd itself gives it 2 s |
/// | all shims in a row | 30 s; then each is asked by name |
/// | a signal | 30 s |
/// | deleting a process: the logger has 12 s of it | 60 s |
/// | waiting for an exit | 60 s; then the process is looked at, and waited for again |
/// | blobs | 60 s for each message |
/// | events | the stream is pinged: silence ends it |
pub fn limit_of(method: &str) -> Limit {
    let seconds = Duration::from_secs;
    let longest = seconds(2 * 3600);
    Limit::Whole(match method {
        "Events/Subscribe" => return Limit::Watched,
        "Content/Read" | "Content/Write" => return Limit::Each(seconds(60)),
        "Tasks/Create" | "Tasks/Start" | "Diff/Apply" => longest,
        "Tasks/Wait" | "Tasks/Delete" => seconds(60),
        "Tasks/Get" | "Events/Publish" => seconds(10),
        "Images/Delete" | "Leases/Delete" => seconds(180),
        _ => match method.rsplit('/').next() {
            Some("Create" | "Update" | "Delete" | "Prepare" | "Commit" | "Remove" | "Abort") => seconds(120),
            _ => seconds(30),
        },
    })
}

/// For how long a call is made again, and the pauses between.
const AGAIN: Duration = Duration::from_secs(30);
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Whether a method is called again where the connection broke. Not what has a better answer to that
/// (events, waiting, listing: the truth may have changed; a health check, which comes again by itself),
/// what tells of containerd's health, and what is streamed or may still be going on.
fn is_made_again(method: &str) -> bool {
    !matches!(
        method,
        "Events/Subscribe"
            | "Events/Publish"
            | "Tasks/Exec"
            | "Tasks/Wait"
            | "Tasks/Get"
            | "Tasks/List"
            | "Containers/List"
            | "Version/Version"
            | "Content/Write"
            | "Diff/Apply"
    )
}

/// `Tasks/Create` of `/containerd.services.tasks.v1.Tasks/Create`.
fn method_of(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, method)| method)
}

/// The channel whose every call ends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls {
    channel: Channel,
}

impl Calls {
    /// By way of `channel`.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    /// Always: to be ready is part of the call, and of its limit.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let channel = self.channel.clone();
        let method = method_of(request.uri().path()).to_owned();
        let begun = Instant::now();
        Box::pin(async move {
            let limit = limit_of(&method);
            let answer = async {
                match is_made_again(&method) {
                    true => until_connected(channel, request, begun + AGAIN).await,
                    false => send(channel, request).await,
                }
            };
            let (Limit::Whole(most) | Limit::Each(most)) = limit else { return answer.await };
            let answer = timeout_at(begun + most, answer).await;
            let late = Late { method, most };
            let answer = answer.map_err(|_| late.status())??;
            let timer = match limit {
                Limit::Whole(_) => Some(Box::pin(sleep_until(begun + most))),
                Limit::Each(_) | Limit::Watched => None,
            };
            let each = matches!(limit, Limit::Each(_));
            Ok(answer.map(|body| Body::new(LimitedBody { body, late, each, timer })))
        })
    }
}

type Answer = Result<http::Response<Body>, BoxError>;

async fn send(mut channel: Channel, request: http::Request<Body>) -> Answer {
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    Ok(channel.call(request).await?)
}

/// An error here is the connection's: containerd's own come as answers.
async fn until_connected(channel: Channel, request: http::Request<Body>, end: Instant) -> Answer {
    let (head, body) = request.into_parts();
    let message = body.collect().await?.to_bytes();
    let (mut pause, longest) = PAUSES;
    loop {
        let body = Body::new(Full::new(message.clone()));
        match send(channel.clone(), http::Request::from_parts(head.clone(), body)).await {
            Err(error) if Instant::now() + pause < end => {
                tracing::debug!(path = head.uri.path(), error = %error, "containerd is called again");
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            answer => return answer,
        }
    }
}

/// What did not answer in time.
#[derive(Debug)]
struct Late {
    method: String,
    most: Duration,
}

impl Late {
    fn status(&self) -> Status {
        let most = humantime::format_duration(self.most);
        Status::deadline_exceeded(format!("containerd did not answer {} within {most}", self.method))
    }
}

/// An answer that ends in time.
#[derive(Debug)]
struct LimitedBody {
    body: Body,
    late: Late,
    /// The timer is for the next message only, and begins when somebody waits for it.
    each: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if self.each {
                self.timer = None;
            }
            return Poll::Ready(frame);
        }
        let most = self.late.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(most)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Some(Err(self.late.status())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn methods_and_their_limits() {
        assert_eq!(method_of("/containerd.services.tasks.v1.Tasks/Create"), "Tasks/Create");
        assert_eq!(method_of("odd"), "odd");
        let whole = |seconds| Limit::Whole(Duration::from_secs(seconds));
        assert_eq!(limit_of("Snapshots/Prepare"), whole(120));
        assert_eq!(limit_of("Containers/Get"), whole(30));
        assert_eq!(limit_of("Tasks/Kill"), whole(30));
        assert_eq!(limit_of("something new"), whole(30));
        assert_eq!(limit_of("Events/Subscribe"), Limit::Watched);
    }

    fn stuck(each: bool) -> LimitedBody {
        struct Stuck(u8);
        impl HttpBody for Stuck {
            type Data = Bytes;
            type Error = Status;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                self.0 += 1;
                match self.0 {
                    1 | 2 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"part"))))),
                    _ => Poll::Pending,
                }
            }
        }
        let late = Late { method: "Content/Read".to_owned(), most: Duration::from_millis(20) };
        let timer = (!each).then(|| Box::pin(sleep(late.most)));
        LimitedBody { body: Body::new(Stuck(0)), late, each, timer }
    }

    #[tokio::test]
    async fn an_answer_that_stops_halfway_ends_in_time() {
        for each in [true, false] {
            let mut body = stuck(each);
            assert!(body.frame().await.unwrap().is_ok());
            // Who reads slowly is not late: what is there is given, whenever it is asked for.
            sleep(body.late.most * 2).await;
            assert!(body.frame().await.unwrap().is_ok());
            let status = body.frame().await.unwrap().unwrap_err();
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
            assert_eq!(status.message(), "containerd did not answer Content/Read within 20ms");
        }
    }
}
