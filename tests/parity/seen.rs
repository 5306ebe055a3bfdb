//! What a probe printed, with names in the place of all that is random or the host's own, so that the
//! same container prints the same lines under any daemon and on any host of one kind.

use super::cases::{AGENTS_VARIABLES, Case};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Lines by section.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Seen(pub BTreeMap<String, Vec<String>>);

impl Seen {
    /// The container was not made.
    pub fn is_refused(&self) -> bool {
        self.0["outcome"] == ["refused"]
    }

    /// The container was refused; in which words is each daemon's own.
    pub fn refused(words: &str) -> Self {
        eprintln!("  refused: {words}");
        Self(BTreeMap::from([("outcome".to_owned(), vec!["refused".to_owned()])]))
    }
}

/// What must be known of a container to understand what it printed.
pub struct Surroundings {
    /// Text and the name for it.
    names: Vec<(String, String)>,
    /// The process's own document, for what can't be seen from inside.
    spec: Value,
}

impl Surroundings {
    /// `ids` and `docker_names` by container name; the bundle is the probed one's.
    pub fn new(
        ids: &BTreeMap<String, String>,
        docker_names: &BTreeMap<String, String>,
        bundle: &Path,
    ) -> Self {
        let mut names = Vec::new();
        for (container, id) in ids {
            names.push((id.clone(), format!("<id-of-{container}>")));
            names.push((id[..12].to_owned(), format!("<short-id-of-{container}>")));
        }
        names.extend(
            docker_names.iter().map(|(container, name)| (name.clone(), format!("<name-of-{container}>"))),
        );
        let spec = std::fs::read(bundle.join("config.json")).expect("the container runs");
        Self { names, spec: serde_json::from_slice(&spec).unwrap() }
    }

    /// Reads what the probe printed.
    pub fn read(&self, case: &Case, printed: &str) -> Seen {
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut section = String::new();
        for line in printed.lines().map(|line| line.trim_end_matches('\r')) {
            match line.strip_prefix("== ") {
                Some(name) => section = name.to_owned(),
                None => sections.entry(section.clone()).or_default().push(line.to_owned()),
            }
        }
        let addresses = own_addresses(sections.get("addresses"));
        let mut known = self.names.clone();
        known.extend(addresses);
        for line in sections.values_mut().flatten() {
            for (text, name) in &known {
                *line = line.replace(text, name);
            }
            *line = without_neighbours(line);
        }
        let (host_network, among_hosts) =
            (case.network == "host", case.probed().host.get("PidMode") == Some(&json!("host")));
        let mut seen = BTreeMap::from([("outcome".to_owned(), vec!["runs".to_owned()])]);
        for (name, lines) in sections {
            let lines = match name.as_str() {
                // Their order is what they mean.
                "arguments" | "resolvers" => vec![json!(lines).to_string()],
                "first process" if among_hosts => Vec::new(),
                "first process" => vec![json!(lines).to_string()],
                "process" => lines.iter().map(|line| process(line)).collect(),
                "names" | "hostname" => lines.iter().map(|line| hosts_name(line)).collect(),
                "environment" => sorted(lines.iter().map(|line| hosts_name(&variable(line)))),
                "status" => lines.iter().map(|line| status(line)).collect(),
                "limits" => lines.iter().map(|line| limit(&words(line))).collect(),
                "descriptors" => lines.iter().map(|line| without_numbers(line)).collect(),
                "namespaces" => lines.iter().map(|line| namespace(line)).collect(),
                "mounts" => sorted(lines.iter().map(|line| mount(line))),
                "devices" => devices(&lines, case.has_hosts_devices()),
                "files" => sorted(lines.into_iter()),
                "cgroup" => sorted(lines.iter().map(|line| cgroup(line))),
                // The host's own, and the daemon's: nothing of the container.
                "links" | "addresses" | "routes" | "parameters" if host_network => Vec::new(),
                "links" => lines.iter().map(|line| link(line)).collect(),
                "addresses" => lines
                    .iter()
                    .map(|line| words(&line.split_once(": ").unwrap().1.replace('\\', "")))
                    .collect(),
                "parameters" => parameters(&lines),
                "end" => continue,
                _ => lines,
            };
            seen.insert(name, lines);
        }
        seen.insert("system calls".to_owned(), system_calls(&self.spec["linux"]["seccomp"]));
        Seen(seen)
    }
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `pipe:[1]` is a pipe.
fn without_numbers(line: &str) -> String {
    line.split_once(":[").map_or(line, |(before, _)| before).to_owned()
}

/// The container's own address and the hardware address that follows from it.
fn own_addresses(section: Option<&Vec<String>>) -> Vec<(String, String)> {
    let line = section.into_iter().flatten().find(|line| line.contains(" eth0 ") && line.contains(" inet "));
    let Some(line) = line else { return Vec::new() };
    let address = line.split_whitespace().find(|word| word.contains('/')).unwrap();
    let address = address.split('/').next().unwrap().to_owned();
    let octets: Vec<u8> = address.split('.').map(|octet| octet.parse().unwrap()).collect();
    let hardware = format!("02:42:{:02x}:{:02x}:{:02x}:{:02x}", octets[0], octets[1], octets[2], octets[3]);
    vec![(address, "<address>".to_owned()), (hardware, "<02:42 and the address>".to_owned())]
}

/// Addresses of other containers are given as it comes; the host's is the first of the network.
fn without_neighbours(line: &str) -> String {
    const NETWORK: &str = "172.17.";
    let mut parts = line.split(NETWORK);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(part.len());
        let (rest, after) = part.split_at(end);
        match rest {
            "0.0" | "0.1" | "255.255" => text.push_str(&format!("{NETWORK}{rest}{after}")),
            _ => text.push_str(&format!("<another's address>{after}")),
        }
    }
    text
}

