//! The command line of `ecsd local`.

use std::path::PathBuf;
use std::time::Duration;

/// Run ECS task definitions on this machine, with no AWS account
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    long_about = "Run ECS task definitions on this machine, with no AWS account.\n\n\
        An ECS control plane is embedded in ecsd. `ecsd local` starts it on a port of 127.0.0.1 and starts the \
        ordinary agent against it, so a task runs here exactly as it would on a container instance: the same \
        images, networks, metadata endpoint and reports. The public `aws ecs` CLI and the SDKs work against it \
        too.\n\n\
        Needs root, runc and nft. containerd is used where it runs already; otherwise a private one is started, \
        and stopped at the end.",
    after_help = "Examples:\n  \
        ecsd local run examples/hello/task.json\n  \
        ecsd local run --for 10s task.json\n  \
        ecsd local run --load image.tar task.json\n  \
        ecsd local up --port 8000 &\n  \
        aws ecs list-tasks --cluster local --endpoint-url http://127.0.0.1:8000\n  \
        ecsd local logs -f web\n  \
        ecsd local stats\n  \
        ecsd local down\n\n\
        Exit codes: 0 done (run: the task did its work, or ran until it was stopped), 1 failed (run: an essential \
        container did),\n2 a command line or a file that can't be."
)]
pub struct LocalArgs {
    /// What to do
    #[command(subcommand)]
    pub command: LocalCommand,
}

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum LocalCommand {
    /// Run one task, show all of it, and take everything down at the end
    Run(RunArgs),
    /// Start a local cluster and keep it until Ctrl-C or `ecsd local down`
    Up(UpArgs),
    /// List the tasks of the running local cluster
    Ps(OnlyState),
    /// Show what the containers of the running local cluster use
    Stats(StatsArgs),
    /// Print what containers wrote
    Logs(LogsArgs),
    /// Stop a task of the running local cluster
    Stop(StopArgs),
    /// Stop the running local cluster and everything in it
    Down(OnlyState),
}

/// Where a local cluster keeps its files.
#[derive(Debug, Clone, clap::Args)]
pub struct StateArgs {
    /// Directory of the local cluster: logs, agent data, private containerd
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/ecsd-local")]
    pub dir: PathBuf,
}

/// Options of the commands that start a cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct HostArgs {
    /// Where the cluster keeps its files.
    #[command(flatten)]
    pub state: StateArgs,
    /// Load an OCI or docker image archive into containerd first (may be given more than once)
    #[arg(long, value_name = "FILE.tar")]
    pub load: Vec<PathBuf>,
    /// Port of the control plane on 127.0.0.1 (0 takes a free one)
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Socket of a containerd to use; it must be running
    #[arg(long, value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// AWS credentials for tasks that name a role
    #[arg(long, value_enum, value_name = "SOURCE", default_value_t, long_help = CREDENTIALS_HELP)]
    pub credentials: CredentialsSource,
    /// containerd namespace for images and containers
    #[arg(long, value_name = "NAME", default_value = "ecsd-local")]
    pub namespace: String,
}

const CREDENTIALS_HELP: &str = "AWS credentials for tasks whose definition names a taskRoleArn (or, for the agent's \
    own use, an executionRoleArn)";

/// Where the credentials of tasks with a role come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CredentialsSource {
    /// The credentials endpoint has none, as when a role can't be assumed
    #[default]
    None,
    /// Well-formed ones that no AWS service takes
    Fake,
    /// Your own, from the SDK's usual places: environment, ~/.aws (also credential_process), container or
    /// instance role. The role's name changes nothing: tasks may do what you may. Renewed before they expire
    Chain,
}

/// `ecsd local stats`
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Show what the containers of the running local cluster use: CPU, memory, network, disk.\n\n\
        The figures are those that the agent tells ECS, every 20 s. The first ones of a container come 20 s to 40 s \
        after its start.",
    after_help = "Examples:\n  ecsd local stats\n  ecsd local stats --watch\n  ecsd local stats --json | jq ."
)]
pub struct StatsArgs {
    /// Print one JSON array, with one object for each container
    #[arg(long)]
    pub json: bool,
    /// Print again every 20 s, as the agent sends them, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Where the cluster keeps its files.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `ecsd local run`
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Run one task, show all of it, and take everything down at the end.\n\n\
        Prints the image pulls, each state as it is reported, what the containers write, the URL that answers \
        on this host, and at the end each container's exit code and where the time went. Ends when the task \
        ends, on Ctrl-C, or after --for.\n\n\
        TASKDEF is what `aws ecs register-task-definition --cli-input-json` takes, or what `aws ecs \
        describe-task-definition` printed. Images that containerd does not have are pulled from their \
        registry; the image ecsd.local/hello is made on the spot from this host's static busybox.\n\n\
        Exit code: 0 when the task ran and stopped as asked, 1 when it failed or an essential container ended \
        with another code than 0, 2 for a command line or task definition that can't be.",
    after_help = "Examples:\n  \
        ecsd local run examples/hello/task.json\n  \
        ecsd local run --for 10s --port 8000 task.json\n  \
        ecsd local run --credentials chain task.json\n  \
        docker save app:1 -o app.tar && ecsd local run --load app.tar task.json"
)]
pub struct RunArgs {
    /// File with the task definition, as JSON
    #[arg(value_name = "TASKDEF")]
    pub definition: PathBuf,
    /// Stop the task after it ran for so long, such as 10s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub run_for: Option<Duration>,
    /// The host's side.
    #[command(flatten)]
    pub host: HostArgs,
}

/// `ecsd local up`
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Start a local cluster and keep it until Ctrl-C or `ecsd local down`.\n\n\
        Prints the endpoint for the aws CLI and the SDKs. Any credentials do; signatures are not checked.",
    after_help = "Example:\n  \
        ecsd local up --port 8000 &\n  \
        export AWS_ENDPOINT_URL_ECS=http://127.0.0.1:8000 AWS_DEFAULT_REGION=us-east-1\n  \
        export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local\n  \
        aws ecs register-task-definition --cli-input-json file://task.json\n  \
        aws ecs run-task --cluster local --task-definition hello"
)]
pub struct UpArgs {
    /// How long stopped tasks and their logs are kept
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub keep: Duration,
    /// The host's side.
    #[command(flatten)]
    pub host: HostArgs,
}

/// A command without options of its own.
#[derive(Debug, clap::Args)]
pub struct OnlyState {
    /// Where the cluster keeps its files.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `ecsd local logs`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ecsd local logs\n  ecsd local logs -f web\n  ecsd local logs 1a2b3c4d")]
pub struct LogsArgs {
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only this task (its id or the beginning of it) or this container
    #[arg(value_name = "TASK|CONTAINER")]
    pub of: Option<String>,
    /// Where the cluster keeps its files.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `ecsd local stop`
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The task's id (or the beginning of it) or ARN
    #[arg(value_name = "TASK")]
    pub task: String,
    /// Where the cluster keeps its files.
    #[command(flatten)]
    pub state: StateArgs,
}
