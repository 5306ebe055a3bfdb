//! `SecurityOpt`: `name=value` or `name:value`, as Docker writes them today and wrote them once
//! (spec task-engine 2.3). Pure; used by `merge` alone.

use super::settings::{ContainerSettings, SeccompChoice, SelinuxChoice};
use crate::containerd::json::{Document, ValueError};
use crate::containerd::spec::seccomp_profile::SeccompProfile;

const WANT: &str = "no-new-privileges[:true|false], seccomp=unconfined|builtin|<profile as JSON>, apparmor=<profile>, \
                    label=disable|user:<u>|role:<r>|type:<t>|filetype:<t>|level:<l>";

/// Reads them all; the array replaces what was there.
///
/// # Errors
/// Names and values that mean nothing, and a seccomp profile that is none.
pub(super) fn options(
    settings: &mut ContainerSettings,
    host: &Document<'_>,
    key: &str,
) -> Result<(), ValueError> {
    for option in host.texts(key)? {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((&option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => settings.no_new_privileges = true,
            ("no-new-privileges", "false") => settings.no_new_privileges = false,
            ("seccomp", "unconfined") => settings.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => settings.seccomp = SeccompChoice::Default,
            ("seccomp", text) => {
                let profile: SeccompProfile = serde_json::from_str(text).map_err(|_| {
                    host.wrong(key, "a seccomp profile as Docker reads it: the JSON itself, no path")
                })?;
                settings.seccomp = SeccompChoice::Profile(Box::new(profile));
            }
            ("apparmor", profile) if one_name(profile) => settings.apparmor = Some(profile.to_owned()),
            ("label", value) => label(&mut settings.selinux, value).ok_or_else(|| host.wrong(key, WANT))?,
            ("credentialspec", _) => {
                settings
                    .warnings
                    .push(format!("security option {name:?} is not supported and has no effect"));
            }
            _ => return Err(host.wrong(key, WANT)),
        }
    }
    Ok(())
}

fn label(into: &mut SelinuxChoice, value: &str) -> Option<()> {
    let (part, text) = value.split_once(':').unwrap_or((value, ""));
    let text = || one_name(text).then(|| text.to_owned());
    match part {
        "disable" => into.disabled = true,
        "user" => into.user = Some(text()?),
        "role" => into.role = Some(text()?),
        "type" => into.domain = Some(text()?),
        "filetype" => into.file_type = Some(text()?),
        "level" => into.level = Some(text()?),
        _ => return None,
    }
    Some(())
}

fn one_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic())
}
