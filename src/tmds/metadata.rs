//! The metadata and credentials endpoint: a request and the newest snapshot in, a reply out.
//!
//! What a version says of an unknown id, and with which status, differs for no reason but history;
//! clients match on it (spec/local-endpoints-config.md 1.4 to 1.7).

use super::audit::{self, AccessLog};
use super::credentials::{self, CredentialsLookup};
use super::limit::{Limiter, RateLimit};
use super::reply::{Handler, Reply, RequestHead};
use super::route::{Route, Version, query_value, route};
use super::shapes;
use super::snapshot::{ContainerView, Snapshot, Stage};
use super::stats::{Stats, StatsLookup};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
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
}

impl MetadataHandler {
    /// Answers from the newest snapshot, within the limit per client and path.
    pub fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        credentials: Arc<dyn CredentialsLookup>,
        limit: RateLimit,
    ) -> Self {
        Self { snapshots, credentials, limiter: Limiter::new(limit), stats: None, audit: None }
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

    fn audited(&self, request: &RequestHead<'_>, reply: Reply, credentials_id: Option<&str>) -> Reply {
        if let Some(log) = &self.audit {
            audit::tell(&**log, request, reply.status, credentials_id);
        }
        reply
    }

    fn reply(&self, request: &RequestHead<'_>) -> Reply {
        // Decoded, so that spelling a path in another way gives no second bucket.
        let path = percent_decode_str(request.path).decode_utf8_lossy();
        if !self.limiter.allow(request.peer.ip(), &path, Instant::now()) {
            let refusal = "You have reached maximum request limit.";
            return self.audited(request, Reply::text(StatusCode::TOO_MANY_REQUESTS, refusal), None);
        }
        let snapshot = self.snapshots.borrow().clone();
        match route(request.path) {
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
        }
    }
}

impl Handler for MetadataHandler {
    fn answer(&self, request: &RequestHead<'_>) -> Response<Full<Bytes>> {
        let mut response = self.reply(request).into_response();
        let forwarded = request.headers.get("x-forwarded-for").cloned();
        let limit = format!("{}.00", self.limiter.limit.per_second);
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        for (name, value) in [
            ("x-rate-limit-duration", HeaderValue::from_static("1")),
            ("x-rate-limit-limit", value(&limit)),
            ("x-rate-limit-request-forwarded-for", forwarded.unwrap_or(HeaderValue::from_static(""))),
            ("x-rate-limit-request-remote-addr", value(&request.peer.to_string())),
        ] {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
        response
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
        Route::Task(version, id) => match snapshot.endpoint(&id) {
            Some(view) => Reply::json(ok, &shapes::task(snapshot, view.task, version)),
            None => no_task(version, "task metadata handler", unknown(version), &id),
        },
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
        // Answered before, without the snapshot.
        Route::CredentialsV1 | Route::CredentialsV2(_) | Route::Moved(_) | Route::NotFound => {
            Reply::not_found()
        }
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
