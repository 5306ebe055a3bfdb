//! Finds the containers at the other end of legacy links (spec task-engine 2.5), for `create.rs`:
//! they run already, so that their records tell where they are and what their environment is.

use crate::containerd::containers::{ContainerService, LABEL_ADDRESS};
use crate::containerd::create::cannot_create;
use crate::containerd::spec::links::{self, LinkedContainer};
use crate::model::{ContainerSpec, StopReason};
use crate::ports::{CreatePlan, NetworkAttachment};

impl ContainerService {
    /// The containers that it is linked to.
    ///
    /// # Errors
    /// `HostConfigError` in the original agent's words where one is not there; Docker's words in
    /// host mode. Calls containerd only where there are links.
    pub(super) async fn links_of(
        &self,
        plan: &CreatePlan,
        container: &ContainerSpec,
    ) -> Result<Vec<LinkedContainer>, StopReason> {
        if matches!(plan.network, NetworkAttachment::Host) && !container.links.is_empty() {
            let words = "conflicting options: host type networking can't be used with links. This would result in \
                         undefined behavior";
            return Err(cannot_create(words));
        }
        let mut links = Vec::new();
        for link in &container.links {
            let refused = |why: String| StopReason::new("HostConfigError", why);
            let (name, alias) = links::parse(link).ok_or_else(|| {
                refused(format!("Invalid link format {link:?}: expected name or name:alias"))
            })?;
            let unavailable = || refused(format!("Link target not available: {name}"));
            let target = plan.spec.container(name).ok_or_else(unavailable)?;
            let id = plan.spec.container_id(name);
            let record = self.record(&id).await.map_err(|status| refused(status.message().to_owned()))?;
            let record = record.ok_or_else(unavailable)?;
            let Some(ipv4) = record.labels.get(LABEL_ADDRESS).and_then(|text| text.parse().ok()) else {
                tracing::warn!(container = %plan.spec.key(&plan.name), link, "the target has no address to link to");
                continue;
            };
            let document = record.spec.unwrap_or_default().value;
            let spec: oci_spec::runtime::Spec = serde_json::from_slice(&document)
                .map_err(|error| refused(format!("link {link:?}: {error}")))?;
            let mut environment = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
            environment.retain(|line| !line.starts_with("HOSTNAME="));
            let image = self.images.unpacked(&target.image).await?;
            let of_image = image.config.config().as_ref().and_then(|c| c.exposed_ports().clone());
            links.push(LinkedContainer {
                alias: alias.to_owned(),
                docker_name: plan.spec.docker_name(name),
                hostname: spec.hostname().clone().unwrap_or_else(|| id.short().to_owned()),
                ipv4,
                ports: links::exposed(&target.ports, &of_image.unwrap_or_default()),
                environment,
            });
        }
        Ok(links)
    }
}
