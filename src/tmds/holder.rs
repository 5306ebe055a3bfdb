//! Who holds a TCP port, from /proc: for the message when a bind fails.

use std::path::Path;

/// `<program> (pid <n>)` of the process that listens on the port; `None` where none is found.
pub(crate) fn listener_on(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&std::fs::read_to_string(table).ok()?, port))?;
    let link = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == link.as_str());
        if files.flatten().any(|file| holds(&file.path())) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    None
}

/// The inode of the socket in state LISTEN (0A) on the port, in the format of /proc/net/tcp.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = fields.get(1)?.rsplit(':').next()?;
        let listens = fields.get(3) == Some(&"0A") && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_find_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let held = listener_on(listener.local_addr().unwrap().port()).unwrap();
        assert!(held.ends_with(&format!("(pid {})", std::process::id())), "{held}");
    }

    #[test]
    fn tables_that_make_no_sense_are_survived() {
        for table in ["", "x\n", "head\na b c d\n", "head\n0: :: 0 0A\n"] {
            assert_eq!(listening_inode(table, 1), None);
        }
    }
}
