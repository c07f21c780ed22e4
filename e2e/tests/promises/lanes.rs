//! Lanes that vanish under a call.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::{Value, json};
use shared::{
    bus::{
        administration::Administration,
        lanes::{LaneState, lane_name},
        state::Limits,
    },
    id::OrganizationId,
};
use tokio::{
    runtime::Handle,
    task::{JoinSet, block_in_place},
};

use super::{
    limits::Lanes,
    load::{Ask, Ended, Site, all_done, at_once},
};
use crate::world::System;

pub(crate) async fn a_lane_removed_between_a_publish_and_its_delivery_loses_nothing(system: Arc<System>) {
    let site = Site::open(&system, 4).await;
    system.recorder.forget(&site.key);
    let lanes = Lanes::open(&system).await;
    // A paused lane holds the call between its publish and its delivery for as long as the test needs.
    site.limit(json!({ "paused": true })).await;
    lanes.until(&site, "the pause", |lane| lane["paused"] == true).await;
    let calls = at_once(std::slice::from_ref(&site), 6, Ask::of_ms(50));
    lanes.until(&site, "the calls", |lane| lane["num_pending"] == 6).await;
    let organization = OrganizationId(site.tenant.id);
    let (partition, lane) = (organization.partition(), lane_name(organization));
    let subject = format!("queue.CONSUMER.DELETE.CALLS_{partition}.{lane}");
    let answer = system.nats("jetstream").await.request(subject, "".into()).await.expect("NATS answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(answer["success"], true, "{answer}");
    let removed_at = Instant::now();
    site.limit(json!({ "paused": false })).await;
    all_done(&calls.join_all().await);
    assert_eq!(system.recorder.runs(&site.key).len(), 6, "every call ran once");
    eprintln!("removed lane: 6 calls done {:.1?} after", removed_at.elapsed());
    // The gateway, which still believed in the old lane, goes on.
    all_done(&at_once(std::slice::from_ref(&site), 6, Ask::of_ms(10)).join_all().await);
}

/// What the controller acts on lanes with.
async fn administration(system: &System) -> Administration {
    Administration::connect(&system.nats_config("jetstream")).await.expect("NATS lets the administrator in")
}

pub(crate) async fn a_lane_that_stays_after_all_obeys_its_limits_as_before(system: Arc<System>) {
    let site = Site::open(&system, 4).await;
    system.recorder.forget(&site.key);
    let (lanes, administration) = (Lanes::open(&system).await, administration(&system).await);
    let organization = OrganizationId(site.tenant.id);
    let open = Limits::concurrent(4);
    let paused = Limits { paused: true, ..open.clone() };
    site.limit(json!({ "paused": true })).await;
    lanes.until(&site, "the pause", |lane| lane["paused"] == true).await;
    let calls = at_once(std::slice::from_ref(&site), 6, Ask::of_ms(50));
    lanes.until(&site, "the calls", |lane| lane["num_pending"] == 6).await;
    let closed = administration.close_lane_if(organization, &paused, LaneState::is_empty).await.expect("NATS answers");
    assert!(!closed, "calls wait in it");
    assert_eq!(lanes.look(&site).await["paused"], true, "a paused organization's lane goes on");
    assert_eq!(system.recorder.runs(&site.key).len(), 0, "a call started during the pause");
    site.limit(json!({ "paused": false })).await;
    all_done(&calls.join_all().await);
    let closed = administration.close_lane_if(organization, &open, |_| false).await.expect("NATS answers");
    assert!(!closed);
    all_done(&at_once(std::slice::from_ref(&site), 6, Ask::of_ms(10)).join_all().await);
}

pub(crate) async fn a_call_published_while_its_lane_is_being_closed_runs_once(system: Arc<System>) {
    let site = Site::open(&system, 4).await;
    system.recorder.forget(&site.key);
    let (lanes, administration) = (Lanes::open(&system).await, administration(&system).await);
    let calls: Mutex<JoinSet<Ended>> = Mutex::default();
    // Between the last look at the lane and its end: the calls are in the stream before it goes.
    let publish = |lane: &LaneState| {
        assert!(lane.is_empty(), "{lane:?}");
        *calls.lock().expect("no panic") = at_once(std::slice::from_ref(&site), 6, Ask::of_ms(50));
        let published = lanes.until(&site, "the calls", |lane| lane["num_pending"] == 6);
        block_in_place(|| Handle::current().block_on(published));
        true
    };
    let limits = Limits::concurrent(4);
    let closed = administration.close_lane_if(OrganizationId(site.tenant.id), &limits, publish).await;
    assert!(closed.expect("NATS answers"), "it may go");
    let closed_at = Instant::now();
    assert_eq!(system.recorder.runs(&site.key).len(), 0, "a call started in a lane that stood still");
    let calls = std::mem::take(&mut *calls.lock().expect("no panic"));
    all_done(&calls.join_all().await);
    assert_eq!(system.recorder.runs(&site.key).len(), 6, "every call ran once");
    eprintln!("closed lane: 6 calls done {:.1?} after", closed_at.elapsed());
}
