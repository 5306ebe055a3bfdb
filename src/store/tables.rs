//! The tables within one redb file: writing a step, reading everything, setting records aside.
//! Knows nothing of paths, locks or damaged files; `disk` does.

use super::envelope::{self, RecordError};
use super::record::{AttachmentRecord, MetaRecord, ProgressRecord, TaskRecord};
use crate::model::{Attachment, TaskArn, TaskId, TaskProgress};
use crate::ports::{Loaded, StoreChange};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use std::collections::BTreeMap;
use std::sync::Arc;

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const TASKS: Table = TableDefinition::new("tasks");
const PROGRESS: Table = TableDefinition::new("progress");
const META: Table = TableDefinition::new("meta");
const ATTACHMENTS: Table = TableDefinition::new("attachments");
/// Values as they were found, under `<table>/<key>`.
const QUARANTINE: Table = TableDefinition::new("quarantine");

/// How many records the quarantine holds; beyond it, the first by key go.
const QUARANTINE_MAX: u64 = 256;

/// A failure of redb, as text with its kind kept by the caller.
pub(crate) type TableResult<T> = Result<T, redb::Error>;

/// A record that did not read.
pub(crate) struct Unreadable {
    table: Table,
    key: String,
    value: Vec<u8>,
    /// Why.
    pub(crate) error: RecordError,
}

impl Unreadable {
    /// `<table>/<key>`.
    pub(crate) fn place(&self) -> String {
        use redb::TableHandle;
        format!("{}/{}", self.table.name(), self.key)
    }
}

/// Makes the tables, so that reading never meets a missing one.
pub(crate) fn prepare(db: &Database) -> TableResult<()> {
    let tx = db.begin_write()?;
    for table in [TASKS, PROGRESS, META, ATTACHMENTS, QUARANTINE] {
        tx.open_table(table)?;
    }
    Ok(tx.commit()?)
}

/// One transaction, durable when this returns (redb's default, said here because all rests on it).
pub(crate) fn write(db: &Database, changes: &[StoreChange]) -> TableResult<()> {
    let mut tx = db.begin_write()?;
    tx.set_durability(redb::Durability::Immediate)?;
    for change in changes {
        apply(&tx, change)?;
    }
    Ok(tx.commit()?)
}

fn apply(tx: &WriteTransaction, change: &StoreChange) -> TableResult<()> {
    match change {
        StoreChange::PutTask { id, source } => {
            put(tx, TASKS, id.as_str(), &TaskRecord { source: source.to_string() })
        }
        StoreChange::PutProgress { id, progress } => {
            put(tx, PROGRESS, id.as_str(), &ProgressRecord::from(progress))
        }
        StoreChange::RemoveTask(id) => {
            tx.open_table(TASKS)?.remove(id.as_str())?;
            tx.open_table(PROGRESS)?.remove(id.as_str())?;
            Ok(())
        }
        StoreChange::PutMeta(key, value) => put(tx, META, key, &MetaRecord { value: value.clone() }),
        StoreChange::PutAttachment(attachment) => {
            put(tx, ATTACHMENTS, &attachment.mac.to_string(), &AttachmentRecord::from(attachment))
        }
        StoreChange::RemoveAttachment(mac) => {
            tx.open_table(ATTACHMENTS)?.remove(mac.to_string().as_str())?;
            Ok(())
        }
    }
}

fn put(tx: &WriteTransaction, table: Table, key: &str, record: &impl serde::Serialize) -> TableResult<()> {
    use redb::TableHandle;
    // Records are maps of strings and numbers: they always serialise.
    let body = serde_json::to_string(record)
        .map_err(|e| redb::Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidInput, e)))?;
    let sealed = envelope::seal(table.name(), key, &body);
    tx.open_table(table)?.insert(key, sealed.as_bytes())?;
    Ok(())
}

/// Writes all that was read of another file, in one transaction.
pub(crate) fn restore(db: &Database, kept: &Loaded) -> TableResult<()> {
    let tx = db.begin_write()?;
    for (id, source, progress) in &kept.tasks {
        apply(&tx, &StoreChange::PutTask { id: id.clone(), source: source.clone() })?;
        if let Some(progress) = progress {
            put(&tx, PROGRESS, id.as_str(), &ProgressRecord::from(progress))?;
        }
    }
    for (key, value) in &kept.meta {
        put(&tx, META, key, &MetaRecord { value: value.clone() })?;
    }
    for attachment in &kept.attachments {
        apply(&tx, &StoreChange::PutAttachment(attachment.clone()))?;
    }
    Ok(tx.commit()?)
}

