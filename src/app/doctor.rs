//! Checks of the host itself (spec/control-plane.md 6.5). There is one: whether containerd answers. It
//! runs with each heartbeat of ACS, as the original's, and every ten seconds by itself. What it finds is
//! told over TCS, by the introspection endpoint and in the log, and has no other effect.
//!
//! A check of its own accord is told over TCS only where it finds the opposite of what was told: then
//! the control plane need not wait for its next heartbeat to learn of it.

use crate::containerd::Connection;
use crate::model::{CheckStatus, InstanceCheck, Wall};
use crate::tmds::ChecksLookup;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// How long containerd may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two checks that nobody asked for.
const EVERY: Duration = Duration::from_secs(10);

/// Runs checks, and remembers their outcome.
#[derive(Debug)]
pub struct Doctor {
    connection: Connection,
    asked: Notify,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    /// As it is told over TCS.
    check: InstanceCheck,
    /// When it ran last: told the next time.
    last_run: Wall,
    /// As it is told on this host: the newest, whoever asked for it.
    newest: InstanceCheck,
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

    /// Runs the checks whenever they are asked for, and every now and then. Never ends.
    pub async fn run(&self) {
        loop {
            // Both only say when: cancel-safe.
            let asked = tokio::select! {
                () = self.asked.notified() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            let found = match tokio::time::timeout(LIMIT, self.connection.version()).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => {
                    let limit = humantime::format_duration(LIMIT);
                    Err(format!("containerd did not answer within {limit}"))
                }
            };
            self.lock().found(found, asked, SystemTime::now().into());
        }
    }

    /// The newest outcome, for the control plane.
    pub fn checks(&self) -> Vec<InstanceCheck> {
        vec![self.lock().check.clone()]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChecksLookup for Doctor {
    fn checks(&self) -> Vec<InstanceCheck> {
        vec![self.lock().newest.clone()]
    }
}

impl Record {
    fn new(now: Wall) -> Self {
        let check = InstanceCheck {
            kind: "ContainerRuntime",
            status: CheckStatus::Initializing,
            last_updated: now,
            last_change: now,
            runs: 0,
            reason: None,
        };
        Self { newest: check.clone(), check, last_run: now }
    }

    fn found(&mut self, found: Result<(), String>, asked: bool, now: Wall) {
        let (status, reason) = match found {
            Ok(()) => (CheckStatus::Ok, None),
            Err(reason) => (CheckStatus::Impaired, Some(reason)),
        };
        let newest = &mut self.newest;
        if newest.status != status {
            newest.last_change = now;
            match &reason {
                Some(reason) => tracing::warn!(reason, "containerd is not well"),
                None if newest.status == CheckStatus::Impaired => tracing::info!("containerd is well again"),
                None => {}
            }
        }
        newest.status = status;
        newest.last_updated = now;
        newest.reason.clone_from(&reason);
        newest.runs += 1;
        let check = &mut self.check;
        // What was never told is not contradicted by all being well.
        let news = match check.status {
            CheckStatus::Initializing => status == CheckStatus::Impaired,
            told => told != status,
        };
        if !asked && !news {
            return;
        }
        check.runs += 1;
        if check.status != status {
            check.last_change = now;
        }
        check.status = status;
        check.reason = reason;
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
        let broken = || Err("broken".to_owned());
        record.found(Ok(()), true, Wall(10));
        assert_eq!(told(&record), (CheckStatus::Ok, 1, 10, 1));
        record.found(Ok(()), true, Wall(20));
        assert_eq!(told(&record), (CheckStatus::Ok, 10, 10, 2));
        record.found(broken(), true, Wall(30));
        assert_eq!(told(&record), (CheckStatus::Impaired, 20, 30, 3));
        assert_eq!(record.check.reason, Some("broken".to_owned()));
    }

    #[test]
    fn a_check_that_nobody_asked_for_is_told_where_it_is_news() {
        let mut record = Record::new(Wall(1));
        let mut finds = |found: Result<(), &str>, asked, at| {
            record.found(found.map_err(str::to_owned), asked, Wall(at));
            (record.check.status, record.check.runs, record.newest.status, record.newest.last_change.0)
        };
        let (new, ok, bad) = (CheckStatus::Initializing, CheckStatus::Ok, CheckStatus::Impaired);
        assert_eq!(finds(Ok(()), false, 2), (new, 0, ok, 2));
        assert_eq!(finds(Ok(()), true, 3), (ok, 1, ok, 2));
        assert_eq!(finds(Ok(()), false, 4), (ok, 1, ok, 2));
        assert_eq!(finds(Err("hangs"), false, 5), (bad, 2, bad, 5));
        assert_eq!(finds(Err("is gone"), false, 6), (bad, 2, bad, 5));
        assert_eq!(finds(Ok(()), false, 7), (ok, 3, ok, 7));
        record = Record::new(Wall(1));
        record.found(Err("hangs".to_owned()), false, Wall(2));
        assert_eq!((record.check.status, record.check.runs), (bad, 1));
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
