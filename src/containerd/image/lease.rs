//! Leases: what keeps the parts of an image in containerd until its record holds them.

use crate::containerd::Connection;
use crate::containerd::image::error::PullError;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource,
};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tonic::Code;

/// A lease. It is not given back by dropping: a pull that was interrupted can then be continued
/// until the lease expires.
#[derive(Debug, Clone)]
pub struct Lease {
    conn: Connection,
    id: String,
}

impl Lease {
    /// Takes the lease of that id: a new one, or the one that an interrupted pull left.
    ///
    /// # Errors
    /// Where containerd does not give it.
    pub async fn take(conn: &Connection, id: String, life: Duration) -> Result<Self, PullError> {
        let lease = Self { conn: conn.clone(), id };
        let failed = |status| PullError::containerd(format!("lease {}", lease.id), status);
        let expires = humantime::format_rfc3339_seconds(SystemTime::now() + life).to_string();
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires)]);
        let create = || CreateRequest { id: lease.id.clone(), labels: labels.clone() };
        let mut client = LeasesClient::new(conn.channel());
        match client.create(conn.request(create())).await {
            Ok(_) => return Ok(lease),
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => return Err(failed(status)),
        }
        let filters = vec![format!("id=={}", lease.id)];
        let found = client.list(conn.request(ListRequest { filters })).await.map_err(failed)?.into_inner();
        let created = found.leases.first().and_then(|l| l.created_at.as_ref()).map_or(0, |at| at.seconds);
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = age.saturating_sub(u64::try_from(created).unwrap_or_default());
        if age > life.as_secs() / 2 {
            // A lease can't be made longer: what an old one holds is given up.
            lease.give_back(false).await;
            client.create(conn.request(create())).await.map_err(failed)?;
        }
        Ok(lease)
    }

    /// The leases whose ids begin so.
    ///
    /// # Errors
    /// Where containerd does not say.
    pub async fn all(conn: &Connection, prefix: &str) -> Result<Vec<Self>, PullError> {
        let request = conn.request(ListRequest { filters: Vec::new() });
        let listed = LeasesClient::new(conn.channel()).list(request).await;
        let listed = listed.map_err(|status| PullError::containerd("list leases", status))?.into_inner();
        let ids = listed.leases.into_iter().map(|lease| lease.id).filter(|id| id.starts_with(prefix));
        Ok(ids.map(|id| Self { conn: conn.clone(), id }).collect())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Holds something that is there already (or will be: containerd does not look).
    ///
    /// # Errors
    /// Where containerd does not.
    pub async fn hold(&self, kind: &str, id: &str) -> Result<(), PullError> {
        let resource = Resource { id: id.to_owned(), r#type: kind.to_owned() };
        let request = AddResourceRequest { id: self.id.clone(), resource: Some(resource) };
        match LeasesClient::new(self.conn.channel()).add_resource(self.conn.request(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(PullError::containerd(format!("hold {kind} {id}"), status)),
        }
    }

    /// Gives it back; with `sync` what only it held is gone when this returns.
    pub async fn give_back(&self, sync: bool) {
        let request = self.conn.request(DeleteRequest { id: self.id.clone(), sync });
        match LeasesClient::new(self.conn.channel()).delete(request).await {
            Err(status) if status.code() != Code::NotFound => {
                tracing::warn!(lease = self.id, error = status.message(), "a lease could not be given back");
            }
            _ => {}
        }
    }
}
