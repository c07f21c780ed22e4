//! The calling side: sends a command and awaits its end. The result and the acknowledgements of
//! the queue and of the audit stream all arrive on one inbox, so waiting for all of them costs no
//! further round trip.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::{AtomicU64, Ordering}},
    time::Duration,
};

use async_nats::{Message, StatusCode};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Bus, envelope, frame::{Frame, PublishAck}, lanes::OpenLanes, subject};
use crate::{
    command::{Command, Delivery},
    context::Context,
    fault::{Code, Fault},
    id::CallId,
    json::Raw,
};

/// How long after the deadline an answer may still arrive before the caller is told.
const GRACE: Duration = Duration::from_millis(250);
/// How long the audit acknowledgement may take once the result is there.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);
/// JetStream: `maximum messages per subject exceeded`.
const BOUND_REACHED: u32 = 10077;

/// Sends commands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    bus: Bus,
    inbox: Inbox,
    lanes: OpenLanes,
}

/// What a running call may report.
pub type Progress = mpsc::UnboundedSender<Raw>;

impl Caller {
    /// Subscribes this process's inbox.
    pub async fn start(bus: Bus) -> Result<Self, Fault> {
        let inbox = Inbox::subscribe(&bus).await?;
        let lanes = OpenLanes::default();
        let (open, mut connections) = (lanes.clone(), bus.connections());
        tokio::spawn(async move {
            while connections.changed().await.is_ok() {
                open.forget_all();
            }
        });
        Ok(Self { bus, inbox, lanes })
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
        self.bus.ensure_connected()?;
        let context = context.within(C::DEADLINE);
        if C::DELIVERY == Delivery::Queued {
            Box::pin(self.lanes.ensure(self, &context)).await?;
        }
        let mut line = self.inbox.open();
        self.send(&context, command, &line.subject).await?;
        Await { deadline: context.deadline, delivery: C::DELIVERY, progress, accepted: false, audited: false }
            .end::<C::Reply>(&mut line)
            .await
            .inspect_err(|fault| {
                // A lane that vanished under us is opened again by the next call.
                if C::DELIVERY == Delivery::Queued && fault.code != Code::Throttled {
                    self.lanes.forget(context.organization);
                }
            })
    }

    async fn send<C: Command>(&self, context: &Context, command: &C, inbox: &str) -> Result<(), Fault> {
        let payload = envelope::pack(command)?;
        let client = &self.bus.client;
        let call = CallId::new();
        let sent = match C::DELIVERY {
            Delivery::Direct => {
                let headers = envelope::headers::<C>(context, call, None);
                let to = subject::direct::<C>(context.organization);
                client.publish_with_reply_and_headers(to, inbox.to_owned(), headers, payload).await
            }
            Delivery::Queued => {
                let mut headers = envelope::headers::<C>(context, call, Some(inbox));
                // Garbage collection only (whole seconds, at least one): workers check the deadline.
                let keep = context.deadline.remaining().as_secs() + 3;
                headers.insert("Nats-TTL", keep.to_string().as_str());
                let to = subject::queued(C::POOL, context.organization);
                client.publish_with_reply_and_headers(to, inbox.to_owned(), headers, payload).await
            }
        };
        sent.map_err(|cause| Fault::unavailable("The message queue", cause))
    }
}

/// What is known of a command under way.
struct Await {
    deadline: crate::Deadline,
    delivery: Delivery,
    progress: Option<Progress>,
    accepted: bool,
    audited: bool,
}

impl Await {
    async fn end<T: serde::de::DeserializeOwned>(mut self, line: &mut Line) -> Result<T, Fault> {
        let mut outcome: Option<Result<T, Fault>> = None;
        loop {
            if self.audited && let Some(outcome) = outcome.take() {
                return outcome;
            }
            let patience = if outcome.is_some() { AUDIT_PATIENCE } else { self.deadline.remaining() + GRACE };
            let message = match tokio::time::timeout(patience, line.replies.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(Fault::new(Code::Internal, "The reply line closed.")),
                Err(_) => return Err(self.too_late(outcome.is_some())),
            };
            if message.status == Some(StatusCode::NO_RESPONDERS) {
                return Err(self.nobody_there(outcome.is_some()));
            }
            if let Some(ack) = PublishAck::read(&message.payload) {
                self.note(&ack)?;
                continue;
            }
            match Frame::decode(&message.payload)? {
                Frame::Progress(params) => {
                    if let Some(progress) = &self.progress {
                        // A caller that stopped listening to progress still awaits the end.
                        let _ = progress.send(params);
                    }
                }
                Frame::Done(done) => outcome = Some(done),
            }
        }
    }

    fn note(&mut self, ack: &PublishAck) -> Result<(), Fault> {
        let Some(error) = &ack.error else {
            if ack.stream == super::streams::AUDIT {
                self.audited = true;
            } else {
                self.accepted = true;
            }
            return Ok(());
        };
        if ack.stream == super::streams::AUDIT {
            tracing::error!(code = error.err_code, description = %error.description, "the audit stream refused an event");
            return Err(unaudited());
        }
        if error.err_code == BOUND_REACHED {
            return Err(Fault::new(Code::Throttled, "The organization's queue is full.").after(Duration::from_secs(1)));
        }
        Err(Fault::unavailable("The queue", &error.description))
    }

    fn too_late(&self, ended: bool) -> Fault {
        match (ended, self.delivery, self.accepted) {
            (true, ..) => unaudited(),
            (false, Delivery::Queued, false) => Fault::new(
                Code::OutcomeUnknown,
                "The queue never confirmed the call; whether it ran is not known.",
            ),
            _ => Fault::timeout("The deadline passed before the answer came."),
        }
    }

    fn nobody_there(&self, ended: bool) -> Fault {
        // Ordering of one connection: this notice follows the result only if it is the audit stream's.
        if ended { unaudited() } else { Fault::unavailable("The workers", "no responders") }
    }
}

fn unaudited() -> Fault {
    Fault::new(Code::OutcomeUnknown, "The command ran, but its audit record was not confirmed.")
}

/// One subscription for all replies to this process; a token per command tells them apart.
#[derive(Clone, Debug)]
struct Inbox {
    prefix: Arc<str>,
    next: Arc<AtomicU64>,
    lines: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Message>>>>,
}

/// One command's replies; closing it drops what comes late.
struct Line {
    token: u64,
    subject: String,
    replies: mpsc::UnboundedReceiver<Message>,
    inbox: Inbox,
}

impl Inbox {
    async fn subscribe(bus: &Bus) -> Result<Self, Fault> {
        // The tail cannot be guessed by another process of the same role.
        let prefix: Arc<str> = format!("{}.{}", subject::inbox_prefix(bus.role()), bus.instance()).into();
        let mut subscription = bus
            .client
            .subscribe(format!("{prefix}.*"))
            .await
            .map_err(|cause| Fault::unavailable("The message queue", cause))?;
        let inbox = Self { prefix, next: Arc::default(), lines: Arc::default() };
        let lines = Arc::clone(&inbox.lines);
        tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                let token = message.subject.rsplit('.').next().and_then(|token| u64::from_str_radix(token, 16).ok());
                let Some(token) = token else { continue };
                let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(line) = lines.get(&token) {
                    // The receiver closes only with its line, which removes the entry.
                    let _ = line.send(message);
                }
            }
        });
        Ok(inbox)
    }

    fn open(&self) -> Line {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::unbounded_channel();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).insert(token, sender);
        Line { token, subject: format!("{}.{token:x}", self.prefix), replies, inbox: self.clone() }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.inbox.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}
