//! The agent's flags, as the original's: Go style, one dash or two, `-name value` or `-name=value`
//! (spec/local-endpoints-config.md 3.5).

use std::fmt::Write as _;

/// What the command line asked of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-k`: TLS certificates of the control plane are not verified.
    pub accept_insecure_certificates: bool,
    /// `-loglevel`: overrides ECS_LOGLEVEL and ECS_LOGLEVEL_ON_INSTANCE.
    pub log_level: Option<String>,
    /// `-loglevel-driver`: of standard output; wins over `-loglevel`.
    pub log_level_driver: Option<String>,
    /// `-loglevel-on-instance`: of ECS_LOGFILE; wins over `-loglevel`.
    pub log_level_on_instance: Option<String>,
    /// `-version`
    pub version: bool,
    /// `-license`
    pub license: bool,
    /// `-healthcheck`
    pub healthcheck: bool,
    /// `-ecs-attributes`
    pub ecs_attributes: bool,
    /// `-blackhole-ec2-metadata`: IMDS is never asked.
    pub blackhole_ec2_metadata: bool,
    /// `-help`
    pub help: bool,
}

/// A command line that can't be understood. The agent exits 5: it must not be restarted with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// A flag that needs a value has none.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A switch with something else than a truth value.
    #[error("invalid boolean value {value:?} for -{flag}: use true or false")]
    NotBoolean {
        /// The flag.
        flag: String,
        /// What it was given.
        value: String,
    },
    /// Something that is no flag.
    #[error("unexpected argument {0:?}")]
    Argument(String),
}

/// Every flag with its help; text flags name their value.
const FLAGS: &[(&str, Option<&str>, &str)] = &[
    ("k", None, "accept any TLS certificate of the control plane"),
    ("loglevel", Some("level"), "debug, info, warn, error, crit or none; of both sinks"),
    ("loglevel-driver", Some("level"), "of standard output alone; wins over -loglevel"),
    ("loglevel-on-instance", Some("level"), "of ECS_LOGFILE alone; wins over -loglevel"),
    ("ecs-attributes", None, "print the attributes this instance would register, and exit"),
    ("healthcheck", None, "ask the running agent whether it is well: exit 0 if it answers, 1 if not"),
    ("blackhole-ec2-metadata", None, "never ask the EC2 instance metadata service"),
    ("version", None, "print version information and exit"),
    ("license", None, "print the licence and exit"),
    ("help", None, "print this and exit"),
];

impl Flags {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// The first argument that can't be understood.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, FlagError> {
        let mut flags = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                return Err(FlagError::Argument(argument));
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            };
            if let Some(slot) = flags.text(&name) {
                *slot = Some(value.or_else(|| arguments.next()).ok_or(FlagError::NoValue(name))?);
            } else if let Some(slot) = flags.switch(&name) {
                *slot = match value.as_deref() {
                    None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                    Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                    Some(value) => return Err(FlagError::NotBoolean { flag: name, value: value.to_owned() }),
                };
            } else {
                return Err(FlagError::Unknown(name));
            }
        }
        Ok(flags)
    }

    fn text(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "loglevel" => Some(&mut self.log_level),
            "loglevel-driver" => Some(&mut self.log_level_driver),
            "loglevel-on-instance" => Some(&mut self.log_level_on_instance),
            _ => None,
        }
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "k" => Some(&mut self.accept_insecure_certificates),
            "version" => Some(&mut self.version),
            "license" => Some(&mut self.license),
            "healthcheck" => Some(&mut self.healthcheck),
            "ecs-attributes" => Some(&mut self.ecs_attributes),
            "blackhole-ec2-metadata" => Some(&mut self.blackhole_ec2_metadata),
            "help" | "h" => Some(&mut self.help),
            _ => None,
        }
    }
}

/// The usage text.
pub fn usage() -> String {
    let mut text = String::from(
        "The Amazon ECS container agent for hosts that run containerd.\n\n\
         Usage:\n  ecsd [flags]            run the agent, configured by ECS_* environment variables\n  \
         ecsd config             print each setting and where it came from (ecsd config --help)\n  \
         ecsd logs TASK          print what a task's containers wrote (ecsd logs --help)\n  \
         ecsd local COMMAND      run task definitions on this machine, without AWS (ecsd local --help)\n\n\
         Flags of the agent:\n",
    );
    for (name, value, help) in FLAGS {
        let flag = value.map_or_else(|| format!("-{name}"), |value| format!("-{name} {value}"));
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {flag:<30} {help}");
    }
    text.push_str(
        "\nVariables: docs/configuration.md. Exit codes: 0 done, 1 failed (restart), 5 never restart,\n42 restart with the new agent.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Flags, FlagError> {
        Flags::parse(arguments.iter().map(ToString::to_string))
    }

    #[test]
    fn go_spellings_are_understood() {
        for arguments in [
            &["-loglevel", "debug", "-k"][..],
            &["--loglevel=debug", "--k=true"],
            &["-k=T", "-loglevel=debug"],
        ] {
            let flags = parse(arguments).unwrap();
            assert_eq!(
                (flags.log_level.as_deref(), flags.accept_insecure_certificates),
                (Some("debug"), true)
            );
        }
        assert!(!parse(&["-k=false"]).unwrap().accept_insecure_certificates);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse(&["-nope"]).unwrap_err().to_string(), "flag provided but not defined: -nope");
        assert_eq!(parse(&["-loglevel"]).unwrap_err(), FlagError::NoValue("loglevel".into()));
        assert!(parse(&["-k=maybe"]).unwrap_err().to_string().contains("\"maybe\""));
        assert_eq!(parse(&["run"]).unwrap_err(), FlagError::Argument("run".into()));
    }

    #[test]
    fn every_flag_is_in_the_usage_and_parses() {
        for (name, value, _) in FLAGS {
            assert!(usage().contains(&format!("-{name}")));
            let argument = if value.is_some() { format!("-{name}=x") } else { format!("-{name}") };
            assert!(parse(&[argument.as_str()]).is_ok(), "{name}");
        }
    }
}
