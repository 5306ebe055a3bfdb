//! Names of volumes: what Docker takes, so that none leads out of the directory of volumes. Pure.

/// The longest name of a file.
const LONGEST: usize = 255;

/// Checks a name.
///
/// # Errors
/// What is wrong with it, in Docker's words.
pub(super) fn check(name: &str) -> Result<(), String> {
    let first = |c: char| c.is_ascii_alphanumeric();
    let fit = |c: char| first(c) || matches!(c, '_' | '.' | '-');
    if name.chars().count() == 1 {
        return Err("volume name is too short, names should be at least two alphanumeric characters".into());
    }
    if !name.starts_with(first) || !name.chars().all(fit) {
        let shown: String = name.chars().take(LONGEST).collect();
        return Err(format!(
            "{shown:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        ));
    }
    if name.len() > LONGEST {
        return Err("file name too long".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn hostile_names_are_refused() {
        for name in
            ["", ".", "..", "../a", "a/../b", "a/b", "/a", "a\0", "-a", "_a", ".a", "a b", "ü", "a", "a\n"]
        {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert!(check(&"a".repeat(256)).is_err());
        for name in ["a1", "ecs-f-1-v-00", "A.b_c-d", "a..", &"a".repeat(255)] {
            assert!(check(name).is_ok(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_that_is_taken_leads_anywhere_else(name in "(\\.|/|[a-c]|\\PC|\0){0,8}") {
            if check(&name).is_ok() {
                let parts: Vec<Component<'_>> = Path::new(&name).components().collect();
                prop_assert_eq!(parts, vec![Component::Normal(name.as_ref())]);
                let joined = Path::new("/root").join(&name);
                prop_assert_eq!(joined.parent(), Some(Path::new("/root")));
            }
        }
    }
}
