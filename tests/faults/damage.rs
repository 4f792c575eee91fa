//! Damage to what a store keeps, one kind after the other: it is found and named, an older commit
//! that is whole takes the place of one that is not, and no gateway ever starts on nothing.

use mongodb::bson::{Document, doc};

use super::archive_at_rest::{
    Archive, Restored, Verdict, boot, both, discard, gateway_ran, in_mongo, in_sqlite,
};
use super::keeper::{Tree, World};
use super::raw::{damage_commit, on_mongo, on_sqlite};
use super::tamper::{
    PackDamage, damage_pack, each_field, newest_pack, remove_commit, set_format, set_number,
    wipe_header,
};

/// Says what a newer version says of what an older one cannot read.
const ADVICE: &str = "install a newer sessionkeep";

/// The damage is reported by its name, and what comes back is commit `to`, exactly; also through a
/// start of the gateway, which puts the damage behind it.
#[track_caller]
pub(crate) fn assert_passed_over(archive: &Archive, world: &World, named: &str, to: u64) {
    let verdict = Verdict::of_all(world);
    assert_eq!(verdict.code, 1, "{}", verdict.told);
    assert!(verdict.told.contains(named), "no {named}: {}", verdict.told);
    let restored = Restored::of(world, None);
    assert_eq!((restored.code, restored.seq), (0, to), "{}", restored.told);
    assert_eq!(restored.tree.as_ref(), archive.trees.get(&to));
    assert!(restored.told.contains(named), "{}", restored.told);

    let ended = boot(world);
    assert_eq!(ended.code, 0, "{}", ended.log);
    assert!(gateway_ran(world), "{}", ended.log);
    assert_eq!(Some(&Tree::of(&world.dir())), archive.trees.get(&to));
    assert!(ended.log.contains(named), "no {named}: {}", ended.log);
    let told = "an older whole one was restored and is now the head";
    assert!(ended.log.contains(told), "{}", ended.log);
    let verdict = Verdict::of_head(world);
    assert_eq!(verdict.code, 0, "{}", verdict.told);
    let restored = Restored::of(world, None);
    assert_eq!(restored.tree.as_ref(), archive.trees.get(&to));
}

/// Nothing is restored, nothing is started, and the reason is told; however often it is tried.
#[track_caller]
pub(crate) fn assert_refused(world: &World, code: i32, reason: &str) {
    let restored = Restored::of(world, None);
    assert_eq!(restored.code, 70, "{}", restored.told);
    assert!(restored.told.contains(reason), "{}", restored.told);
    for _ in 0..3 {
        let ended = boot(world);
        assert_eq!(ended.code, code, "{}", ended.log);
        assert!(!gateway_ran(world), "{}", ended.log);
        assert!(ended.log.contains(reason), "no {reason}: {}", ended.log);
        assert!(Tree::of(&world.dir()).is_empty(), "{}", ended.log);
    }
}

pub(crate) fn commit(seq: u64) -> String {
    format!("commit {seq}")
}

#[test]
fn an_undamaged_copy_is_whole_so_that_the_others_fail_for_their_damage() {
    for archive in both() {
        let world = archive.copy();
        let verdict = Verdict::of_all(&world);
        assert_eq!(verdict.code, 0, "{}", verdict.told);
        let ended = boot(&world);
        assert_eq!(ended.code, 0, "{}", ended.log);
        assert_eq!(
            Some(&Tree::of(&world.dir())),
            archive.trees.get(&archive.head())
        );
        assert!(!ended.log.contains("damaged"), "{}", ended.log);
        discard(world);
    }
}

#[test]
fn a_flipped_bit_in_a_body_costs_that_commit_and_those_that_build_on_it() {
    for archive in both() {
        let head = archive.head();
        let checkpoint = archive.checkpoints[0];
        let middle = archive.before(archive.before(head));
        assert!(
            middle > checkpoint,
            "the last checkpoint is too new for this test"
        );
        for damaged in [head, middle, checkpoint] {
            let world = archive.copy();
            damage_commit(&world, damaged);
            assert_passed_over(archive, &world, &commit(damaged), archive.before(damaged));
            discard(world);
        }
    }
}

#[test]
fn a_missing_commit_costs_those_that_build_on_it() {
    for archive in both() {
        let middle = archive.before(archive.before(archive.head()));
        for removed in [middle, archive.checkpoints[0]] {
            let world = archive.copy();
            remove_commit(&world, removed);
            assert_passed_over(archive, &world, &commit(removed), archive.before(removed));
            discard(world);
        }
    }
}

