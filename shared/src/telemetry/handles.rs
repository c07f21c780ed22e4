//! Handles of metrics whose labels are only known when something happens.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock},
};

/// A metric's handles by what its labels are made of. The recorder makes a list of labels and a digest of them at
/// each look-up; here each is looked up once.
///
/// For labels of which there are few: a handle is kept as long as the process. To be used after
/// [`super::start_metrics`], since a handle of no recorder stays one.
#[derive(Debug)]
pub struct Handles<K, H>(RwLock<HashMap<K, H>>);

impl<K, H> Default for Handles<K, H> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, H: Clone> Handles<K, H> {
    /// The handle for these labels, which `make` looks up the first time.
    pub fn of(&self, labels: K, make: impl FnOnce(&K) -> H) -> H {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&labels) {
            return known.clone();
        }
        let handle = make(&labels);
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(labels).or_insert(handle).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_looked_up_once_for_its_labels() {
        let handles = Handles::default();
        assert_eq!(handles.of(("tools.call", "done"), |_| 1), 1);
        assert_eq!(handles.of(("tools.call", "done"), |_| 2), 1);
        assert_eq!(handles.of(("tools.call", "timeout"), |_| 3), 3);
    }
}
