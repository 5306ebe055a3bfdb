//! The hosts of a registry, one after the other: what one does not have, or can't be asked for, the next
//! may have. The last answer counts, which is the registry's own where it serves itself.

use crate::containerd::image::access::Access;
use crate::containerd::image::error::RegistryError;
use crate::containerd::image::hosts::Endpoint;

/// What a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// What a tag stands for.
    Resolve,
    /// Content of a digest.
    Pull,
}

/// Goes through the hosts that may be asked.
#[derive(Debug)]
pub struct Turns<'a> {
    hosts: Vec<(usize, &'a Endpoint)>,
    at: usize,
    failed: Option<RegistryError>,
}

impl<'a> Turns<'a> {
    /// Begins with the host of that place where it may be asked, then in order.
    pub fn new(access: &'a Access, capability: Capability, first: usize) -> Self {
        let may = |endpoint: &Endpoint| match capability {
            Capability::Resolve => endpoint.resolve,
            Capability::Pull => endpoint.pull,
        };
        let mut hosts: Vec<_> = access.endpoints().iter().enumerate().filter(|(_, e)| may(e)).collect();
        if let Some(place) = hosts.iter().position(|(place, _)| *place == first) {
            hosts[..=place].rotate_right(1);
        }
        Self { hosts, at: 0, failed: None }
    }

    /// The next host, and its place in all.
    pub fn next_host(&mut self) -> Option<(usize, &'a Endpoint)> {
        let next = self.hosts.get(self.at).copied();
        self.at += 1;
        next
    }

    /// That one did not serve.
    pub fn failed(&mut self, endpoint: &Endpoint, error: RegistryError) {
        if self.at < self.hosts.len() {
            tracing::info!(host = endpoint.host, %error, "the registry's next host is asked");
        }
        self.failed = Some(error);
    }

    /// None served.
    pub fn end(self, what: &str) -> RegistryError {
        let nobody = || RegistryError::Setup {
            what: what.to_owned(),
            problem: "hosts.toml leaves no host that may be asked: see its capabilities".to_owned(),
        };
        self.failed.unwrap_or_else(nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::image::reference::Reference;

    #[test]
    fn those_that_may_be_asked_are_and_the_last_one_counts() {
        let reference = Reference::parse("r.example/x").unwrap();
        let host = |name: &str, resolve| Endpoint { host: name.into(), resolve, ..Endpoint::of(&reference) };
        let hosts = vec![host("a", false), host("b", true), host("c", true)];
        let access = Access::new(reference.clone(), hosts, None);
        let order = |capability, first| {
            let mut turns = Turns::new(&access, capability, first);
            let mut names = Vec::new();
            while let Some((_, endpoint)) = turns.next_host() {
                names.push(endpoint.host.clone());
                let problem = endpoint.host.clone();
                turns.failed(endpoint, RegistryError::Setup { what: "x".into(), problem });
            }
            (names.join(""), turns.end("x").to_string())
        };
        assert_eq!(order(Capability::Resolve, 0), ("bc".into(), "x: c".into()));
        assert_eq!(order(Capability::Pull, 0), ("abc".into(), "x: c".into()));
        assert_eq!(order(Capability::Pull, 2), ("cab".into(), "x: b".into()));
        let none = Access::new(reference.clone(), vec![host("a", false)], None);
        assert!(Turns::new(&none, Capability::Resolve, 0).end("x").to_string().contains("capabilities"));
    }
}
