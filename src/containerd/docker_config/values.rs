//! Single values of the documents: binds, limits, devices, addresses, the log driver. Each parser
//! answers what it wants where it doesn't understand. Pure; used by `merge` alone.

use super::settings::{DeviceRequest, DeviceRule, HOST_GATEWAY, Ulimit};
use crate::containerd::json::{Document, Fields, ValueError};
use crate::containerd::spec::{capabilities, mounts, process};
use crate::model::{LogSettings, StopReason};

pub(super) fn capability_names(host: &Document<'_>, key: &str) -> Result<Vec<&'static str>, ValueError> {
    host.each_text(key, |name| {
        capabilities::normalise(name).ok_or("capabilities by their names, such as NET_ADMIN")
    })
}

pub(super) fn ulimit(fields: &Fields<'_>) -> Result<Ulimit, &'static str> {
    const WANT: &str = "{\"Name\", \"Soft\", \"Hard\"} with Soft at most Hard, and a name such as nofile";
    let name = fields.text("name").ok_or(WANT)?.to_ascii_lowercase();
    let (soft, hard) = (fields.signed("soft").unwrap_or(0), fields.signed("hard").unwrap_or(0));
    let known = process::rlimit(&name).is_some();
    if !known || soft < -1 || hard < -1 || (hard != -1 && (soft == -1 || soft > hard)) {
        return Err(WANT);
    }
    Ok(Ulimit { name, soft, hard })
}

pub(super) fn device(fields: &Fields<'_>) -> Result<DeviceRequest, &'static str> {
    const WANT: &str = "{\"PathOnHost\", \"PathInContainer\", \"CgroupPermissions\"} with absolute paths";
    let host_path = fields.text("pathonhost").filter(|p| p.starts_with('/')).ok_or(WANT)?;
    let container_path = fields.text("pathincontainer").filter(|p| !p.is_empty()).unwrap_or(host_path);
    let permissions = fields.text("cgrouppermissions").filter(|p| !p.is_empty()).unwrap_or("rwm");
    if !container_path.starts_with('/') || permissions.chars().any(|c| !"rwm".contains(c)) {
        return Err(WANT);
    }
    Ok(DeviceRequest {
        host_path: host_path.to_owned(),
        container_path: container_path.to_owned(),
        permissions: permissions.to_owned(),
    })
}

/// `c 1:3 rwm`, as the kernel's devices cgroup reads it; `*` is any number.
pub(super) fn device_rule(text: &str) -> Result<DeviceRule, &'static str> {
    const WANT: &str = "device rules such as \"c 1:3 rwm\", with a, b or c, and * for any number";
    let mut words = text.split(' ');
    let (Some(kind), Some(numbers), Some(permissions), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(WANT);
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        _ => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| WANT),
    };
    let (major, minor) = numbers.split_once(':').ok_or(WANT)?;
    let letters = (1..=3).contains(&permissions.len()) && permissions.chars().all(|c| "rwm".contains(c));
    match (kind, letters) {
        ("a" | "b" | "c", true) => Ok(DeviceRule {
            kind: kind.chars().next().unwrap_or('a'),
            major: number(major)?,
            minor: number(minor)?,
            permissions: permissions.to_owned(),
        }),
        _ => Err(WANT),
    }
}

/// An absolute path of the container, cleaned.
pub(super) fn mount_path(text: &str) -> Result<String, &'static str> {
    mounts::clean(text).ok_or("absolute paths")
}

pub(super) fn address(text: &str) -> Result<String, &'static str> {
    text.parse::<std::net::IpAddr>().map(|ip| ip.to_string()).map_err(|_| "IP addresses")
}

pub(super) fn one_word(text: &str) -> Result<String, &'static str> {
    let fit = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    fit.then(|| text.to_owned()).ok_or("words without spaces")
}

pub(super) fn extra_host(text: &str) -> Result<(String, String), &'static str> {
    const WANT: &str = "lines of the form host:address, or host:host-gateway";
    let (name, ip) = text.split_once(':').ok_or(WANT)?;
    let name = one_word(name).map_err(|_| WANT)?;
    if ip == HOST_GATEWAY {
        return Ok((name, ip.to_owned()));
    }
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    Ok((name, address(bare).map_err(|_| WANT)?))
}

/// `LogConfig`: a driver's name and its options. What dockerd would refuse fails the creation in its
/// words.
pub(super) fn log_config(host: &Document<'_>, key: &str) -> Result<Option<LogSettings>, StopReason> {
    let wrong = |error: ValueError| StopReason::new("HostConfigError", error.to_string());
    let Some(fields) = host.object(key).map_err(wrong)? else { return Ok(None) };
    let options = fields.map("config");
    let options = options.ok_or_else(|| wrong(host.wrong(key, "options whose values are strings")))?;
    let parsed = LogSettings::parse(fields.text("type").unwrap_or_default(), options.into());
    parsed.map(Some).map_err(|error| StopReason::new("CannotCreateContainerError", error.to_string()))
}
