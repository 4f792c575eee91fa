//! What is done to the document of a lease, in the server's words: updates that it decides by its own
//! clock, `$$NOW`. They do to it what [`LeaseState`](sessionkeep_archive::store::lease::LeaseState) does.
//!
//! A field may be of any type, since anybody can write to a database. An expression that is given a type
//! that it does not take fails the whole update, for ever; so every field is looked at before it is used,
//! and one that cannot be read leaves the document to nobody, until somebody ends it.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};

use super::lease::RELEASED;
use sessionkeep_archive::store::lease::{CLOCK_SLACK, EPOCH_MAX, TTL_MAX, TTL_UNTOLD};
use sessionkeep_archive::store::{LeaseClaim, NOBODY, Otherwise, QUEUE_MAX, WAITER_TTL};
use sessionkeep_core::record::{FORMAT, InstanceId};

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A number as BSON keeps it.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn is_a(path: &str, kind: &str) -> Document {
    doc! { "$eq": [{ "$type": path }, kind] }
}

/// Whether a field holds a whole number within these bounds.
fn is_whole(path: &str, from: i64, to: i64) -> Document {
    doc! { "$and": [
        { "$in": [{ "$type": path }, ["int", "long"]] },
        { "$gte": [path, from] },
        { "$lte": [path, to] },
    ] }
}

/// Whether a field holds a time since 1970.
fn is_time(path: &str) -> Document {
    doc! { "$and": [is_a(path, "date"), { "$gte": [path, RELEASED] }] }
}

/// The time now, and so much more or less.
fn now_and(ms: i64) -> Document {
    doc! { "$add": ["$$NOW", ms] }
}

/// Whether all can be read that decides whose the lease is. A later version's is not ours to judge.
fn is_sound() -> Document {
    doc! { "$and": [
        is_whole("$format", 1, i64::from(FORMAT)),
        is_a("$instance", "string"),
        is_whole("$epoch", 0, int(EPOCH_MAX)),
        is_time("$since"),
        is_time("$expires"),
    ] }
}

/// Whether there is no lease, or something that says neither who holds it nor until when. A later
/// version's may look so.
fn is_nobodys() -> Document {
    doc! { "$and": [
        is_a("$instance", "missing"),
        is_a("$expires", "missing"),
        { "$or": [is_a("$format", "missing"), is_whole("$format", 1, i64::from(FORMAT))] },
    ] }
}

/// For how long at a time the lease is held, in milliseconds.
fn ttl() -> Document {
    let is_told = doc! { "$and": [
        is_a("$term", "object"),
        is_whole("$term.ttl", 1, millis(TTL_MAX)),
        { "$eq": ["$term.epoch", "$epoch"] },
    ] };
    doc! { "$cond": [is_told, "$term.ttl", millis(TTL_UNTOLD)] }
}

/// When the lease expires, as far as that is believed.
fn believed_end() -> Document {
    let limit = doc! { "$add": ["$$NOW", ttl()] };
    doc! { "$cond": [is_a("$expires", "date"), { "$min": ["$expires", limit] }, "$expires"] }
}

/// The places of those who have asked of late; an array, whatever the field holds.
fn kept_places() -> Document {
    doc! { "$filter": {
        "input": { "$cond": [{ "$isArray": "$waiting" }, "$waiting", []] },
        "cond": { "$and": [
            is_place("$$this"),
            { "$gt": ["$$this.seen", now_and(-millis(WAITER_TTL))] },
            { "$lte": ["$$this.seen", now_and(millis(CLOCK_SLACK))] },
        ] },
    } }
}

/// Whether a field holds what [`InstanceId`] takes for a name.
fn is_name(path: &str) -> Document {
    let matches = doc! { "$regexMatch": { "input": path, "regex": r"\A[A-Za-z0-9_.-]{1,64}\z" } };
    doc! { "$cond": [is_a(path, "string"), matches, false] }
}

fn is_place(path: &str) -> Document {
    let field = |name: &str| format!("{path}.{name}");
    let asks = field("asks");
    doc! { "$and": [
        is_a(path, "object"),
        is_name(&field("instance")),
        is_time(&field("since")),
        is_time(&field("seen")),
        { "$or": [
            { "$in": [{ "$type": &asks }, ["missing", "null"]] },
            is_whole(&asks, 0, i64::MAX),
        ] },
    ] }
}