/// The host's own name, where a container has it.
fn hosts_name(line: &str) -> String {
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for before in ["", "host ", "HOSTNAME="] {
        if line.strip_prefix(before) == Some(name.as_str()) {
            return format!("{before}<the host>");
        }
    }
    line.to_owned()
}

/// What dockerd is told to give on the hosts that ECS users come from, as far as this host has it: open
/// files, soft and hard.
pub fn default_nofile() -> (u64, u64) {
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    (most.min(32_768), most.min(65_536))
}

/// A limit of the process; what a daemon has itself follows from its host.
fn limit(line: &str) -> String {
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let (soft, hard) = default_nofile();
    if line == format!("Max open files {soft} {hard} files") {
        return "Max open files as by default".to_owned();
    }
    match own.lines().any(|own| words(own) == line) {
        true => {
            let name: Vec<&str> =
                line.split(' ').take_while(|word| !word.contains(|c: char| c.is_ascii_digit())).collect();
            format!("{} as the daemon's", name.join(" ").trim_end_matches(" unlimited"))
        }
        false => line.to_owned(),
    }
}

/// The agent's variables have values of its own.
fn variable(line: &str) -> String {
    match line.split_once('=') {
        // Also of a container that it is linked to.
        Some((name, _)) if AGENTS_VARIABLES.contains(&name.rsplit("_ENV_").next().unwrap_or(name)) => {
            format!("{name}=<the agent's>")
        }
        _ => line.to_owned(),
    }
}

/// A line of /proc/self/status of this process, which is as free as the host lets it be.
pub fn own_status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn status(line: &str) -> String {
    let (key, value) = line.split_once(':').unwrap_or((line, ""));
    let value = words(value);
    let bits = |text: &str| u64::from_str_radix(text, 16).ok();
    let value = match key {
        "Cpus_allowed_list" | "Mems_allowed_list" if value == own_status(key) => {
            "all of the host's".to_owned()
        }
        // Nearly all: told by what is missing of what the host has.
        _ if key.starts_with("Cap") && bits(&value).is_some_and(|bits| bits.count_ones() > 30) => {
            let host = bits(&own_status("CapBnd")).unwrap();
            format!("all of the host's but {:016x}", host & !bits(&value).unwrap())
        }
        "NStgid" if value != "1" => "another".to_owned(),
        _ => value,
    };
    format!("{key} {value}")
}

/// Numbers of processes are counted as it comes, but for the first.
fn process(line: &str) -> String {
    if !line.starts_with("parent") {
        return line.to_owned();
    }
    let mut parts: Vec<&str> = line.split(' ').collect();
    for pair in parts.chunks_mut(2) {
        if let [what, number] = pair
            && matches!(*what, "parent" | "group" | "session" | "foreground")
            && !matches!(*number, "0" | "1" | "-1")
        {
            *number = "another";
        }
    }
    parts.join(" ")
}

/// Of the host, or the container's own.
fn namespace(line: &str) -> String {
    let (kind, identity) = line.split_once(' ').unwrap();
    let hosts = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
    // Both daemons run in a mount namespace of this thread.
    let whose = if hosts.to_string_lossy() == identity { "the host's" } else { "its own" };
    format!("{kind} {whose}")
}

/// `mountpoint type options source`, without what names places of the host.
fn mount(line: &str) -> String {
    let (before, after) = line.split_once(" - ").unwrap();
    let before: Vec<&str> = before.split(' ').collect();
    let after: Vec<&str> = after.split(' ').collect();
    let (root, at, options, propagation) = (before[3], before[4], before[5], &before[6..]);
    let (kind, source, of_filesystem) = (after[0], after[1], after[2]);
    let has_own_root = matches!(kind, "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue");
    let root = if has_own_root && root != "/" { format!(" {root}") } else { String::new() };
    let (source, of_filesystem) = match kind {
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" | "cgroup" | "cgroup2" => {
            (source, of_filesystem.to_owned())
        }
        // Layers and disks are the host's.
        _ => ("disk", of_filesystem.split(',').next().unwrap().to_owned()),
    };
    let kind = if source == "disk" { "file system" } else { kind };
    let propagation: Vec<&str> = propagation.iter().map(|word| word.split(':').next().unwrap()).collect();
    words(&format!("{at}{root} {kind} {source} {options} ({of_filesystem}) {}", propagation.join(" ")))
}

