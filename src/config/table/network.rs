//! Ports, address families, awsvpc.

use super::*;
use std::collections::BTreeSet;

/// Port of the metrics page.
const PROMETHEUS_PORT: u16 = 51680;

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    row(
        "ECS_RESERVED_PORTS",
        [
            "JSON list of ports",
            "`[22,2375,2376,51678,51679]`",
            "ignored with a warning",
            "TCP ports that no task gets. Replaces the whole list.",
        ],
        |c, v| parse::list(v, "ports", |p| c.reserved_ports = BTreeSet::from_iter(p)),
        |c| c.reserved_ports.show(),
    )
    .key("ReservedPorts", Form::Json),
    row(
        "ECS_RESERVED_PORTS_UDP",
        ["JSON list of ports", "`[]`", "ignored with a warning", "UDP ports that no task gets."],
        |c, v| parse::list(v, "ports", |p| c.reserved_ports_udp = BTreeSet::from_iter(p)),
        |c| c.reserved_ports_udp.show(),
    )
    .key("ReservedPortsUDP", Form::Json),
    flag(
        "ECS_ENABLE_PROMETHEUS_METRICS",
        "false",
        "Reserves TCP port 51680, too. As in the original, nothing listens there.",
        |c, v| {
            parse::boolean(v, |b| {
                c.prometheus_metrics = b;
                if b {
                    c.reserved_ports.insert(PROMETHEUS_PORT);
                }
            })
        },
        |c| c.prometheus_metrics.show(),
    ),
    row(
        "ECS_DYNAMIC_HOST_PORT_RANGE",
        [
            "`first-last`",
            "the kernel's `ip_local_port_range`, or `49153-65535`",
            "ignored with a warning",
            "The ports that dynamic host ports are chosen from.",
        ],
        |c, v| match parse::pair::<u16>(v, '-').filter(|(first, last)| *first > 0 && first <= last) {
            Some(range) => {
                c.dynamic_host_port_range = Some(range);
                Outcome::Taken
            }
            None => Outcome::Ignored(format!("{} is no range such as 32768-60999; ignoring it", shown(v))),
        },
        |c| c.dynamic_host_port_range.show(),
    )
    .key("DynamicHostPortRange", Form::Text),
    flag(
        "ECS_EXCLUDE_IPV6_PORTBINDING",
        "true, but false on hosts that only have IPv6",
        "Bindings to IPv6 addresses are left out of what is reported.",
        |c, v| parse::boolean(v, |b| c.exclude_ipv6_port_bindings = Some(b)),
        |c| c.exclude_ipv6_port_bindings.show(),
    )
    .tri("ShouldExcludeIPv6PortBinding"),
    row(
        "ECS_INSTANCE_IP_COMPATIBILITY",
        [
            "`ipv4` `ipv6`, any case",
            "by the default routes",
            "ignored with a warning",
            "Whether the host has IPv6 only.",
        ],
        |c, v| match v.to_ascii_lowercase().as_str() {
            "ipv6" => {
                c.ipv6_only = Some(true);
                Outcome::Taken
            }
            "ipv4" => {
                c.ipv6_only = Some(false);
                Outcome::Taken
            }
            _ => Outcome::Ignored(format!("{} is neither ipv4 nor ipv6; ignoring it", shown(v))),
        },
        |c| match c.ipv6_only {
            Some(true) => "ipv6".to_owned(),
            Some(false) => "ipv4".to_owned(),
            None => String::new(),
        },
    ),
    flag(
        "ECS_ENABLE_TASK_ENI",
        "false",
        "Network mode awsvpc.",
        |c, v| parse::boolean(v, |b| c.task_eni = b),
        |c| c.task_eni.show(),
    )
    .tri("TaskENIEnabled")
    .later(),
    flag(
        "ECS_ENABLE_HIGH_DENSITY_ENI",
        "true",
        "Trunk interfaces; only with `ECS_ENABLE_TASK_ENI`.",
        |c, v| parse::boolean(v, |b| c.eni_trunking = b),
        |c| c.eni_trunking.show(),
    )
    .tri("ENITrunkingEnabled"),
    flag(
        "ECS_AWSVPC_BLOCK_IMDS",
        "false",
        "Tasks in mode awsvpc can't reach the instance metadata service.",
        |c, v| parse::boolean(v, |b| c.awsvpc_block_imds = b),
        |c| c.awsvpc_block_imds.show(),
    )
    .tri("AWSVPCBlockInstanceMetdata")
    .later(),
    row(
        "ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES",
        ["JSON list of CIDRs", "`[]`", "exit 1", "What tasks in mode awsvpc reach through the host."],
        local_routes,
        |c| c.awsvpc_local_routes.show(),
    )
    .key("AWSVPCAdditionalLocalRoutes", Form::Json)
    .later(),
];

fn local_routes(config: &mut Config, value: &str) -> Outcome {
    let cidr = |text: &String| {
        let (address, bits) = text.split_once('/')?;
        let most = if address.parse::<std::net::IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().ok().filter(|bits| *bits <= most)
    };
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(routes) if routes.iter().all(|route| cidr(route).is_some()) => {
            config.awsvpc_local_routes = routes;
            Outcome::Taken
        }
        _ => Outcome::Fatal(format!("{} is no JSON list of CIDRs; write [\"10.0.0.0/16\"]", shown(value))),
    }
}
