use super::*;
use crate::model::{
    ContainerSpec, DockerVolume, MountPoint, TaskArn, VolumeBacking, VolumeScope, VolumeSource, VolumeSpec,
};
use std::collections::BTreeMap;

/// A service on a directory that goes with it.
struct Bench {
    root: PathBuf,
    service: VolumeService,
}

impl Bench {
    fn new(match_full_config: bool) -> Self {
        let root = std::env::temp_dir().join(format!("ecsd-volumes-{}", uuid::Uuid::new_v4()));
        let service = VolumeService::open(VolumeOptions { root, match_full_config }).unwrap();
        Self { root: service.0.root.clone(), service }
    }

    /// The agent ends, another one begins.
    fn restart(&mut self) {
        let options =
            VolumeOptions { root: self.root.clone(), match_full_config: self.service.0.match_full_config };
        self.service = VolumeService::open(options).unwrap();
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    fn is_mounted(&self, name: &str) -> bool {
        mountinfo::is_mounted(&self.data(name)).unwrap()
    }

    async fn provide(&self, spec: &TaskSpec) -> Result<(), String> {
        self.service.provide(spec).await.map_err(|reason| reason.to_string())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove::tree(&self.root).unwrap();
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn docker(scope: VolumeScope, autoprovision: bool, options: &[(&str, &str)]) -> DockerVolume {
    DockerVolume {
        scope,
        autoprovision,
        driver: String::new(),
        options: map(options),
        labels: BTreeMap::new(),
    }
}

/// A task whose one container mounts its one volume.
fn task(id: &str, source: VolumeSource) -> TaskSpec {
    let arn = TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap();
    let point = MountPoint { volume: "vol".into(), container_path: "/v".into(), read_only: false };
    TaskSpec {
        family: "f".into(),
        version: "1".into(),
        containers: vec![ContainerSpec { mounts: vec![point], ..ContainerSpec::empty("main") }],
        volumes: vec![VolumeSpec { name: "vol".into(), source }],
        ..TaskSpec::empty(arn)
    }
}

fn request(spec: &TaskSpec) -> VolumeRequest {
    match spec.backing(&spec.volumes[0]) {
        VolumeBacking::Named(request) => request,
        VolumeBacking::Host(path) => panic!("{path}"),
    }
}

fn user(name: &str) -> ContainerId {
    ContainerId::derive(&TaskArn::parse("arn:aws:ecs:r:1:task/c/u").unwrap(), name)
}

#[tokio::test]
async fn a_volume_of_the_task_is_made_once_and_goes_with_it() {
    let mut bench = Bench::new(false);
    let directory = bench.root.with_extension("task");
    for source in [VolumeSource::Task, VolumeSource::Docker(docker(VolumeScope::Task, false, &[]))] {
        let spec = task("a", source);
        let name = request(&spec).name;
        bench.provide(&spec).await.unwrap();
        std::fs::write(bench.data(&name).join("file"), "x").unwrap();
        std::fs::create_dir_all(directory.join("main")).unwrap();
        bench.restart();
        bench.provide(&spec).await.unwrap();
        assert!(bench.data(&name).join("file").exists(), "what was there is there");
        for _ in 0..2 {
            bench.service.remove(&spec, &directory).await.unwrap();
            assert!(!bench.root.join(&name).exists() && !directory.exists());
        }
    }
}

#[tokio::test]
async fn a_volume_that_nobody_mounts_is_not_made() {
    let bench = Bench::new(false);
    let mut spec = task("a", VolumeSource::Task);
    spec.containers[0].mounts.clear();
    bench.provide(&spec).await.unwrap();
    assert_eq!(std::fs::read_dir(&bench.root).unwrap().count(), 0);
}

#[tokio::test]
async fn a_shared_volume_outlives_every_task() {
    let mut bench = Bench::new(true);
    let shared = VolumeSource::Docker(docker(VolumeScope::Shared, true, &[]));
    let (one, two) = (task("a", shared.clone()), task("b", shared));
    bench.provide(&one).await.unwrap();
    std::fs::write(bench.data("vol").join("file"), "x").unwrap();
    bench.service.remove(&one, &bench.root.with_extension("none")).await.unwrap();
    bench.restart();
    bench.provide(&two).await.unwrap();
    assert!(bench.data("vol").join("file").exists());
}

#[tokio::test]
async fn what_must_be_there_and_is_not_ends_the_task_in_the_originals_words() {
    let bench = Bench::new(false);
    let wanted = task("a", VolumeSource::Docker(docker(VolumeScope::Shared, false, &[])));
    assert_eq!(
        bench.provide(&wanted).await.unwrap_err(),
        "initialize volume: volume detection failed, volume 'vol' does not exist and autoprovision is set to false: \
         get vol: no such volume"
    );
    // An operator makes one by making its directory.
    std::fs::create_dir_all(bench.data("vol")).unwrap();
    bench.provide(&wanted).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_there_must_match_only_where_that_is_asked_for() {
    let mut bench = Bench::new(false);
    let with = |labels: &[(&str, &str)], options: &[(&str, &str)]| {
        let volume = DockerVolume { labels: map(labels), ..docker(VolumeScope::Shared, true, options) };
        task("a", VolumeSource::Docker(volume))
    };
    let mount = [("type", "tmpfs"), ("device", "tmpfs")];
    bench.provide(&with(&[("b", "2"), ("a", "1")], &mount)).await.unwrap();
    bench.provide(&with(&[], &[])).await.unwrap();
    bench.service =
        VolumeService::open(VolumeOptions { root: bench.root.clone(), match_full_config: true }).unwrap();
    bench.provide(&with(&[("a", "1"), ("b", "2")], &mount)).await.unwrap();
    assert_eq!(
        bench.provide(&with(&[], &mount)).await.unwrap_err(),
        "intialize volume: non-autoprovisioned volume does not match existing volume labels: existing: map[a:1 b:2], \
         expected: map[]"
    );
    assert_eq!(
        bench.provide(&with(&[("a", "1"), ("b", "2")], &[])).await.unwrap_err(),
        "initialize volume: non-autoprovisioned volume does not match existing volume options: existing: \
         map[device:tmpfs type:tmpfs], expected: map[]"
    );
}

#[tokio::test]
async fn what_can_not_be_made_is_said_in_the_originals_words() {
    let bench = Bench::new(false);
    let plugin = DockerVolume { driver: "rexray/ebs".into(), ..docker(VolumeScope::Shared, true, &[]) };
    let with = |volume| task("a", VolumeSource::Docker(volume));
    let long = "x".repeat(256);
    let named = |name: &str| {
        let mut spec = with(docker(VolumeScope::Shared, true, &[]));
        spec.volumes[0].name = name.to_owned();
        spec
    };
    for (spec, words) in [
        (
            with(plugin),
            "create vol: error looking up volume plugin rexray/ebs: plugin \"rexray/ebs\" not found",
        ),
        (
            with(docker(VolumeScope::Task, true, &[])),
            "volume [vol] : task scoped volume could not be autoprovisioned",
        ),
        (
            with(docker(VolumeScope::Shared, true, &[("o", "ro")])),
            "create vol: missing required option: \"device\"",
        ),
        (named("../vol"), "create ../vol: \"../vol\" includes invalid characters for a local volume name"),
        (named(&long), "file name too long"),
    ] {
        let told = bench.provide(&spec).await.unwrap_err();
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(std::fs::read_dir(&bench.root).unwrap().count(), 0, "nothing is left of a failure");
}

#[tokio::test]
async fn a_mount_is_there_for_as_long_as_anybody_uses_it() {
    let mut bench = Bench::new(false);
    let tmpfs = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=1750")];
    let spec = task("a", VolumeSource::Docker(docker(VolumeScope::Shared, true, &tmpfs)));
    bench.provide(&spec).await.unwrap();
    assert!(!bench.is_mounted("vol"), "nobody uses it yet");
    let named = [VolumeUse::Named(request(&spec))];
    let paths = bench.service.attach(&user("one"), &named).await.unwrap();
    assert_eq!(paths, [bench.data("vol")]);
    assert!(bench.is_mounted("vol"));
    std::fs::write(bench.data("vol").join("file"), "x").unwrap();
    // Twice is once; and one that mounts what another has counts too.
    bench.service.attach(&user("one"), &named).await.unwrap();
    let path = [VolumeUse::At(bench.data("vol").join("sub")), VolumeUse::At("/etc".into())];
    assert_eq!(bench.service.attach(&user("two"), &path).await.unwrap()[1], Path::new("/etc"));
    bench.restart();
    bench.service.detach(&user("one")).await.unwrap();
    bench.service.detach(&user("one")).await.unwrap();
    assert!(bench.data("vol").join("file").exists(), "two uses it");
    bench.service.detach(&user("two")).await.unwrap();
    assert!(!bench.is_mounted("vol"));
    assert!(std::fs::read_dir(bench.root.join("vol/users")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_mount_that_fails_leaves_no_user() {
    let bench = Bench::new(false);
    let bad = [("type", "nosuchfs"), ("device", "none")];
    let spec = task("a", VolumeSource::Docker(docker(VolumeScope::Task, false, &bad)));
    bench.provide(&spec).await.unwrap();
    let named = [VolumeUse::Named(request(&spec))];
    let told = bench.service.attach(&user("one"), &named).await.unwrap_err();
    let data = bench.data(&request(&spec).name);
    assert_eq!(told.name, "CannotStartContainerError");
    let words = format!(
        "error while mounting volume '{0}': failed to mount local volume: mount none:{0}: no such device",
        data.display()
    );
    assert_eq!(told.message, words);
    assert!(bench.service.0.users.volumes_of(&user("one")).is_empty());
}

#[tokio::test]
async fn binds_are_mounted_read_only_and_a_task_that_goes_takes_mounts_along() {
    let bench = Bench::new(false);
    let source = bench.root.with_extension("source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), "mine").unwrap();
    let device = source.to_str().unwrap().to_owned();
    let bind = [("type", "none"), ("device", device.as_str()), ("o", "bind,ro")];
    let spec = task("a", VolumeSource::Docker(docker(VolumeScope::Task, false, &bind)));
    bench.provide(&spec).await.unwrap();
    let name = request(&spec).name;
    bench.service.attach(&user("one"), &[VolumeUse::Named(request(&spec))]).await.unwrap();
    assert_eq!(std::fs::read_to_string(bench.data(&name).join("file")).unwrap(), "mine");
    assert!(std::fs::write(bench.data(&name).join("other"), "x").is_err(), "it is read-only");
    // What a container has mounted in it, and let spread, would keep it from going.
    bench.service.remove(&spec, &bench.root.with_extension("none")).await.unwrap();
    assert!(!bench.root.join(&name).exists());
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "mine", "what was bound stays");
    assert!(bench.service.0.users.volumes_of(&user("one")).is_empty());
    std::fs::remove_dir_all(source).unwrap();
}

#[tokio::test]
async fn what_was_bound_with_its_mounts_keeps_them() {
    let bench = Bench::new(false);
    let source = bench.root.with_extension("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    let mount = |at: &Path, kind: Option<&str>, flags| {
        nix::mount::mount(Some("tmpfs"), at, kind, flags, None::<&str>).unwrap();
    };
    use nix::mount::MsFlags;
    mount(&source, Some("tmpfs"), MsFlags::empty());
    mount(&source, None, MsFlags::MS_SHARED);
    std::fs::create_dir(source.join("sub")).unwrap();
    mount(&source.join("sub"), Some("tmpfs"), MsFlags::empty());
    std::fs::write(source.join("sub/file"), "mine").unwrap();
    let device = source.to_str().unwrap().to_owned();
    let bind = [("type", "none"), ("device", device.as_str()), ("o", "rbind")];
    let spec = task("a", VolumeSource::Docker(docker(VolumeScope::Shared, true, &bind)));
    bench.provide(&spec).await.unwrap();
    bench.service.attach(&user("one"), &[VolumeUse::Named(request(&spec))]).await.unwrap();
    assert!(bench.data("vol").join("sub/file").exists());
    // One mount upon the other, as a container with the right to may leave them; it goes nowhere else.
    mount(&bench.data("vol"), None, MsFlags::MS_PRIVATE);
    mount(&bench.data("vol"), Some("tmpfs"), MsFlags::empty());
    bench.service.detach(&user("one")).await.unwrap();
    assert!(!bench.is_mounted("vol") && !bench.data("vol").join("sub").exists());
    assert_eq!(std::fs::read_to_string(source.join("sub/file")).unwrap(), "mine");
    mountinfo::detach(&source).unwrap();
    std::fs::remove_dir_all(source).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_hangs_holds_up_nobody_elses() {
    let bench = Bench::new(false);
    let (inner, hung) = (bench.service.0.clone(), std::sync::mpsc::channel::<()>());
    let (begun, is_begun) = tokio::sync::oneshot::channel();
    let hanging = tokio::task::spawn_blocking(move || {
        inner.locked("hangs", || {
            begun.send(()).unwrap();
            let _ = hung.1.recv();
        });
    });
    is_begun.await.unwrap();
    let named = |name: &str| [VolumeUse::Named(VolumeRequest::local(name))];
    bench.service.attach(&user("one"), &named("other")).await.unwrap();
    let waits = named("hangs");
    let (service, two) = (bench.service.clone(), user("two"));
    let waits = tokio::spawn(async move { service.attach(&two, &waits).await });
    assert!(!waits.is_finished());
    drop(hung.0);
    hanging.await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap(), [bench.data("hangs")]);
    assert!(bench.service.0.locks().is_empty(), "no lock outlives its use");
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_told_and_a_half_made_volume_is_made_whole() {
    let bench = Bench::new(false);
    let shared = task("a", VolumeSource::Docker(docker(VolumeScope::Shared, true, &[])));
    // A crash before the last step.
    std::fs::create_dir_all(bench.root.join("vol")).unwrap();
    std::fs::write(bench.root.join("vol/volume.json"), "{").unwrap();
    bench.provide(&shared).await.unwrap();
    assert!(bench.data("vol").is_dir());
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bench.root.join("vol/volume.json")).unwrap()).unwrap();
    assert_eq!(record["version"], 1);
    for text in ["{", r#"{"version":9,"driver":"local"}"#] {
        std::fs::write(bench.root.join("vol/volume.json"), text).unwrap();
        let told = bench.provide(&shared).await.unwrap_err();
        assert!(told.contains("volume.json, can't be read"), "{told}");
    }
}

/// Written once, by the first version, and never again: it must read for ever.
#[test]
fn the_first_versions_record_reads() {
    let bench = Bench::new(false);
    let old = include_str!("../../../tests/fixtures/store/volume-v1.json");
    std::fs::write(bench.root.join("volume.json"), old).unwrap();
    let volume = Volume {
        options: map(&[("o", "ro"), ("type", "none"), ("device", "/x")]),
        labels: map(&[("a", "1")]),
    };
    assert_eq!(Volume::read(&bench.root).unwrap(), volume);
}
