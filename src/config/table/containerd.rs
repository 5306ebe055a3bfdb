//! containerd, and where on the host the agent keeps things.

use super::*;

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    row(
        "ECS_CONTAINERD_ADDRESS",
        ["path", "`/run/containerd/containerd.sock`", "not absolute: exit 1", "containerd's socket."],
        |c, v| parse::path(v.strip_prefix("unix://").unwrap_or(v), |p| c.containerd_address = p),
        |c| c.containerd_address.show(),
    ),
    row(
        "ECS_CONTAINERD_NAMESPACE",
        ["name", "`ecs`", "exit 1", "containerd's namespace. No other is ever touched."],
        |c, v| parse::name(v, 76, |n| c.containerd_namespace = n),
        |c| c.containerd_namespace.show(),
    ),
    row(
        "ECS_CONTAINERD_SNAPSHOTTER",
        ["name", "`overlayfs`", "exit 1", "containerd's snapshotter."],
        |c, v| parse::name(v, 76, |n| c.containerd_snapshotter = n),
        |c| c.containerd_snapshotter.show(),
    ),
    row(
        "ECS_CONTAINERD_CERTS_DIR",
        [
            "path",
            "`/etc/containerd/certs.d`",
            "not absolute: exit 1",
            "Mirrors and certificates of registries, as containerd has them: `<host>/hosts.toml`, or `*.crt`, `*.cert` and `*.key`.",
        ],
        |c, v| parse::path(v, |p| c.containerd_certs_dir = p),
        |c| c.containerd_certs_dir.show(),
    ),
    row(
        "ECS_CONTAINERD_RUNTIME",
        ["name", "`io.containerd.runc.v2`", "exit 1", "containerd's runtime."],
        |c, v| parse::name(v, 128, |n| c.containerd_runtime = n),
        |c| c.containerd_runtime.show(),
    ),
    row(
        "ECS_CONTAINERD_RUNTIME_BINARY",
        [
            "path",
            "the runtime's own choice",
            "not absolute: exit 1",
            "A program that is called as runc is: runc, crun, nvidia-container-runtime.",
        ],
        |c, v| parse::path(v, |p| c.containerd_runtime_binary = Some(p)),
        |c| c.containerd_runtime_binary.show(),
    ),
    row(
        "ECSD_RUNTIME_DIR",
        [
            "path",
            "`/run/ecsd`",
            "not absolute: exit 1",
            "What need not survive a reboot: network namespaces, generated files.",
        ],
        |c, v| parse::path(v, |p| c.runtime_dir = p),
        |c| c.runtime_dir.show(),
    ),
    row(
        "ECSD_CGROUP_ROOT",
        ["name", "`ecs`", "exit 1", "The cgroup above all tasks' cgroups."],
        |c, v| parse::name(v, 128, |n| c.cgroup_root = n),
        |c| c.cgroup_root.show(),
    ),
    row(
        "ECSD_BRIDGE",
        ["name", "`ecs-br0`", "longer than 15: exit 1", "The bridge of tasks in bridge mode."],
        |c, v| parse::name(v, 15, |n| c.bridge = n),
        |c| c.bridge.show(),
    ),
    row(
        "ECSD_LOGGER",
        [
            "path",
            "`ecsd-logger` beside the agent",
            "not absolute: exit 1",
            "The program that writes containers' logs.",
        ],
        |c, v| parse::path(v, |p| c.logger = Some(p)),
        |c| c.logger.show(),
    ),
];
