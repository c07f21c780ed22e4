//! Deadlines and the bound of the queue: what is refused, what expires and what is cut, and that none
//! of it costs anybody else anything.

use std::{sync::Arc, time::Duration};

use reqwest::StatusCode;
use serde_json::json;

use super::{
    limits::peak,
    load::{Ask, Ended, Site, all_done, at_once, by_code},
};
use crate::world::System;

/// Answers shall come at the deadline and a quarter of a second; this is far from a busy machine's noise.
const ON_TIME: Duration = Duration::from_millis(1_500);

#[track_caller]
fn answered_on_time(ended: &Ended, deadline: Duration) {
    assert_eq!(ended.code, "timeout", "{ended:?}");
    assert!(ended.took >= deadline.mul_f64(0.9), "told before its deadline: {ended:?}");
    assert!(ended.took < deadline + ON_TIME, "told long after its deadline: {ended:?}");
}

pub(crate) async fn a_call_that_expires_in_the_queue_never_touches_the_upstream(system: Arc<System>) {
    let site = Site::open(&system, 1).await;
    let only = std::slice::from_ref(&site);
    let mut ahead = at_once(only, 1, Ask::of_ms(2_000));
    system.recorder.until_running(&site.key, 1).await;
    let deadline = Duration::from_secs(1);
    let expired = at_once(only, 10, Ask::of_ms(0).within_ms(1_000)).join_all().await;
    for ended in &expired {
        answered_on_time(ended, deadline);
    }
    let ahead = ahead.join_next().await.expect("a call").expect("a caller");
    assert_eq!(ahead.code, "done", "{ahead:?}");
    // Published after the expired ones: when it has run, they have passed.
    let behind = site.call(Ask::of_ms(0)).await;
    assert_eq!(behind.code, "done", "{behind:?}");
    for ended in &expired {
        assert_eq!(system.recorder.runs_of(&site.key, &ended.id), 0, "{} reached the upstream", ended.id);
    }
    let slowest = expired.iter().map(|ended| ended.took).max().unwrap_or_default();
    eprintln!("deadline in the queue: {} calls told after at most {slowest:.1?} of 1 s", expired.len());
}

pub(crate) async fn a_hanging_call_is_cut_at_its_deadline_and_its_slot_is_free(system: Arc<System>) {
    let site = Site::open(&system, 1).await;
    let mut hanging = at_once(std::slice::from_ref(&site), 1, Ask::of_ms(600_000).within_ms(1_500));
    system.recorder.until_running(&site.key, 1).await;
    // It waits behind the hanging one, in the only slot there is.
    let behind = at_once(std::slice::from_ref(&site), 1, Ask::of_ms(0).within_ms(20_000));
    let cut = hanging.join_next().await.expect("a call").expect("a caller");
    answered_on_time(&cut, Duration::from_millis(1_500));
    let behind = behind.join_all().await;
    all_done(&behind);
    let cut_id = cut.id.clone();
    system
        .recorder
        .until("the closed request", &site.key, move |runs| {
            runs.iter().any(|run| run.id == cut_id && run.ended.is_some() && !run.finished)
        })
        .await;
    let runs = system.recorder.runs(&site.key);
    let begin = |id: &str| runs.iter().find(|run| run.id == id).map(|run| run.began).expect("a run");
    let end = runs.iter().find(|run| run.id == cut.id).and_then(|run| run.ended).expect("an end");
    let handed_on = begin(&behind[0].id).saturating_duration_since(cut.sent);
    eprintln!(
        "hanging call: told after {:.1?} of 1.5 s, request closed after {:.1?}, slot used again after {handed_on:.1?}",
        cut.took,
        end.saturating_duration_since(cut.sent),
    );
    assert!(end.saturating_duration_since(cut.sent) < Duration::from_millis(1_500) + ON_TIME, "closed too late");
    assert!(peak(&runs) <= 1, "the slot was used again before the request was closed");
    assert!(handed_on < Duration::from_millis(1_500) + ON_TIME, "the slot was free only after {handed_on:?}");
}

/// The bound under test.
const BOUND: usize = 50;

/// A system with that bound.
pub(super) fn bounded(options: &mut stack::Options) {
    options.worker_env.push(("QUEUE_CALLS_PER_ORGANIZATION".to_owned(), BOUND.to_string()));
}

pub(crate) async fn exactly_the_bound_is_accepted_and_the_rest_is_told_when_to_come_back(system: Arc<System>) {
    let site = Site::open(&system, 8).await;
    let only = std::slice::from_ref(&site);
    // The gateway learns how long a full queue takes: between 6 and 7 s, of calls of a second by 8.
    all_done(&at_once(only, BOUND, Ask::of_ms(1_000)).join_all().await);
    // Nothing may leave the queue while it is filled.
    site.limit(json!({ "paused": true })).await;
    let lanes = super::limits::Lanes::open(&system).await;
    lanes.until(&site, "the pause", |lane| lane["paused"] == true).await;
    let mut calls = at_once(only, 4 * BOUND, Ask::of_ms(1_000));
    let mut refused = Vec::new();
    while refused.len() < 3 * BOUND {
        let ended = calls.join_next().await.expect("more answers").expect("a caller");
        assert_eq!(
            (ended.status, ended.code.as_str()),
            (Some(StatusCode::TOO_MANY_REQUESTS), "throttled"),
            "{ended:?}"
        );
        refused.push(ended);
    }
    let slowest = refused.iter().map(|ended| ended.took).max().unwrap_or_default();
    // Half the time that calls take to come through; on a busy machine they take longer.
    let waits = || refused.iter().map(|ended| ended.retry_after.expect("Retry-After"));
    let (wait, shortest) = (waits().max().unwrap_or_default(), waits().min().unwrap_or_default());
    assert!(shortest >= Duration::from_secs(2) && wait <= Duration::from_secs(10), "{shortest:?} to {wait:?}");
    for ended in &refused {
        assert_eq!(system.recorder.runs_of(&site.key, &ended.id), 0, "{} was refused and ran", ended.id);
    }
    site.limit(json!({ "paused": false })).await;
    lanes.until(&site, "the resume", |lane| lane["paused"] != true).await;
    tokio::time::sleep(wait).await;
    let again = at_once(only, BOUND / 4, Ask::of_ms(0)).join_all().await;
    all_done(&again);
    let accepted = calls.join_all().await;
    assert_eq!(accepted.len(), BOUND, "{:?}", by_code(&accepted));
    all_done(&accepted);
    eprintln!(
        "bound: {BOUND} of {} accepted, the slowest of {} refusals after {slowest:.1?}, Retry-After {wait:.1?}, {} of {} retries accepted then",
        4 * BOUND,
        refused.len(),
        again.len(),
        again.len(),
    );
}
