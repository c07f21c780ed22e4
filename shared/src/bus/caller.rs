//! The calling side: sends a command and awaits its end. The result and the acknowledgements of the queue and of
//! the audit stream all arrive in one inbox, so waiting for all of them costs no further round trip; the inbox tells
//! the end once all are there.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    Bus, envelope,
    frame::{Frame, PublishError},
    inbox::{Inbox, Known, Line, Reply},
    lanes::OpenLanes,
    outgoing::{Outgoing, Sending},
    pace::Pace,
    queue::Queue,
    subject,
    waiting::Waiting,
};
use crate::{
    command::{Command, Delivery},
    context::{Context, Deadline},
    fault::{Code, Fault},
    id::OrganizationId,
    json::Raw,
};

/// How long after the deadline an answer may still arrive before the caller is told.
const GRACE: Duration = Duration::from_millis(250);
/// How long the audit acknowledgement may take once the result is there, at least: whoever would have
/// waited longer for the result waits longer for this.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);
/// JetStream: `maximum messages per subject exceeded`.
const BOUND_REACHED: u32 = 10077;

/// Sends commands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    bus: Bus,
    inbox: Inbox,
    direct: Outgoing,
    queued: Option<(Queue, Outgoing)>,
    lanes: OpenLanes,
    pace: Pace,
    waiting: Waiting,
}

/// What a running call may report.
pub type Progress = mpsc::UnboundedSender<Raw>;

impl Caller {
    /// Subscribes this process's inbox. Queued commands need a bus with a connection to the queue.
    pub async fn start(bus: Bus) -> Result<Self, Fault> {
        let inbox = Inbox::subscribe(&bus).await?;
        let lanes = OpenLanes::default();
        // NATS may have lost its memory. And a call goes out by one connection and is answered by another: the
        // controller's answer to the first one after a loss shows that this inbox is heard again.
        for mut losses in [Some(bus.losses()), bus.0.queue.as_ref().map(Queue::losses)].into_iter().flatten() {
            let open = lanes.clone();
            tokio::spawn(async move {
                while losses.changed().await.is_ok() {
                    open.forget_all();
                }
            });
        }
        let direct = Outgoing::new(bus.0.client.clone());
        let queued = bus.0.queue.clone().map(|queue| (queue.clone(), Outgoing::new(queue.client)));
        Ok(Self { bus, inbox, direct, queued, lanes, pace: Pace::default(), waiting: Waiting::default() })
    }

    /// Sends a command and awaits its end, which comes by the deadline or is told as `timeout`.
    pub async fn call<C: Command>(&self, context: &Context, command: &C) -> Result<C::Reply, Fault> {
        self.call_with_progress(context, command, None).await
    }

    /// The same, passing progress on.
    pub async fn call_with_progress<C: Command>(
        &self,
        context: &Context,
        command: &C,
        progress: Option<Progress>,
    ) -> Result<C::Reply, Fault> {
        let outgoing = self.way_out(C::DELIVERY)?;
        let context = context.within(C::DEADLINE);
        let queued = C::DELIVERY == Delivery::Queued;
        if queued && !self.lanes.is_open(context.organization) {
            Box::pin(self.lanes.open(self, &context)).await?;
        }
        let payload = envelope::pack(command)?;
        let _room = if queued { Some(self.waiting.enter(context.organization, payload.len())?) } else { None };
        let mut line = self.inbox.open(queued, progress);
        let sent_at = Instant::now();
        let put = outgoing.put(sending::<C>(&context, payload, &line)?);
        let ended = end::<C::Reply>(&mut line, context.deadline, queued).await;
        let was_sent = matches!(ended, End::Told(_)) || !put.withdraw();
        if queued {
            self.learn(context.organization, sent_at, &ended).await;
        }
        match ended {
            End::Told(outcome) => outcome,
            End::Lost(_) if !was_sent => {
                Err(Fault::unavailable("The message queue", "writing took until the deadline"))
            }
            End::Lost(fault) if fault.code == Code::Throttled => {
                Err(fault.after(self.pace.until_half_empty(context.organization)))
            }
            End::Lost(fault) => Err(fault),
        }
    }

