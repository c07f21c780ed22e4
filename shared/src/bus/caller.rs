//! The calling side: sends a command and awaits its end. The result and the acknowledgements of
//! the queue and of the audit stream all arrive in one inbox, so waiting for all of them costs no
//! further round trip.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    Bus, envelope,
    frame::{Frame, PublishAck},
    inbox::{Inbox, Line, Reply},
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
        let mut line = self.inbox.open(queued);
        let sent_at = Instant::now();
        let put = outgoing.put(sending::<C>(&context, payload, &line)?);
        let waiting = Await { deadline: context.deadline, queued, progress, audited: false };
        let ended = waiting.end::<C::Reply>(&mut line).await;
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
    Ok(Sending { subject, reply, headers, payload, caller: line.sender.clone() })
}

/// How a command ended, as the caller sees it.
enum End<T> {
    /// A worker said so.
    Told(Result<T, Fault>),
    /// No worker did.
    Lost(Fault),
}

/// What is known of a command under way.
struct Await {
    deadline: Deadline,
    queued: bool,
    progress: Option<Progress>,
    audited: bool,
}

impl Await {
    async fn end<T: DeserializeOwned>(mut self, line: &mut Line) -> End<T> {
        let mut outcome: Option<Result<T, Fault>> = None;
        loop {
            if self.audited
                && let Some(outcome) = outcome.take()
            {
                return End::Told(outcome);
            }
            let least = if outcome.is_some() { AUDIT_PATIENCE } else { Duration::ZERO };
            let patience = (self.deadline.remaining() + GRACE).max(least);
            let reply = match tokio::time::timeout(patience, line.replies.recv()).await {
                Ok(Some(reply)) => reply,
                Ok(None) => return End::Lost(Fault::internal("the reply line closed")),
                Err(_) => return End::Lost(self.too_late(outcome.is_some(), line.is_kept())),
            };
            let content = match reply {
                Reply::Content(content) => content,
                // Told to the publisher alone: it is about the command, never about its audit event.
                Reply::NotSent(fault) => return End::Lost(fault),
                Reply::NoResponders => return End::Lost(Fault::unavailable("The workers", "no responders")),
            };
            if let Some(ack) = PublishAck::read(&content) {
                if let Err(fault) = self.note(&ack) {
                    return End::Lost(fault);
                }
                continue;
            }
            match Frame::decode(&content) {
                Ok(Frame::Progress(params)) => {
                    if let Some(progress) = &self.progress {
                        // A caller that stopped listening to progress still awaits the end.
                        let _ = progress.send(params);
                    }
                }
                Ok(Frame::Done(done)) => outcome = Some(done),
                Err(fault) => return End::Lost(fault),
            }
        }
    }

    fn note(&mut self, ack: &PublishAck) -> Result<(), Fault> {
        let Some(error) = &ack.error else {
            self.audited |= ack.stream == super::streams::AUDIT;
            return Ok(());
        };
        if ack.stream == super::streams::AUDIT {
            tracing::error!(code = error.err_code, description = %error.description, "the audit stream refused an event");
            return Err(unaudited());
        }
        // A full partition carries the same code, and is not the organization's doing.
        if error.err_code == BOUND_REACHED && error.description.contains("per subject") {
            return Err(Fault::new(Code::Throttled, "The organization's queue is full."));
        }
        Err(Fault::unavailable("The queue", &error.description))
    }

    fn too_late(&self, ended: bool, is_kept: bool) -> Fault {
        match (ended, self.queued, is_kept) {
            (true, ..) => unaudited(),
            (false, true, false) => {
                Fault::new(Code::OutcomeUnknown, "The queue never confirmed the call; whether it ran is not known.")
            }
            _ => Fault::timeout("The deadline passed before the answer came."),
        }
    }
}

fn unaudited() -> Fault {
    Fault::new(Code::OutcomeUnknown, "The command ran, but its audit record was not confirmed.")
}