/// Whether something in the queue cannot be read.
fn queue_is_damaged() -> Document {
    let unreadable = doc! { "$filter": {
        "input": { "$cond": [{ "$isArray": "$waiting" }, "$waiting", []] },
        "cond": { "$not": [is_place("$$this")] },
    } };
    doc! { "$or": [
        { "$not": [{ "$in": [{ "$type": "$waiting" }, ["missing", "null", "array"]] }] },
        { "$gt": [{ "$size": unreadable }, 0] },
    ] }
}

/// When the clock was last found to have been set back: now, where the last write was made later.
fn set_back() -> Document {
    let is_found = doc! { "$and": [
        is_a("$now", "date"),
        { "$gt": ["$now", now_and(millis(CLOCK_SLACK))] },
    ] };
    let found = doc! { "found": "$$NOW", "by": { "$subtract": ["$now", "$$NOW"] } };
    doc! { "$cond": [is_found, found, "$set_back"] }
}

/// What a look at it changes in the answer: the server's time, and what that says of the time before.
pub(super) fn looked_at() -> Document {
    doc! { "set_back": set_back(), "now": "$$NOW" }
}

/// Whether it is the turn of `own`, as [`Lease::next`](sessionkeep_archive::store::Lease::next) has it.
fn is_turn(own: &str) -> Document {
    let asking = doc! { "$filter": {
        "input": "$kept",
        "cond": { "$eq": ["$$this.asks", "$epoch"] },
    } };
    let first = doc! { "$ifNull": [{ "$first": asking }, { "$first": "$kept" }] };
    let instance = doc! { "$getField": { "field": "instance", "input": first } };
    doc! { "$eq": [{ "$ifNull": [instance, { "$literal": own }] }, { "$literal": own }] }
}

/// The queue with a place for who claims, if it wants one and there is room.
fn queue_with(claim: &LeaseClaim) -> Bson {
    let asks = match claim.otherwise {
        Otherwise::Leave => return "$kept".into(),
        Otherwise::Wait => Bson::Null,
        Otherwise::Ask(epoch) => int(epoch).into(),
    };
    let own = doc! { "$literal": claim.instance.as_str() };
    let kept = doc! { "$map": {
        "input": "$kept",
        "in": { "$cond": [
            { "$eq": ["$$this.instance", own.clone()] },
            { "$mergeObjects": ["$$this", { "seen": "$$NOW", "asks": asks.clone() }] },
            "$$this",
        ] },
    } };
    let new = doc! { "instance": own.clone(), "since": "$$NOW", "seen": "$$NOW", "asks": asks };
    let full = i32::try_from(QUEUE_MAX).unwrap_or(i32::MAX);
    doc! { "$cond": [
        { "$or": [
            { "$in": [own, "$kept.instance"] },
            { "$gte": [{ "$size": "$kept" }, full] },
        ] },
        kept,
        { "$concatArrays": ["$kept", [new]] },
    ] }
    .into()
}

