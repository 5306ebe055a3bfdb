//! What a task has besides containers and volumes (spec/control-plane.md 3.4): attachments, network
//! interfaces, accelerators, a proxy. All of it is checked as the original checks it; what this agent
//! can't do is then refused with its name.

use super::{PayloadError, bad, bounded, interface, unsupported};
use crate::control::acs::wire;
use crate::model::{Association, AssociationContent, ContainerSpec, GPU_ASSOCIATION, VISIBLE_GPUS};

/// Checks everything, so that what is malformed is told as such, and refuses what is not done here.
pub(super) fn check(task: &wire::Task) -> Result<(), PayloadError> {
    let most = 1024;
    bounded("attachments: their number", task.attachments.len() as u64, most, "at most 1024")?;
    bounded("associations: their number", task.associations.len() as u64, most, "at most 1024")?;
    task.attachments.iter().try_for_each(attachment)?;
    for one in &task.elastic_network_interfaces {
        interface::check(one)?;
    }
    if let Some(proxy) = &task.proxy_configuration {
        if proxy.r#type != "APPMESH" {
            return Err(PayloadError::Proxy);
        }
        if !task.containers.iter().any(|c| c.name == proxy.container_name) {
            let what = "proxyConfiguration: containerName";
            return Err(bad(what, &proxy.container_name, "the task has no such container"));
        }
    }
    if let Some(attachment) = task.attachments.first() {
        let kind: String = attachment.attachment_type.chars().take(64).collect();
        return Err(unsupported(&format!("an attachment of type {kind:?}")));
    }
    if !task.elastic_network_interfaces.is_empty() {
        return Err(unsupported("a network interface of the task's own (awsvpc)"));
    }
    if task.proxy_configuration.is_some() {
        return Err(unsupported("a proxy configuration (App Mesh)"));
    }
    Ok(())
}

/// No property may be empty; types that the original knows have properties that must be there.
fn attachment(attachment: &wire::Attachment) -> Result<(), PayloadError> {
    let kind: String = attachment.attachment_type.chars().take(64).collect();
    let at = |name: &str| format!("attachment of type {kind:?}: property {name}");
    for property in &attachment.attachment_properties {
        if property.value.is_empty() {
            let name: String = property.name.chars().take(64).collect();
            return Err(bad(&at(&name), "", "it is empty"));
        }
    }
    let value = |name: &str| attachment.attachment_properties.iter().find(|p| p.name == name);
    let required: &[&str] = match kind.as_str() {
        "serviceconnectdetail" => &["ServiceConnectConfig", "ContainerName"],
        "amazonebs" => &["volumeId", "volumeName", "sourceVolumeHostPath"],
        "s3files" => &["volumeId", "volumeName"],
        _ => &[],
    };
    if let Some(name) = required.iter().find(|name| value(name).is_none()) {
        return Err(bad(&at(name), "", "it is missing"));
    }
    if kind == "serviceconnectdetail"
        && let Some(config) = value("ServiceConnectConfig")
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&config.value)
    {
        return Err(bad(&at("ServiceConnectConfig"), "", wire::explain(&error)));
    }
    Ok(())
}

/// Accelerators. Those of type `elastic-inference` are no more than what the metadata endpoint tells.
pub(super) fn associations(task: &wire::Task) -> Result<Vec<Association>, PayloadError> {
    task.associations.iter().map(|wire| association(wire, task)).collect()
}

/// Tells each container by its environment which GPUs are its own, in the original's words where that
/// can't be.
pub(super) fn give_gpus(task: &wire::Task, containers: &mut [ContainerSpec]) -> Result<(), PayloadError> {
    let gpus = || task.associations.iter().filter(|association| association.r#type == GPU_ASSOCIATION);
    for gpu in gpus() {
        let [only] = gpu.containers.as_slice() else {
            return Err(PayloadError::Gpu(format!(
                "could not associate multiple containers to GPU {}",
                gpu.name
            )));
        };
        if !containers.iter().any(|container| container.name == *only) {
            let words = format!("could not find container with name {only} for associating GPU {}", gpu.name);
            return Err(PayloadError::Gpu(words));
        }
    }
    for container in containers {
        let own = gpus().filter(|gpu| gpu.containers.contains(&container.name)).map(|gpu| gpu.name.as_str());
        let own: Vec<&str> = own.collect();
        if !own.is_empty() {
            container.environment.insert(VISIBLE_GPUS.to_owned(), own.join(","));
        }
    }
    Ok(())
}

fn association(wire: &wire::Association, task: &wire::Task) -> Result<Association, PayloadError> {
    match wire.r#type.as_str() {
        "elastic-inference" | GPU_ASSOCIATION => {}
        other => return Err(bad("association: type", other, "it must be gpu or elastic-inference")),
    }
    if wire.name.is_empty() {
        return Err(bad("association: name", "", "it is empty"));
    }
    if let Some(missing) =
        wire.containers.iter().find(|name| !task.containers.iter().any(|c| c.name == **name))
    {
        return Err(bad("association: containers", missing, "the task has no such container"));
    }
    let content = wire.content.clone().unwrap_or_default();
    // Of a GPU there is nothing to tell but its name.
    let known = matches!(content.encoding.as_str(), "identity" | "base64");
    let untold = wire.r#type == GPU_ASSOCIATION && content.encoding.is_empty();
    if !known && !untold {
        return Err(bad("association: content.encoding", &content.encoding, "it must be identity or base64"));
    }
    Ok(Association {
        containers: wire.containers.clone(),
        name: wire.name.clone(),
        kind: wire.r#type.clone(),
        content: AssociationContent { encoding: content.encoding, value: content.value },
    })
}
