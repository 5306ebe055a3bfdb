//! SELinux on this host: the policy's labels for containers, and the label that new files get. Blocking;
//! what is made of them is decided in `spec::confinement`.

use crate::containerd::spec::facts::SelinuxContexts;
use std::path::Path;

/// The thread's label for files that it makes from now on; empty is the policy's own.
const FILE_LABEL: &str = "/proc/thread-self/attr/fscreate";

/// The labels of the loaded policy; `None` where SELinux is off, or has none for containers.
pub fn contexts() -> Option<SelinuxContexts> {
    contexts_below(Path::new("/"))
}

fn contexts_below(root: &Path) -> Option<SelinuxContexts> {
    if !root.join("sys/fs/selinux/enforce").exists() {
        return None;
    }
    let directory = root.join("etc/selinux");
    let config = std::fs::read_to_string(directory.join("config")).ok()?;
    let policy = value(&config, "SELINUXTYPE").filter(|name| !name.contains('/'))?;
    let contexts = std::fs::read_to_string(directory.join(policy).join("contexts/lxc_contexts")).ok()?;
    let context = |key| value(&contexts, key).filter(|label| label.split(':').count() >= 3);
    Some(SelinuxContexts { process: context("process")?.to_owned(), file: context("file")?.to_owned() })
}

/// `key = "value"`, with or without quotation marks; the last line counts.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| {
        let (name, value) = line.trim().split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    };
    text.lines().rev().find_map(of_line).filter(|value| !value.is_empty())
}

/// Does work whose new files get this label.
///
/// # Errors
/// The work's own, or the kernel's word on the label.
pub fn labelled<T, E: From<std::io::Error>>(
    label: Option<&str>,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let Some(label) = label else { return work() };
    std::fs::write(FILE_LABEL, label)?;
    let done = work();
    std::fs::write(FILE_LABEL, "")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policys_labels_are_read_where_selinux_is_on() {
        let root = std::env::temp_dir().join(format!("ecsd-selinux-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/selinux/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
        write(
            "etc/selinux/targeted/contexts/lxc_contexts",
            "process = \"system_u:system_r:container_t:s0\"\n\
             file = \"system_u:object_r:container_file_t:s0\"\nro_file=\"system_u:object_r:container_ro_file_t:s0\"\n",
        );
        assert_eq!(contexts_below(&root), None, "off");
        write("sys/fs/selinux/enforce", "1");
        let found = contexts_below(&root).unwrap();
        assert_eq!(found.process, "system_u:system_r:container_t:s0");
        assert_eq!(found.file, "system_u:object_r:container_file_t:s0");
        write("etc/selinux/config", "SELINUXTYPE=../../elsewhere\n");
        assert_eq!(contexts_below(&root), None);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn without_a_label_the_work_is_just_done() {
        assert_eq!(labelled::<_, std::io::Error>(None, || Ok(5)).unwrap(), 5);
    }
}
