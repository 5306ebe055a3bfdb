//! `ecsd config`: every setting, its value and where that came from. It reads what the agent would
//! read, at this moment and in this environment; secrets are left out.

use crate::app;
use crate::config::{Effective, LoadedConfig, without_password};
use clap::Parser;
use std::io::Write;

/// Where proxies are told; the first of a pair that is set counts.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"];

/// Prints every setting of the agent, its value and where that came from: the environment, the JSON
/// file, the instance's user data or the default. Secrets are left out.
///
/// The environment is this command's own: to see what the service sees, give it the service's, such
/// as `env $(cat /etc/ecs/ecs.config) ecsd config`.
#[derive(Debug, Parser)]
#[command(name = "ecsd config", bin_name = "ecsd config")]
struct ConfigCommand {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Do not ask the instance metadata service for user data
    #[arg(long)]
    no_imds: bool,
}

/// Runs the command; `arguments` begin with its own name.
pub(super) fn command(arguments: Vec<String>) -> u8 {
    let command = match ConfigCommand::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help goes to standard output, errors to standard error; neither can be helped if it fails.
            let _ = error.print();
            return if error.use_stderr() { app::TERMINAL } else { app::DONE };
        }
    };
    let overrides = app::Overrides { imds_disabled: command.no_imds, ..app::Overrides::default() };
    super::run(async move {
        match app::settings::load(&overrides).await {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    eprintln!("ecsd: warning: {warning}");
                }
                let text = if command.json { as_json(&loaded) } else { as_table(&loaded) };
                // A reader that has seen enough closes the pipe.
                let _ = std::io::stdout().write_all(text.as_bytes());
                app::DONE
            }
            Err(error) => {
                eprintln!("ecsd: the configuration can't be used:");
                for one in &error.0 {
                    eprintln!("  {one}");
                }
                app::FAILED
            }
        }
    })
}

/// The proxies as this process sees them, passwords left out.
fn proxies() -> Vec<(&'static str, String)> {
    let seen = |name| Some((name, without_password(&std::env::var(name).ok()?)));
    PROXY_VARIABLES.into_iter().filter_map(seen).collect()
}

fn as_table(loaded: &LoadedConfig) -> String {
    let mut rows: Vec<[String; 3]> = vec![["VARIABLE", "VALUE", "FROM"].map(str::to_owned)];
    for Effective { name, value, origin } in loaded.effective() {
        let value = if value.is_empty() { "-".to_owned() } else { value };
        rows.push([name.to_owned(), value, origin.to_string()]);
    }
    for (name, value) in proxies() {
        rows.push([name.to_owned(), value, "environment".to_owned()]);
    }
    let width = |column: usize, most: usize| {
        rows.iter().map(|row| row[column].chars().count().min(most)).max().unwrap_or_default()
    };
    // A long list must not push the last column out of sight everywhere else.
    let (names, values) = (width(0, usize::MAX), width(1, 48));
    rows.iter().map(|[name, value, origin]| format!("{name:names$}  {value:values$}  {origin}\n")).collect()
}

fn as_json(loaded: &LoadedConfig) -> String {
    let mut settings = serde_json::Map::new();
    for Effective { name, value, origin } in loaded.effective() {
        settings.insert(
            name.to_owned(),
            serde_json::json!({"value": Some(value).filter(|v| !v.is_empty()), "from": origin.to_string()}),
        );
    }
    for (name, value) in proxies() {
        settings.insert(name.to_owned(), serde_json::json!({"value": value, "from": "environment"}));
    }
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let whole = serde_json::json!({"settings": settings, "warnings": warnings});
    format!("{whole:#}\n")
}
