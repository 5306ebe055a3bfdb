//! The assembled agent at work: endpoints first, then registration, then both websockets.

use super::assemble::Agent;
use super::notify::Notifier;
use super::registration::{Registrar, cluster_or_default};
use super::{Failure, UPDATE, acs, ask, attach, audit, glue, lifecycle, spot, telemetry};
use crate::control::acs::{AcsContext, AcsTimings};
use crate::control::api::Registered;
use crate::control::tcs::{TcsContext, TcsTimings};
use crate::control::update::UpdateOptions;
use crate::control::{self, EcsApi, chain};
use crate::net::HostLinks;
use crate::tmds::{self, IntrospectionHandler, MetadataHandler, RateLimit, Server};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};

impl Agent {
    /// Registers and keeps both websockets; comes back only with a failure.
    pub(super) async fn serve(&mut self, notifier: &Notifier) -> Failure {
        let (cgroups, doctor) = (self.cgroups.clone(), self.doctor.clone());
        let told = telemetry::start(&self.config, cgroups, doctor, self.handle.view(), &mut self.background);
        self.start_endpoints(told.clone());
        let api = EcsApi::new(&self.account);
        let registered = match self.register(&api, notifier).await {
            Ok(registered) => registered,
            Err(failure) => return failure,
        };
        if self.config.spot_draining {
            self.background.spawn(spot::drain_when_interrupted(
                self.imds.clone(),
                api.clone(),
                registered.cluster.clone(),
                registered.arn.clone(),
                spot::POLL,
            ));
        }
        self.keep_sessions(api, registered, told).await
    }

    /// Registers when the instance is to be in service; what it is called is then known to the endpoints.
    async fn register(&self, api: &EcsApi, notifier: &Notifier) -> Result<Registered, Failure> {
        if self.config.warm_pools_check {
            notifier.status("waiting for the warm pool to let the instance into service");
            let left = lifecycle::leave_warm_pool(&self.imds, &lifecycle::WarmPoolTimings::default()).await;
            left.map_err(|error| Failure::terminal(chain(&error)))?;
        }
        notifier.status("registering");
        let registrar = Registrar {
            config: &self.config,
            imds: &self.imds,
            account: &self.account,
            facts: &self.facts,
            abilities: &self.abilities,
            stored: &self.stored,
            recalled: self.recalled.as_deref(),
            store: &self.store,
        };
        let registered = registrar.register(api).await?;
        self.instance.send_modify(|instance| {
            instance.cluster = registered.cluster.clone();
            instance.arn = Some(registered.arn.clone());
            let told = |zone: &String| !zone.is_empty() && !self.config.task_metadata_az_disabled;
            instance.availability_zone = Some(registered.availability_zone.clone()).filter(told);
        });
        notifier.ready(&format!("registered with cluster {}", registered.cluster));
        Ok(registered)
    }

    /// Both websockets, for as long as ACS lasts.
    async fn keep_sessions(
        &mut self,
        api: EcsApi,
        registered: Registered,
        told: Arc<telemetry::Told>,
    ) -> Failure {
        let timeline = self.stored.meta.get(acs::MANIFEST_SEQUENCE).and_then(|text| text.parse().ok());
        let (events, inbox) = mpsc::channel(64);
        let context = AcsContext {
            api: api.clone(),
            account: self.account.clone(),
            cluster: registered.cluster.clone(),
            instance: registered.arn.clone(),
            roles: self.roles.clone(),
            timeline: timeline.unwrap_or(-1),
            updates: self.update_options(),
            timings: AcsTimings::default(),
        };
        self.background.spawn(control::acs::run(context, events));
        self.background.spawn(acs::forget_credentials(self.handle.view(), self.roles.clone()));
        let listeners = acs::Listeners {
            attachments: self.start_attachments(),
            doctor: self.doctor.clone(),
            drop_telemetry: Arc::new(Notify::new()),
        };
        let context = TcsContext {
            api,
            account: self.account.clone(),
            cluster: registered.cluster,
            instance: registered.arn,
            telemetry: told,
            drop_connection: listeners.drop_telemetry.clone(),
            timings: TcsTimings::default(),
        };
        self.background.spawn(control::tcs::run(context));
        match acs::serve(inbox, self.handle.clone(), self.store.clone(), listeners).await {
            acs::Ended::Session => Failure::retry("the ACS session ended"),
            acs::Ended::Update => {
                Failure { code: UPDATE, message: "a new agent is staged, and takes over".into() }
            }
        }
    }

    /// Updates are taken where they are on and have a place to go.
    fn update_options(&self) -> Option<UpdateOptions> {
        let directory = self.config.update_download_dir.clone().filter(|_| self.config.updates_enabled);
        directory.map(|directory| UpdateOptions::new(directory, self.account.identity.user_agent()))
    }

    fn start_attachments(&mut self) -> mpsc::Sender<attach::Announcement> {
        let (announce, announced) = mpsc::channel(64);
        let service = attach::Service {
            store: self.store.clone(),
            links: Arc::new(HostLinks),
            reporter: self.reporter.clone(),
            tasks: self.handle.view(),
            reconcile: attach::RECONCILE,
        };
        let stored = std::mem::take(&mut self.stored.attachments);
        self.background.spawn(service.run(stored, announced));
        announce
    }

    /// Metadata and introspection.
    fn start_endpoints(&mut self, told: Arc<telemetry::Told>) {
        let (snapshots, snapshot) = watch::channel(Arc::new(tmds::Snapshot::default()));
        let publish = glue::publish_snapshots(self.handle.view(), self.instance.subscribe(), snapshots);
        self.background.spawn(publish);
        let credentials =
            Arc::new(glue::Credentials { delivered: self.roles.clone(), tasks: self.handle.view() });
        let (steady, burst) = self.config.task_metadata_rps;
        let limit = RateLimit { per_second: steady, burst };
        let metadata = MetadataHandler::new(snapshot.clone(), credentials, limit);
        let metadata = if self.config.metrics_disabled { metadata } else { metadata.with_stats(told) };
        let cluster = cluster_or_default(&self.config);
        let ecs = ask::Ecs::new(self.account.clone(), cluster, self.roles.clone());
        let metadata = metadata.with_ecs(Arc::new(ecs));
        let metadata = match self.audit.clone() {
            Some(log) => metadata.with_audit(Arc::new(audit::Audit {
                log,
                tasks: self.handle.view(),
                instance: self.instance.subscribe(),
            })),
            None => metadata,
        };
        let introspection = IntrospectionHandler::new(snapshot, self.account.identity.full_version())
            .with_checks(self.doctor.clone())
            .with_pulls(Arc::new(glue::PullsUnderWay(self.pulls.clone())))
            .with_logs(Arc::new(glue::LogLosses { data_dir: self.config.data_dir.clone() }));
        for (name, address, handler) in [
            (
                "task metadata",
                self.config.task_metadata_address,
                Arc::new(metadata) as Arc<dyn tmds::Handler>,
            ),
            ("introspection", self.config.introspection_address, Arc::new(introspection)),
        ] {
            let server = Server::start(name, address, handler);
            self.background.spawn(async move {
                // Serves until it is dropped.
                let _server = server;
                std::future::pending::<()>().await;
            });
        }
    }
}
