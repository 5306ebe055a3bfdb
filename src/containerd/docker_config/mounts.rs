//! `Binds`, `Mounts` and `VolumesFrom` of a host config, by the rules of Docker's parser. Pure; used by
//! `merge` alone.

use crate::containerd::json::Fields;
use crate::containerd::spec::mounts::clean;
use std::collections::BTreeMap;

/// `[source:]target[:options]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path of the host, or the name of a volume; empty is a volume without a name.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` where nothing was said.
    pub propagation: Option<String>,
    /// A new volume is not filled from the image.
    pub no_copy: bool,
    /// What becomes of its SELinux labels.
    pub relabel: Relabel,
}

/// What becomes of the SELinux labels of what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relabel {
    /// They stay.
    #[default]
    No,
    /// As for `z`, where processes have labels: nothing was said, and it is a volume.
    WithProcesses,
    /// `z`: any container may use it.
    Shared,
    /// `Z`: this container alone may.
    Private,
}

/// An entry of `Mounts` that is no tmpfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path in the container, clean.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
}

/// What an entry of `Mounts` mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute and clean.
        path: String,
        /// `rprivate` where nothing was said.
        propagation: Option<String>,
        /// What is mounted below it does not come along.
        without_submounts: bool,
        /// It is made where it is missing; else that is an error.
        make: bool,
    },
    /// A volume.
    Volume {
        /// Its name; empty is one without a name.
        name: String,
        /// Its driver; empty is not said.
        driver: String,
        /// What the driver is told, where it is made.
        options: BTreeMap<String, String>,
        /// Labels, where it is made.
        labels: BTreeMap<String, String>,
        /// A new one is not filled from the image.
        no_copy: bool,
    },
}

/// An entry of `VolumesFrom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFrom {
    /// The container, by a name or an id.
    pub container: String,
    /// Read-only.
    pub read_only: bool,
}

/// An entry of `Mounts`.
pub(super) enum Request {
    Mount(MountRequest),
    Tmpfs { target: String, options: String },
}

/// The options of a bind. Of each kind there may be one.
#[derive(Default)]
struct Mode {
    read_only: Option<bool>,
    relabel: Option<Relabel>,
    propagation: Option<String>,
    no_copy: bool,
    consistency: bool,
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        let mut mode = Self::default();
        for option in text.split(',').filter(|_| !text.is_empty()) {
            let taken = match option {
                "ro" | "rw" => mode.read_only.replace(option == "ro").is_some(),
                "z" => mode.relabel.replace(Relabel::Shared).is_some(),
                "Z" => mode.relabel.replace(Relabel::Private).is_some(),
                "nocopy" => std::mem::replace(&mut mode.no_copy, true),
                // How far a Mac may lag behind.
                "consistent" | "cached" | "delegated" => std::mem::replace(&mut mode.consistency, true),
                _ => {
                    let word = propagation(option)?.to_owned();
                    mode.propagation.replace(word).is_some()
                }
            };
            if taken {
                return None;
            }
        }
        Some(mode)
    }
}

fn propagation(word: &str) -> Option<&str> {
    let known = matches!(word, "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate");
    known.then_some(word)
}

pub(super) fn bind(text: &str) -> Result<Bind, &'static str> {
    const WANT: &str = "[source:]target[:options] with an absolute target";
    const OPTIONS: &str = "a bind with known options, one of each kind: ro or rw, z or Z, nocopy, \
                           [r]shared, [r]slave or [r]private, consistent, cached or delegated";
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(WANT),
    };
    if !target.starts_with('/') || (parts.len() > 1 && source.is_empty()) {
        return Err(WANT);
    }
    let mode = Mode::parse(options).ok_or(OPTIONS)?;
    let of_host = source.starts_with('/');
    if mode.propagation.is_some() && !of_host {
        return Err("a bind whose source is a path, for propagation");
    }
    if mode.no_copy && of_host {
        return Err("a bind whose source is a volume, for nocopy");
    }
    Ok(Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: mode.read_only.unwrap_or(false),
        propagation: mode.propagation,
        no_copy: mode.no_copy,
        relabel: mode.relabel.unwrap_or_default(),
    })
}

/// What other containers share keeps its propagation, and is never filled.
pub(super) fn shared_from(text: &str) -> Result<SharedFrom, &'static str> {
    const WANT: &str = "name[:ro] or name[:rw] of other containers";
    let (container, options) = text.split_once(':').unwrap_or((text, ""));
    let mode = Mode::parse(options).filter(|mode| mode.propagation.is_none() && !mode.no_copy).ok_or(WANT)?;
    if container.is_empty() {
        return Err(WANT);
    }
    Ok(SharedFrom { container: container.to_owned(), read_only: mode.read_only.unwrap_or(false) })
}

