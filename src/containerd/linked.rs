//! Finds the containers at the other end of legacy links (spec task-engine 2.5), for `create.rs`:
//! they run already, so that their records tell where they are and what their environment is.

use crate::containerd::containers::{ContainerService, LABEL_ADDRESS};
use crate::containerd::create::cannot_create;
use crate::containerd::docker_config;
use crate::containerd::spec::links::{self, LinkedContainer};
use crate::model::{ContainerSpec, NetworkMode, StopReason};
use crate::ports::{CreatePlan, NetworkAttachment};

impl ContainerService {
    /// The containers that it is linked to: on the bridge, and nowhere else.
    ///
    /// # Errors
    /// `HostConfigError` in the original agent's words where one is not there; Docker's words in
    /// host mode, and where one is not on the bridge. Calls containerd only where there are links.
    pub(super) async fn links_of(
        &self,
        plan: &CreatePlan,
        container: &ContainerSpec,
    ) -> Result<Vec<LinkedContainer>, StopReason> {
        if plan.spec.network_mode == NetworkMode::Host && !container.links.is_empty() {
            let words = "conflicting options: host type networking can't be used with links. This would result in \
                         undefined behavior";
            return Err(cannot_create(words));
        }
        let on_bridge = matches!(plan.network, NetworkAttachment::Namespace { ipv4: Some(_), .. });
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
            if !on_bridge {
                continue;
            }
            let docker_name = plan.spec.docker_name(name);
            let Some(ipv4) = record.labels.get(LABEL_ADDRESS).and_then(|text| text.parse().ok()) else {
                let words =
                    format!("Cannot link to /{docker_name}, as it does not belong to the default network");
                return Err(StopReason::new("CannotStartContainerError", words));
            };
            let document = record.spec.unwrap_or_default().value;
            let spec: oci_spec::runtime::Spec = serde_json::from_slice(&document)
                .map_err(|error| refused(format!("link {link:?}: {error}")))?;
            let image = self.images.unpacked(&target.image).await?;
            let of_image = image.config.config().as_ref();
            // As it runs, but without what its own links tell it, and what Docker's defaults are.
            let settings = docker_config::merge(target)?;
            let mut named: Vec<&str> = settings
                .environment
                .keys()
                .chain(plan.agent_environment.keys())
                .map(String::as_str)
                .collect();
            let lines = of_image.iter().filter_map(|c| c.env().as_ref()).flatten();
            named.extend(lines.map(|line| line.split('=').next().unwrap_or(line)));
            let mut environment = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
            environment.retain(|line| line.split_once('=').is_some_and(|(name, _)| named.contains(&name)));
            let of_image = of_image.and_then(|c| c.exposed_ports().clone());
            links.push(LinkedContainer {
                alias: alias.to_owned(),
                docker_name,
                hostname: spec.hostname().clone().unwrap_or_else(|| id.short().to_owned()),
                ipv4,
                ports: links::exposed(&target.ports, &of_image.unwrap_or_default()),
                environment,
            });
        }
        Ok(links)
    }
}