    /// By which connection a command leaves. That by which its answer comes must stand too.
    fn way_out(&self, delivery: Delivery) -> Result<&Outgoing, Fault> {
        self.bus.ensure_connected()?;
        let Delivery::Queued = delivery else { return Ok(&self.direct) };
        let (queue, outgoing) = self.queued.as_ref().ok_or_else(|| Fault::internal("no connection to the queue"))?;
        queue.ensure_connected()?;
        Ok(outgoing)
    }

    /// What the end of a queued call tells about its lane.
    async fn learn<T>(&self, organization: OrganizationId, sent_at: Instant, ended: &End<T>) {
        match ended {
            End::Told(_) => self.pace.note(organization, sent_at.elapsed()),
            End::Lost(fault) if fault.code == Code::Throttled => {}
            // Perhaps the lane vanished under us: the next call makes sure.
            End::Lost(_) => Box::pin(self.lanes.forget(organization)).await,
        }
    }
}

/// A command as it is sent.
fn sending<C: Command>(context: &Context, payload: Bytes, line: &Line) -> Result<Sending, Fault> {
    let (subject, reply, headers) = match C::DELIVERY {
        Delivery::Direct => {
            let headers = envelope::headers::<C>(context, None)?;
            (subject::direct::<C>(context.organization), line.subject.clone(), headers)
        }
        Delivery::Queued => {
            let mut headers = envelope::headers::<C>(context, Some(&line.subject))?;
            // Garbage collection only (whole seconds, at least one): workers check the deadline.
            let keep = context.deadline.remaining().as_secs() + 3;
            headers.insert("Nats-TTL", keep.to_string().as_str());
            (subject::queued(C::POOL, context.organization), line.of_the_queue(), headers)
        }
    };
    Ok(Sending { subject, reply, headers, payload, caller: line.place() })
}

/// How a command ended, as the caller sees it.
enum End<T> {
    /// A worker said so.
    Told(Result<T, Fault>),
    /// No worker did.
    Lost(Fault),
}

/// Awaits the end of a command, which is there once its record is kept too.
async fn end<T: DeserializeOwned>(line: &mut Line, deadline: Deadline, queued: bool) -> End<T> {
    let mut told = tokio::time::timeout(deadline.remaining() + GRACE, &mut line.reply).await;
    if told.is_err() {
        // What was told at this very moment counts too.
        let left = line.known().ended_at.map(|ended_at| AUDIT_PATIENCE.saturating_sub(ended_at.elapsed()));
        told = tokio::time::timeout(left.unwrap_or_default(), &mut line.reply).await;
    }
    match told {
        Ok(Ok(Reply::Ended(frame))) => match Frame::decode(&frame) {
            Ok(Frame::Done(outcome)) => End::Told(outcome),
            Ok(Frame::Progress(_)) => End::Lost(Fault::internal("progress came last")),
            Err(fault) => End::Lost(fault),
        },
        Ok(Ok(Reply::Refused(stream, error))) => End::Lost(refused(&stream, &error)),
        // Told to the publisher alone: it is about the command, never about its audit event.
        Ok(Ok(Reply::NotSent(fault))) => End::Lost(fault),
        Ok(Ok(Reply::NoResponders)) => End::Lost(Fault::unavailable("The workers", "no responders")),
        Ok(Err(_closed)) => End::Lost(Fault::internal("the reply line closed")),
        Err(_late) => End::Lost(too_late(line.known(), queued)),
    }
}

fn refused(stream: &str, error: &PublishError) -> Fault {
    if stream == super::streams::AUDIT {
        tracing::error!(code = error.err_code, description = %error.description, "the audit stream refused an event");
        return unaudited();
    }
    // A full partition carries the same code, and is not the organization's doing.
    if error.err_code == BOUND_REACHED && error.description.contains("per subject") {
        return Fault::new(Code::Throttled, "The organization's queue is full.");
    }
    Fault::unavailable("The queue", &error.description)
}

fn too_late(known: Known, queued: bool) -> Fault {
    match known {
        Known { ended_at: Some(_), .. } => unaudited(),
        Known { is_kept: false, .. } if queued => {
            Fault::new(Code::OutcomeUnknown, "The queue never confirmed the call; whether it ran is not known.")
        }
        Known { .. } => Fault::timeout("The deadline passed before the answer came."),
    }
}

fn unaudited() -> Fault {
    Fault::new(Code::OutcomeUnknown, "The command ran, but its audit record was not confirmed.")
}