pub(super) fn request(fields: &Fields<'_>) -> Result<Request, &'static str> {
    const WANT: &str =
        "{\"Type\", \"Source\", \"Target\", \"ReadOnly\"} with a target that is absolute and not the root";
    const FLAG: &str = "true or false for what is on or off";
    let target = fields.text("target").and_then(clean).filter(|target| target != "/").ok_or(WANT)?;
    let source = fields.text("source").unwrap_or_default();
    let read_only = fields.flag("readonly").ok_or(FLAG)?;
    let (of_bind, of_volume) = (fields.object("bindoptions"), fields.object("volumeoptions"));
    let kind = fields.text("type").unwrap_or_default();
    if (of_bind.is_some() && kind != "bind") || (of_volume.is_some() && kind != "volume") {
        return Err("the options of its own type alone");
    }
    let source = match kind {
        "bind" => {
            let flag =
                |name: &str| of_bind.as_ref().map_or(Some(false), |options| options.flag(name)).ok_or(FLAG);
            let word =
                of_bind.as_ref().and_then(|options| options.text("propagation")).filter(|w| !w.is_empty());
            let known = |word| propagation(word).ok_or("a propagation of [r]shared, [r]slave or [r]private");
            MountSource::Bind {
                path: clean(source).ok_or("an absolute path as the source of a bind")?,
                propagation: word.map(known).transpose()?.map(str::to_owned),
                without_submounts: flag("nonrecursive")?,
                make: flag("createmountpoint")?,
            }
        }
        "volume" => volume(source, read_only, of_volume.as_ref())?,
        "tmpfs" => {
            if !source.is_empty() {
                return Err("no source for a tmpfs");
            }
            return Ok(Request::Tmpfs { target, options: tmpfs_options(fields, read_only)? });
        }
        _ => return Err("a type of bind, volume or tmpfs"),
    };
    Ok(Request::Mount(MountRequest { source, target, read_only }))
}

fn volume(name: &str, read_only: bool, options: Option<&Fields<'_>>) -> Result<MountSource, &'static str> {
    const WANT: &str = "volume options {\"NoCopy\", \"Labels\", \"DriverConfig\": {\"Name\", \"Options\"}}";
    if read_only && name.is_empty() {
        return Err("a name for a volume that is read-only");
    }
    let driver = options.and_then(|options| options.object("driverconfig"));
    if options.and_then(|options| options.text("subpath")).is_some_and(|path| !path.is_empty()) {
        return Err("no Subpath, which this agent can't mount");
    }
    Ok(MountSource::Volume {
        name: name.to_owned(),
        driver: driver.as_ref().and_then(|driver| driver.text("name")).unwrap_or_default().to_owned(),
        options: driver.map_or(Some(BTreeMap::new()), |driver| driver.map("options")).ok_or(WANT)?,
        labels: options.map_or(Some(BTreeMap::new()), |options| options.map("labels")).ok_or(WANT)?,
        no_copy: options.map_or(Some(false), |options| options.flag("nocopy")).ok_or(WANT)?,
    })
}

/// As `Tmpfs` would say it: `ro,mode=1777,size=1024,exec`.
fn tmpfs_options(fields: &Fields<'_>, read_only: bool) -> Result<String, &'static str> {
    const WANT: &str = "tmpfs options {\"SizeBytes\", \"Mode\", \"Options\": [[\"exec\"]]}, not negative";
    let mut words = Vec::new();
    if read_only {
        words.push("ro".to_owned());
    }
    if let Some(options) = fields.object("tmpfsoptions") {
        let number = |name| options.signed(name).unwrap_or(0);
        let (mode, size) = (u64::try_from(number("mode")).map_err(|_| WANT)?, number("sizebytes"));
        if mode != 0 {
            words.push(format!("mode={mode:o}"));
        }
        if size < 0 {
            return Err(WANT);
        }
        if size > 0 {
            words.push(format!("size={size}"));
        }
        let more = options.entries().iter().find(|(name, _)| name.eq_ignore_ascii_case("options"));
        for option in more.and_then(|(_, list)| list.as_array()).into_iter().flatten() {
            let word = option.as_array().and_then(|pair| pair.first()?.as_str());
            match word {
                Some(word @ ("exec" | "noexec")) => words.push(word.to_owned()),
                _ => return Err(WANT),
            }
        }
    }
    Ok(words.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_read_by_dockers_rules() {
        let full = bind("/a:/b:ro,Z,rslave,cached").unwrap();
        assert_eq!((full.source.as_str(), full.target.as_str(), full.read_only), ("/a", "/b", true));
        assert_eq!((full.propagation.as_deref(), full.relabel), (Some("rslave"), Relabel::Private));
        let volume = bind("name:/b:nocopy,z").unwrap();
        assert!(volume.no_copy && !volume.read_only && volume.relabel == Relabel::Shared);
        assert_eq!(bind("/b").unwrap().source, "", "a volume without a name");
        for wrong in [
            "",
            "a",
            ":/b",
            "/a:b",
            "/a:/b:/c:ro",
            "/a:/b:rx",
            "/a:/b:ro,rw",
            "/a:/b:z,Z",
            "/a:/b:shared,slave",
            "/a:/b:ro,",
            "name:/b:rshared",
            "/a:/b:nocopy",
            "n:/b:nocopy,nocopy",
            "/a:ro",
        ] {
            assert!(bind(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_in_volumes_from_may_be_read_only() {
        let from = shared_from("db:ro").unwrap();
        assert_eq!((from.container.as_str(), from.read_only), ("db", true));
        assert!(!shared_from("db").unwrap().read_only && !shared_from("db:rw,z").unwrap().read_only);
        for wrong in ["", ":ro", "db:rslave", "db:nocopy", "db:x"] {
            assert!(shared_from(wrong).is_err(), "{wrong}");
        }
    }
}
