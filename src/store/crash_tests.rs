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

/// How many steps the damaged file holds.
const HISTORY: u64 = 25;

/// A good file, in memory where the host has such: thousands of copies of it are opened.
fn good_file(name: &str) -> (Dir, Vec<u8>) {
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { Dir::below(memory, name) } else { Dir::new(name) };
    {
        let store = RedbStore::open(&dir.0).unwrap();
        (1..=HISTORY).for_each(|n| store.commit(&step(n)).unwrap());
    }
    let good = std::fs::read(dir.0.join(FILE_NAME)).unwrap();
    (dir, good)
}

/// Opens a damaged file: what comes back is true, and it can be written to. Answers how many tasks are
/// left.
fn survives(dir: &Dir, image: &[u8], case: &str) -> usize {
    let here = dir.0.join("case");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join(FILE_NAME), image).unwrap();
    let store = RedbStore::open(&here).unwrap_or_else(|error| panic!("{case}: {error}"));
    let loaded = store.load().unwrap_or_else(|error| panic!("{case}: {error}"));
    for (task, source, progress) in &loaded.tasks {
        let n: u64 = source.parse().unwrap();
        assert_eq!(*task, id(&format!("t{}", n % 7)), "{case}");
        assert!(n > HISTORY - 7, "{case}: {task} is from step {n}");
        assert!(progress.iter().all(|p| p.stopped_at == Some(Wall(n))), "{case}");
    }
    store.commit(&step(HISTORY + 1)).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(store.load().unwrap().meta["step"], (HISTORY + 1).to_string(), "{case}");
    drop(store);
    std::fs::remove_dir_all(&here).unwrap();
    loaded.tasks.len()
}

#[test]
fn damage_anywhere_never_panics_and_never_yields_a_false_record() {
    let (dir, good) = good_file("damage");
    let seed = std::env::var("ECSD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42);
    println!("ECSD_SEED={seed}");
    let mut dice = Dice(seed);
    for case in 0..150 {
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
        survives(&dir, &image, &format!("case {case}"));
    }
}

/// A file that ends too early: at every byte of its last page, and here and there before it. In two
/// halves, since each takes its time.
fn cut(name: &str, half: usize) {
    let (dir, good) = good_file(name);
    let last = good.len() - 4096;
    for length in (0..last).step_by(1021).chain(last..good.len()).filter(|length| length % 2 == half) {
        survives(&dir, &good[..length], &format!("cut at {length} of {}", good.len()));
    }
}

#[test]
fn a_file_cut_at_any_even_byte_opens() {
    cut("cut-even", 0);
}

#[test]
fn a_file_cut_at_any_odd_byte_opens() {
    cut("cut-odd", 1);
}

/// One bit of what redb reads first, all over the header and both commit slots; then one of each page.
#[test]
fn a_flipped_bit_costs_at_most_what_it_is_in() {
    let (dir, good) = good_file("flip");
    let header = (0..320).map(|at| (at, at % 8));
    let pages =
        (1..good.len() / 4096).flat_map(|page| [0, 5, 64, 2048, 4095].map(|at| (page * 4096 + at, at % 8)));
    let mut whole = 0;
    let mut cases = 0;
    for (at, bit) in header.chain(pages) {
        let mut image = good.clone();
        image[at] ^= 1 << bit;
        whole += usize::from(survives(&dir, &image, &format!("bit {bit} of byte {at}")) == 7);
        cases += 1;
    }
    // Most of a file is either not read or told twice.
    println!("{whole} of {cases} lost nothing");
    assert!(whole * 2 > cases, "{whole} of {cases}");
}
