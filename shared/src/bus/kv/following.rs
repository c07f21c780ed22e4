//! Keeping a copy: changes as the server republishes them, and a comparison with the bucket that fills
//! gaps and recognises a bucket made anew.

use std::{ops::RangeInclusive, sync::Arc};

use async_nats::{Client, Subscriber};
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::{AGAIN_AFTER, Bucket, COMPARE_EVERY, FORGET_EVERY, copy::State};
use crate::bus::{Bus, subject};

/// Hears what changes while it compares: a comparison takes as long as the server takes to answer, and what
/// changed meanwhile must be obeyed meanwhile.
pub(super) async fn keep<T: DeserializeOwned>(bus: Bus, bucket: Bucket, state: Arc<State<T>>) {
    loop {
        // Before the first comparison, or what changes between the two is known to neither.
        match bus.0.client.subscribe(format!("{}>", bucket.watch_prefix())).await {
            Ok(news) => tokio::select! {
                () = hear(bucket, &state, news) => {}
                () = compare(&bus, bucket, &state) => {}
            },
            Err(cause) => tracing::debug!(bucket = bucket.name(), %cause, "watching again"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Until the subscription ends.
async fn hear<T: DeserializeOwned>(bucket: Bucket, state: &State<T>, mut news: Subscriber) {
    while let Some(message) = news.next().await {
        if let Some(revision) = state.hear(bucket, &message) {
            tell(bucket, state.advance(revision..=revision));
        }
    }
}

async fn compare<T: DeserializeOwned>(bus: &Bus, bucket: Bucket, state: &State<T>) {
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    let mut forget = tokio::time::interval(FORGET_EVERY);
    let mut connections = bus.connections();
    loop {
        tokio::select! {
            _ = compare.tick() => {}
            // What was said while the connection was gone was not heard.
            Ok(()) = connections.changed() => {}
            _ = forget.tick() => {
                if let Some(age) = bucket.remembered_for() {
                    state.forget(age);
                }
                continue;
            }
        }
        if let Err(cause) = catch_up(bus, bucket, state).await {
            tracing::debug!(bucket = bucket.name(), %cause, "comparing again");
            compare.reset_after(AGAIN_AFTER);
        }
    }
}

/// Compares the copy with the bucket and reads what is missing.
async fn catch_up<T: DeserializeOwned>(bus: &Bus, bucket: Bucket, state: &State<T>) -> anyhow::Result<()> {
    // As of before the question: a connection lost meanwhile leaves the answer in doubt.
    let losses = *bus.losses().borrow();
    let mut is_another = true;
    while is_another {
        let (created, last) = last_revision(bus, bucket).await?;
        // What was heard of another bucket before this answer came is forgotten with the old one: asked for again.
        is_another = !state.is_of(&created);
        let mut seen = state.start_from(&created);
        if last > seen {
            let missing = seen + 1..=last;
            read(&bus.0.client, subject::API_PREFIX, bucket, missing.clone(), state).await?;
            seen = state.advance(missing);
        }
        tell(bucket, seen);
    }
    state.mark_complete(losses);
    Ok(())
}

/// Tells operators how far the copy goes.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a floating-point number; exact up to 2^53")]
fn tell(bucket: Bucket, revision: u64) {
    metrics::gauge!("switchboard_state_revision", "bucket" => bucket.name()).set(revision as f64);
}

/// When the bucket was made, and its last revision.
async fn last_revision(bus: &Bus, bucket: Bucket) -> anyhow::Result<(String, u64)> {
    #[derive(serde::Deserialize)]
    struct Info {
        created: Option<String>,
        state: Option<Sequences>,
    }
    #[derive(serde::Deserialize)]
    struct Sequences {
        last_seq: u64,
    }
    let answer = bus.0.client.request(subject::api(&format!("STREAM.INFO.{}", bucket.stream())), Bytes::new()).await?;
    match serde_json::from_slice(&answer.payload)? {
        Info { created: Some(created), state: Some(state) } => Ok((created, state.last_seq)),
        _ => anyhow::bail!("the bucket does not exist yet"),
    }
}

/// Reads every entry of some revisions, one by one: no further, since what is written meanwhile is heard, and
/// whoever read on to the end would never come there while writers are quicker. Not by direct reads, which
/// would be quicker: the server sends a direct read's answer, stored bytes as they are, wherever the asker says, and NATS
/// does not hold that subject against the asker's permissions. This answer is JSON of the server's own.
pub(super) async fn read<T: DeserializeOwned>(
    client: &Client,
    api: &str,
    bucket: Bucket,
    revisions: RangeInclusive<u64>,
    state: &State<T>,
) -> anyhow::Result<()> {
    #[derive(serde::Deserialize)]
    struct Answer {
        message: Option<Stored>,
        error: Option<Refused>,
    }
    #[derive(serde::Deserialize)]
    struct Stored {
        subject: String,
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
    }
    #[derive(serde::Deserialize)]
    struct Refused {
        code: u16,
    }
    const NOTHING_MORE: u16 = 404;

    let mut next = *revisions.start();
    while revisions.contains(&next) {
        let question = serde_json::json!({ "seq": next, "next_by_subj": format!("{}>", bucket.subject_prefix()) });
        let subject = format!("{api}.STREAM.MSG.GET.{}", bucket.stream());
        let answer = client.request(subject, serde_json::to_vec(&question)?.into()).await?;
        let stored = match serde_json::from_slice(&answer.payload)? {
            Answer { message: Some(stored), .. } => stored,
            Answer { error: Some(Refused { code: NOTHING_MORE }), .. } => return Ok(()),
            Answer { .. } => anyhow::bail!("the bucket does not answer"),
        };
        let (headers, data) = (STANDARD.decode(stored.hdrs)?, STANDARD.decode(stored.data)?);
        let headers = String::from_utf8_lossy(&headers).into_owned();
        let deleted = headers.contains("\r\nKV-Operation:") || headers.contains("\r\nNats-Marker-Reason:");
        state
            .apply(bucket, &stored.subject, stored.seq, (!deleted).then_some(&data))
            .ok_or_else(|| anyhow::anyhow!("a malformed entry"))?;
        next = stored.seq + 1;
    }
    Ok(())
}
