//! What is kept of a volume beside its content: a small versioned JSON document, replaced as a whole.

use super::VolumeError;
use crate::model::LOCAL_DRIVER;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// File of the record in the volume's directory.
const FILE: &str = "volume.json";
/// The version of the document; what old agents can't read raises it.
const VERSION: u32 = 1;
/// No record is longer: 16 MiB is what a message of the control plane can hold.
const LONGEST: u64 = 32 << 20;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Volume {
    /// What the driver was told.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    driver: String,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Volume {
    /// Reads the record in a volume's directory. One that has none was made by hand: it has no options.
    pub fn read(home: &Path) -> Result<Self, VolumeError> {
        let path = home.join(FILE);
        let wrong = |why: String| VolumeError::Record { path: path.clone(), why };
        let text = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error.to_string())),
            Ok(about) if about.len() > LONGEST => return Err(wrong("it is too long".into())),
            Ok(_) => std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?,
        };
        let record: Record = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("it is of version {}, this agent reads {VERSION}", record.version)));
        }
        Ok(Self { options: record.options, labels: record.labels })
    }

    /// Writes the record; durable and whole when it returns.
    pub fn write(&self, home: &Path) -> Result<(), VolumeError> {
        let path = home.join(FILE);
        self.replace(home, &path).map_err(VolumeError::io("write", &path))
    }

    fn replace(&self, home: &Path, path: &Path) -> io::Result<()> {
        let record = Record {
            version: VERSION,
            driver: LOCAL_DRIVER.to_owned(),
            options: self.options.clone(),
            labels: self.labels.clone(),
        };
        let new = home.join(format!("{FILE}.new"));
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, &record)?;
        file.flush()?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(home)?.sync_all()
    }
}