/// Reads everything; what does not read is listed, not changed.
pub(crate) fn read(db: &Database) -> TableResult<(Loaded, Vec<Unreadable>)> {
    let mut bad = Vec::new();
    let meta = records(db, META, &mut bad, |_, r: MetaRecord| Ok(r.value))?;
    let attachments = records(db, ATTACHMENTS, &mut bad, |key, r: AttachmentRecord| {
        let attachment = Attachment::try_from(r)?;
        if attachment.mac.to_string() == key {
            Ok(attachment)
        } else {
            Err("it is of another address".to_owned())
        }
    })?;
    let tasks = records(db, TASKS, &mut bad, |key, r: TaskRecord| Ok((task_id(key)?, r.source)))?;
    let mut progress = records(db, PROGRESS, &mut bad, |_, r: ProgressRecord| TaskProgress::try_from(r))?;
    let tasks =
        tasks.into_iter().map(|(key, (id, source))| (id, Arc::from(source), progress.remove(&key))).collect();
    // Progress of a task that is not there says nothing any more: its task did not read.
    for key in progress.into_keys() {
        let value = value_of(db, PROGRESS, &key)?;
        let error = RecordError::Body("its task is missing or unreadable".to_owned());
        bad.push(Unreadable { table: PROGRESS, key, value, error });
    }
    let attachments = attachments.into_values().collect();
    Ok((Loaded { tasks, meta, attachments, quarantined: bad.len() }, bad))
}

/// Moves records out of the way, in one transaction.
pub(crate) fn quarantine(db: &Database, bad: &[Unreadable]) -> TableResult<()> {
    let tx = db.begin_write()?;
    {
        let mut aside = tx.open_table(QUARANTINE)?;
        for one in bad {
            aside.insert(one.place().as_str(), one.value.as_slice())?;
            tx.open_table(one.table)?.remove(one.key.as_str())?;
        }
        while aside.len()? > QUARANTINE_MAX {
            aside.pop_first()?;
        }
    }
    Ok(tx.commit()?)
}

fn records<R: serde::de::DeserializeOwned, T>(
    db: &Database,
    table: Table,
    bad: &mut Vec<Unreadable>,
    convert: impl Fn(&str, R) -> Result<T, String>,
) -> TableResult<BTreeMap<String, T>> {
    use redb::TableHandle;
    let mut good = BTreeMap::new();
    for entry in db.begin_read()?.open_table(table)?.iter()? {
        let (key, value) = entry?;
        let (key, value) = (key.value(), value.value());
        let record = envelope::open(table.name(), key, value).and_then(|body| {
            let record = serde_json::from_str(body).map_err(|e| RecordError::Body(e.to_string()))?;
            convert(key, record).map_err(RecordError::Body)
        });
        match record {
            Ok(record) => drop(good.insert(key.to_owned(), record)),
            Err(error) => bad.push(Unreadable { table, key: key.to_owned(), value: value.to_vec(), error }),
        }
    }
    Ok(good)
}

fn value_of(db: &Database, table: Table, key: &str) -> TableResult<Vec<u8>> {
    let value = db.begin_read()?.open_table(table)?.get(key)?;
    Ok(value.map(|v| v.value().to_vec()).unwrap_or_default())
}

/// A key back into an id, through the one check that ids have: the end of an ARN.
fn task_id(key: &str) -> Result<TaskId, String> {
    let bad = || format!("{key:?} is not a task id");
    let id = TaskArn::parse(&format!("arn:aws:ecs:::task/{key}")).map_err(|_| bad())?.id();
    if id.as_str() == key { Ok(id) } else { Err(bad()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes raw bytes where a record should be.
    pub(crate) fn poke(db: &Database, table: &str, key: &str, value: &[u8]) {
        let table = [TASKS, PROGRESS, META, ATTACHMENTS]
            .into_iter()
            .find(|t| redb::TableHandle::name(t) == table)
            .unwrap();
        let tx = db.begin_write().unwrap();
        tx.open_table(table).unwrap().insert(key, value).unwrap();
        tx.commit().unwrap();
    }

    /// How many records are set aside.
    pub(crate) fn set_aside(db: &Database) -> u64 {
        db.begin_read().unwrap().open_table(QUARANTINE).unwrap().len().unwrap()
    }

    #[test]
    fn ids_are_checked() {
        assert_eq!(task_id("a-1").unwrap().as_str(), "a-1");
        for bad in ["", "..", "a/b", "a b"] {
            assert!(task_id(bad).is_err(), "{bad}");
        }
    }
}