#[test]
fn a_change_of_any_field_of_a_header_is_found_and_costs_that_commit_alone() {
    for archive in both() {
        let world = archive.copy();
        let head = archive.head();
        let before = archive.before(head);
        let mut fields = 0;
        each_field(&world, head, |field| {
            fields += 1;
            let verdict = Verdict::of_head(&world);
            let restored = Restored::of(&world, None);
            if ["column.format", "format"].contains(&field) && restored.code != 0 {
                // It may as well be a newer version's, and then nothing older will do.
                assert_eq!((verdict.code, restored.code), (70, 70), "{}", restored.told);
                assert!(verdict.told.contains(ADVICE), "{}", verdict.told);
                assert!(restored.told.contains(ADVICE), "{}", restored.told);
                return;
            }
            assert_eq!(verdict.code, 1, "{field}: {}", verdict.told);
            assert!(
                verdict.told.contains(&commit(head)),
                "{field}: {}",
                verdict.told
            );
            assert_eq!(
                (restored.code, restored.seq),
                (0, before),
                "{field}: {}",
                restored.told
            );
            assert!(
                restored.told.contains(&commit(head)),
                "{field}: {}",
                restored.told
            );
            assert_eq!(
                restored.tree.as_ref(),
                archive.trees.get(&before),
                "{field}"
            );
        });
        assert!(fields >= 22, "{fields}");
        assert_eq!(
            Restored::of(&world, None).seq,
            head,
            "all of it was put back"
        );
        discard(world);
    }
}

#[test]
fn a_header_that_lies_never_decides_what_a_start_does() {
    for archive in both() {
        let head = archive.head();
        for (field, number) in [
            // As if nothing had ever been committed.
            ("base", 0),
            // As if a later owner had written it.
            ("epoch", 1 << 40),
            ("epoch", i64::MAX),
            ("base", i64::MAX),
            ("changed_at", 0),
        ] {
            let world = archive.copy();
            set_number(&world, head, field, number);
            assert_passed_over(archive, &world, &commit(head), archive.before(head));
            discard(world);
        }
        let world = archive.copy();
        wipe_header(&world, head);
        assert_passed_over(archive, &world, &commit(head), archive.before(head));
        discard(world);
    }
}

#[test]
fn damage_to_a_pack_costs_the_commits_that_need_it() {
    use PackDamage::{ChunkMissing, CutShort, Flipped, Missing, OtherType};
    for archive in both() {
        for damage in [Flipped, CutShort, OtherType, ChunkMissing, Missing] {
            let world = archive.copy();
            let pack = newest_pack(&world);
            damage_pack(&world, &pack, damage);
            let is_whole = |seq: &&u64| Restored::of(&world, Some(**seq)).code == 0;
            let newest = archive.trees.keys().rev().find(is_whole);
            let newest = *newest.expect("the first commits need no pack");
            assert!(
                newest < archive.head(),
                "{damage:?}: nothing needs the pack"
            );
            let named = match damage {
                Flipped => "the content of media/",
                _ => &pack,
            };
            assert_passed_over(archive, &world, named, newest);
            discard(world);
        }
    }
}

#[test]
fn a_format_that_does_not_exist_yet_is_refused_with_advice() {
    for archive in both() {
        let middle = archive.before(archive.before(archive.head()));
        for newer in [archive.head(), middle] {
            let world = archive.copy();
            set_format(&world, newer, 7);
            let verdict = Verdict::of_all(&world);
            assert_eq!(verdict.code, 70, "{}", verdict.told);
            assert!(verdict.told.contains(&commit(newer)), "{}", verdict.told);
            assert!(verdict.told.contains(ADVICE), "{}", verdict.told);
            assert_refused(&world, 70, ADVICE);
            discard(world);
        }
        // None was ever of this one.
        let world = archive.copy();
        set_format(&world, archive.head(), 0);
        let before = archive.before(archive.head());
        assert_passed_over(archive, &world, &commit(archive.head()), before);
        discard(world);
    }
    let world = in_mongo().copy();
    let pack = newest_pack(&world);
    on_mongo(&world.url, async |database| {
        let files = database.collection::<Document>("packs.files");
        let newer = doc! { "$set": { "metadata.format": 7 } };
        let done = files.update_one(doc! { "_id": &pack }, newer).await;
        assert_eq!(done.expect("update").modified_count, 1);
    });
    assert_refused(&world, 70, ADVICE);
    discard(world);
    let world = in_sqlite().copy();
    on_sqlite(&world, |store| {
        store
            .pragma_update(None, "user_version", 7)
            .expect("update");
    });
    assert_refused(&world, 78, ADVICE);
}

#[test]
fn without_one_whole_commit_no_gateway_starts_on_nothing() {
    for archive in both() {
        let first = *archive.trees.keys().next().expect("it has commits");
        for how in ["bodies", "headers", "a header alone"] {
            let world = archive.copy();
            for seq in archive.trees.keys() {
                match how {
                    "bodies" => damage_commit(&world, *seq),
                    "headers" => wipe_header(&world, *seq),
                    _ if *seq == first => wipe_header(&world, *seq),
                    // The first checkpoint was all there is.
                    _ => remove_commit(&world, *seq),
                }
            }
            assert_refused(&world, 70, "no commit of this archive is whole");
            discard(world);
        }
    }
}
