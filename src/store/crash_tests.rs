//! Power cuts and damage, simulated over a storage that tells what was synced from what was only written.
//!
//! The rule under test: whatever was committed is there, whatever comes back was committed as one
//! piece, and nothing ever panics out of the store.

use super::disk_tests::{Dir, id};
use super::{FILE_NAME, RedbStore, tables};
use crate::model::{TaskProgress, Wall};
use crate::ports::{Loaded, Store, StoreChange};
use redb::{Builder, StorageBackend};
use std::sync::{Arc, Mutex};

/// A disk with a volatile cache.
#[derive(Debug, Clone, Default)]
struct CrashyDisk(Arc<Mutex<Platters>>);

#[derive(Debug, Clone, Default)]
struct Platters {
    synced: Vec<u8>,
    now: Vec<u8>,
}

impl StorageBackend for CrashyDisk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let disk = self.0.lock().unwrap();
        let from = disk.now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.now.resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.synced = disk.now.clone();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().unwrap();
        disk.now[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// A small deterministic generator: cuts must be repeatable.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

/// The n-th step of the history: one task's progress and the agent's own counter, in one commit.
fn step(n: u64) -> Vec<StoreChange> {
    let progress = TaskProgress {
        stopped_at: Some(Wall(n)),
        reason: "r".repeat((n % 700) as usize),
        ..TaskProgress::default()
    };
    let task = id(&format!("t{}", n % 7));
    vec![
        StoreChange::PutTask { id: task.clone(), source: format!("{n}").into() },
        StoreChange::PutProgress { id: task, progress },
        StoreChange::PutMeta("step", n.to_string()),
    ]
}

/// What must hold of whatever was read back, with `least` the last commit that returned.
fn check(loaded: &Loaded, least: u64, most: u64) {
    let step: u64 = loaded.meta.get("step").map_or(0, |s| s.parse().unwrap());
    assert!((least..=most).contains(&step), "step {step}, committed {least}, begun {most}");
    for (task, source, progress) in &loaded.tasks {
        let n: u64 = source.parse().unwrap();
        let progress = progress.as_ref().expect("written together");
        assert_eq!(progress.stopped_at, Some(Wall(n)), "{task}: two halves of one commit");
        assert!(n <= step && step - n < 7, "{task} holds step {n} at step {step}");
    }
    assert_eq!(loaded.tasks.len() as u64, step.min(7));
}

fn open(disk: &CrashyDisk) -> redb::Database {
    let db = Builder::new().set_check_integrity_on_open(true).create_with_backend(disk.clone()).unwrap();
    tables::prepare(&db).unwrap();
    db
}

#[test]
fn a_power_cut_at_any_write_loses_nothing_committed() {
    let disk = CrashyDisk::default();
    let db = open(&disk);
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for n in 1..=40 {
        let before = disk.0.lock().unwrap().synced.clone();
        tables::write(&db, &step(n)).unwrap();
        let after = disk.0.lock().unwrap().synced.clone();
        let changed: Vec<usize> = (0..after.len() / 512)
            .filter(|s| before.get(s * 512..(s + 1) * 512) != after.get(s * 512..(s + 1) * 512))
            .collect();
        for _ in 0..6 {
            // Any subset of the sectors that this commit touched reached the platters.
            let mut image = before.clone();
            image.resize(after.len(), 0);
            for sector in &changed {
                if dice.roll(2) == 0 {
                    let range = sector * 512..(sector + 1) * 512;
                    image[range.clone()].copy_from_slice(&after[range]);
                }
            }
            let lossy = CrashyDisk(Arc::new(Mutex::new(Platters { synced: image.clone(), now: image })));
            let (loaded, bad) = tables::read(&open(&lossy)).unwrap();
            assert!(bad.is_empty());
            check(&loaded, n - 1, n);
        }
    }
}

#[test]
fn damage_anywhere_never_panics_and_never_yields_a_false_record() {
    let dir = Dir::new("damage");
    let history = 25;
    {
        let store = RedbStore::open(&dir.0).unwrap();
        (1..=history).for_each(|n| store.commit(&step(n)).unwrap());
    }
    let good = std::fs::read(dir.0.join(FILE_NAME)).unwrap();
    let mut dice = Dice(42);
    for case in 0..150 {
        let here = dir.0.join(case.to_string());
        std::fs::create_dir(&here).unwrap();
        let mut image = good.clone();
        match case % 3 {
            0 => image.truncate(dice.roll(good.len())),
            1 => (0..3).for_each(|_| {
                let at = dice.roll(good.len().min(160 * 1024));
                image[at] ^= 1 << dice.roll(8);
            }),
            _ => {
                let at = dice.roll(good.len() / 4096) * 4096;
                image[at..at + 4096].fill(dice.roll(256) as u8);
            }
        }
        std::fs::write(here.join(FILE_NAME), image).unwrap();
        let store = RedbStore::open(&here).unwrap();
        let loaded = store.load().unwrap();
        for (task, source, progress) in &loaded.tasks {
            let n: u64 = source.parse().unwrap();
            assert_eq!(*task, id(&format!("t{}", n % 7)));
            assert!(n > history - 7, "case {case}: {task} is from step {n}");
            assert!(progress.iter().all(|p| p.stopped_at == Some(Wall(n))));
        }
        store.commit(&step(history + 1)).unwrap();
        assert_eq!(store.load().unwrap().meta["step"], (history + 1).to_string());
        std::fs::remove_dir_all(&here).unwrap();
    }
}