/// Device nodes; of those that are the host's own, only that there are such.
fn devices(lines: &[String], privileged: bool) -> Vec<String> {
    let is_hosts = |line: &String| {
        let path = line.split(' ').next().unwrap_or_default();
        let special = line.contains(" c") || line.contains(" b");
        let same = std::fs::symlink_metadata(path).is_ok_and(|about| {
            let (major, minor) = (nix::sys::stat::major(about.rdev()), nix::sys::stat::minor(about.rdev()));
            line.contains(&format!(" {major:x}:{minor:x}")) || line.contains(&format!(" {major}:{minor}"))
        });
        special && same
    };
    let (hosts, own): (Vec<&String>, Vec<&String>) =
        lines.iter().partition(|line| privileged && is_hosts(line));
    let mut lines = sorted(own.into_iter().cloned());
    // A name that an image gives its directories is no device.
    lines.retain(|line| {
        !privileged || !line.contains(" d") || line.starts_with("/dev/pts") || line.starts_with("/dev/shm")
    });
    if !hosts.is_empty() {
        lines.push("and the host's devices".to_owned());
    }
    lines
}

fn cgroup(line: &str) -> String {
    let line = match line.rsplit_once(':') {
        // `3:cpu:/path`; the path ends with the container's id.
        Some((controllers, path)) if path.starts_with('/') && path.contains('<') => {
            format!("{}:<task>/<container>", controllers.split_once(':').map_or("", |(_, names)| names))
        }
        Some((controllers, path)) if path.starts_with('/') => {
            format!("{}:{path}", controllers.split_once(':').map_or("", |(_, names)| names))
        }
        _ => line.to_owned(),
    };
    for (file, key) in
        [("cpuset/cpuset.cpus: ", "Cpus_allowed_list"), ("cpuset/cpuset.mems: ", "Mems_allowed_list")]
    {
        if line.strip_prefix(file).is_some_and(|value| value == own_status(key)) {
            return format!("{file}all of the host's");
        }
    }
    line
}

/// `ip -o link`, without numbers.
fn link(line: &str) -> String {
    let line = line.split_once(": ").unwrap().1.replace('\\', "");
    let mut line = words(&line);
    if let Some((name, rest)) = line.split_once("@")
        && let Some((_, rest)) = rest.split_once(": ")
    {
        line = format!("{name}: {rest}");
    }
    line
}

const PROBE: &str = include_str!("probe.sh");

/// Kernel parameters of new namespaces on this host.
fn fresh_parameters() -> &'static BTreeMap<String, String> {
    static FRESH: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    FRESH.get_or_init(|| {
        let section =
            PROBE.split("section parameters\n").nth(1).unwrap().split("section end").next().unwrap();
        let output =
            Command::new("unshare").args(["-n", "-i", "busybox", "sh", "-c", section]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), words(v))).collect()
    })
}

/// Those that are not as in new namespaces; an interface's begin as the default's.
fn parameters(lines: &[String]) -> Vec<String> {
    let fresh = fresh_parameters();
    let changed = lines.iter().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = words(value);
        let begun = fresh.get(name).or_else(|| fresh.get(&name.replace("/eth0/", "/default/")));
        (begun != Some(&value)).then(|| format!("{} {value}", name.trim_start_matches("/proc/sys/")))
    });
    // Sizes that follow from the memory of the host, and secrets.
    changed.filter(|line| !line.contains("stable_secret") && !line.contains("tcp_fastopen_key")).collect()
}

/// Which system calls the filter lets through, as sentences.
fn system_calls(filter: &Value) -> Vec<String> {
    if filter.is_null() {
        return vec!["all".to_owned()];
    }
    let mut all = BTreeSet::from([format!(
        "else {} {}",
        filter["defaultAction"],
        filter["defaultErrnoRet"].as_u64().unwrap_or(1)
    )]);
    for architecture in filter["architectures"].as_array().into_iter().flatten() {
        all.insert(architecture.as_str().unwrap().to_owned());
    }
    for call in filter["syscalls"].as_array().into_iter().flatten() {
        let mut rule = String::new();
        if call["action"] != "SCMP_ACT_ALLOW" {
            rule = format!(" {} {}", call["action"], call["errnoRet"]);
        }
        for argument in call["args"].as_array().into_iter().flatten() {
            let part = |key: &str| argument.get(key).cloned().unwrap_or(json!(0));
            rule.push_str(&format!(" {} {} {}", argument["op"], part("value"), part("valueTwo")));
        }
        all.extend(
            call["names"].as_array().unwrap().iter().map(|name| format!("{}{rule}", name.as_str().unwrap())),
        );
    }
    all.into_iter().collect()
}
