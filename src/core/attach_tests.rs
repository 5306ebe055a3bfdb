use super::*;
use proptest::prelude::*;

fn mac(n: u8) -> MacAddress {
    MacAddress([0, 0, 0, 0, 0, n])
}

fn task(n: u8) -> TaskArn {
    TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/t{n}")).unwrap()
}

/// Interface `n` on address `n / 2`: two interfaces share each address. Every third is the instance's.
fn attachment(n: u8, expires_at: u64) -> Attachment {
    let task = (!n.is_multiple_of(3)).then(|| task(n));
    Attachment { arn: format!("a{n}"), mac: mac(n / 2), task, expires_at: Wall(expires_at), sent: false }
}

#[derive(Debug, Clone)]
enum Op {
    Announce(u8, u64),
    Links(Vec<u8>),
    Tasks(Vec<u8>),
    Answer(u8, bool),
    Pass(u64),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..8, 1u64..20).prop_map(|(n, wait)| Op::Announce(n, wait)),
        3 => prop::collection::vec(0u8..4, 0..4).prop_map(Op::Links),
        1 => prop::collection::vec(0u8..8, 0..4).prop_map(Op::Tasks),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, accepted)| Op::Answer(which, accepted)),
        3 => (1u64..10).prop_map(Op::Pass),
        1 => Just(Op::Crash),
    ]
}

/// The store, the host and the control plane, as far as attachments matter to them.
#[derive(Default)]
struct World {
    state: Attachments,
    stored: BTreeMap<MacAddress, Attachment>,
    telling: Vec<Attachment>,
    accepted: Vec<(String, Wall)>,
    announced: Vec<String>,
    here: BTreeSet<MacAddress>,
    now: u64,
}

impl World {
    fn step(&mut self, event: AttachEvent) {
        for effect in self.state.step(event, Wall(self.now)) {
            match effect {
                AttachEffect::Store(a) => {
                    // What took over the address of another makes that one forgotten.
                    if let Some(old) = self.stored.insert(a.mac, a.clone()).filter(|old| old.arn != a.arn) {
                        self.accepted.retain(|(arn, _)| *arn != old.arn);
                    }
                }
                AttachEffect::Forget(mac) => {
                    assert!(self.stored.remove(&mac).is_some(), "forgot {mac}, which was not stored");
                }
                AttachEffect::Tell(a) => {
                    assert!(a.expires_at > Wall(self.now), "{a:?} is told at {}", self.now);
                    assert!(self.here.contains(&a.mac), "{a:?} was not seen");
                    assert!(self.announced.contains(&a.arn), "{a:?} was not announced");
                    assert!(!self.telling.iter().any(|t| t.mac == a.mac), "{a:?} is told twice at once");
                    let before = (a.arn.clone(), a.expires_at);
                    assert!(!self.accepted.contains(&before), "{a:?} was told before");
                    assert_eq!(self.stored.get(&a.mac), Some(&a), "told before it was durable");
                    self.telling.push(a);
                }
            }
        }
        let held: Vec<_> = self.state.by_mac.values().map(|e| e.attachment.clone()).collect();
        assert_eq!(held, self.stored.values().cloned().collect::<Vec<_>>(), "the store holds what is known");
        let idle = |e: &&Entry| !e.telling && !e.attachment.sent && e.attachment.expires_at <= Wall(self.now);
        assert_eq!(self.state.by_mac.values().find(idle).map(|e| &e.attachment), None, "expired, yet kept");
        let waits = |e: &Entry| !e.telling && !e.attachment.sent;
        assert_eq!(self.state.awaits_links(), self.state.by_mac.values().any(waits));
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Announce(n, wait) => {
                let announced = attachment(n, self.now + wait);
                if self.state.can_take(std::slice::from_ref(&announced)) {
                    self.announced.push(announced.arn.clone());
                    self.step(AttachEvent::Announced(announced));
                }
            }
            Op::Links(links) => {
                self.here = links.into_iter().map(mac).collect();
                self.step(AttachEvent::Links(self.here.clone()));
            }
            Op::Tasks(tasks) => self.step(AttachEvent::Tasks(tasks.into_iter().map(task).collect())),
            Op::Answer(which, accepted) if !self.telling.is_empty() => {
                let told = self.telling.remove(usize::from(which) % self.telling.len());
                if accepted {
                    self.accepted.push((told.arn.clone(), told.expires_at));
                }
                self.step(AttachEvent::Told { mac: told.mac, accepted });
            }
            Op::Answer(..) => {}
            Op::Pass(by) => {
                self.now += by;
                self.step(AttachEvent::Tick);
            }
            Op::Crash => {
                self.telling.clear();
                self.state = Attachments::restored(self.stored.values().cloned());
                self.here.clear();
                self.step(AttachEvent::Tick);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn told_once_and_never_after_expiry(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::default();
        ops.into_iter().for_each(|op| world.apply(op));
        // In the end nothing but what was told, and is in use, is left.
        while !world.telling.is_empty() {
            world.apply(Op::Answer(0, true));
        }
        world.apply(Op::Tasks(Vec::new()));
        world.apply(Op::Pass(1000));
        prop_assert!(world.stored.values().all(|a| a.sent && a.task.is_none()));
        prop_assert_eq!(world.state.next_expiry(), None);
    }
}

#[test]
fn a_repeated_announcement_keeps_the_first_deadline() {
    let mut state = Attachments::default();
    assert_eq!(state.step(AttachEvent::Announced(attachment(1, 10)), Wall(0)).len(), 1);
    assert_eq!(state.step(AttachEvent::Announced(attachment(1, 99)), Wall(5)), []);
    assert_eq!(state.next_expiry(), Some(Wall(10)));
    assert_eq!(state.step(AttachEvent::Tick, Wall(10)), [AttachEffect::Forget(mac(0))]);
    assert!(!state.awaits_links());
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let at =
        |n: usize| Attachment { mac: MacAddress([0, 0, 0, 1, (n >> 8) as u8, n as u8]), ..attachment(1, 10) };
    let all: Vec<_> = (0..MAX_ATTACHMENTS).map(at).collect();
    let mut state = Attachments::restored(all.clone());
    assert!(state.can_take(&all) && !state.can_take(&[at(MAX_ATTACHMENTS)]));
    assert_eq!(state.step(AttachEvent::Tick, Wall(10)).len(), MAX_ATTACHMENTS);
    assert!(state.can_take(&[at(MAX_ATTACHMENTS)]));
}
