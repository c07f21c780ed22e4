//! A subscription that ends, where too few messages come to end it by themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use shared::{
    bus::{Bus, Role},
    command::Pool,
};
use tokio::task::JoinSet;

use crate::world::System;

const ENDS: usize = 40;
/// Offers at the same moment, a few for each who hears them.
const BURST: usize = 16;
/// An offer that has no answer by then never will.
const LOST: Duration = Duration::from_secs(10);

/// Offers as a full worker makes them: the tool pool's own workers hear them too, and whoever hears one
/// answers. Sent until the members have ended often enough; how many there were.
async fn offer_until(have_ended: &AtomicBool, bus: async_nats::Client) -> usize {
    let (mut offers, mut sent) = (JoinSet::new(), 0);
    while !have_ended.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            let bus = bus.clone();
            offers.spawn(async move {
                let offer = async_nats::Request::new().timeout(None);
                let offered = tokio::time::timeout(LOST, bus.send_request("pass.tool", offer));
                let answer = offered.await.expect("an offer was lost").expect("somebody hears offers");
                if let Some(taker) = answer.reply {
                    // A worker has set a turn aside: nothing that it could run, so it goes on.
                    bus.publish(taker, Bytes::new()).await.expect("NATS is there");
                }
            });
        }
        sent += BURST;
        // Between bursts an end has to bring its own; within one, some are on their way when it begins.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    offers.join_all().await;
    sent
}

/// Joins, hears a few, and ends; how many it heard.
async fn join_and_end(bus: &Bus) -> usize {
    let mut offers = bus.offers(Pool::Tool).await.expect("NATS is there");
    let mut heard = 0;
    while heard < 2 {
        offers.next().await.expect("it has not ended").decline().await;
        heard += 1;
    }
    offers.end().await;
    while let Some(offer) = offers.next().await {
        offer.decline().await;
        heard += 1;
    }
    heard
}

pub(crate) async fn a_subscription_that_ends_loses_nothing_where_little_comes(system: Arc<System>) {
    let bus = Bus::connect(&system.nats_config("tool"), Role::Pool(Pool::Tool), None).await;
    let bus = bus.expect("NATS lets the role in");
    let have_ended = Arc::new(AtomicBool::new(false));
    let offering = tokio::spawn({
        let (have_ended, client) = (Arc::clone(&have_ended), system.nats("tool").await);
        async move { offer_until(&have_ended, client).await }
    });
    let (mut heard, started) = (0, Instant::now());
    for _ in 0..ENDS / 4 {
        heard += join_all((0..4).map(|_| join_and_end(&bus))).await.iter().sum::<usize>();
    }
    let took = started.elapsed();
    have_ended.store(true, Ordering::Relaxed);
    let sent = offering.await.expect("no offer was lost");
    assert!(sent > heard, "{heard} of {sent}: others hear some, and what fills an end is no offer");
    eprintln!("ends: {ENDS} in {took:.1?}, {heard} of {sent} offers heard by who ended");

    // Alone, and nothing comes: it fills its end itself. Ten seconds are for a server that stands still.
    let mut offers = bus.offers(Pool::Tool).await.expect("NATS is there");
    offers.end().await;
    let end = async { while offers.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.expect("it ends");
}
