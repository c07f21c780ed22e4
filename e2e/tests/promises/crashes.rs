//! Workers that die or freeze: their calls are repeated where that is harmless, told as
//! unknown where it is not, and never lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    accidents::{ran_at_most_once_before_its_answer, until},
    full,
    limits::peak,
    load::{Ask, Ended, Site, all_done, at_once, by_code},
    recorder::Kind,
};
use crate::world::System;

/// How long the queue waits for a silent worker.
const ACK_WAIT: Duration = shared::bus::lanes::ACK_WAIT;
/// Far from the noise of a busy machine.
const MARGIN: Duration = Duration::from_secs(4);

const fn ask(kind: Kind, ms: u64) -> Ask {
    Ask { kind, ms, timeout_ms: 45_000 }
}

pub(crate) async fn a_killed_workers_calls_are_repeated_or_told_as_unknown(system: Arc<System>) {
    let each = if full() { 16 } else { 8 };
    let sites = Site::open_all(&system, [each; 3]).await;
    let count = usize::from(each);
    let calls: Vec<_> = [Kind::Once, Kind::Read, Kind::Repeat]
        .into_iter()
        .zip(&sites)
        .map(|(kind, site)| {
            system.recorder.forget(&site.key);
            (kind, site, at_once(std::slice::from_ref(site), count, ask(kind, 3_000)))
        })
        .collect();
    for site in &sites {
        system.recorder.until_running(&site.key, count).await;
    }
    let killed_at = Instant::now();
    system.stack().await.kill("tool-1").await.expect("it ran");
    let (mut cut_in_all, mut freed_after) = (0, Vec::new());
    for (kind, site, calls) in calls {
        let ended = calls.join_all().await;
        let runs = system.recorder.runs(&site.key);
        for call in &ended {
            let was_cut = runs.iter().any(|run| run.id == call.id && !run.finished);
            let (code, times) = match (was_cut, kind) {
                (false, _) => ("done", 1),
                (true, Kind::Once) => ("outcome_unknown", 1),
                (true, _) => ("done", 2),
            };
            assert_eq!(
                (call.code.as_str(), system.recorder.runs_of(&site.key, &call.id)),
                (code, times),
                "{kind:?} {call:?}"
            );
            if code == "outcome_unknown" {
                freed_after.push((call.sent + call.took).saturating_duration_since(killed_at));
            }
            cut_in_all += usize::from(was_cut);
        }
        assert!(peak(&runs) <= count, "{} at once, limit {count}", peak(&runs));
    }
    assert!(cut_in_all > 0, "the killed worker ran nothing: this shows nothing");
    let slowest = freed_after.iter().max().copied().unwrap_or_default();
    assert!(slowest < ACK_WAIT + MARGIN, "told only {slowest:?} after the kill");
    // Every slot is free again: as many as ever run at once on the one worker left.
    let mut again = at_once(&sites[..1], count, ask(Kind::Once, 500));
    system.recorder.until_running(&sites[0].key, count).await;
    all_done(&std::mem::take(&mut again).join_all().await);
    eprintln!("crash: {cut_in_all} of {} calls cut, the last slot free {slowest:.1?} after the kill", 3 * count);
}

/// Calls of each organization when the worker is frozen: so many that one of two workers holds some.
const HELD: u16 = 8;
/// Those that may be repeated: so many that some are given to the other worker, where chance gives each to either.
const READING: u16 = 24;

pub(crate) async fn a_frozen_worker_does_nothing_for_slots_given_away(system: Arc<System>) {
    let site = Site::open(&system, HELD).await;
    let reading = Site::open(&system, READING).await;
    for site in [&site, &reading] {
        system.recorder.forget(&site.key);
    }
    let once = at_once(std::slice::from_ref(&site), HELD.into(), ask(Kind::Once, 3_000));
    // They end at the upstream before their slots are given away, run again then, and still do after the thaw.
    let read = at_once(std::slice::from_ref(&reading), READING.into(), ask(Kind::Read, 8_000));
    system.recorder.until_running(&site.key, HELD.into()).await;
    system.recorder.until_running(&reading.key, READING.into()).await;
    let stack = system.stack().await;
    let given_up_before = given_up(&system);
    stack.freeze("tool-1").expect("it runs");
    let frozen_at = Instant::now();
    // A slot that the frozen worker released for another's run would be theirs.
    let waiting = at_once(std::slice::from_ref(&reading), READING.into(), ask(Kind::Read, 8_000));
    // Some of these reach the frozen worker's socket and no further.
    let behind = at_once(std::slice::from_ref(&site), 12, ask(Kind::Once, 200));
    tokio::time::sleep_until((frozen_at + ACK_WAIT + Duration::from_secs(3)).into()).await;
    stack.thaw("tool-1").expect("it runs");
    let thawed_at = Instant::now();
    let ended: Vec<Ended> = [once.join_all().await, behind.join_all().await].concat();
    for call in &ended {
        assert!(["done", "outcome_unknown"].contains(&call.code.as_str()), "{call:?}");
    }
    let read = read.join_all().await;
    all_done(&waiting.join_all().await);
    // Whatever sat in the worker's memory or socket has had its chance once new calls went through both workers.
    all_done(&at_once(std::slice::from_ref(&site), 40, ask(Kind::Once, 20)).join_all().await);
    for call in &ended {
        ran_at_most_once_before_its_answer(&system, &site, call);
    }
    for (site, limit) in [(&site, HELD), (&reading, READING)] {
        let runs = system.recorder.runs(&site.key);
        assert!(peak(&runs) <= usize::from(limit), "{} at once, limit {limit}", peak(&runs));
    }
    for call in &read {
        assert!(["done", "outcome_unknown"].contains(&call.code.as_str()), "{call:?}");
        let runs: Vec<_> = system.recorder.runs(&reading.key).into_iter().filter(|run| run.id == call.id).collect();
        assert!(runs.iter().all(|run| run.began <= call.sent + call.took), "ran after its answer: {call:?} {runs:?}");
    }
    let twice = read.iter().filter(|call| system.recorder.runs_of(&reading.key, &call.id) == 2).count();
    assert!(twice > 0, "no call was given to another: this shows nothing");
    until("the frozen worker gives up what it held", async || given_up(&system) > given_up_before).await;
    let aborted = given_up(&system) - given_up_before;
    eprintln!(
        "frozen: {:?} and {:?} of reading calls ({twice} by two workers), thawed after {:.1?}, {aborted} calls given up by the thawed worker",
        by_code(&ended),
        by_code(&read),
        thawed_at - frozen_at,
    );
}

/// Calls that the first tool worker says it gave up because their slots were another's.
fn given_up(system: &System) -> usize {
    let log = std::fs::read_to_string(system.log_dir.join("tool-1.log")).expect("a log");
    log.lines().filter(|line| line.contains("the slot was lost")).count()
}
