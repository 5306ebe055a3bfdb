//! A seccomp profile of the task definition's own, in Docker's format (spec task-engine 2.4):
//! rules with conditions on capabilities, architecture and kernel, resolved for one container.
//! Pure.

use super::facts::HostFacts;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscallBuilder,
};
use serde::Deserialize;

/// Docker's profile document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    syscalls: Option<Vec<Rule>>,
}

/// An architecture with those that its kernel can run besides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl SeccompProfile {
    /// The filter for a process that holds `capabilities` (names without `CAP_`) on this host.
    ///
    /// # Errors
    /// None in practice: every field that the builders ask for is set.
    pub fn resolve(&self, capabilities: &[&str], host: &HostFacts) -> Result<LinuxSeccomp, OciSpecError> {
        let mut calls = Vec::new();
        for rule in self.syscalls.iter().flatten() {
            let names: Vec<String> = rule.name.iter().chain(rule.names.iter().flatten()).cloned().collect();
            let included = rule.includes.as_ref().is_none_or(|c| c.all_hold(capabilities, host));
            let excluded = rule.excludes.as_ref().is_some_and(|c| c.any_holds(capabilities, host));
            if names.is_empty() || !included || excluded {
                continue;
            }
            let mut call = LinuxSyscallBuilder::default().names(names).action(rule.action);
            if let Some(errno) = rule.errno_ret {
                call = call.errno_ret(errno);
            }
            let arguments = rule.args.iter().flatten().map(Argument::build).collect::<Result<Vec<_>, _>>()?;
            if !arguments.is_empty() {
                call = call.args(arguments);
            }
            calls.push(call.build()?);
        }
        let mut filter = LinuxSeccompBuilder::default()
            .default_action(self.default_action)
            .architectures(self.architectures(host))
            .syscalls(calls);
        if let Some(errno) = self.default_errno_ret {
            filter = filter.default_errno_ret(errno);
        }
        filter.build()
    }

    /// Its own list, or the entry of its map for this host's.
    fn architectures(&self, host: &HostFacts) -> Vec<Arch> {
        if let Some(all) = self.architectures.as_ref().filter(|all| !all.is_empty()) {
            return all.clone();
        }
        let native = match host.arch {
            "amd64" => Arch::ScmpArchX86_64,
            "arm64" => Arch::ScmpArchAarch64,
            _ => return Vec::new(),
        };
        let entry = self.arch_map.iter().flatten().find(|entry| entry.architecture == native);
        let others = |entry: &ArchMap| entry.sub_architectures.clone().unwrap_or_default();
        entry.map(|entry| [vec![native], others(entry)].concat()).unwrap_or_default()
    }
}

impl Argument {
    fn build(&self) -> Result<LinuxSeccompArg, OciSpecError> {
        LinuxSeccompArgBuilder::default()
            .index(self.index)
            .value(self.value)
            .value_two(self.value_two)
            .op(self.op)
            .build()
    }
}

impl Condition {
    fn caps(&self) -> impl Iterator<Item = &str> {
        self.caps.iter().flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name))
    }

    fn arch(&self, host: &HostFacts) -> Option<bool> {
        let arches = self.arches.as_ref().filter(|all| !all.is_empty())?;
        Some(arches.iter().any(|arch| arch == host.arch))
    }

    fn kernel(&self, host: &HostFacts) -> Option<bool> {
        let wanted = self.min_kernel.as_ref()?;
        Some(host.kernel >= super::facts::parse_release(wanted))
    }

    fn all_hold(&self, capabilities: &[&str], host: &HostFacts) -> bool {
        self.caps().all(|name| capabilities.contains(&name))
            && self.arch(host).unwrap_or(true)
            && self.kernel(host).unwrap_or(true)
    }

    fn any_holds(&self, capabilities: &[&str], host: &HostFacts) -> bool {
        self.caps().any(|name| capabilities.contains(&name))
            || self.arch(host).unwrap_or(false)
            || self.kernel(host).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(filter: &LinuxSeccomp) -> Vec<&str> {
        filter.syscalls().iter().flatten().flat_map(|c| c.names()).map(String::as_str).collect()
    }

    #[test]
    fn rules_hold_by_capability_architecture_and_kernel() {
        let profile: SeccompProfile = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["always", "too"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
                {"name": "admin", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"name": "plain", "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"name": "arm", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"name": "new", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
                {"name": "old", "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
                {"name": "masked", "action": "SCMP_ACT_ALLOW", "args":
                    [{"index": 0, "value": 7, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}
            ]
        }))
        .unwrap();
        let host = HostFacts::for_tests();
        let filter = profile.resolve(&["CHOWN"], &host).unwrap();
        assert_eq!(names(&filter), ["always", "too", "plain", "masked"]);
        assert_eq!(filter.architectures(), &Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]));
        let newer = HostFacts { kernel: (6, 2), arch: "arm64", ..host };
        assert_eq!(
            names(&profile.resolve(&["SYS_ADMIN"], &newer).unwrap()),
            ["always", "too", "admin", "arm", "new", "masked"]
        );
    }
}
