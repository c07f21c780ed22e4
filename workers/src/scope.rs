//! What a command has at hand while it runs: its context, its pool's parts, one transaction, notes
//! for the audit trail and the news to spread once the transaction is kept.

use shared::{Context, Fault, audit::Notes, db::Transaction, id::CallId, json::Raw};

use crate::{announce::Announcement, pools::Parts, run::Job};

/// A running command's surroundings.
#[derive(Debug)]
pub struct Scope<'a, P> {
    /// Whose, who, until when.
    pub context: &'a Context,
    /// What the pool shares among its commands.
    pub parts: &'a P,
    /// For the audit event.
    pub notes: Notes,
    /// This command on its way.
    pub call: CallId,
    /// Which delivery of it, from 1.
    pub attempt: u64,
    /// Milliseconds it waited in a lane; zero for direct commands.
    pub queued_ms: u64,
    reply: &'a str,
    transaction: Option<Transaction>,
    wrote: bool,
    announcements: Vec<Announcement>,
}

/// What is left of a scope once the command returned.
#[derive(Debug, Default)]
pub struct Remains {
    /// For the audit event.
    pub notes: Notes,
    /// To be kept or dropped.
    pub transaction: Option<Transaction>,
    /// Whether the command changed anything in it.
    pub wrote: bool,
    /// To be spread after the commit.
    pub announcements: Vec<Announcement>,
}

impl<'a, P: Parts> Scope<'a, P> {
    /// Surroundings of one delivery, run in the context that stands when it starts.
    pub fn new(parts: &'a P, job: Job<'a>, context: &'a Context) -> Self {
        Self {
            context,
            parts,
            notes: Notes::default(),
            call: job.envelope.call,
            attempt: job.attempt,
            queued_ms: job.queued_ms,
            reply: &job.envelope.reply,
            transaction: None,
            wrote: false,
            announcements: Vec::new(),
        }
    }

    /// The command's transaction, for reading.
    pub async fn read(&mut self) -> Result<&mut Transaction, Fault> {
        if self.transaction.is_none() {
            self.transaction = Some(self.parts.database().tenant(self.context).await?);
        }
        self.transaction.as_mut().ok_or_else(|| Fault::internal("no transaction"))
    }

    /// The command's transaction, for a change: kept together with its audit event, or not at all.
    pub async fn write(&mut self) -> Result<&mut Transaction, Fault> {
        self.wrote = true;
        self.read().await
    }

    /// Drops what the command did so far, and its locks with it.
    pub async fn give_up(&mut self) {
        self.wrote = false;
        self.announcements.clear();
        if let Some(transaction) = self.transaction.take()
            && let Err(fault) = transaction.give_up().await
        {
            tracing::debug!(%fault, "a transaction that was given up");
        }
    }

    /// News for everybody else, once the transaction is kept.
    pub fn announce(&mut self, announcement: Announcement) {
        self.announcements.push(announcement);
    }

    /// Reports progress to the caller: MCP `notifications/progress` parameters.
    pub async fn progress(&self, params: Raw) -> Result<(), Fault> {
        let frame = shared::bus::frame::Frame::<()>::Progress(params).encode()?;
        self.parts.bus().reply(self.reply, frame).await
    }

    /// Takes the scope apart.
    pub fn remains(self) -> Remains {
        Remains {
            notes: self.notes,
            transaction: self.transaction,
            wrote: self.wrote,
            announcements: self.announcements,
        }
    }
}
