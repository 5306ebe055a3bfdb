//! The file on a real disk: permissions, locks, damage, a full disk.

use super::record::tests::full_progress;
use super::{RedbStore, tables};
use crate::model::{TaskArn, TaskId};
use crate::ports::{Store, StoreChange};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A directory that goes with the test.
pub(super) struct Dir(pub PathBuf);

impl Dir {
    pub(super) fn new(name: &str) -> Self {
        Self::below(&std::env::temp_dir(), name)
    }

    pub(super) fn below(directory: &Path, name: &str) -> Self {
        let path = directory.join(format!("ecsd-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn id(name: &str) -> TaskId {
    TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{name}")).unwrap().id()
}

fn launch(name: &str) -> [StoreChange; 3] {
    [
        StoreChange::PutTask { id: id(name), source: format!("{{\"arn\":\"{name}\"}}").into() },
        StoreChange::PutProgress { id: id(name), progress: full_progress() },
        StoreChange::PutMeta("cluster", "c".into()),
    ]
}

fn corrupt_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n != super::FILE_NAME);
    names.sort();
    names
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let dir = Dir::new("restart");
    let store = RedbStore::open(&dir.0.join("data")).unwrap();
    store.commit(&launch("a")).unwrap();
    store.commit(&launch("b")).unwrap();
    store.commit(&[StoreChange::RemoveTask(id("b"))]).unwrap();
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(store.path()), mode(&dir.0.join("data"))), (0o600, 0o700));
    drop(store);
    let loaded = RedbStore::open(&dir.0.join("data")).unwrap().load().unwrap();
    assert_eq!(loaded.tasks, [(id("a"), "{\"arn\":\"a\"}".into(), Some(full_progress()))]);
    assert_eq!((loaded.meta["cluster"].as_str(), loaded.quarantined), ("c", 0));
}

#[test]
fn a_second_agent_is_told() {
    let dir = Dir::new("second");
    let _first = RedbStore::open(&dir.0).unwrap();
    let error = RedbStore::open(&dir.0).unwrap_err().to_string();
    assert!(error.contains("second ecsd") && error.contains("ECS_DATADIR"), "{error}");
    assert!(corrupt_files(&dir.0).is_empty());
}

#[test]
fn one_bad_record_costs_one_record() {
    let dir = Dir::new("record");
    let store = RedbStore::open(&dir.0).unwrap();
    for name in ["a", "b", "c"] {
        store.commit(&launch(name)).unwrap();
    }
    store.peek(|db| {
        tables::tests::poke(db, "progress", "a", b"{\"v\":1,\"sum\":\"0000000000000000\",\"body\":{}}");
        tables::tests::poke(db, "tasks", "b", b"{\"v\":9}");
        tables::tests::poke(db, "tasks", "../etc", b"junk");
    });
    let loaded = store.load().unwrap();
    let names: Vec<_> = loaded.tasks.iter().map(|(id, _, p)| (id.to_string(), p.is_some())).collect();
    assert_eq!(names, [("a".to_owned(), false), ("c".to_owned(), true)]);
    // a's progress, b's task, b's progress that is left alone, the junk
    assert_eq!((loaded.quarantined, store.peek(tables::tests::set_aside)), (4, 4));
    assert_eq!(store.load().unwrap().quarantined, 0, "set aside once");
}

#[test]
fn rubbish_is_set_aside_and_a_fresh_file_started() {
    let dir = Dir::new("rubbish");
    for n in 1..=2 {
        std::fs::write(dir.0.join(super::FILE_NAME), vec![0xA5; 70_000]).unwrap();
        let store = RedbStore::open(&dir.0).unwrap();
        assert_eq!(store.load().unwrap().quarantined, 1);
        store.commit(&launch("a")).unwrap();
        assert_eq!(corrupt_files(&dir.0).len(), n);
    }
    assert_eq!(corrupt_files(&dir.0), ["ecsd.redb.corrupt-1", "ecsd.redb.corrupt-2"]);
}

/// A death between keeping the damaged file and starting the fresh one.
#[test]
fn a_damaged_file_that_was_half_replaced_is_replaced_once() {
    let dir = Dir::new("half-replaced");
    let file = dir.0.join(super::FILE_NAME);
    std::fs::write(&file, vec![0xA5; 70_000]).unwrap();
    std::fs::hard_link(&file, dir.0.join("ecsd.redb.corrupt-1")).unwrap();
    std::fs::write(dir.0.join("ecsd.fresh"), "half").unwrap();
    let store = RedbStore::open(&dir.0).unwrap();
    assert_eq!(store.load().unwrap().quarantined, 1);
    assert_eq!(corrupt_files(&dir.0), ["ecsd.redb.corrupt-1"]);
    assert_eq!(std::fs::read(dir.0.join("ecsd.redb.corrupt-1")).unwrap(), vec![0xA5; 70_000]);
}

#[test]
fn a_link_is_not_followed() {
    let dir = Dir::new("link");
    std::fs::write(dir.0.join("target"), "precious").unwrap();
    std::os::unix::fs::symlink(dir.0.join("target"), dir.0.join(super::FILE_NAME)).unwrap();
    assert!(RedbStore::open(&dir.0).is_err());
    assert_eq!(std::fs::read_to_string(dir.0.join("target")).unwrap(), "precious");
}

/// A full disk refuses commits; room again, the same store goes on, with nothing half written.
#[test]
fn a_full_disk_is_an_error_and_passes() {
    let dir = Dir::new("full");
    let small = Some("size=4m,mode=700");
    let flags = nix::mount::MsFlags::empty();
    if nix::mount::mount(Some("tmpfs"), &dir.0, Some("tmpfs"), flags, small).is_err() {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let store = RedbStore::open(&dir.0).unwrap();
        store.commit(&launch("a")).unwrap();
        let ballast = dir.0.join("ballast");
        let free = 4 << 20;
        let mut size = free;
        while std::fs::write(&ballast, vec![1; size]).is_err() {
            size -= 4096;
        }
        let big = "x".repeat(6 << 20);
        let refused = store.commit(&[StoreChange::PutMeta("big", big)]).unwrap_err();
        assert!(refused.to_string().contains("ecsd.redb"), "{refused}");
        std::fs::remove_file(&ballast).unwrap();
        store.commit(&launch("b")).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.tasks.len(), 2);
        assert!(!loaded.meta.contains_key("big"));
    });
    nix::mount::umount(&dir.0).unwrap();
    result.unwrap();
}
