//! The metadata and credentials endpoint: a request and the newest snapshot in, a reply out.
//!
//! What a version says of an unknown id, and with which status, differs for no reason but history;
//! clients match on it (spec/local-endpoints-config.md 1.4 to 1.7).

use super::audit::{self, AccessLog};
use super::credentials::{self, CredentialsLookup};
use super::ecs::{self, AskEcs};
use super::limit::{Limiter, RateLimit};
use super::reply::{Answer, Handler, Reply, RequestHead};
use super::route::{Route, Version, query_value, route};
use super::shapes;
use super::snapshot::{ContainerView, Snapshot, Stage};
use super::stats::{Stats, StatsLookup};
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Answers what tasks ask on `169.254.170.2`.
pub struct MetadataHandler {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    credentials: Arc<dyn CredentialsLookup>,
    limiter: Limiter,
    stats: Option<Arc<dyn StatsLookup>>,
    audit: Option<Arc<dyn AccessLog>>,
    ecs: Option<Arc<dyn AskEcs>>,
}

/// A reply, or what has to be asked for it; takes the request's body.
enum Said {
    Now(Reply),
    Later(Box<dyn FnOnce(Bytes) -> BoxFuture<'static, Reply> + Send>),
}

impl MetadataHandler {
    /// Answers from the newest snapshot, within the limit per client and path.
    pub fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        credentials: Arc<dyn CredentialsLookup>,
        limit: RateLimit,
    ) -> Self {
        Self { snapshots, credentials, limiter: Limiter::new(limit), stats: None, audit: None, ecs: None }
    }

    /// The same, and it knows what containers use: without, statistics of one are an error.
    #[must_use]
    pub fn with_stats(self, stats: Arc<dyn StatsLookup>) -> Self {
        Self { stats: Some(stats), ..self }
    }

    /// The same, and it tells of credentials that it gives or denies, and of requests beyond the limit.
    #[must_use]
    pub fn with_audit(self, log: Arc<dyn AccessLog>) -> Self {
        Self { audit: Some(log), ..self }
    }

    /// The same, and it asks ECS what ECS alone knows: without, tasks have no tags and no protection.
    #[must_use]
    pub fn with_ecs(self, ecs: Arc<dyn AskEcs>) -> Self {
        Self { ecs: Some(ecs), ..self }
    }

    fn audited(&self, request: &RequestHead<'_>, reply: Reply, credentials_id: Option<&str>) -> Reply {
        if let Some(log) = &self.audit {
            audit::tell(&**log, request, reply.status, credentials_id);
        }
        reply
    }

    fn reply(&self, request: &RequestHead<'_>) -> Said {
        // Decoded, so that spelling a path in another way gives no second bucket.
        let path = percent_decode_str(request.path).decode_utf8_lossy();
        if !self.limiter.allow(request.peer.ip(), &path, Instant::now()) {
            let refusal = "You have reached maximum request limit.";
            let reply = Reply::text(StatusCode::TOO_MANY_REQUESTS, refusal);
            return Said::Now(self.audited(request, reply, None));
        }
        let snapshot = self.snapshots.borrow().clone();
        Said::Now(match route(request.path) {
            Route::Protection(id) => return self.protection(snapshot, id, request.method),
            Route::TaskWithTags(version, id) => return self.task_with_tags(snapshot, version, id),
            Route::CredentialsV1 => {
                let id = query_value(request.query, "id").unwrap_or_default();
                let reply = credentials::answer(&*self.credentials, "CredentialsV1Request", &id);
                self.audited(request, reply, Some(&id))
            }
            Route::CredentialsV2(id) => {
                let reply = credentials::answer(&*self.credentials, "CredentialsV2Request", &id);
                self.audited(request, reply, Some(&id))
            }
            Route::Moved(path) => Reply::moved(&request.query.map(|q| format!("{path}?{q}")).unwrap_or(path)),
            Route::NotFound => Reply::not_found(),
            other => metadata(&snapshot, self.stats.as_deref(), other, request.peer.ip()),
        })
    }

