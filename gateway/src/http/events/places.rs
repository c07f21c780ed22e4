//! How many streams one member, and one organization, keeps open at this gateway.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{Code, Fault, id::OrganizationId};

/// Streams of one member.
const PER_MEMBER: usize = 8;
/// Streams of one organization.
const PER_ORGANIZATION: usize = 512;

/// Who has how many.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<HashMap<OrganizationId, HashMap<String, usize>>>>);

/// One stream's place: given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    organization: OrganizationId,
    subject: String,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<OrganizationId, HashMap<String, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, or that there is none.
    pub fn take(&self, organization: OrganizationId, subject: &str) -> Result<Place, Fault> {
        let refused = |whose: &str, limit: usize| {
            let message = format!("{whose} {limit} streams of events open here, as many as may be.");
            Err(Fault::new(Code::Throttled, message).after(Duration::from_secs(15)))
        };
        let mut all = self.lock();
        let members = all.entry(organization).or_default();
        if members.get(subject).is_some_and(|own| *own >= PER_MEMBER) {
            return refused("You have", PER_MEMBER);
        }
        if members.values().sum::<usize>() >= PER_ORGANIZATION {
            return refused("The organization has", PER_ORGANIZATION);
        }
        *members.entry(subject.to_owned()).or_default() += 1;
        drop(all);
        metrics::gauge!("switchboard_event_streams").increment(1);
        Ok(Place { places: self.clone(), organization, subject: subject.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.lock();
        if let Some(members) = all.get_mut(&self.organization) {
            if let Some(own) = members.get_mut(&self.subject) {
                *own -= 1;
            }
            members.retain(|_, own| *own > 0);
            if members.is_empty() {
                all.remove(&self.organization);
            }
        }
        drop(all);
        metrics::gauge!("switchboard_event_streams").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_so_many_places_and_gets_one_back() {
        let (places, one, other) = (Places::default(), OrganizationId::new(), OrganizationId::new());
        let mut held: Vec<Place> = (0..PER_MEMBER).map(|_| places.take(one, "ada").expect("a place")).collect();
        assert_eq!(places.take(one, "ada").expect_err("one too many").code, Code::Throttled);
        assert!(places.take(one, "bob").is_ok() && places.take(other, "ada").is_ok());
        held.pop();
        assert!(places.take(one, "ada").is_ok());
        drop(held);
        assert!(places.lock().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn an_organization_has_so_many_places() {
        let (places, one) = (Places::default(), OrganizationId::new());
        let _held: Vec<Place> =
            (0..PER_ORGANIZATION).map(|n| places.take(one, &format!("m{n}")).expect("a place")).collect();
        assert_eq!(places.take(one, "late").expect_err("one too many").code, Code::Throttled);
        assert!(places.take(OrganizationId::new(), "ada").is_ok());
    }
}