/// Takes the lease where it may be taken, keeps a place in the queue where it may not and one is
/// wanted, and changes nothing else. All conditions of a stage see the document as it was before.
pub(super) fn claim_update(claim: &LeaseClaim) -> Vec<Document> {
    let own = claim.instance.as_str();
    let is_held_by = |name: &str| {
        // Both keep what was not let go; the holder itself keeps its epoch and its time, too.
        doc! { "$and": [
            "$sound",
            { "$eq": ["$instance", { "$literal": name }] },
            { "$gt": ["$expires", RELEASED] },
        ] }
    };
    let inherits = is_held_by(claim.predecessor.as_ref().map_or("", InstanceId::as_str));
    let has_lapsed = claim.lapsed.map_or(doc! { "$literal": false }, |mark| {
        doc! { "$and": [
            { "$lte": ["$expires", "$$NOW"] },
            { "$eq": ["$epoch", int(mark.epoch)] },
            { "$eq": ["$expires", DateTime::from_millis(int(mark.expires_ms))] },
        ] }
    });
    let is_over = doc! { "$or": [
        "$nobodys",
        { "$and": ["$sound", { "$or": [{ "$eq": ["$expires", RELEASED] }, has_lapsed] }] },
    ] };
    let granted = doc! { "$or": [
        is_held_by(own),
        inherits,
        { "$and": [is_over, is_turn(own)] },
    ] };
    // In the place of a lease there may be anything.
    let last = doc! { "$cond": [is_whole("$epoch", 0, int(EPOCH_MAX - 1)), "$epoch", 0_i64] };
    let next = doc! { "$add": [{ "$max": [last, int(claim.floor.min(EPOCH_MAX - 1))] }, 1_i64] };
    let set = |field: &str, value: Document| {
        doc! { "$cond": ["$granted", value, format!("${field}")] }
    };
    let others = doc! { "$filter": {
        "input": "$kept",
        "cond": { "$ne": ["$$this.instance", { "$literal": own }] },
    } };
    let queue = doc! { "$cond": ["$granted", others, queue_with(claim)] };
    let is_readable = doc! { "$or": ["$sound", "$nobodys"] };
    let temporary = ["sound", "nobodys", "kept", "granted", "continues", "next"];
    vec![
        doc! { "$set": { "sound": is_sound(), "nobodys": is_nobodys() } },
        doc! { "$set": {
            "kept": kept_places(),
            "expires": { "$cond": ["$sound", believed_end(), "$expires"] },
            "queue_damaged": queue_is_damaged(),
            "set_back": set_back(),
        } },
        doc! { "$set": { "granted": granted, "continues": is_held_by(own) } },
        doc! { "$set": { "next": { "$cond": ["$continues", "$epoch", next] } } },
        doc! { "$set": {
            "format": set("format", doc! { "$literal": i64::from(FORMAT) }),
            "instance": set("instance", doc! { "$literal": own }),
            "epoch": { "$cond": ["$granted", "$next", "$epoch"] },
            "since": set("since", doc! { "$cond": ["$continues", "$since", "$$NOW"] }),
            "expires": set("expires", now_and(millis(claim.ttl))),
            "term": set("term", doc! { "epoch": "$next", "ttl": millis(claim.ttl) }),
            "waiting": { "$cond": [is_readable, queue, "$waiting"] },
            "now": "$$NOW",
        } },
        doc! { "$unset": temporary.to_vec() },
    ]
}

/// Prolongs the lease of its holder, and puts right what its holder knows.
pub(super) fn prolonged(instance: &InstanceId, epoch: u64, ttl: Duration) -> Vec<Document> {
    vec![doc! { "$set": {
        "instance": { "$literal": instance.as_str() },
        "epoch": { "$literal": int(epoch) },
        "since": { "$cond": [is_time("$since"), "$since", "$$NOW"] },
        "expires": now_and(millis(ttl)),
        // As one value: what is there instead of an object is not merged with it.
        "term": { "$literal": { "epoch": int(epoch), "ttl": millis(ttl) } },
        "waiting": kept_places(),
        "queue_damaged": queue_is_damaged(),
        "set_back": set_back(),
        "now": "$$NOW",
    } }]
}

/// Lets it go.
pub(super) fn released() -> Vec<Document> {
    vec![doc! { "$set": { "expires": RELEASED, "set_back": set_back(), "now": "$$NOW" } }]
}

/// Ends it and its queue, whoever holds it.
pub(super) fn ended() -> Vec<Document> {
    vec![doc! { "$set": {
        "expires": RELEASED,
        "waiting": [],
        "queue_damaged": false,
        "set_back": set_back(),
        "now": "$$NOW",
    } }]
}

/// Puts a lease that has ended in the place of one that cannot be read, as
/// [`LeaseState::unreadable`](sessionkeep_archive::store::lease::LeaseState::unreadable) has it.
pub(super) fn unreadable() -> Vec<Document> {
    let last =
        doc! { "$cond": [is_whole("$epoch", 0, int(EPOCH_MAX)), { "$toLong": "$epoch" }, 0_i64] };
    vec![doc! { "$replaceWith": {
        "_id": "$_id",
        "format": i64::from(FORMAT),
        "instance": NOBODY,
        "epoch": last,
        "since": "$$NOW",
        "expires": RELEASED,
        "waiting": [],
        "now": "$$NOW",
    } }]
}