    fn protection(&self, snapshot: Arc<Snapshot>, id: String, method: &Method) -> Said {
        if !matches!(*method, Method::GET | Method::PUT) {
            return Said::Now(Reply::not_allowed());
        }
        let (ecs, method) = (self.ecs.clone(), method.clone());
        Said::Later(Box::new(move |body| Box::pin(ecs::protection(ecs, snapshot, id, method, body))))
    }

    /// Of a task whose containers are not there yet the original does not ask.
    fn task_with_tags(&self, snapshot: Arc<Snapshot>, version: Version, id: String) -> Said {
        let is_there = |view: ContainerView<'_>| view.task.containers().any(|c| c.stage() != Stage::Unseen);
        match (snapshot.endpoint(&id).map(is_there), self.ecs.clone()) {
            (Some(true), Some(ecs)) => {
                Said::Later(Box::new(move |_| Box::pin(tagged(ecs, snapshot, version, id))))
            }
            _ => Said::Now(task(&snapshot, version, &id)),
        }
    }
}

/// A task with what ECS says of it and of the instance, one after the other as the original asks.
async fn tagged(ecs: Arc<dyn AskEcs>, snapshot: Arc<Snapshot>, version: Version, id: String) -> Reply {
    let Some(view) = snapshot.endpoint(&id) else { return task(&snapshot, version, &id) };
    let mut body = shapes::task(&snapshot, view.task, version);
    let name = &view.spec.name;
    if let Some(instance) = &snapshot.container_instance_arn {
        let tags = ecs::tags(&*ecs, instance.clone(), name.clone()).await;
        body = body.with_instance_tags(instance, tags, version);
    }
    let tags = ecs::tags(&*ecs, view.task.spec.arn.as_str().to_owned(), name.clone()).await;
    Reply::json(StatusCode::OK, &body.with_task_tags(tags, version))
}

fn task(snapshot: &Snapshot, version: Version, id: &str) -> Reply {
    match snapshot.endpoint(id) {
        Some(view) => Reply::json(StatusCode::OK, &shapes::task(snapshot, view.task, version)),
        None => no_task(version, "task metadata handler", unknown(version), id),
    }
}

