//! The audit pool: batches of the stream become rows, then the stream may forget them. The event's
//! id makes a repetition harmless.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use shared::{Code, Fault, audit::Event, bus::audit::AuditBatch, db};
use tokio_util::sync::CancellationToken;

use crate::pools::Audit;

/// Messages that are read at once; one may hold several events.
const BATCH: usize = 128;
/// Events that are written at once.
const CHUNK: usize = 500;
/// How long events may gather before they are read.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// How long events rest that the database did not take.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    let kept = keep(parts, &batch).await;
    if kept.is_ok() {
        batch.ack().await;
    } else {
        batch.put_back(TRY_AGAIN_AFTER).await;
    }
    kept.map(|()| messages)
}

async fn keep(parts: &Audit, batch: &AuditBatch) -> Result<(), Fault> {
    let read: Vec<Option<(Event, Bytes)>> = batch.events().map(read_event).collect();
    let all = read.len();
    let events: Vec<(Event, Bytes)> = read.into_iter().flatten().collect();
    for chunk in events.chunks(CHUNK) {
        let new = append(parts, chunk).await?;
        metrics::counter!("switchboard_audit_events_total", "fate" => "kept")
            .increment(u64::try_from(new).unwrap_or_default());
    }
    let unreadable = all - events.len();
    metrics::counter!("switchboard_audit_events_total", "fate" => "unreadable")
        .increment(u64::try_from(unreadable).unwrap_or_default());
    Ok(())
}

/// One event that the database refuses must not hold back the others: after a refused batch each
/// goes alone, and the refused ones stay in the stream for an operator to look at.
async fn append(parts: &Audit, events: &[(Event, Bytes)]) -> Result<i64, Fault> {
    match db::audit::append(&parts.database, events).await {
        Err(fault) if fault.code == Code::Internal => {}
        ended => return ended,
    }
    let mut new = 0;
    for event in events {
        match db::audit::append(&parts.database, std::slice::from_ref(event)).await {
            Ok(count) => new += count,
            Err(fault) if fault.code == Code::Internal => {
                tracing::error!(event = %event.0.id, "the database refuses an audit event");
                metrics::counter!("switchboard_audit_events_total", "fate" => "refused").increment(1);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(new)
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
