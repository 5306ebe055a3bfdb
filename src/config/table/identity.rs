//! The instance: its cluster, region, attributes, credentials and updates.

use super::*;
use crate::config::without_password;

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    row(
        "ECS_CLUSTER",
        [
            "text",
            "`default`",
            "-",
            "The cluster to join. `default` is created where it is missing; any other must exist. A data directory that belongs to another cluster stops the agent (exit 5).",
        ],
        |c, v| {
            c.cluster = v.to_owned();
            Outcome::Taken
        },
        |c| c.cluster.show(),
    )
    .key("Cluster", Form::Text),
    row(
        "ECS_BACKEND_HOST",
        [
            "URL",
            "the region's endpoint",
            "not `http(s)://host[:port]`: exit 1",
            "The ECS API. `https://` is added where no scheme is given.",
        ],
        backend_host,
        |c| c.backend_host.show(),
    )
    .key("APIEndpoint", Form::Text),
    row(
        "AWS_DEFAULT_REGION",
        [
            "text",
            "from the instance metadata service",
            "unresolved, or not set with `ECS_EXTERNAL`: exit 1",
            "The AWS region.",
        ],
        |c, v| {
            c.region = Some(v.to_owned());
            Outcome::Taken
        },
        |c| c.region.show(),
    )
    .key("AWSRegion", Form::Text),
    row(
        "ECS_DATADIR",
        [
            "path",
            "`/var/lib/ecs/data`",
            "not absolute: exit 1",
            "Where the agent keeps its state. State is always kept.",
        ],
        |c, v| parse::path(v, |p| c.data_dir = p),
        |c| c.data_dir.show(),
    )
    .key("DataDir", Form::Text),
    row(
        "ECS_CHECKPOINT",
        [
            "boolean",
            "true",
            "ignored with a warning",
            "Accepted. State is always kept: `false` gets a warning.",
        ],
        |_, v| match crate::config::go::boolean(v) {
            Some(true) => Outcome::Taken,
            _ => Outcome::Ignored(format!("{} is ignored: state is always kept", shown(v))),
        },
        |_| true.show(),
    )
    .tri("Checkpoint"),
    row(
        "ECS_INSTANCE_ATTRIBUTES",
        [
            "JSON object of texts",
            "`{}`",
            "exit 1",
            "Attributes of the instance, told at its first registration.",
        ],
        |c, v| parse::map(v, |m| c.instance_attributes = m),
        |c| c.instance_attributes.show(),
    )
    .key("InstanceAttributes", Form::Json),
    row(
        "ECS_CONTAINER_INSTANCE_TAGS",
        ["JSON object of texts", "`{}`", "exit 1", "Tags of the instance."],
        |c, v| parse::map(v, |m| c.instance_tags = m),
        |c| c.instance_tags.show(),
    )
    .key("ContainerInstanceTags", Form::Json),
    row(
        "ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM",
        [
            "`none` `ec2_instance`",
            "`none`",
            "ignored with a warning",
            "`ec2_instance`: the EC2 instance's tags become tags of the container instance.",
        ],
        |c, v| match v {
            "ec2_instance" => {
                c.propagate_ec2_tags = true;
                Outcome::Taken
            }
            "none" => {
                c.propagate_ec2_tags = false;
                Outcome::Taken
            }
            _ => Outcome::Ignored(format!("{} is neither none nor ec2_instance; ignoring it", shown(v))),
        },
        |c| if c.propagate_ec2_tags { "ec2_instance" } else { "none" }.to_owned(),
    )
    .key("ContainerInstancePropagateTagsFrom", Form::Words(&["none", "ec2_instance"])),
    Variable {
        blank_counts: true,
        ..row(
            "ECS_DETAILED_OS_FAMILY",
            [
                "text",
                "`LINUX`",
                "-",
                "Told at registration and in the User-Agent. Set but blank, it is blank.",
            ],
            |c, v| {
                c.os_family = v.to_owned();
                Outcome::Taken
            },
            |c| c.os_family.show(),
        )
    },
    row(
        "AWS_EC2_METADATA_DISABLED",
        [
            "`true`",
            "false",
            "-",
            "The instance metadata service is not asked: not for credentials, the identity document or user data.",
        ],
        |c, v| {
            c.imds_disabled = v.eq_ignore_ascii_case("true");
            Outcome::Taken
        },
        |c| c.imds_disabled.show(),
    ),
    flag(
        "ECS_EXTERNAL",
        "false",
        "The instance is outside of EC2: no identity document, and credentials from the environment or the rotating file.",
        |c, v| {
            parse::boolean(v, |b| {
                c.external = b;
                c.no_identity_document |= b;
            })
        },
        |c| c.external.show(),
    )
    .tri("External"),
    row(
        "NoIID",
        ["boolean", "false, or `ECS_EXTERNAL`", "exit 1", "The instance registers without an identity document."],
        |c, v| parse::boolean(v, |b| c.no_identity_document = b),
        |c| c.no_identity_document.show(),
    )
    .file_only(Form::Bool),
    row(
        "ECS_ALTERNATE_CREDENTIAL_PROFILE",
        ["text", "`default`", "-", "The profile of the rotating credentials file."],
        |c, v| {
            c.alternate_credential_profile = Some(v.to_owned());
            Outcome::Taken
        },
        |c| c.alternate_credential_profile.show(),
    ),
    flag(
        "ECS_UPDATES_ENABLED",
        "false",
        "An update that ECS asks for is downloaded, and the agent exits with 42 for its supervisor to install it. Without, the request is refused.",
        |c, v| parse::boolean(v, |b| c.updates_enabled = b),
        |c| c.updates_enabled.show(),
    )
    .tri("UpdatesEnabled"),
    row(
        "ECS_UPDATE_DOWNLOAD_DIR",
        ["path", "none", "not absolute: exit 1", "Where updates are downloaded to."],
        |c, v| parse::path(v, |p| c.update_download_dir = Some(p)),
        |c| c.update_download_dir.show(),
    )
    .key("UpdateDownloadDir", Form::Text),
    flag(
        "ECS_ENABLE_SPOT_INSTANCE_DRAINING",
        "false",
        "The instance is set to DRAINING once EC2 says that it is interrupted.",
        |c, v| parse::boolean(v, |b| c.spot_draining = b),
        |c| c.spot_draining.show(),
    )
    .tri("SpotInstanceDrainingEnabled"),
    flag(
        "ECS_WARM_POOLS_CHECK",
        "false",
        "The instance registers only once its Auto Scaling lifecycle state is to be InService.",
        |c, v| parse::boolean(v, |b| c.warm_pools_check = b),
        |c| c.warm_pools_check.show(),
    )
    .tri("WarmPoolsSupport"),
    flag(
        "ECS_ENABLE_GPU_SUPPORT",
        "false",
        "The GPUs of ECSD_GPU_INFO are registered, where ECS_NVIDIA_RUNTIME can give them to containers.",
        |c, v| parse::boolean(v, |b| c.gpu_support = b),
        |c| c.gpu_support.show(),
    )
    .key("GPUSupportEnabled", Form::Bool),
    row(
        "ECSD_GPU_INFO",
        [
            "path",
            "`/var/lib/ecs/gpu/nvidia-gpu-info.json`",
            "not absolute: exit 1",
            "Where the probe of the host's GPUs writes what it found.",
        ],
        |c, v| parse::path(v, |p| c.gpu_info = p),
        |c| c.gpu_info.show(),
    ),
    row(
        "ECS_NVIDIA_RUNTIME",
        [
            "name or path",
            "`nvidia`",
            "see ECS_ENABLE_GPU_SUPPORT",
            "The program that is called in runc's place for containers with GPUs; `nvidia` is `nvidia-container-runtime`.",
        ],
        |c, v| {
            c.nvidia_runtime = v.to_owned();
            Outcome::Taken
        },
        |c| c.nvidia_runtime.show(),
    )
    .key("NvidiaRuntime", Form::Text),
    flag(
        "ECS_ENABLE_INF_SUPPORT",
        "false",
        "Containers with `AWS_NEURON_VISIBLE_DEVICES` are made by the wrapper of AWS's Neuron package.",
        |c, v| parse::boolean(v, |b| c.inferentia = b),
        |c| c.inferentia.show(),
    )
    .key("InferentiaSupportEnabled", Form::Bool),
];

fn backend_host(config: &mut Config, value: &str) -> Outcome {
    let schemed = value.starts_with("http://") || value.starts_with("https://");
    let whole = if schemed { value.to_owned() } else { format!("https://{value}") };
    match url::Url::parse(&whole) {
        Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => {
            config.backend_host = Some(whole);
            Outcome::Taken
        }
        _ => Outcome::Fatal(format!(
            "{} is no endpoint; write such as https://ecs.eu-west-1.amazonaws.com",
            shown(&without_password(value))
        )),
    }
}