impl Handler for MetadataHandler {
    fn answer(&self, request: &RequestHead<'_>) -> Answer {
        let said = self.reply(request);
        let forwarded = request.headers.get("x-forwarded-for").cloned();
        let limit = format!("{}.00", self.limiter.limit.per_second);
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let headers = [
            ("x-rate-limit-duration", HeaderValue::from_static("1")),
            ("x-rate-limit-limit", value(&limit)),
            ("x-rate-limit-request-forwarded-for", forwarded.unwrap_or(HeaderValue::from_static(""))),
            ("x-rate-limit-request-remote-addr", value(&request.peer.to_string())),
        ];
        let finished = |reply: Reply| {
            let mut response = reply.into_response();
            for (name, value) in headers {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
            response
        };
        match said {
            Said::Now(reply) => Answer::Now(finished(reply)),
            Said::Later(ask) => {
                Answer::Later(Box::new(move |body| Box::pin(async move { finished(ask(body).await) })))
            }
        }
    }
}

/// Everything that is answered from the snapshot and the samples.
fn metadata(snapshot: &Snapshot, stats: Option<&dyn StatsLookup>, route: Route, peer: IpAddr) -> Reply {
    let ok = StatusCode::OK;
    match route {
        // Only awsvpc tasks have an address that tells who asks; there are none yet.
        Route::TaskByAddress | Route::StatsByAddress => fail(
            StatusCode::BAD_REQUEST,
            format!("Unable to get task arn from request: unable to associate '{peer}' with task"),
        ),
        Route::ContainerById(id) => {
            let known = snapshot.containers().find(|c| c.stage() == Stage::Created && c.id() == id);
            match known {
                Some(view) => Reply::json(ok, &shapes::container(snapshot, view, None)),
                None => {
                    fail(StatusCode::BAD_REQUEST, format!("Unable to generate metadata for container '{id}'"))
                }
            }
        }
        Route::Container(version, id) => match created(snapshot, &id) {
            Some(view) => Reply::json(ok, &shapes::container(snapshot, view, Some(version))),
            None => no_container(version, "container metadata handler", unknown(version), &id),
        },
        Route::Task(version, id) => task(snapshot, version, &id),
        Route::ContainerStats(version, id) => match snapshot.endpoint(&id) {
            Some(view) => match stats {
                Some(_) => Reply::json(ok, &Stats::of(view, stats, version)),
                None => unmeasured(version, view),
            },
            None => no_task(version, "container stats handler", unknown_stats(version), &id),
        },
        Route::TaskStats(version, id) => match snapshot.endpoint(&id) {
            Some(view) => {
                let created = view.task.containers().filter(|c| c.stage() == Stage::Created);
                let all: BTreeMap<_, _> = created.map(|c| (c.id(), Stats::of(c, stats, version))).collect();
                Reply::json(ok, &all)
            }
            None => no_task(version, "task stats handler", unknown_stats(version), &id),
        },
        Route::Associations(version, id) => match created(snapshot, &id) {
            Some(_) => Reply::json(ok, &BTreeMap::from([("Associations", None::<()>)])),
            None => no_container(version, "container associations handler", StatusCode::BAD_REQUEST, &id),
        },
        Route::Association { version, id, kind, name } => {
            let text = match (created(snapshot, &id), name.as_str()) {
                (None, _) => {
                    return no_container(
                        version,
                        "container associations handler",
                        StatusCode::BAD_REQUEST,
                        &id,
                    );
                }
                (_, "") => "association name is missing in the request".to_owned(),
                _ => format!("unable to find association '{name}' of type '{kind}'"),
            };
            let text = format!("{} container associations handler: {text}", word(version));
            fail(StatusCode::BAD_REQUEST, text)
        }
        // Answered before.
        Route::CredentialsV1
        | Route::CredentialsV2(_)
        | Route::TaskWithTags(..)
        | Route::Protection(_)
        | Route::Moved(_)
        | Route::NotFound => Reply::not_found(),
    }
}

fn created<'a>(snapshot: &'a Snapshot, endpoint: &str) -> Option<ContainerView<'a>> {
    snapshot.endpoint(endpoint).filter(|c| c.stage() == Stage::Created)
}

fn no_container(version: Version, handler: &str, status: StatusCode, id: &str) -> Reply {
    let why = "unable to get container ID from request: unable to get docker ID from v3 endpoint ID";
    fail(status, format!("{} {handler}: {why}: {id}", word(version)))
}

fn no_task(version: Version, handler: &str, status: StatusCode, id: &str) -> Reply {
    let why = "unable to get task arn from request: unable to get task Arn from v3 endpoint ID";
    fail(status, format!("{} {handler}: {why}: {id}", word(version)))
}

/// Status of an unknown id.
fn unknown(version: Version) -> StatusCode {
    match version {
        Version::V3 => StatusCode::INTERNAL_SERVER_ERROR,
        Version::V4 => StatusCode::NOT_FOUND,
    }
}

/// The same, asked for statistics.
fn unknown_stats(version: Version) -> StatusCode {
    match version {
        Version::V3 => StatusCode::BAD_REQUEST,
        Version::V4 => StatusCode::NOT_FOUND,
    }
}

/// Of a host on which nothing is measured (`ECS_DISABLE_METRICS`). A whole task is answered even then.
fn unmeasured(version: Version, view: ContainerView<'_>) -> Reply {
    let status = match version {
        Version::V3 => StatusCode::BAD_REQUEST,
        Version::V4 => StatusCode::INTERNAL_SERVER_ERROR,
    };
    fail(status, format!("Unable to get container stats for: {}", view.id()))
}

fn word(version: Version) -> &'static str {
    match version {
        Version::V3 => "V3",
        Version::V4 => "V4",
    }
}

/// Errors are JSON strings.
fn fail(status: StatusCode, text: String) -> Reply {
    Reply::json(status, &text)
}
