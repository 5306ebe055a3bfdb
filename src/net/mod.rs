//! Networks of containers on one host: a bridge, a pinned namespace with a veth pair for each
//! container, and one nftables table that maps host ports to containers and the metadata address to
//! the agent.
//!
//! ```text
//!   off-host ─ eth0 ┐               ┌ port map (nft) ┐
//!   127.0.0.1:8080 ─┴─ prerouting / output ── dnat ──┴─ ecs-br0 ─┬─ ecs<key> ═ eth0 │ pinned netns
//!                                                                └─ ecs<key> ═ eth0 │ pinned netns
//! ```
//!
//! Owns: the bridge, everything in the namespace directory, the table, the sockets that hold mapped
//! host ports. Called by the engine through [`crate::ports::Networks`], and by `app` to start it,
//! to run [`NetworkService::keep_rules`] and (for `ecsd local`) to take it down. It never touches a
//! link, a namespace or a rule that is not its own, never enters a container's namespace with a
//! thread that is used again, and keeps nothing on disk: what containers have is told to it by
//! `restore`.
//!
//! `plan` and `ruleset` say what there shall be, `apply` makes it so: `link` and `netlink` for links,
//! `pin` for namespaces, `nft` and `flows` for rules, `hold` for ports, `allocate` for who has what.

mod allocate;
mod apply;
mod counters;
mod error;
mod flows;
mod hold;
mod link;
mod links;
mod netlink;
mod nft;
mod pin;
pub mod plan;
mod ruleset;

pub use counters::TrafficMeter;
pub use error::NetError;
pub use links::HostLinks;
pub use plan::Subnet;

use crate::model::{ContainerAddress, ContainerKey, NetworkMode, StopReason, TaskSpec};
use crate::ports::{NetworkAttachment, Networks};
use apply::{HostNetwork, Wish};
use futures_util::future::BoxFuture;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How to set the network of a host up. [`NetworkOptions::default`] is right for an agent.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Name of the bridge; 1 to 15 characters.
    pub bridge_name: String,
    /// Name of the nftables table, of family `inet`.
    pub table: String,
    /// Networks to choose the bridge's from, by preference.
    pub subnets: Vec<Subnet>,
    /// Directory of the files that pin namespaces. Nothing else may live there.
    pub netns_dir: PathBuf,
    /// The `nft` program.
    pub nft_program: PathBuf,
    /// Port of 127.0.0.1 where the metadata endpoint listens.
    pub metadata_port: u16,
    /// Dynamic host ports, both ends included (ECS_DYNAMIC_HOST_PORT_RANGE); `None` takes the
    /// kernel's ephemeral range.
    pub dynamic_port_range: Option<(u16, u16)>,
    /// TCP ports that are never chosen.
    pub reserved_tcp: BTreeSet<u16>,
    /// UDP ports that are never chosen.
    pub reserved_udp: BTreeSet<u16>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            bridge_name: "ecs-br0".to_owned(),
            table: "ecsd".to_owned(),
            subnets: Subnet::defaults(),
            netns_dir: PathBuf::from("/run/ecsd/netns"),
            nft_program: PathBuf::from("nft"),
            metadata_port: 51679,
            dynamic_port_range: None,
            reserved_tcp: BTreeSet::new(),
            reserved_udp: BTreeSet::new(),
        }
    }
}

impl NetworkOptions {
    /// What dynamic ports are chosen from (spec/task-engine.md 5.1).
    fn dynamic_ports(&self) -> (u16, u16) {
        let kernel = || {
            let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
            let mut words = text.split_whitespace().map(str::parse::<u16>);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        };
        self.dynamic_port_range.or_else(kernel).unwrap_or((49153, 65535))
    }
}

/// The network of one host.
#[derive(Debug)]
pub struct NetworkService {
    options: NetworkOptions,
    host: Mutex<Option<Arc<HostNetwork>>>,
}

/// After a failed repair of the rules.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

impl NetworkService {
    /// Checks the options; touches nothing.
    ///
    /// # Errors
    /// [`NetError::BadName`] where a name could not be that of a link or a table.
    pub fn new(options: NetworkOptions) -> Result<Self, NetError> {
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let starts = |n: &str| n.starts_with(|c: char| c.is_ascii_alphabetic());
        for (what, name, most) in [("bridge", &options.bridge_name, 15), ("table", &options.table, 64)] {
            if !starts(name) || name.len() > most || !name.chars().all(fit) {
                return Err(NetError::BadName { what, name: name.chars().take(80).collect(), most });
            }
        }
        Ok(Self { options, host: Mutex::new(None) })
    }

