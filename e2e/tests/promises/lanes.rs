//! Lanes that vanish under a call.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use shared::{bus::lanes::lane_name, id::OrganizationId};

use super::{
    limits::Lanes,
    load::{Ask, Site, all_done, at_once},
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
    let subject = format!("$JS.API.CONSUMER.DELETE.CALLS_{partition}.{lane}");
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
