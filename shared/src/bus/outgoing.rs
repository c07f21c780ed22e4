//! Commands on their way out of this process. Those of callers that are ready at the same moment leave together, so
//! that they take one write here and one read of the server: what wakes a process costs more than what it does then.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;

/// A command as it is sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) subject: String,
    /// Of one command alone.
    pub(super) reply: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// What waits to be sent. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    client: Client,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Sending>,
    /// Somebody empties it.
    is_attended: bool,
}

impl Outgoing {
    pub(super) fn new(client: Client) -> Self {
        Self { client, queue: Arc::default() }
    }

    /// Sends soon. While NATS is away the client's own channel fills, and what is put here waits.
    pub(super) fn put(&self, sending: Sending) {
        let mut queue = self.lock();
        queue.waiting.push_back(sending);
        let is_attended = std::mem::replace(&mut queue.is_attended, true);
        drop(queue);
        if !is_attended {
            tokio::spawn(self.clone().empty());
        }
    }

    /// Takes back what was not sent. True if it was still here.
    pub(super) fn withdraw(&self, reply: &str) -> bool {
        let mut queue = self.lock();
        let before = queue.waiting.len();
        queue.waiting.retain(|sending| sending.reply != reply);
        queue.waiting.len() < before
    }

    async fn empty(self) {
        // Until the others that are ready have put theirs.
        tokio::task::yield_now().await;
        while let Some(Sending { subject, reply, headers, payload }) = self.next() {
            if let Err(cause) = self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await {
                // Its caller hears nothing and says so at the deadline.
                tracing::error!(%cause, "a command was not sent");
            }
        }
    }

    fn next(&self) -> Option<Sending> {
        let mut queue = self.lock();
        let next = queue.waiting.pop_front();
        queue.is_attended = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use async_nats::ConnectOptions;

    use super::*;

    fn sending(reply: &str) -> Sending {
        let (headers, payload) = (HeaderMap::new(), Bytes::new());
        Sending { subject: "cmd.x".to_owned(), reply: reply.to_owned(), headers, payload }
    }

    #[tokio::test]
    async fn what_waits_for_an_absent_server_can_be_taken_back() {
        let options = ConnectOptions::new().client_capacity(1).retry_on_initial_connect();
        let outgoing = Outgoing::new(options.connect("127.0.0.1:1").await.unwrap());
        for reply in ["1", "2", "3", "4"] {
            outgoing.put(sending(reply));
        }
        let waiting = || outgoing.lock().waiting.iter().map(|sending| sending.reply.clone()).collect::<Vec<_>>();
        assert_eq!(waiting(), ["1", "2", "3", "4"], "nothing leaves before others could join");
        while waiting().len() > 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting(), ["3", "4"], "one is in the client's channel, one waits for a place in it");
        assert!(outgoing.withdraw("3") && !outgoing.withdraw("3"));
        assert!(!outgoing.withdraw("1"), "it is on its way");
        assert_eq!(waiting(), ["4"]);
    }
}
