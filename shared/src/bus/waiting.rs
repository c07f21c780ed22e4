//! How many bytes each organization has under way from this process: a stream's partition is shared,
//! and one tenant's large arguments must not fill it for its neighbours.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    fault::{Code, Fault},
    id::OrganizationId,
};

/// Most bytes of one organization's queued calls under way.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Bytes under way by organization.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<OrganizationId, usize>>>);

/// A call's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    waiting: Waiting,
    organization: OrganizationId,
    bytes: usize,
}

impl Waiting {
    /// Takes a share, or says that there is no room.
    pub(super) fn enter(&self, organization: OrganizationId, bytes: usize) -> Result<Share, Fault> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = waiting.entry(organization).or_default();
        if *taken + bytes > MOST_BYTES {
            let fault = Fault::new(Code::Throttled, "The organization's calls under way are too large together.");
            return Err(fault.after(Duration::from_secs(1)));
        }
        *taken += bytes;
        drop(waiting);
        Ok(Share { waiting: self.clone(), organization, bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = waiting.get_mut(&self.organization) {
            *taken -= self.bytes;
            if *taken == 0 {
                waiting.remove(&self.organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_organization_fills_only_its_own_share() {
        let (waiting, one, other) = (Waiting::default(), OrganizationId::new(), OrganizationId::new());
        let share = waiting.enter(one, MOST_BYTES).unwrap();
        assert_eq!(waiting.enter(one, 1).unwrap_err().code, Code::Throttled);
        waiting.enter(other, MOST_BYTES).unwrap();
        drop(share);
        waiting.enter(one, 1).unwrap();
        assert!(waiting.0.lock().unwrap().is_empty(), "nothing under way is kept");
    }
}
