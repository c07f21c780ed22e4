//! How often an organization may call: a bucket of tokens for each, filled with its calls per minute,
//! of which this gateway gives out the share that falls to one of the live ones. A call that finds it
//! empty is refused before anything is published. Limits and gateways are looked at with every call,
//! so that a change counts at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use moka::sync::Cache;
use shared::{Code, Fault, bus::state::Limits, id::OrganizationId};

/// How long an organization that does not call is remembered: longer than any call, and than a bucket
/// takes to fill.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);
/// What is answered where a queue of its own is full: its calls end when they end.
const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Every organization's bucket.
#[derive(Clone, Debug)]
pub struct Rates {
    organizations: Cache<OrganizationId, Arc<Account>>,
    gateways: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct Account {
    bucket: Mutex<Option<Bucket>>,
    under_way: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

/// A call under way; ends when dropped.
#[derive(Debug)]
pub struct Ticket(Arc<Account>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Rates {
    fn default() -> Self {
        let organizations = Cache::builder().max_capacity(100_000).time_to_idle(REMEMBERED_FOR).build();
        Self { organizations, gateways: Arc::new(AtomicU32::new(1)) }
    }
}

impl Rates {
    /// Says how many gateways share the limits. Zero is one: this one.
    pub fn share_among(&self, gateways: usize) {
        self.gateways.store(u32::try_from(gateways).unwrap_or(u32::MAX).max(1), Ordering::Release);
    }

    /// Lets a call through, or says when to try again.
    pub fn enter(&self, organization: OrganizationId, limits: &Limits) -> Result<Ticket, Fault> {
        let gateways = self.gateways.load(Ordering::Acquire);
        let account = self.organizations.get_with(organization, Arc::default);
        // Counted before it is compared: of two that come at once to the last place, one goes.
        let before = account.under_way.fetch_add(1, Ordering::AcqRel);
        let ticket = Ticket(account);
        if limits.queue_limit.is_some_and(|limit| before >= limit.div_ceil(gateways)) {
            return Err(Fault::new(Code::Throttled, "The organization's queue is full.").after(QUEUE_RETRY_AFTER));
        }
        if let Some(per_minute) = limits.calls_per_minute {
            let share = f64::from(per_minute) / f64::from(gateways);
            ticket.0.take(share, Instant::now()).map_err(|wait| {
                Fault::new(Code::Throttled, format!("The organization may call {per_minute} times a minute."))
                    .after(wait)
            })?;
        }
        Ok(ticket)
    }
}

impl Account {
    /// Takes a token of a bucket that holds a minute's worth, and at least one; or says when there is one.
    fn take(&self, per_minute: f64, now: Instant) -> Result<(), Duration> {
        let capacity = per_minute.max(1.0);
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let known = bucket.unwrap_or(Bucket { tokens: capacity, filled_at: now });
        let filled = now.saturating_duration_since(known.filled_at).as_secs_f64() * per_minute / 60.0;
        let tokens = (known.tokens + filled).min(capacity);
        let is_enough = tokens >= 1.0;
        *bucket = Some(Bucket { tokens: if is_enough { tokens - 1.0 } else { tokens }, filled_at: now });
        drop(bucket);
        if is_enough { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - tokens) * 60.0 / per_minute)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(calls_per_minute: u32) -> Limits {
        Limits { calls_per_minute: Some(calls_per_minute), ..Limits::concurrent(8) }
    }

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_as_many_as_come_in() {
        let (account, start) = (Account::default(), Instant::now());
        let take = |seconds: u64| account.take(60.0, start + Duration::from_secs(seconds));
        assert_eq!((0..100).filter(|_| take(0).is_ok()).count(), 60);
        let wait = take(0).unwrap_err();
        assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(900), "{wait:?}");
        assert_eq!((0..100).filter(|_| take(10).is_ok()).count(), 10);
        assert_eq!((0..100).filter(|_| take(600).is_ok()).count(), 60, "a pause saves no more than a minute");
    }

    #[test]
    fn a_limit_below_one_for_each_gateway_still_lets_calls_through() {
        let (account, start) = (Account::default(), Instant::now());
        assert!(account.take(0.5, start).is_ok());
        assert_eq!(account.take(0.5, start).unwrap_err(), Duration::from_mins(2));
        assert!(account.take(0.5, start + Duration::from_mins(2)).is_ok());
    }

    #[test]
    fn gateways_share_the_limit_and_a_change_of_either_counts_at_once() {
        let (rates, organization) = (Rates::default(), OrganizationId::new());
        rates.share_among(2);
        let passed = |limit: u32| (0..200).filter(|_| rates.enter(organization, &limits(limit)).is_ok()).count();
        assert_eq!(passed(100), 50);
        let fault = rates.enter(organization, &limits(100)).unwrap_err();
        assert_eq!(fault.code, Code::Throttled);
        assert!(fault.retry_after_ms.is_some_and(|wait| (1..=1_200).contains(&wait)), "{fault:?}");
        let raised = limits(1_000_000);
        assert!((0..1_000_000).any(|_| rates.enter(organization, &raised).is_ok()), "it fills faster from now on");
        assert!(rates.enter(organization, &Limits::concurrent(8)).is_ok(), "no limit, no bucket");
        assert!(rates.enter(OrganizationId::new(), &limits(100)).is_ok(), "each has a bucket of its own");
    }

    #[test]
    fn a_lowered_limit_takes_back_what_was_saved() {
        let (account, start) = (Account::default(), Instant::now());
        assert!(account.take(600.0, start).is_ok());
        assert_eq!((0..100).filter(|_| account.take(6.0, start).is_ok()).count(), 6);
    }

    #[test]
    fn a_queue_of_its_own_counts_calls_under_way_and_forgets_those_that_ended() {
        let (rates, organization) = (Rates::default(), OrganizationId::new());
        let limits = Limits { queue_limit: Some(2), ..Limits::concurrent(8) };
        let tickets: Vec<_> = (0..2).map(|_| rates.enter(organization, &limits).unwrap()).collect();
        for _ in 0..3 {
            assert_eq!(rates.enter(organization, &limits).unwrap_err().code, Code::Throttled);
        }
        drop(tickets);
        assert!(rates.enter(organization, &limits).is_ok());
    }
}
