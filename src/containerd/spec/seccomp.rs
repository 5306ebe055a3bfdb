//! Docker's default seccomp profile for one set of capabilities. Pure.

use super::facts::HostFacts;
use super::seccomp_table as table;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const EPERM: u32 = 1;
/// glibc falls back from clone3 to clone only on this one.
const ENOSYS: u32 = 38;

/// The profile for a process that holds `capabilities` (names without `CAP_`).
///
/// # Errors
/// None in practice: every field that the builders ask for is set.
pub fn profile(capabilities: &[&str], host: &HostFacts) -> Result<LinuxSeccomp, OciSpecError> {
    let mut calls = vec![allow(table::ALWAYS)?];
    if host.kernel >= (4, 8) {
        calls.push(allow(table::SINCE_4_8)?);
    }
    for (_, names) in table::BY_ARCH.iter().filter(|(arch, _)| *arch == host.arch) {
        calls.push(allow(names)?);
    }
    for (_, names) in table::BY_CAPABILITY.iter().filter(|(cap, _)| capabilities.contains(cap)) {
        calls.push(allow(names)?);
    }
    for value in table::PERSONALITIES {
        calls.push(allow_if("personality", argument(*value, None, LinuxSeccompOperator::ScmpCmpEq)?)?);
    }
    // All conditions of a rule must hold: each range that is allowed is a rule of its own.
    let [first, last] = table::NO_SOCKETS_OF;
    calls.push(allow_if("socket", argument(first, None, LinuxSeccompOperator::ScmpCmpLt)?)?);
    for between in first + 1..last {
        calls.push(allow_if("socket", argument(between, None, LinuxSeccompOperator::ScmpCmpEq)?)?);
    }
    calls.push(allow_if("socket", argument(last, None, LinuxSeccompOperator::ScmpCmpGt)?)?);
    if !capabilities.contains(&"SYS_ADMIN") {
        let flags = argument(table::CLONE_NAMESPACE_FLAGS, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?;
        calls.push(allow_if("clone", flags)?);
        calls.push(
            LinuxSyscallBuilder::default()
                .names(vec!["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(ENOSYS)
                .build()?,
        );
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures(host.arch))
        .syscalls(calls)
        .build()
}

/// The architectures whose calls the filter understands: the native one and what it can run.
fn architectures(arch: &str) -> Vec<Arch> {
    match arch {
        "amd64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "arm64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => Vec::new(),
    }
}

fn allow(names: &str) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(names.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
}

fn allow_if(name: &str, argument: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![argument])
        .build()
}

/// A condition on the first argument.
fn argument(
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    let mut builder = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(op);
    if let Some(second) = value_two {
        builder = builder.value_two(second);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &LinuxSeccomp, name: &str) -> bool {
        profile.syscalls().as_ref().unwrap().iter().any(|call| {
            call.action() == LinuxSeccompAction::ScmpActAllow
                && call.args().is_none()
                && call.names().iter().any(|n| n == name)
        })
    }

    #[test]
    fn capabilities_open_their_calls_and_no_others() {
        let host = HostFacts::for_tests();
        let plain = profile(&["CHOWN", "SYS_CHROOT"], &host).unwrap();
        for name in ["openat", "execve", "chroot", "ptrace", "arch_prctl"] {
            assert!(allowed(&plain, name), "{name}");
        }
        for name in ["mount", "bpf", "reboot", "clone", "clone3", "unshare", "personality", "socket"] {
            assert!(!allowed(&plain, name), "{name}");
        }
        let admin = profile(&["SYS_ADMIN"], &host).unwrap();
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone3") && !allowed(&admin, "chroot"));
    }

    #[test]
    fn clone3_makes_glibc_fall_back() {
        let plain = profile(&[], &HostFacts::for_tests()).unwrap();
        let json = serde_json::to_value(&plain).unwrap();
        assert_eq!(json["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(json["defaultErrnoRet"], 1);
        let calls = json["syscalls"].as_array().unwrap();
        let clone3 = calls.iter().find(|c| c["names"][0] == "clone3").unwrap();
        assert_eq!((&clone3["action"], &clone3["errnoRet"]), (&"SCMP_ACT_ERRNO".into(), &38.into()));
        let clone = calls.iter().find(|c| c["names"][0] == "clone").unwrap();
        assert_eq!(clone["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
        assert_eq!(
            (&clone["args"][0]["value"], &clone["args"][0]["valueTwo"]),
            (&2114060288u64.into(), &0.into())
        );
    }

    #[test]
    fn no_call_is_named_twice_in_the_base_list() {
        let mut seen = std::collections::BTreeSet::new();
        for name in table::ALWAYS.split_whitespace() {
            assert!(seen.insert(name), "{name}");
        }
    }
}
