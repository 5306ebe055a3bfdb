//! The texts of /etc/hosts, /etc/resolv.conf and /etc/hostname in a container (spec task-engine
//! 2.5). Pure: what the host's own files say is handed in.

use super::links::{self, LinkedContainer};
use crate::containerd::docker_config::ContainerSettings;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// Where resolvers are asked when the host names none that a container can reach.
const PUBLIC_RESOLVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// /etc/hosts of a container with a network of its own.
pub fn hosts(
    hostname: &str,
    address: Option<Ipv4Addr>,
    settings: &ContainerSettings,
    linked: &[LinkedContainer],
) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::\tip6-localnet\n\
                    ff00::\tip6-mcastprefix\n\
                    ff02::1\tip6-allnodes\n\
                    ff02::2\tip6-allrouters\n"
        .to_owned();
    for (name, address) in &settings.extra_hosts {
        let _ = writeln!(text, "{address}\t{name}");
    }
    for link in linked {
        let _ = writeln!(text, "{}\t{}", link.ipv4, links::host_names(link));
    }
    if let Some(address) = address {
        let whole = match &settings.domainname {
            Some(domain) => format!("{hostname}.{domain}"),
            None => hostname.to_owned(),
        };
        let _ = match whole.split_once('.') {
            Some((name, _)) => writeln!(text, "{address}\t{whole} {name}"),
            None => writeln!(text, "{address}\t{whole}"),
        };
    }
    text
}

/// /etc/hosts of a container in the host's network: the host's, unless there are hosts to add. Then, as
/// with Docker, it is one of its own.
pub fn hosts_of_host(host: &str, settings: &ContainerSettings) -> String {
    match settings.extra_hosts.is_empty() {
        true => host.to_owned(),
        false => hosts("", None, settings, &[]),
    }
}

/// The host's resolvers are all its own loopback ones (systemd-resolved): its file of real ones
/// must be read instead.
pub fn is_stub(host: &str) -> bool {
    let mut servers = nameservers(host).peekable();
    servers.peek().is_some() && servers.all(is_loopback)
}

/// /etc/resolv.conf. In a network of its own a container can't reach the host's loopback
/// resolvers; each list of the task definition replaces the host's.
pub fn resolv_conf(host: &str, own_network: bool, settings: &ContainerSettings) -> String {
    if !own_network && !asks(settings) {
        return host.to_owned();
    }
    let reachable = |server: &&str| !own_network || !is_loopback(server);
    let mut servers: Vec<&str> = match settings.dns.is_empty() {
        true => nameservers(host).filter(reachable).collect(),
        false => settings.dns.iter().map(String::as_str).collect(),
    };
    if servers.is_empty() {
        servers.extend(PUBLIC_RESOLVERS);
    }
    let servers: String = servers.into_iter().map(|server| format!("nameserver {server}\n")).collect();
    let mut words = Vec::new();
    for (word, asked) in [("search", &settings.dns_search), ("options", &settings.dns_options)] {
        // As for the resolver itself, the last line of a kind counts.
        let of_host = host.lines().rev().find_map(|line| line.trim().strip_prefix(word));
        match (asked.is_empty(), of_host) {
            // Docker's way to say "no search domain".
            (false, _) if asked.iter().all(|a| a == ".") => words.push(String::new()),
            (false, _) => words.push(format!("{word} {}\n", asked.join(" "))),
            (true, Some(rest)) if rest.starts_with(char::is_whitespace) => {
                words.push(format!("{word} {}\n", rest.trim()));
            }
            _ => words.push(String::new()),
        }
    }
    let (search, options) =
        (words.first().map_or("", String::as_str), words.last().map_or("", String::as_str));
    // Docker's orders: of a file of its own, and of the host's that only lost lines.
    match asks(settings) {
        true => format!("{search}{servers}{options}"),
        false => format!("{servers}{search}{options}"),
    }
}

/// Anything was asked of the resolver.
fn asks(settings: &ContainerSettings) -> bool {
    !(settings.dns.is_empty() && settings.dns_search.is_empty() && settings.dns_options.is_empty())
}

fn nameservers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    })
}

fn is_loopback(server: &str) -> bool {
    let bare = server.split('%').next().unwrap_or(server);
    bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch old\nsearch ec2.internal\noptions ndots:1\n";

    #[test]
    fn a_bridge_container_finds_itself_and_its_extra_hosts() {
        let settings = ContainerSettings {
            extra_hosts: vec![("db".into(), "10.9.9.9".into())],
            domainname: Some("example.org".into()),
            ..ContainerSettings::default()
        };
        let text = hosts("web", Some(Ipv4Addr::new(172, 17, 0, 2)), &settings, &[]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("10.9.9.9\tdb\n172.17.0.2\tweb.example.org web\n"), "{text}");
        let plain =
            hosts("web.example.org", Some(Ipv4Addr::new(172, 17, 0, 2)), &ContainerSettings::default(), &[]);
        assert!(plain.ends_with("172.17.0.2\tweb.example.org web\n"), "{plain}");
        let text = hosts_of_host("127.0.0.1 me", &settings);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("10.9.9.9\tdb\n"), "{text}");
        assert_eq!(hosts_of_host("127.0.0.1 me", &ContainerSettings::default()), "127.0.0.1 me");
    }

    #[test]
    fn resolvers_that_cannot_be_reached_are_left_out() {
        let plain = ContainerSettings::default();
        let text = resolv_conf(HOST, true, &plain);
        assert_eq!(text, "nameserver 10.0.0.2\nsearch ec2.internal\noptions ndots:1\n");
        assert_eq!(resolv_conf(HOST, false, &plain), HOST);
        assert_eq!(resolv_conf("nameserver ::1\n", true, &plain), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        assert!(is_stub("nameserver 127.0.0.53\n") && !is_stub(HOST) && !is_stub(""));
    }

    #[test]
    fn each_list_of_the_task_definition_replaces_the_hosts() {
        let settings = ContainerSettings {
            dns: vec!["1.1.1.1".into()],
            dns_search: vec![".".into()],
            dns_options: vec!["ndots:5".into(), "rotate".into()],
            ..ContainerSettings::default()
        };
        assert_eq!(resolv_conf(HOST, true, &settings), "nameserver 1.1.1.1\noptions ndots:5 rotate\n");
    }
}
