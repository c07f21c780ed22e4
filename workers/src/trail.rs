//! The audit pool: batches of the stream become rows, then the stream forgets them. The event's
//! id makes a repetition harmless.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use shared::{
    Fault,
    audit::Event,
    bus::audit::AuditBatch,
    db::{self, audit::NotAppended},
};
use tokio_util::sync::CancellationToken;

use crate::pools::Audit;

/// Messages that are read at once; one may hold several events.
const BATCH: usize = 64;
/// Events that are written at once.
const CHUNK: usize = 500;
/// How long events may gather before they are read.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// How long events rest that the database did not take.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a message rests that holds an event which cannot be kept: the next version may be able to.
const UNKEPT_REST_FOR: Duration = Duration::from_hours(1);

/// Writes until told to stop.
pub async fn serve(parts: Arc<Audit>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let batch = tokio::select! {
            batch = parts.bus.audit_batch(BATCH) => batch,
            () = stop.cancelled() => return,
        };
        let kept = match batch {
            Ok(batch) => keep_or_put_back(&parts, batch).await,
            Err(fault) => Err(fault),
        };
        let rest = match kept {
            Ok(BATCH) => continue,
            Ok(_) => GATHER_FOR,
            Err(fault) => {
                // Nothing is lost: the stream delivers again what was not acknowledged.
                tracing::warn!(%fault, "audit events wait in the stream");
                TRY_AGAIN_AFTER
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Keeps a batch; how many messages it had.
async fn keep_or_put_back(parts: &Audit, batch: AuditBatch) -> Result<usize, Fault> {
    if batch.is_empty() {
        return Ok(0);
    }
    let messages = batch.len();
    match keep(parts, &batch).await {
        Ok(unkept) => batch.ack_but(&unkept, UNKEPT_REST_FOR).await,
        Err(fault) => {
            batch.put_back(TRY_AGAIN_AFTER).await;
            return Err(fault);
        }
    }
    Ok(messages)
}

/// Keeps the events of a batch; the numbers of the messages that hold one which cannot be.
async fn keep(parts: &Audit, batch: &AuditBatch) -> Result<BTreeSet<usize>, Fault> {
    let (mut unkept, mut messages, mut events) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut unreadable = 0;
    for (message, bytes) in batch.events() {
        if let Some(event) = read_event(bytes) {
            messages.push(message);
            events.push(event);
        } else {
            unreadable += 1;
            unkept.insert(message);
        }
    }
    metrics::counter!("switchboard_audit_events_total", "fate" => "unreadable").increment(unreadable);
    for (events, messages) in events.chunks(CHUNK).zip(messages.chunks(CHUNK)) {
        let Appended { new, refused } = append(parts, events).await?;
        unkept.extend(refused.into_iter().map(|event| messages[event]));
        metrics::counter!("switchboard_audit_events_total", "fate" => "kept")
            .increment(u64::try_from(new).unwrap_or_default());
    }
    Ok(unkept)
}

/// What became of some events.
#[derive(Debug, Default)]
struct Appended {
    /// How many are in the table that were not.
    new: i64,
    /// Which of them the database refuses.
    refused: Vec<usize>,
}

/// One event that the database refuses must not hold back the others: after a refused batch each
/// goes alone, and the refused ones stay in the stream for an operator to look at.
async fn append(parts: &Audit, events: &[(Event, Bytes)]) -> Result<Appended, Fault> {
    match db::audit::append(&parts.database, events).await {
        Ok(new) => return Ok(Appended { new, refused: Vec::new() }),
        Err(NotAppended::Failed(fault)) => return Err(fault),
        Err(NotAppended::Refused) => {}
    }
    let mut appended = Appended::default();
    for (number, event) in events.iter().enumerate() {
        match db::audit::append(&parts.database, std::slice::from_ref(event)).await {
            Ok(new) => appended.new += new,
            Err(NotAppended::Failed(fault)) => return Err(fault),
            Err(NotAppended::Refused) => {
                tracing::error!(event = %event.0.id, "the database refuses an audit event");
                metrics::counter!("switchboard_audit_events_total", "fate" => "refused").increment(1);
                appended.refused.push(number);
            }
        }
    }
    Ok(appended)
}

fn read_event(bytes: Bytes) -> Option<(Event, Bytes)> {
    match serde_json::from_slice(&bytes) {
        Ok(event) => Some((event, bytes)),
        Err(cause) => {
            // Only our own pools may publish here: this is a bug or a forgery, and stays in the stream.
            tracing::error!(%cause, "an unreadable audit event");
            None
        }
    }
}
