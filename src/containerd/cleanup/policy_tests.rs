use super::*;
use proptest::prelude::*;

fn digest(n: u8) -> ImageDigest {
    ImageDigest::parse(&format!("sha256:{n:064x}")).unwrap()
}

fn at(seconds: u64) -> Wall {
    Wall(seconds * 1_000_000_000)
}

fn pulled(name: &str, image: u8, since: u64, used: u64) -> ImageRecord {
    let (since, used) = (at(since), at(used));
    ImageRecord {
        name: name.into(),
        target: digest(image),
        origin: Origin::Registry,
        tracked: true,
        since,
        used,
    }
}

fn foreign(name: &str, image: u8, since: u64) -> ImageRecord {
    ImageRecord { origin: Origin::Foreign, tracked: false, ..pulled(name, image, since, since) }
}

fn rules() -> Rules {
    Rules {
        per_cycle: 2,
        minimum_age: Duration::from_secs(60),
        untracked_minimum_age: None,
        excluded: BTreeSet::new(),
    }
}

const NOW: Wall = Wall(1000 * 1_000_000_000);

fn names(records: &[ImageRecord], in_use: &[&str], rules: &Rules, purpose: Purpose) -> Vec<Vec<String>> {
    let in_use = in_use.iter().map(ToString::to_string).collect();
    plan(records, &in_use, rules, purpose, NOW).into_iter().map(|removal| removal.names).collect()
}

#[test]
fn a_cycle_takes_the_least_recently_used_that_are_old_enough_and_unused() {
    let records = [
        pulled("newest", 1, 941, 941),
        pulled("late", 2, 1, 900),
        pulled("early", 3, 500, 500),
        pulled("live", 4, 1, 2),
        pulled("kept", 5, 1, 3),
        pulled("middle", 6, 940, 940),
    ];
    let excluded = Rules { excluded: BTreeSet::from(["kept".to_owned()]), ..rules() };
    assert_eq!(names(&records, &["live"], &excluded, Purpose::Cycle), [["early"], ["late"]]);
    let more = Rules { per_cycle: 9, ..excluded };
    assert_eq!(names(&records, &["live"], &more, Purpose::Cycle), [["early"], ["late"], ["middle"]]);
}

#[test]
fn all_names_of_an_image_count_for_it() {
    let records = [pulled("a", 1, 1, 2), pulled("b", 1, 3, 4), pulled("c", 2, 1, 3)];
    let both = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(names(&records, &[], &rules(), Purpose::Cycle), [vec!["c".to_owned()], both]);
    assert_eq!(names(&records, &["b"], &rules(), Purpose::Cycle), [["c"]]);
}

#[test]
fn what_no_task_brought_stays_unless_it_may_go_and_then_gets_what_is_left_of_the_budget() {
    let records =
        [foreign("old", 1, 1), foreign("older", 2, 0), pulled("own", 3, 5, 5), foreign("new", 4, 995)];
    assert_eq!(names(&records, &[], &rules(), Purpose::Cycle), [["own"]]);
    let untracked = Rules { untracked_minimum_age: Some(Duration::from_secs(10)), ..rules() };
    assert_eq!(names(&records, &[], &untracked, Purpose::Cycle), [["own"], ["older"]]);
    let all = Rules { per_cycle: 9, ..untracked.clone() };
    assert_eq!(names(&records, &[], &all, Purpose::Cycle), [["own"], ["older"], ["old"]]);
    assert_eq!(names(&records, &[], &untracked, Purpose::Room), [["older"], ["old"], ["new"], ["own"]]);
}

#[test]
fn room_is_made_of_what_can_be_pulled_again_whatever_its_age() {
    let loaded = ImageRecord { tracked: true, ..foreign("loaded", 1, 1) };
    let shared = [pulled("shared", 2, 1, 1), foreign("by hand", 2, 1)];
    let records = [&[loaded, pulled("new", 3, 999, 999), pulled("old", 4, 998, 998)][..], &shared].concat();
    assert_eq!(names(&records, &[], &rules(), Purpose::Room), [["old"], ["new"]]);
    // In a cycle what a task used goes, wherever it came from: the original's rule.
    assert_eq!(names(&records, &[], &rules(), Purpose::Cycle), [["loaded"], ["shared"]]);
}

prop_compose! {
    fn any_record()(
        name in 0u8..12, image in 0u8..6, tracked: bool, registry: bool, since in 0u64..1000, idle in 0u64..1000,
    ) -> ImageRecord {
        let origin = if registry { Origin::Registry } else { Origin::Foreign };
        ImageRecord { origin, tracked, ..pulled(&format!("image{name}"), image, since, since.max(idle)) }
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let excluded = proptest::collection::btree_set((0u8..12).prop_map(|n| format!("image{n}")), 0..3);
    (1usize..6, 0u64..1000, proptest::option::of(0u64..1000), excluded).prop_map(
        |(per_cycle, age, untracked, excluded)| Rules {
            per_cycle,
            minimum_age: Duration::from_secs(age),
            untracked_minimum_age: untracked.map(Duration::from_secs),
            excluded,
        },
    )
}

proptest! {
    #[test]
    fn whatever_the_images_the_rules_hold(
        records in proptest::collection::vec(any_record(), 0..20),
        in_use in proptest::collection::btree_set((0u8..12).prop_map(|n| format!("image{n}")), 0..4),
        rules in any_rules(),
        room: bool,
    ) {
        // One record a name, as containerd has it.
        let mut records = records;
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records.dedup_by(|a, b| a.name == b.name);
        let purpose = if room { Purpose::Room } else { Purpose::Cycle };
        let planned = plan(&records, &in_use, &rules, purpose, NOW);
        let of = |name: &str| records.iter().find(|record| record.name == name).unwrap();
        let mut seen = BTreeSet::new();
        for removal in &planned {
            prop_assert!(!removal.names.is_empty());
            prop_assert!(seen.insert(removal.target.clone()), "an image goes once");
            // Nothing that is needed or excluded, under whatever name.
            for record in records.iter().filter(|record| record.target == removal.target) {
                prop_assert!(!in_use.contains(&record.name) && !rules.excluded.contains(&record.name));
            }
            for name in &removal.names {
                let record = of(name);
                prop_assert_eq!(&record.target, &removal.target);
                prop_assert!(record.tracked || rules.untracked_minimum_age.is_some());
                let least = if removal.names.iter().any(|name| of(name).tracked) {
                    rules.minimum_age
                } else {
                    rules.untracked_minimum_age.unwrap()
                };
                let counts = record.tracked || !removal.names.iter().any(|name| of(name).tracked);
                prop_assert!(room || !counts || NOW.since(record.since) >= least);
            }
        }
        prop_assert!(room || planned.len() <= rules.per_cycle);
        // Of those that tasks used, the order is that of their last use; and nobody is passed over.
        let is_tracked = |removal: &&Removal| removal.names.iter().any(|name| of(name).tracked);
        let uses: Vec<Wall> = planned.iter().filter(is_tracked).map(|removal| removal.used).collect();
        prop_assert!(uses.is_sorted());
        let all = Rules { per_cycle: usize::MAX, ..rules.clone() };
        let everything = plan(&records, &in_use, &all, purpose, NOW);
        let (tracked_all, tracked_planned) =
            (everything.iter().filter(is_tracked).count(), planned.iter().filter(is_tracked).count());
        prop_assert!(room || tracked_planned == tracked_all.min(rules.per_cycle));
    }
}
