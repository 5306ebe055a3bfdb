//! Docker's legacy links: what a container is told of another one of its task, in its environment
//! and in /etc/hosts (spec task-engine 2.5). Pure.

use crate::model::{PortMapping, Protocol};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The container at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedContainer {
    /// What it is called here.
    pub alias: String,
    /// Its Docker name, without a slash.
    pub docker_name: String,
    /// Its host name.
    pub hostname: String,
    /// Where it is.
    pub ipv4: Ipv4Addr,
    /// Ports that it exposes: protocol and number, TCP first.
    pub ports: BTreeSet<(LinkProtocol, u16)>,
    /// Its own environment, as `NAME=value`.
    pub environment: Vec<String>,
}

/// Protocols in the order in which Docker tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkProtocol {
    /// TCP.
    Tcp,
    /// SCTP, which only an image can name.
    Sctp,
    /// UDP.
    Udp,
}

impl LinkProtocol {
    fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Sctp => "sctp",
            Self::Udp => "udp",
        }
    }
}

/// The ports that a container exposes: those of its mappings, and its image's (`80/tcp`).
pub fn exposed(mappings: &[PortMapping], of_image: &[String]) -> BTreeSet<(LinkProtocol, u16)> {
    let mapped = mappings.iter().flat_map(|mapping| {
        let protocol = match mapping.protocol {
            Protocol::Tcp => LinkProtocol::Tcp,
            Protocol::Udp => LinkProtocol::Udp,
        };
        let last = mapping.container.first.saturating_add(mapping.container.count.saturating_sub(1));
        (mapping.container.first..=last).map(move |port| (protocol, port))
    });
    let declared = of_image.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let all = [LinkProtocol::Tcp, LinkProtocol::Sctp, LinkProtocol::Udp];
        let protocol = all.into_iter().find(|p| p.lower().eq_ignore_ascii_case(protocol))?;
        Some((protocol, port.parse().ok()?))
    });
    mapped.chain(declared).collect()
}

/// The variables that a container with the Docker name `own` gets for a link.
pub fn environment(own: &str, link: &LinkedContainer) -> Vec<(String, String)> {
    let prefix = link.alias.to_uppercase().replace('-', "_");
    let url = |(protocol, port): (LinkProtocol, u16)| format!("{}://{}:{port}", protocol.lower(), link.ipv4);
    let mut all = Vec::new();
    if let Some(first) = link.ports.first() {
        all.push((format!("{prefix}_PORT"), url(*first)));
    }
    let name = |(protocol, port): (LinkProtocol, u16)| {
        format!("{prefix}_PORT_{port}_{}", protocol.lower().to_uppercase())
    };
    for port in &link.ports {
        let name = name(*port);
        all.push((format!("{name}_ADDR"), link.ipv4.to_string()));
        all.push((format!("{name}_PORT"), port.1.to_string()));
        all.push((format!("{name}_PROTO"), port.0.lower().to_owned()));
        all.push((name, url(*port)));
    }
    for (first, last) in runs(&link.ports) {
        let name = name(first);
        all.push((format!("{name}_START"), url(first)));
        all.push((format!("{name}_PORT_START"), first.1.to_string()));
        all.push((format!("{name}_END"), url(last)));
        all.push((format!("{name}_PORT_END"), last.1.to_string()));
    }
    all.push((format!("{prefix}_NAME"), format!("/{own}/{}", link.alias)));
    for line in &link.environment {
        if let Some((name, value)) =
            line.split_once('=').filter(|(name, _)| !matches!(*name, "HOME" | "PATH"))
        {
            all.push((format!("{prefix}_ENV_{name}"), value.to_owned()));
        }
    }
    all
}

/// First and last of every run of two or more consecutive ports.
fn runs(ports: &BTreeSet<(LinkProtocol, u16)>) -> Vec<((LinkProtocol, u16), (LinkProtocol, u16))> {
    let mut runs: Vec<((LinkProtocol, u16), (LinkProtocol, u16))> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if last.0 == port.0 && last.1.checked_add(1) == Some(port.1) => *last = *port,
            _ => runs.push((*port, *port)),
        }
    }
    runs.retain(|(first, last)| first != last);
    runs
}

/// Its names in /etc/hosts.
pub fn host_names(link: &LinkedContainer) -> String {
    match link.alias == link.docker_name {
        true => format!("{} {}", link.alias, link.hostname),
        false => format!("{} {} {}", link.alias, link.hostname, link.docker_name),
    }
}

/// `name[:alias]`, as the task definition writes a link.
pub fn parse(link: &str) -> Option<(&str, &str)> {
    let mut parts = link.split(':');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let alias = parts.next().filter(|alias| !alias.is_empty()).unwrap_or(name);
    parts.next().is_none().then_some((name, alias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortRange;

    #[test]
    fn the_environment_is_dockers() {
        let mapping = |first, count, protocol| PortMapping {
            container: PortRange { first, count, is_range: count > 1 },
            host_port: 0,
            protocol,
        };
        let mappings = [mapping(53, 1, Protocol::Udp), mapping(6379, 2, Protocol::Tcp)];
        let link = LinkedContainer {
            alias: "db-1".into(),
            docker_name: "ecs-f-1-db-00".into(),
            hostname: "0123456789ab".into(),
            ipv4: [172, 17, 0, 2].into(),
            ports: exposed(&mappings, &["80".into(), "6381/tcp".into(), "x/tcp".into(), "9/quic".into()]),
            environment: vec!["PASSWORD=a=b".into(), "HOME=/".into(), "PATH=/bin".into(), "NONE".into()],
        };
        let lines: BTreeSet<String> = environment("ecs-f-1-web-11", &link)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let port = |p: u16, proto: &str, upper: &str| {
            let name = format!("DB_1_PORT_{p}_{upper}");
            [
                format!("{name}={proto}://172.17.0.2:{p}"),
                format!("{name}_ADDR=172.17.0.2"),
                format!("{name}_PORT={p}"),
                format!("{name}_PROTO={proto}"),
            ]
        };
        let mut want: BTreeSet<String> = [
            "DB_1_PORT=tcp://172.17.0.2:80",
            "DB_1_PORT_6379_TCP_START=tcp://172.17.0.2:6379",
            "DB_1_PORT_6379_TCP_PORT_START=6379",
            "DB_1_PORT_6379_TCP_END=tcp://172.17.0.2:6381",
            "DB_1_PORT_6379_TCP_PORT_END=6381",
            "DB_1_NAME=/ecs-f-1-web-11/db-1",
            "DB_1_ENV_PASSWORD=a=b",
        ]
        .map(str::to_owned)
        .into();
        for p in [80, 6379, 6380, 6381] {
            want.extend(port(p, "tcp", "TCP"));
        }
        want.extend(port(53, "udp", "UDP"));
        assert_eq!(lines, want);
        assert_eq!(host_names(&link), "db-1 0123456789ab ecs-f-1-db-00");
    }

    #[test]
    fn links_are_read_as_the_original_does() {
        assert_eq!(parse("db"), Some(("db", "db")));
        assert_eq!(parse("db:store"), Some(("db", "store")));
        assert_eq!((parse("a:b:c"), parse("")), (None, None));
    }
}
