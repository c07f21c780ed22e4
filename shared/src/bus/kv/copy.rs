//! The copy of a bucket in memory: what is known of each entry, and how far it goes. Whoever follows it
//! is told by a number that counts what was applied, in the order in which it was: revisions can come out
//! of order after a reconnect, and start again in a bucket made anew.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_nats::Message;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::Bucket;

/// A copy of a bucket that follows it.
#[derive(Debug)]
pub struct Watch<T> {
    pub(super) state: Arc<State<T>>,
    /// Counts connections lost: what was complete before may have missed news since.
    pub(super) losses: Option<watch::Receiver<u64>>,
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), losses: self.losses.clone() }
    }
}

#[derive(Debug)]
pub(super) struct State<T> {
    entries: RwLock<Entries<T>>,
    complete: RwLock<Option<Complete>>,
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entries<T> {
    by_key: HashMap<String, Entry<T>>,
    /// Counts what was applied, a bucket's loss included; never less than before.
    applied: u64,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), applied: 0 }
    }
}

/// When the copy was known to hold everything.
#[derive(Clone, Copy, Debug)]
struct Complete {
    at: Instant,
    /// Connections lost until then.
    losses: u64,
}

/// How far the copy goes.
#[derive(Debug, Default)]
struct Seen {
    /// When the bucket was made: a bucket that was lost and made anew counts from one again.
    created: String,
    /// Every revision up to here was applied.
    revision: u64,
    /// And so was every one of these, heard beyond what is missing still.
    beyond: Beyond,
}

/// The first and the last revision; nothing where both are zero.
#[derive(Debug, Default)]
struct Beyond(u64, u64);

impl Seen {
    /// Takes in revisions that were applied.
    fn reach(&mut self, first: u64, last: u64) {
        let Beyond(from, to) = self.beyond;
        if first <= self.revision + 1 {
            self.revision = self.revision.max(last);
            if from <= self.revision + 1 {
                self.revision = self.revision.max(to);
            }
        } else if first == to + 1 {
            self.beyond = Beyond(from, last);
        } else {
            self.beyond = Beyond(first, last);
        }
    }
}

#[derive(Clone, Debug)]
struct Entry<T> {
    revision: u64,
    heard_at: Instant,
    /// The number under which it was applied.
    applied: u64,
    /// Absent once deleted; the revision still guards against older news.
    value: Option<T>,
}

impl<T> Watch<T> {
    /// A copy of nothing, for a role that may not look.
    pub fn empty() -> Self {
        let (changes, _) = watch::channel(0);
        let state = State {
            entries: RwLock::new(Entries::default()),
            complete: RwLock::new(None),
            seen: Mutex::default(),
            changes,
        };
        Self { state: Arc::new(state), losses: None }
    }
}

impl<T: Clone> Watch<T> {
    /// The entry's value.
    pub fn get(&self, key: &str) -> Option<T> {
        self.state.read().by_key.get(key).and_then(|entry| entry.value.clone())
    }

    /// Looks at the entry's value where it lies.
    pub fn look<R>(&self, key: &str, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.state.read().by_key.get(key).and_then(|entry| entry.value.as_ref()).map(look)
    }

    /// The entry's revision and, unless it was deleted, its value.
    pub(super) fn entry(&self, key: &str) -> Option<(u64, Option<T>)> {
        self.state.read().by_key.get(key).map(|entry| (entry.revision, entry.value.clone()))
    }

    /// Entries that were applied after a number that [`Self::changes`] gave.
    pub fn since(&self, applied: u64) -> Vec<(String, T)> {
        let entries = self.state.read();
        let newer = entries.by_key.iter().filter(|(_, entry)| entry.applied > applied);
        newer.filter_map(|(key, entry)| Some((key.clone(), entry.value.clone()?))).collect()
    }

    /// All entries.
    pub fn entries(&self) -> Vec<(String, T)> {
        let entries = self.state.read();
        entries.by_key.iter().filter_map(|(key, entry)| Some((key.clone(), entry.value.clone()?))).collect()
    }

    /// How long ago the copy was known to be complete; `None` before the first time.
    pub fn age(&self) -> Option<Duration> {
        self.state.complete().map(|complete| complete.at.elapsed())
    }

    /// True when the copy was complete lately and the connection has held since.
    pub fn is_fresh(&self, within: Duration) -> bool {
        let has_held =
            |complete: &Complete| self.losses.as_ref().is_none_or(|losses| *losses.borrow() == complete.losses);
        self.state.complete().is_some_and(|complete| complete.at.elapsed() <= within && has_held(&complete))
    }

