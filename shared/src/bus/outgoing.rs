//! Commands on their way out of this process. Those of callers that are ready at the same moment leave together, so
//! that they take one write here and one read of the server: what wakes a process costs more than what it does then.
//! Where they come slowly each leaves from where it is: waiting for others takes a task of its own.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::inbox::{Place, Reply};
use crate::fault::Fault;

/// A command as it is sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) subject: String,
    /// Of one command alone.
    pub(super) reply: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
    /// Told where it cannot be sent.
    pub(super) caller: Place,
}

/// What waits to be sent. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    client: Client,
    pending: Arc<Mutex<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    waiting: VecDeque<(u64, Sending)>,
    last: u64,
    put_at: Option<Instant>,
    /// Somebody empties it.
    is_attended: bool,
}

/// Where a command comes so long after another, no third is likely at the same moment. Less than one caller alone takes
/// from one command to the next.
const SLOW: Duration = Duration::from_micros(300);

/// A command that was put. Dropped before it was sent, it is not sent any more: nobody waits for its end.
#[derive(Debug)]
pub(super) enum Put {
    /// In the queue, by its number.
    Waits(Outgoing, u64),
    /// In the client's hand, or waiting for a place in it.
    Leaves { _waits: Option<AbortOnDropHandle<()>> },
}

impl Put {
    /// Takes it back where it was not sent. True if it was certainly still here.
    pub(super) fn withdraw(&self) -> bool {
        let Self::Waits(outgoing, number) = self else { return false };
        let mut queue = outgoing.lock();
        // In the order of their numbers.
        let at = queue.waiting.binary_search_by_key(number, |(number, _)| *number);
        at.ok().and_then(|at| queue.waiting.remove(at)).is_some()
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Outgoing {
    pub(super) fn new(client: Client) -> Self {
        Self { client, pending: Arc::default() }
    }

    /// Sends, at once or soon. While NATS is away the client's own channel fills, and what is put here waits.
    pub(super) fn put(&self, sending: Sending) -> Put {
        let now = Instant::now();
        let mut queue = self.lock();
        let before = queue.put_at.replace(now);
        if !queue.is_attended && before.is_none_or(|before| now - before > SLOW) {
            drop(queue);
            return self.send(sending);
        }
        queue.last += 1;
        let number = queue.last;
        queue.waiting.push_back((number, sending));
        let is_attended = std::mem::replace(&mut queue.is_attended, true);
        drop(queue);
        if !is_attended {
            tokio::spawn(self.clone().empty());
        }
        Put::Waits(self.clone(), number)
    }

    fn send(&self, sending: Sending) -> Put {
        let client = self.client.clone();
        let mut sent = Box::pin(async move { send(&client, sending).await });
        let is_sent = sent.as_mut().now_or_never().is_some();
        Put::Leaves { _waits: (!is_sent).then(|| AbortOnDropHandle::new(tokio::spawn(sent))) }
    }

    async fn empty(self) {
        // Until the others that are ready have put theirs.
        tokio::task::yield_now().await;
        while let Some(sending) = self.next() {
            send(&self.client, sending).await;
        }
    }

    fn next(&self) -> Option<Sending> {
        let mut queue = self.lock();
        let next = queue.waiting.pop_front().map(|(_, sending)| sending);
        queue.is_attended = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(client: &Client, sending: Sending) {
    let Sending { subject, reply, headers, payload, caller } = sending;
    if let Err(cause) = client.publish_with_reply_and_headers(subject, reply, headers, payload).await {
        caller.tell(Reply::NotSent(Fault::unavailable("The message queue", cause)));
    }
}

#[cfg(test)]
mod tests {
    use async_nats::ConnectOptions;

    use super::{
        super::inbox::{Inbox, Line},
        *,
    };
    use crate::fault::Code;

    fn line() -> Line {
        Inbox::at("_INBOX_gateway.x".into(), "_INBOX_caller.x".into()).open(true, None)
    }

    fn sending(reply: &str) -> Sending {
        let (headers, payload, caller) = (HeaderMap::new(), Bytes::new(), line().place());
        Sending { subject: "cmd.x".to_owned(), reply: reply.to_owned(), headers, payload, caller }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_an_absent_server_can_be_taken_back() {
        let options = ConnectOptions::new().client_capacity(1).retry_on_initial_connect();
        let outgoing = Outgoing::new(options.connect("127.0.0.1:1").await.unwrap());
        let mut put = ["1", "2", "3", "4", "5"].map(|reply| Some(outgoing.put(sending(reply))));
        let waiting = || outgoing.lock().waiting.iter().map(|(_, one)| one.reply.clone()).collect::<Vec<_>>();
        assert_eq!(waiting(), ["2", "3", "4", "5"], "the first leaves; no other does before more could join");
        while waiting().len() > 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting(), ["3", "4", "5"], "one is in the client's channel, one waits for a place in it");
        let third = put[2].as_ref().unwrap();
        assert!(third.withdraw() && !third.withdraw());
        drop(put[3].take());
        assert_eq!(waiting(), ["5"], "whose caller is gone is not sent");
        assert!(!put[0].as_ref().unwrap().withdraw(), "it is on its way");
    }

    #[tokio::test(start_paused = true)]
    async fn commands_that_come_slowly_leave_at_once() {
        let options = ConnectOptions::new().client_capacity(2).retry_on_initial_connect();
        let outgoing = Outgoing::new(options.connect("127.0.0.1:1").await.unwrap());
        let mut put = Vec::new();
        for reply in ["1", "2", "3"] {
            put.push(outgoing.put(sending(reply)));
            tokio::time::advance(2 * SLOW).await;
        }
        assert!(outgoing.lock().waiting.is_empty());
        let waits = put.iter().map(|put| matches!(put, Put::Leaves { _waits: Some(_) })).collect::<Vec<_>>();
        assert_eq!(waits, [false, false, true], "there is place for two in the client's channel");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_told_at_once() {
        let options = ConnectOptions::new().retry_on_initial_connect();
        let outgoing = Outgoing::new(options.connect("127.0.0.1:1").await.unwrap());
        let mut line = line();
        let put = outgoing.put(Sending { subject: "not a subject".to_owned(), caller: line.place(), ..sending("1") });
        let told = (&mut line.reply).await;
        assert!(matches!(told, Ok(Reply::NotSent(fault)) if fault.code == Code::Unavailable));
        assert!(!put.withdraw());
    }
}
