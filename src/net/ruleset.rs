//! The text of our nftables table (spec/local-endpoints-config.md 1.12, spec/task-engine.md 5.1).
//! Pure. One table of one family, replaced as a whole in one transaction, so that no packet ever
//! meets half of it.
//!
//! Accepting is not ours to do: a packet must pass every table, so a `drop` policy in someone
//! else's (Docker's `FORWARD`) can't be overridden from here.

use super::plan::{PortMap, Subnet};
use std::fmt::Write;

/// Map of host ports: `protocol . port -> address . port`.
pub(super) const PORT_MAP: &str = "ports";

/// Address of the credentials and metadata endpoint in containers.
pub(super) const METADATA_ADDRESS: &str = "169.254.170.2";

/// What the rules speak of.
#[derive(Debug, Clone)]
pub(super) struct RulesetPlan {
    /// Table name.
    pub(super) table: String,
    /// Bridge name.
    pub(super) bridge: String,
    /// The bridge's network.
    pub(super) subnet: Subnet,
    /// Port of 127.0.0.1 where the metadata endpoint listens.
    pub(super) metadata_port: u16,
}

impl RulesetPlan {
    /// Chains with their rules.
    fn chains(&self) -> Vec<(&'static str, &'static str, Vec<String>)> {
        let Self { bridge, subnet, metadata_port, .. } = self;
        // `fib daddr type local`: any address of the host, 127.0.0.1 and the bridge's among them.
        let map = "dnat ip to meta l4proto . th dport map";
        let mapped = format!("meta nfproto ipv4 fib daddr type local {map} @{PORT_MAP}");
        vec![
            (
                "prerouting",
                "type nat hook prerouting priority -100; policy accept;",
                vec![
                    format!(
                        "iifname \"{bridge}\" ip daddr {METADATA_ADDRESS} tcp dport 80 dnat ip to 127.0.0.1:{metadata_port}"
                    ),
                    mapped.clone(),
                ],
            ),
            (
                "output",
                "type nat hook output priority -100; policy accept;",
                vec![
                    format!("ip daddr {METADATA_ADDRESS} tcp dport 80 redirect to :{metadata_port}"),
                    mapped,
                ],
            ),
            (
                // Routing a hairpin back where it came from, the kernel would tell the container of
                // a shorter way, past the port map.
                "redirects",
                "type filter hook output priority 0; policy accept;",
                vec![format!("oifname \"{bridge}\" icmp type redirect drop")],
            ),
            (
                "postrouting",
                "type nat hook postrouting priority 100; policy accept;",
                vec![
                    format!("ip saddr {subnet} oifname != \"{bridge}\" masquerade"),
                    // The container could not answer 127.0.0.1.
                    format!("oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade"),
                    // Hairpin: the other container would answer past us, on the bridge.
                    format!("oifname \"{bridge}\" ip saddr {subnet} ct status dnat masquerade"),
                ],
            ),
            (
                "input",
                "type filter hook input priority 0; policy accept;",
                vec![
                    // route_localnet on the bridge would open every loopback service to containers.
                    format!(
                        "iifname \"{bridge}\" ip daddr 127.0.0.0/8 ct state != {{ established, related }} ct status ! dnat drop"
                    ),
                    // Others may have set route_localnet everywhere: credentials stay in.
                    format!(
                        "iifname != \"lo\" ip daddr 127.0.0.0/8 tcp dport {metadata_port} ct status ! dnat drop"
                    ),
                ],
            ),
            (
                "forward",
                "type filter hook forward priority 0; policy accept;",
                vec![
                    // Only mapped ports can be reached from elsewhere, as under Docker.
                    format!(
                        "iifname != \"{bridge}\" oifname \"{bridge}\" ct state new ct status ! dnat drop"
                    ),
                ],
            ),
        ]
    }

    /// How many rules there are when nobody meddled.
    pub(super) fn rule_count(&self) -> usize {
        self.chains().iter().map(|(_, _, rules)| rules.len()).sum()
    }

    /// The transaction that puts everything in place, whatever was there before.
    pub(super) fn text(&self, ports: &PortMap) -> String {
        let table = &self.table;
        let mut out = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
        // Writing to a String never fails.
        let _ = writeln!(
            out,
            "  map {PORT_MAP} {{\n    type inet_proto . inet_service : ipv4_addr . inet_service;"
        );
        if !ports.is_empty() {
            let elements: Vec<String> = ports
                .iter()
                .map(|((protocol, port), to)| {
                    format!("{} . {port} : {} . {}", protocol.word(), to.address, to.port)
                })
                .collect();
            let _ = writeln!(out, "    elements = {{ {} }}", elements.join(", "));
        }
        out.push_str("  }\n");
        for (name, head, rules) in self.chains() {
            let _ = writeln!(out, "  chain {name} {{\n    {head}\n    {}\n  }}", rules.join("\n    "));
        }
        out.push_str("}\n");
        out
    }

    /// The transaction that removes it, whether it is there or not.
    pub(super) fn removal(&self) -> String {
        format!("add table inet {0}\ndelete table inet {0}\n", self.table)
    }
}
