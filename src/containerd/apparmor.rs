//! Loads the profile that containers get by default into the kernel, as dockerd does at its start: where
//! AppArmor is on and no profile of that name is loaded yet. Blocking; called by the app before the
//! first container.

use crate::containerd::spec::apparmor_profile::{ParserFacts, text};
use crate::containerd::spec::facts::{AppArmor, apparmor};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why the profile could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AppArmorError {
    /// Not installed.
    #[error("the host has AppArmor, but no apparmor_parser: install the package apparmor")]
    NoParser,
    /// It could not be run.
    #[error("run {program}")]
    Run {
        /// Which.
        program: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// It said no.
    #[error("{program} refused the profile: {words}")]
    Refused {
        /// Which.
        program: PathBuf,
        /// What it said.
        words: String,
    },
}

/// Where distributions put it.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// Where its includes are.
const INCLUDES: &str = "/etc/apparmor.d";

/// Whether containers are confined by default on this host, once [`load_default`] was called.
pub fn available() -> bool {
    match apparmor() {
        AppArmor::Absent => false,
        AppArmor::WithDefault => true,
        AppArmor::WithoutDefault => parser().is_some(),
    }
}

/// Loads it, where it is missing. Answers whether it was.
///
/// # Errors
/// [`AppArmorError`]
pub fn load_default() -> Result<bool, AppArmorError> {
    if apparmor() != AppArmor::WithoutDefault {
        return Ok(false);
    }
    let program = parser().ok_or(AppArmorError::NoParser)?;
    parse(&program, &["--replace", "--skip-cache"], &text(&facts(Path::new(INCLUDES)))).map(|()| true)
}

fn parser() -> Option<PathBuf> {
    PARSERS.iter().map(PathBuf::from).find(|program| program.is_file())
}

fn facts(includes: &Path) -> ParserFacts {
    let has = |name: &str| includes.join(name).exists();
    ParserFacts {
        abi: has("abi/3.0"),
        tunables: has("tunables/global"),
        base: has("abstractions/base"),
        own_profile: own_profile(&std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default()),
    }
}

/// `name (mode)`, where the agent is confined.
fn own_profile(current: &str) -> Option<String> {
    let name = current.trim_end_matches(['\0', '\n']).split(" (").next()?;
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != '"');
    (plain && name != "unconfined" && current.contains(" (")).then(|| name.to_owned())
}

/// Gives a text to the parser.
fn parse(program: &Path, arguments: &[&str], text: &str) -> Result<(), AppArmorError> {
    let failed = |source| AppArmorError::Run { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // One that ended early says why on its stderr.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Err(AppArmorError::Refused { program: program.to_owned(), words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_profile_may_signal_containers() {
        assert_eq!(own_profile("ecsd (enforce)\n").as_deref(), Some("ecsd"));
        for none in ["unconfined\n", "", "\0", "system_u:system_r:init_t:s0\0"] {
            assert_eq!(own_profile(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_parser_is_given_the_text_and_its_words_are_told() {
        let shell = Path::new("/bin/sh");
        parse(shell, &["-c", "grep -q 'profile docker-default'"], &text(&ParserFacts::default())).unwrap();
        let error = parse(shell, &["-c", "echo line 3: no >&2; exit 1"], "x").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh refused the profile: line 3: no");
        assert!(matches!(parse(Path::new("/absent"), &[], ""), Err(AppArmorError::Run { .. })));
    }

    #[test]
    fn the_hosts_parser_understands_the_profile() {
        let Some(program) = parser() else {
            eprintln!("SKIPPED: no apparmor_parser here");
            return;
        };
        let text = text(&facts(Path::new(INCLUDES)));
        parse(&program, &["--skip-kernel-load", "--skip-cache"], &text).unwrap();
    }
}
