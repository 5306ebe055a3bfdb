//! Images: pulling them, registries' passwords, removing them.

use super::*;
use crate::config::Secret;
use crate::model::PullBehavior;

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    row(
        "ECS_IMAGE_PULL_BEHAVIOR",
        [
            "`default` `always` `once` `prefer-cached`",
            "`default`",
            "default",
            "When an image is pulled. Exactly these words.",
        ],
        |c, v| {
            c.image_pull_behavior = match v {
                "always" => PullBehavior::Always,
                "once" => PullBehavior::Once,
                "prefer-cached" => PullBehavior::PreferCached,
                _ => PullBehavior::Default,
            };
            Outcome::Taken
        },
        |c| c.image_pull_behavior.show(),
    )
    .key("ImagePullBehavior", Form::Words(&["default", "always", "once", "prefer-cached"])),
    row(
        "ECS_IMAGE_PULL_TIMEOUT",
        ["duration", "`2h`", "negative: default, with a warning", "The longest that a pull may take."],
        |c, v| parse::duration(v, Duration::ZERO, MINUTE * 120, &mut c.image_pull_timeout),
        |c| c.image_pull_timeout.show(),
    )
    .nanoseconds("ImagePullTimeout"),
    row(
        "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT",
        ["duration", "`1m`", "less than `1m`: `1m`, with a warning", "How long a pull may make no progress."],
        |c, v| parse::duration(v, MINUTE, MINUTE, &mut c.image_pull_inactivity_timeout),
        |c| c.image_pull_inactivity_timeout.show(),
    )
    .nanoseconds("ImagePullInactivityTimeout"),
    row(
        "ECS_MANIFEST_PULL_TIMEOUT",
        [
            "duration",
            "`1m`",
            "less than `30s`: `30s`, with a warning",
            "The longest that finding an image's digest may take.",
        ],
        |c, v| parse::duration(v, SECOND * 30, SECOND * 30, &mut c.manifest_pull_timeout),
        |c| c.manifest_pull_timeout.show(),
    )
    .nanoseconds("ManifestPullTimeout"),
    flag(
        "ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT",
        "false",
        "Images of containers that wait for others are pulled at once.",
        |c, v| parse::boolean(v, |b| c.pull_dependents_upfront = b),
        |c| c.pull_dependents_upfront.show(),
    )
    .tri("DependentContainersPullUpfront"),
    row(
        "ECS_ENGINE_AUTH_TYPE",
        ["`dockercfg` `docker`", "none", "ignored with a warning", "The form of `ECS_ENGINE_AUTH_DATA`."],
        |c, v| match v {
            "dockercfg" | "docker" => {
                c.engine_auth_type = v.to_owned();
                Outcome::Taken
            }
            _ => Outcome::Ignored(format!("{} is neither dockercfg nor docker; ignoring it", shown(v))),
        },
        |c| c.engine_auth_type.show(),
    )
    .key("EngineAuthType", Form::Text),
    row(
        "ECS_ENGINE_AUTH_DATA",
        ["JSON", "none", "no JSON: ignored with a warning", "Passwords of registries. Never logged."],
        |c, v| {
            if serde_json::from_str::<serde::de::IgnoredAny>(v).is_err() {
                return Outcome::Ignored("[redacted] is no JSON; ignoring it".to_owned());
            }
            c.engine_auth_data = Secret(v.to_owned());
            Outcome::Taken
        },
        |c| c.engine_auth_data.show(),
    )
    .key("EngineAuthData", Form::Json),
    flag(
        "ECS_DISABLE_IMAGE_CLEANUP",
        "false",
        "Images are never removed; nor are they with `ECS_IMAGE_PULL_BEHAVIOR` `prefer-cached`.",
        |c, v| parse::boolean(v, |b| c.image_cleanup_disabled = b),
        |c| c.image_cleanup_disabled.show(),
    )
    .tri("ImageCleanupDisabled"),
    row(
        "ECS_IMAGE_CLEANUP_INTERVAL",
        [
            "duration",
            "`30m`",
            "less than `10m`: `30m`, with a warning",
            "How often images are looked through. Those that no task needs any more are removed, the least recently used first.",
        ],
        |c, v| parse::duration(v, MINUTE * 10, MINUTE * 30, &mut c.image_cleanup_interval),
        |c| c.image_cleanup_interval.show(),
    )
    .nanoseconds("ImageCleanupInterval"),
    row(
        "ECS_IMAGE_MINIMUM_CLEANUP_AGE",
        ["duration", "`1h`", "negative: default, with a warning", "How long ago an image must have been pulled (or first used) to be removed."],
        |c, v| parse::duration(v, Duration::ZERO, MINUTE * 60, &mut c.image_minimum_cleanup_age),
        |c| c.image_minimum_cleanup_age.show(),
    )
    .nanoseconds("MinimumImageDeletionAge"),
    row(
        "NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE",
        [
            "duration",
            "`1h`",
            "negative: default, with a warning",
            "The same, of images that no task brought: since they came to this host.",
        ],
        |c, v| parse::duration(v, Duration::ZERO, MINUTE * 60, &mut c.non_ecs_image_minimum_cleanup_age),
        |c| c.non_ecs_image_minimum_cleanup_age.show(),
    )
    .nanoseconds("NonECSMinimumImageDeletionAge"),
    row(
        "ECS_NUM_IMAGES_DELETE_PER_CYCLE",
        ["number", "`5`", "less than 1: ignored with a warning", "How many images are removed at a time."],
        |c, v| parse::number(v, 1..=i32::MAX as u32, &mut c.images_deleted_per_cycle),
        |c| c.images_deleted_per_cycle.show(),
    )
    .key("NumImagesToDeletePerCycle", Form::Number),
    row(
        "NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE",
        [
            "number",
            "`5`",
            "negative: ignored with a warning",
            "How many containers that no task brought are removed at a time, with `ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP`: those that ended, or were made and never ran, `ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION` ago.",
        ],
        |c, v| parse::number(v, 0..=i32::MAX as u32, &mut c.non_ecs_containers_deleted_per_cycle),
        |c| c.non_ecs_containers_deleted_per_cycle.show(),
    )
    .key("NumNonECSContainersToDeletePerCycle", Form::Number),
    flag(
        "ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP",
        "false",
        "Images in the agent's namespace that no task brought are removed, too, and containers; see `NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE`.",
        |c, v| parse::boolean(v, |b| c.untracked_image_cleanup = b),
        |c| c.untracked_image_cleanup.show(),
    )
    .tri("DeleteNonECSImagesEnabled"),
    row(
        "ECS_EXCLUDE_UNTRACKED_IMAGE",
        ["names with commas between", "none", "-", "Images that are never removed, also of those that tasks brought."],
        |c, v| {
            c.excluded_untracked_images = v.split(',').map(str::to_owned).collect();
            Outcome::Taken
        },
        |c| c.excluded_untracked_images.show(),
    )
    .key("ImageCleanupExclusionList", Form::Commas),
    row(
        "ECS_IMAGE_CLEANUP_HIGH_WATERMARK",
        [
            "percent",
            "`90`",
            "not from 1 to 100: ignored with a warning",
            "How full (in bytes, or inodes) the file systems of containerd's content and snapshots may become. Beyond that, images that this agent pulled and no task needs are removed at once, the least recently used first, however many and whatever their age. `100`: that is no reason.",
        ],
        |c, v| parse::number(v, 1..=100, &mut c.image_cleanup_high_watermark),
        |c| c.image_cleanup_high_watermark.show(),
    ),
    row(
        "ECS_IMAGE_CLEANUP_LOW_WATERMARK",
        [
            "percent",
            "`80`",
            "not from 1 to 100: ignored with a warning",
            "How full they may be when that ends. More than the high one counts as that.",
        ],
        |c, v| parse::number(v, 1..=100, &mut c.image_cleanup_low_watermark),
        |c| c.image_cleanup_low_watermark.show(),
    ),
];