    /// Follows changes: the number counts what was applied.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.state.changes.subscribe()
    }

    /// Waits for the first complete copy.
    pub async fn ready(&self) {
        let mut changes = self.changes();
        while self.age().is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl<T> State<T> {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Entries<T>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Entries<T>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that these revisions were applied; answers the one up to which all were. What is missing before
    /// them is filled by the next comparison.
    pub(super) fn advance(&self, applied: RangeInclusive<u64>) -> u64 {
        let mut seen = self.lock_seen();
        seen.reach(*applied.start(), *applied.end());
        seen.revision
    }

    /// True where the copy is one of this bucket, or of none yet.
    pub(super) fn is_of(&self, created: &str) -> bool {
        let seen = self.lock_seen();
        seen.created.is_empty() || seen.created == created
    }

    /// The revision up to which the copy of this bucket is complete; zero for another bucket than
    /// the one known, of which nothing holds any more.
    pub(super) fn start_from(&self, created: &str) -> u64 {
        let mut seen = self.lock_seen();
        if seen.created != created {
            let is_first = seen.created.is_empty();
            *seen = Seen { created: created.to_owned(), ..Seen::default() };
            if !is_first {
                let applied = {
                    let mut entries = self.write();
                    entries.by_key.clear();
                    entries.applied += 1;
                    entries.applied
                };
                self.changes.send_replace(applied);
            }
        }
        seen.revision
    }

    /// Lets go of what was heard longer ago than `age`.
    pub(super) fn forget(&self, age: Duration) {
        self.write().by_key.retain(|_, entry| entry.heard_at.elapsed() < age);
    }

    fn complete(&self) -> Option<Complete> {
        *self.complete.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark_complete(&self, losses: u64) {
        *self.complete.write().unwrap_or_else(PoisonError::into_inner) = Some(Complete { at: Instant::now(), losses });
        self.changes.send_modify(|_| {});
    }
}

impl<T: DeserializeOwned> State<T> {
    /// Takes in a republished change; answers its revision.
    pub(super) fn hear(&self, bucket: Bucket, message: &Message) -> Option<u64> {
        let headers = message.headers.as_ref()?;
        // The last of a name is the server's: what was stored may bring headers of these names along,
        // and an answer may be led here from another stream.
        let header = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        if header("Nats-Stream")? != bucket.stream() {
            return None;
        }
        let revision = header("Nats-Sequence")?.parse().ok()?;
        let deleted = header("KV-Operation").is_some() || header("Nats-Marker-Reason").is_some();
        self.apply(bucket, header("Nats-Subject")?, revision, (!deleted).then_some(&message.payload))?;
        Some(revision)
    }

    /// Applies an entry unless newer news is known. What cannot be read leaves the value as it was.
    pub(super) fn apply(&self, bucket: Bucket, subject: &str, revision: u64, payload: Option<&[u8]>) -> Option<()> {
        let key = subject.strip_prefix(&bucket.subject_prefix())?.to_owned();
        let read = payload.map(|payload| read_value(bucket, &key, payload));
        let applied = {
            let mut entries = self.write();
            let applied = entries.applied + 1;
            let heard_at = Instant::now();
            let known = entries.by_key.entry(key).or_insert(Entry { revision: 0, heard_at, applied: 0, value: None });
            if known.revision >= revision {
                return Some(());
            }
            (known.revision, known.heard_at, known.applied) = (revision, heard_at, applied);
            match read {
                Some(Some(value)) => known.value = Some(value),
                Some(None) => {}
                None => known.value = None,
            }
            entries.applied = applied;
            applied
        };
        self.changes.send_modify(|latest| *latest = applied.max(*latest));
        Some(())
    }
}

fn read_value<T: DeserializeOwned>(bucket: Bucket, key: &str, bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .inspect_err(|cause| tracing::error!(bucket = bucket.name(), key, %cause, "unreadable entry"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(copy: &Watch<u32>, key: &str, revision: u64, value: u32) {
        let subject = format!("{}{key}", Bucket::Limits.subject_prefix());
        copy.state.apply(Bucket::Limits, &subject, revision, Some(value.to_string().as_bytes())).unwrap();
    }

    #[test]
    fn a_follower_misses_nothing_that_comes_out_of_order() {
        let copy = Watch::<u32>::empty();
        apply(&copy, "later", 9, 1);
        let seen = *copy.changes().borrow();
        // Read while catching up, after the later one was heard.
        apply(&copy, "earlier", 4, 2);
        assert_eq!(copy.since(seen), [("earlier".to_owned(), 2)]);
        apply(&copy, "later", 8, 3);
        assert_eq!(copy.get("later"), Some(1), "older news of one entry is no news");
    }

    #[test]
    fn what_is_heard_while_it_compares_leaves_no_gap() {
        let copy = Watch::<u32>::empty();
        let advance = |applied| copy.state.advance(applied);
        assert_eq!(copy.state.start_from("bucket"), 0);
        assert_eq!(advance(1..=1), 1);
        // 2 to 4 are being read while 5 and 6 are heard.
        assert_eq!(advance(5..=5), 1, "2 to 4 are missing still");
        assert_eq!(advance(6..=6), 1);
        assert_eq!(advance(2..=4), 6, "5 and 6 need not be read again");
        assert_eq!(advance(3..=5), 6, "what was read late takes nothing back");
        assert_eq!(advance(9..=9), 6);
        assert_eq!(advance(7..=7), 7, "8 is missing");
        assert_eq!(advance(8..=8), 9);
        assert_eq!(advance(12..=12), 9);
        assert!(copy.state.is_of("bucket") && !copy.state.is_of("made anew"));
        assert_eq!(copy.state.start_from("made anew"), 0);
        assert_eq!(advance(1..=11), 11, "nothing holds of another bucket");
    }

    #[test]
    fn what_was_heard_long_ago_is_let_go_of() {
        let copy = Watch::<u32>::empty();
        apply(&copy, "key", 1, 1);
        copy.state.forget(Duration::from_hours(2));
        assert_eq!(copy.get("key"), Some(1));
        copy.state.forget(Duration::ZERO);
        assert_eq!(copy.get("key"), None);
        apply(&copy, "key", 2, 2);
        assert_eq!(copy.get("key"), Some(2), "and heard again");
    }

    #[test]
    fn a_follower_hears_of_a_bucket_that_was_made_anew() {
        let copy = Watch::<u32>::empty();
        copy.state.start_from("first");
        apply(&copy, "key", 9, 1);
        let seen = *copy.changes().borrow();
        assert_eq!(copy.state.start_from("second"), 0);
        apply(&copy, "key", 1, 2);
        assert_eq!(copy.since(seen), [("key".to_owned(), 2)]);
    }
}