    /// Makes bridge, kernel settings and rules, taking what is there already. Before anything else;
    /// again is fine.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn start(&self) -> Result<(), NetError> {
        if self.host().is_ok() {
            return Ok(());
        }
        let options = self.options.clone();
        let host = blocking(move || HostNetwork::start(&options)).await?;
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(host));
        Ok(())
    }

    /// The bridge's address, the host as containers see it; `None` before the start.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.host().ok().map(|h| h.gateway())
    }

    /// Puts our rules back whenever someone removes them (`nft flush ruleset`, a firewall's
    /// reload). Runs until it is dropped; `app` gives it a task. Driven by the kernel's own
    /// notifications, nothing is polled.
    ///
    /// # Errors
    /// Where there can be no such notifications.
    pub async fn keep_rules(&self) -> Result<(), NetError> {
        let failed = |e| NetError::netlink("watch nf_tables", e);
        let mut socket = TokioSocket::new(protocols::NETLINK_NETFILTER).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.socket_mut().add_membership(nft::CHANGES).map_err(failed)?;
        loop {
            // What happened before the socket was there, or during a repair, counts too.
            while let Err(error) = self.repair_rules().await {
                tracing::warn!(error = error.chain(), "the nftables table could not be put back");
                tokio::time::sleep(REPAIR_PAUSE).await;
            }
            loop {
                match socket.recv_from_full().await {
                    Ok((datagram, _)) if nft::tells_of_deletion(&datagram, &self.options.table) => break,
                    Ok(_) => {}
                    // An overrun (ENOBUFS): notifications were lost, so look.
                    Err(_) => {
                        tokio::time::sleep(REPAIR_PAUSE).await;
                        break;
                    }
                }
            }
        }
    }

    async fn repair_rules(&self) -> Result<(), NetError> {
        let Ok(host) = self.host() else { return Ok(()) };
        if blocking(move || host.repair_rules()).await? {
            tracing::warn!(
                table = self.options.table,
                "someone changed the agent's nftables table: put it back"
            );
        }
        Ok(())
    }

    /// Takes everything down: containers' attachments, bridge, rules, namespaces, held ports.
    ///
    /// # Errors
    /// What could not be removed; the rest was.
    pub async fn remove_all(&self) -> Result<(), NetError> {
        // Dropping the host lets its ports go. Running attachments keep it until they end.
        drop(self.host.lock().unwrap_or_else(PoisonError::into_inner).take());
        let options = self.options.clone();
        blocking(move || apply::remove_all(&options)).await
    }

    fn host(&self) -> Result<Arc<HostNetwork>, NetError> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(NetError::NotStarted)
    }

    async fn attach_container(
        &self,
        spec: &TaskSpec,
        container: &str,
        known: &ContainerAddress,
    ) -> Result<(NetworkAttachment, ContainerAddress), NetError> {
        let mode = mode(spec, container);
        if mode == NetworkMode::Host {
            return Ok((NetworkAttachment::Host, ContainerAddress::default()));
        }
        let (host, key, known) = (self.host()?, spec.key(container), known.clone());
        let mappings = match mode {
            NetworkMode::Bridge => {
                Some(spec.container(container).map(|c| c.ports.clone()).unwrap_or_default())
            }
            NetworkMode::None | NetworkMode::Host => None,
        };
        let attached = blocking(move || {
            let wish = match &mappings {
                Some(mappings) => Wish::Bridge { mappings, known: &known },
                None => Wish::Nothing,
            };
            host.attach(&key, &wish)
        });
        let (path, address) = attached.await?;
        Ok((NetworkAttachment::Namespace { path, ipv4: address.ipv4 }, address))
    }
}

/// The mode of one container: its task's, unless its own network is disabled.
fn mode(spec: &TaskSpec, container: &str) -> NetworkMode {
    match spec.container(container).is_some_and(|c| c.docker.network_disabled()) {
        true => NetworkMode::None,
        false => spec.network_mode,
    }
}

/// Runs blocking work on the runtime's threads for such.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| NetError::Thread)?
}

impl Networks for NetworkService {
    fn attach<'a>(
        &'a self,
        spec: &'a TaskSpec,
        container: &'a str,
        known: &'a ContainerAddress,
    ) -> BoxFuture<'a, Result<(NetworkAttachment, ContainerAddress), StopReason>> {
        Box::pin(async move { self.attach_container(spec, container, known).await.map_err(|e| e.reason()) })
    }

    fn detach<'a>(&'a self, spec: &'a TaskSpec, container: &'a str) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(async move {
            if mode(spec, container) == NetworkMode::Host {
                return Ok(());
            }
            let (host, key) = (self.host().map_err(|e| e.reason())?, spec.key(container));
            blocking(move || host.detach(&key)).await.map_err(|e| e.reason())
        })
    }

    fn restore<'a>(
        &'a self,
        live: Vec<(ContainerKey, ContainerAddress)>,
    ) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(async move {
            let host = self.host().map_err(|e| e.reason())?;
            blocking(move || host.restore(&live)).await.map_err(|e| e.reason())
        })
    }
}
