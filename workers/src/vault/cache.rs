//! Unwrapped data keys, kept a short while: every tool call opens a credential, and the wrapped
//! key would otherwise be read from the database each time.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use shared::id::OrganizationId;

use super::{DataKey, DekId};

/// How long a key is kept; also how long a destroyed one may still open what a worker has read.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// Keys kept at once.
const MOST_KEYS: u64 = 10_000;

/// The keys a worker has at hand. Clones share them.
#[derive(Clone, Debug)]
pub struct DataKeys(Cache<(OrganizationId, DekId), Arc<DataKey>>);

impl Default for DataKeys {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST_KEYS).time_to_live(KEPT_FOR).build())
    }
}

impl DataKeys {
    /// The key, if it is at hand.
    pub fn get(&self, organization: OrganizationId, dek_id: DekId) -> Option<Arc<DataKey>> {
        self.0.get(&(organization, dek_id))
    }

    /// Keeps a key and hands it back shared.
    pub fn keep(&self, organization: OrganizationId, key: DataKey) -> Arc<DataKey> {
        let key = Arc::new(key);
        self.0.insert((organization, key.dek_id()), Arc::clone(&key));
        key
    }

    /// Lets go of a key that was destroyed or replaced.
    pub fn forget(&self, organization: OrganizationId, dek_id: DekId) {
        self.0.invalidate(&(organization, dek_id));
    }
}
