//! One random damage to a copy of an archive, again and again: whatever it is, what is restored is
//! a commit that was written, whole, and never anything else; and damage that matters is reported.

use fastrand::Rng;

use super::archive_at_rest::{
    Archive, Restored, Verdict, boot, discard, gateway_ran, in_mongo, in_sqlite,
};
use super::campaign::{Tally, chance, rounds};
use super::keeper::{Tree, World};
use super::random_damage::{Damage, Part, damage_database, damage_file};

/// In one of this many rounds a gateway is started.
const BOOTS: u64 = 3;

#[test]
fn random_damage_in_a_database_never_brings_what_nobody_wrote() {
    campaign("random damage in MongoDB", in_mongo(), damage_database);
}

#[test]
fn random_damage_in_a_file_never_brings_what_nobody_wrote() {
    campaign("random damage in SQLite", in_sqlite(), damage_file);
}

fn campaign(fault: &'static str, archive: &Archive, damage: fn(&World, &mut Rng) -> Damage) {
    let mut chance = chance(fault);
    let mut tally = Tally::new(fault);
    for round in 0..rounds(20, 1500) {
        let world = archive.copy();
        let damage = damage(&world, &mut chance);
        let mut case = Case {
            archive,
            world: &world,
            damage,
            tally: &mut tally,
        };
        let restored = case.restore();
        case.restore_older(&mut chance);
        if round % BOOTS == 0 {
            case.boot(&restored);
        }
        discard(world);
        tally.round();
    }
    tally.end();
}

struct Case<'a> {
    archive: &'a Archive,
    world: &'a World,
    damage: Damage,
    tally: &'a mut Tally,
}

impl Case<'_> {
    /// Whether nothing at all may be restored: where something may be of a newer version, or the
    /// store's file is none any more.
    fn may_be_refused(&self) -> bool {
        matches!(self.damage.part, Part::Format | Part::File)
    }

    /// Whether the damage is such that nothing tells of it: the newest commit's absence.
    fn may_be_silent(&self) -> bool {
        match self.damage.part {
            Part::Removed(seq) => seq == self.archive.head(),
            // As above, through the pages of SQLite.
            Part::File => true,
            _ => false,
        }
    }

    fn lost(&mut self, what: &str, told: &str) {
        self.tally
            .lost(format!("{}: {what}: {told}", self.damage.how));
    }

    /// A tree that came back must be that of the commit it is said to be.
    fn compare(&mut self, seq: u64, tree: Option<&Tree>, told: &str) {
        if tree.is_none() || tree != self.archive.trees.get(&seq) {
            let torn = format!("{}: it is not commit {seq}: {told}", self.damage.how);
            self.tally.torn(torn);
        }
    }

    /// Verifies, and restores the newest commit that is whole.
    fn restore(&mut self) -> Restored {
        let verdict = Verdict::of_all(self.world);
        let restored = Restored::of(self.world, None);
        if restored.code != 0 {
            if !self.may_be_refused() {
                self.lost("nothing is restored", &restored.told);
            }
        } else {
            self.compare(restored.seq, restored.tree.as_ref(), &restored.told);
            if let Part::Commit(seq) | Part::Removed(seq) = self.damage.part
                && let Some((before, _)) = self.archive.trees.range(..seq).next_back()
                && restored.seq < *before
            {
                self.lost("too old a commit is restored", &restored.told);
            }
        }
        let is_head = restored.code == 0 && restored.seq == self.archive.head();
        if verdict.code == 0 && !is_head && !self.may_be_silent() {
            self.lost("verify does not find it", &restored.told);
        }
        restored
    }

    /// Restores some commit by its number.
    fn restore_older(&mut self, chance: &mut Rng) {
        let all: Vec<u64> = self.archive.trees.keys().copied().collect();
        let seq = *chance.choice(&all).expect("there are some");
        let restored = Restored::of(self.world, Some(seq));
        if restored.code == 0 {
            self.compare(seq, restored.tree.as_ref(), &restored.told);
        } else if let Part::Commit(damaged) | Part::Removed(damaged) = self.damage.part
            && seq < damaged
        {
            // What came before it does not need it.
            self.lost(&format!("commit {seq} is not restored"), &restored.told);
        }
    }

    /// Starts a gateway in a wiped directory, which must hold the same as was restored.
    fn boot(&mut self, restored: &Restored) {
        let ended = boot(self.world);
        let there = Tree::of(&self.world.dir());
        if gateway_ran(self.world) {
            self.compare(restored.seq, Some(&there), &ended.log);
            if ended.code != 0 {
                self.lost("it ends with an error", &ended.log);
            }
        } else {
            if restored.code == 0 {
                self.lost("no gateway is started", &ended.log);
            }
            if ended.code == 0 || !there.is_empty() {
                self.lost("a start that failed does not say so", &ended.log);
            }
        }
    }
}
