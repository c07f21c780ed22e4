//! The inbox of a process: one subscription for all answers to its commands.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::Message;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Bus, subject};
use crate::fault::Fault;

/// One subscription for all replies to this process; a token per command tells them apart.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    prefix: Arc<str>,
    next: Arc<AtomicU64>,
    lines: Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Message>>>>,
}

/// One command's replies; closing it drops what comes late.
pub(super) struct Line {
    token: u64,
    /// Where the answer goes.
    pub(super) subject: String,
    pub(super) replies: mpsc::UnboundedReceiver<Message>,
    inbox: Inbox,
}

impl Inbox {
    pub(super) async fn subscribe(bus: &Bus) -> Result<Self, Fault> {
        // The tail cannot be guessed by another process of the same role.
        let prefix: Arc<str> = format!("{}.{}", subject::inbox_prefix(bus.role().name()), bus.instance()).into();
        let mut subscription = bus
            .0
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

    pub(super) fn open(&self) -> Line {
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
