//! Who a container runs as: `user[:group]` against the image's own passwd and group files, by
//! Docker's rules (spec task-engine 2.2). Pure: `rootfs.rs` reads the files.

/// A user as the OCI spec wants it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The texts of an image's account files; empty where it has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    /// /etc/passwd
    pub passwd: String,
    /// /etc/group
    pub group: String,
}

/// Why a user can't be resolved. The words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name that the image doesn't know.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A name that the image doesn't know.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// Beyond 2147483647.
    #[error("uids and gids must be in range 0-2147483647: {0}")]
    Range(String),
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// Resolves `asked` (empty is root) and the groups asked for beside it.
///
/// # Errors
/// Names that the image doesn't know, ids out of range.
pub fn resolve(asked: &str, more_groups: &[String], accounts: &Accounts) -> Result<ResolvedUser, UserError> {
    let (user, group) = asked.split_once(':').unwrap_or((asked, ""));
    let wanted_uid = if user.is_empty() { Some(0) } else { id(user)? };
    let entry =
        users(&accounts.passwd).find(|e| (!user.is_empty() && e.name == user) || Some(e.uid) == wanted_uid);
    let mut resolved = match (&entry, wanted_uid) {
        (Some(entry), _) => ResolvedUser { uid: entry.uid, gid: entry.gid, groups: Vec::new() },
        (None, Some(uid)) => ResolvedUser { uid, ..ResolvedUser::default() },
        // Every system has one, named in a file or not.
        (None, None) if user == "root" => ResolvedUser::default(),
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    if group.is_empty() {
        let name = entry.map_or("", |entry| entry.name);
        let member = |members: &str| !name.is_empty() && members.split(',').any(|m| m == name);
        resolved.groups = groups(&accounts.group)
            .filter(|(_, _, members)| member(members))
            .map(|(_, gid, _)| gid)
            .collect();
    } else {
        resolved.gid = group_id(group, accounts)?;
    }
    for more in more_groups {
        let gid = group_id(more, accounts)?;
        if !resolved.groups.contains(&gid) {
            resolved.groups.push(gid);
        }
    }
    Ok(resolved)
}

fn group_id(asked: &str, accounts: &Accounts) -> Result<u32, UserError> {
    let number = id(asked)?;
    let entry = groups(&accounts.group).find(|(name, gid, _)| *name == asked || Some(*gid) == number);
    entry.map(|(_, gid, _)| gid).or(number).ok_or_else(|| UserError::NoGroup(asked.to_owned()))
}

/// A number, where the text is one at all.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse::<i32>().map_err(|_| UserError::Range(text.to_owned()))?;
    Ok(u32::try_from(number).ok())
}

/// Entries of a passwd text; lines that are none are skipped.
fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        Some(User { name, uid: id(uid).ok()??, gid: id(gid).ok()?? })
    })
}

/// Entries of a group text: name, id, members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some((name, id(gid).ok()??, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n# c\njunk\nweb:x:33:34::/:/x\n1000:x:7:7::/:\nbig:x:99999999999:1::/:\n".into(),
            group: "root:x:0:root\nwheel:x:10:root,web\nwww:x:34:\naudio:x:63:web\n".into(),
        }
    }

    fn ids(asked: &str) -> (u32, u32, Vec<u32>) {
        let user = resolve(asked, &[], &accounts()).unwrap();
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn dockers_rules() {
        assert_eq!(ids(""), (0, 0, vec![0, 10]));
        assert_eq!(ids("0"), ids("root"));
        assert_eq!(ids("web"), (33, 34, vec![10, 63]));
        assert_eq!(ids("33"), ids("web"));
        assert_eq!(ids("web:audio"), (33, 63, vec![]));
        assert_eq!(ids("500:600"), (500, 600, vec![]));
        assert_eq!(ids("500"), (500, 0, vec![]));
        assert_eq!(ids("1000"), (7, 7, vec![]), "a name made of digits is a name first");
    }

    #[test]
    fn an_image_without_accounts_has_root_and_numbers() {
        let none = Accounts::default();
        assert_eq!(resolve("root", &[], &none).unwrap(), ResolvedUser::default());
        assert_eq!(
            resolve("5", &["6".into()], &none).unwrap(),
            ResolvedUser { uid: 5, gid: 0, groups: vec![6] }
        );
    }

    #[test]
    fn unknown_names_and_absurd_numbers_are_errors() {
        let unknown = resolve("nobody", &[], &accounts()).unwrap_err().to_string();
        assert_eq!(unknown, "unable to find user nobody: no matching entries in passwd file");
        assert!(matches!(resolve("web:nope", &[], &accounts()), Err(UserError::NoGroup(_))));
        assert!(matches!(resolve("4294967295", &[], &accounts()), Err(UserError::Range(_))));
        assert!(matches!(resolve("-1", &[], &accounts()), Err(UserError::NoUser(_))));
    }
}
