//! The agent's own log and the audit log (spec/local-endpoints-config.md 1.10, 4).

use super::*;
use crate::config::Rollover;
use crate::telemetry::{LogFormat, LogLevel};

/// Larger files than this (1 TB) are a slip of the pen.
const MOST_MB: f64 = 1_000_000.0;

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    row(
        "ECS_LOGLEVEL",
        [
            "`debug` `info` `warn` `error` `crit` `none`",
            "`info`",
            "ignored with a warning",
            "How much is logged. Any case.",
        ],
        |c, v| level(v, |level| c.log_level = level),
        |c| c.log_level.show(),
    ),
    row(
        "ECS_LOG_DRIVER",
        [
            "text",
            "none",
            "-",
            "Only whether it is set counts: then `ECS_LOGFILE` stays empty, but for `ECS_LOGLEVEL_ON_INSTANCE`.",
        ],
        |c, v| {
            c.log_driver = v.to_owned();
            Outcome::Taken
        },
        |c| c.log_driver.show(),
    ),
    row(
        "ECS_LOGLEVEL_ON_INSTANCE",
        [
            "as `ECS_LOGLEVEL`",
            "`none` with `ECS_LOG_DRIVER`, else `ECS_LOGLEVEL`",
            "ignored with a warning",
            "How much goes to `ECS_LOGFILE`.",
        ],
        |c, v| level(v, |level| c.log_level_on_instance = Some(level)),
        |c| c.log_file_level().show(),
    ),
    row(
        "ECS_LOGFILE",
        [
            "path",
            "none",
            "not absolute: exit 1; can't be written: a warning, and tried again",
            "File that log lines are appended to, besides standard output.",
        ],
        |c, v| parse::path(v, |p| c.log_file = Some(p)),
        |c| c.log_file.show(),
    ),
    row(
        "ECS_LOG_OUTPUT_FORMAT",
        ["`logfmt` `json`", "`logfmt`", "ignored with a warning", "The form of log lines."],
        |c, v| match LogFormat::from_word(v) {
            Some(format) => {
                c.log_format = format;
                Outcome::Taken
            }
            None => Outcome::Ignored(format!("{} is neither logfmt nor json; ignoring it", shown(v))),
        },
        |c| c.log_format.show(),
    ),
    row(
        "ECS_LOG_ROLLOVER_TYPE",
        [
            "`size` `hourly` `none`",
            "`size`",
            "anything else: `hourly`",
            "When `ECS_LOGFILE` is turned over: by size to `.1`, `.2`... (the highest is the newest), hourly to `.YYYY-MM-DD-HH` in local time.",
        ],
        |c, v| {
            c.log_rollover = match v.to_ascii_lowercase().as_str() {
                "size" => Rollover::Size,
                "none" => Rollover::None,
                _ => Rollover::Hourly,
            };
            Outcome::Taken
        },
        |c| c.log_rollover.show(),
    ),
    row(
        "ECS_LOG_MAX_FILE_SIZE_MB",
        [
            "number",
            "`5`",
            "not a positive number: ignored with a warning",
            "Size to turn the file over at, in units of 1,000,000 bytes. May have a fraction.",
        ],
        |c, v| match v.parse::<f64>().ok().filter(|mb| *mb > 0.0 && *mb <= MOST_MB) {
            Some(mb) => {
                // At least a byte, and within 64 bits by the limit above.
                c.log_max_file_bytes = ((mb * 1e6) as u64).max(1);
                Outcome::Taken
            }
            None => Outcome::Ignored(format!("{} is no size in MB above 0; ignoring it", shown(v))),
        },
        |c| (c.log_max_file_bytes as f64 / 1e6).to_string(),
    ),
    row(
        "ECS_LOG_MAX_ROLL_COUNT",
        [
            "number",
            "`24`",
            "not a whole number: ignored with a warning",
            "How many files that were turned over are kept; 0 keeps all.",
        ],
        |c, v| parse::number(v, 0..=i32::MAX as u32, &mut c.log_max_rolls),
        |c| c.log_max_rolls.show(),
    ),
    row(
        "ECS_AUDIT_LOGFILE",
        [
            "path",
            "`/var/log/ecs/audit.log`",
            "not absolute: exit 1; can't be written: a warning, and no audit log",
            "Every answer with credentials, and every request beyond the limit, of the metadata endpoint. Turned over as `ECS_LOGFILE`, hourly where that is not turned over by size.",
        ],
        |c, v| parse::path(v, |p| c.audit_log_file = Some(p)),
        |c| c.audit_log_file.show(),
    )
    .key("CredentialsAuditLogFile", Form::Text),
    flag(
        "ECS_AUDIT_LOGFILE_DISABLED",
        "false",
        "No audit log.",
        |c, v| {
            parse::boolean(v, |disabled| {
                if disabled {
                    c.audit_log_file = None;
                }
            })
        },
        |c| c.audit_log_file.is_none().show(),
    )
    .key("CredentialsAuditLogDisabled", Form::Bool),
];

fn level(value: &str, set: impl FnOnce(LogLevel)) -> Outcome {
    match LogLevel::from_word(value) {
        Some(level) => {
            set(level);
            Outcome::Taken
        }
        None => Outcome::Ignored(format!("{} is no level; ignoring it", shown(value))),
    }
}
