//! Checks of the host itself, as of the last heartbeat of ACS (spec/control-plane.md 6.5). There is one:
//! whether containerd answers. What it finds is told over TCS and has no other effect.

use crate::containerd::Connection;
use crate::model::{CheckStatus, InstanceCheck, Wall};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// How long containerd may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Runs checks when asked, and remembers their outcome.
#[derive(Debug)]
pub struct Doctor {
    connection: Connection,
    asked: Notify,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    /// As it is told.
    check: InstanceCheck,
    /// When it ran last: told the next time.
    last_run: Wall,
}

impl Doctor {
    /// Of a host on which nothing was checked yet.
    pub fn new(connection: Connection) -> Self {
        Self { connection, asked: Notify::new(), record: Mutex::new(Record::new(SystemTime::now().into())) }
    }

    /// Asks for the checks to be run. Asked again before they began, they run once.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Runs the checks whenever they are asked for. Never ends.
    pub async fn run(&self) {
        loop {
            self.asked.notified().await;
            let status = match tokio::time::timeout(LIMIT, self.connection.version()).await {
                Ok(Ok(_)) => CheckStatus::Ok,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "containerd is not well");
                    CheckStatus::Impaired
                }
                Err(_) => {
                    tracing::warn!(limit = ?LIMIT, "containerd did not answer in time");
                    CheckStatus::Impaired
                }
            };
            self.lock().found(status, SystemTime::now().into());
        }
    }

    /// The newest outcome.
    pub fn checks(&self) -> Vec<InstanceCheck> {
        vec![self.lock().check]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn new(now: Wall) -> Self {
        let status = CheckStatus::Initializing;
        let kind = "ContainerRuntime";
        let check = InstanceCheck { kind, status, last_updated: now, last_change: now, runs: 0 };
        Self { check, last_run: now }
    }

    fn found(&mut self, status: CheckStatus, now: Wall) {
        let check = &mut self.check;
        check.runs += 1;
        if check.status != status {
            check.last_change = now;
        }
        check.status = status;
        check.last_updated = std::mem::replace(&mut self.last_run, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_tells_when_the_one_before_was_and_when_the_outcome_changed() {
        let mut record = Record::new(Wall(1));
        let told = |record: &Record| {
            let InstanceCheck { status, last_updated, last_change, runs, .. } = record.check;
            (status, last_updated.0, last_change.0, runs)
        };
        assert_eq!(told(&record), (CheckStatus::Initializing, 1, 1, 0));
        record.found(CheckStatus::Ok, Wall(10));
        assert_eq!(told(&record), (CheckStatus::Ok, 1, 10, 1));
        record.found(CheckStatus::Ok, Wall(20));
        assert_eq!(told(&record), (CheckStatus::Ok, 10, 10, 2));
        record.found(CheckStatus::Impaired, Wall(30));
        assert_eq!(told(&record), (CheckStatus::Impaired, 20, 30, 3));
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_impaired() {
        let socket = std::path::Path::new("/nonexistent/containerd.sock");
        let doctor = Doctor::new(Connection::new(socket, "ecs").unwrap());
        doctor.ask();
        doctor.ask();
        let found = async {
            while doctor.checks()[0].runs == 0 {
                tokio::task::yield_now().await;
            }
        };
        // Either ends the test; `run` never does by itself.
        tokio::select! {
            () = doctor.run() => {}
            () = found => {}
        }
        assert_eq!(doctor.checks()[0].status, CheckStatus::Impaired);
    }
}
