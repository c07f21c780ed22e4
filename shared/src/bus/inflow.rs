//! A subscription that can be ended without losing what is on its way. The client library forgets
//! a subscription as soon as it asked the server to end it, and drops what the server had sent by
//! then (measured with 1 ms between them: 55 messages in 40 drains). So the end is announced some
//! messages ahead: the server stops exactly there, and the client keeps listening until then. Where
//! too few come, it is announced anew for fewer, and only where none come it is cut.
//!
//! The server counts anew after a reconnect and the client library does not, so that the two would
//! stop at different messages: a lost connection takes its subscription along, and a new one begins.

use std::{collections::VecDeque, time::Duration};

use async_nats::{Client, Message, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::OptionFuture};
use tokio::{sync::watch, time::Instant};

use crate::fault::Fault;

/// How many messages ahead an end is announced, and again when they have not come. The first is more
/// than can be on the wire to one subscription; after that the traffic is known to be slower.
const AHEAD: [u64; 3] = [64, 8, 2];
/// How long the messages of one announcement may take to come.
const PATIENCE: Duration = Duration::from_secs(1);
/// When nothing has come for so long, most likely nothing is on its way.
const QUIET: Duration = Duration::from_millis(250);
/// How long the server may take to answer whether it is.
const ANSWER: Duration = Duration::from_secs(3);

/// A connection, as far as subscriptions care.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    /// Counts connections made.
    pub(super) connections: watch::Receiver<u64>,
    /// Counts connections lost.
    pub(super) losses: watch::Receiver<u64>,
    /// A subject that the user may publish and nobody hears.
    pub(super) nobody: String,
}

impl Link {
    /// True once the server answered: everything it sent to this connection before is here. Nobody
    /// hears the question, and the server says so itself.
    pub(super) async fn is_answered(&self) -> bool {
        match self.client.request(self.nobody.clone(), Bytes::new()).await {
            Ok(_) => true,
            Err(cause) => cause.kind() == RequestErrorKind::NoResponders,
        }
    }
}

/// Messages of one member of a queue group.
#[derive(Debug)]
pub(super) struct Inflow {
    link: Link,
    subject: String,
    group: &'static str,
    subscriber: Option<Subscriber>,
    /// Connections lost before this subscription was made.
    lost: u64,
    received: u64,
    /// Received, and not handed out yet.
    at_hand: VecDeque<Message>,
    ending: Option<Ending>,
}

/// An end that was announced.
#[derive(Clone, Copy, Debug)]
struct Ending {
    /// How often.
    announced: usize,
    /// When to do something about it.
    look_at: Instant,
}

enum Came {
    Message(Option<Message>),
    /// The connection is lost.
    Loss,
    /// Nothing, for long enough.
    Silence,
}

impl Inflow {
    /// Joins a queue group.
    pub(super) async fn join(link: Link, subject: String, group: &'static str) -> Result<Self, Fault> {
        let lost = *link.losses.borrow();
        let subscriber = Some(subscribe(&link, &subject, group).await?);
        let (received, at_hand, ending) = (0, VecDeque::new(), None);
        Ok(Self { link, subject, group, subscriber, lost, received, at_hand, ending })
    }

    /// The next message; `None` once ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.at_hand.pop_front() {
                return Some(message);
            }
            let lost = self.lost;
            let look_at = self.ending.map(|ending| ending.look_at.min(Instant::now() + QUIET));
            let quiet = look_at.map(tokio::time::sleep_until);
            let subscriber = self.subscriber.as_mut()?;
            let came = tokio::select! {
                // What came before the loss is handed out first.
                biased;
                message = subscriber.next() => Came::Message(message),
                Ok(_) = self.link.losses.wait_for(|losses| *losses != lost) => Came::Loss,
                Some(()) = OptionFuture::from(quiet) => Came::Silence,
            };
            match came {
                Came::Message(message) => {
                    self.received += u64::from(message.is_some());
                    return message;
                }
                Came::Silence => self.hasten().await,
                Came::Loss => self.renew().await,
            }
        }
    }

    /// Begins anew while there is no connection; the old subscription is not made again on the next.
    async fn renew(&mut self) {
        if self.ending.is_some() {
            self.subscriber = None;
            return;
        }
        let lost = *self.link.losses.borrow();
        match subscribe(&self.link, &self.subject, self.group).await {
            Ok(subscriber) => (self.subscriber, self.received, self.lost) = (Some(subscriber), 0, lost),
            // The client is closed for good.
            Err(_logged) => self.subscriber = None,
        }
    }

    /// Ends soon. What comes until then is still handed out by [`Self::next`].
    pub(super) async fn end(&mut self) {
        if self.ending.is_none() {
            self.announce(0).await;
        }
    }

    /// Announces the end for some messages ahead of those that are here.
    async fn announce(&mut self, earlier: usize) {
        self.gather();
        self.ending = Some(Ending { announced: earlier + 1, look_at: Instant::now() + PATIENCE });
        if let Some(subscriber) = &mut self.subscriber
            && let Err(cause) = subscriber.unsubscribe_after(self.received + AHEAD[earlier]).await
        {
            tracing::debug!(%cause, "announcing the end of a subscription");
        }
    }

    /// Takes what the client library holds: it counts those as received, and so must we.
    fn gather(&mut self) {
        let Some(subscriber) = &mut self.subscriber else { return };
        // Unconstrained: a task's budget that is spent would look like an empty channel.
        while let Some(Some(message)) = tokio::task::unconstrained(subscriber.next()).now_or_never() {
            self.received += 1;
            self.at_hand.push_back(message);
        }
    }

    /// Too little comes. Silence may be that of a busy machine; only what has not come by the server's
    /// next answer is not on its way.
    async fn hasten(&mut self) {
        let announced = self.ending.map_or(0, |ending| ending.announced);
        let answered = tokio::time::timeout(ANSWER, self.link.is_answered()).await.unwrap_or(false);
        if announced < AHEAD.len() {
            self.announce(announced).await;
            return;
        }
        self.gather();
        if !self.at_hand.is_empty() {
            // Something comes after all, and two of them are the end.
            self.ending = Some(Ending { announced, look_at: Instant::now() + PATIENCE });
            return;
        }
        tracing::debug!(answered, "cutting a subscription");
        let Some(mut subscriber) = self.subscriber.take() else { return };
        if let Err(cause) = subscriber.unsubscribe().await {
            tracing::debug!(%cause, "ending a subscription");
        }
        // What came while it was asked.
        self.at_hand.extend(subscriber.collect::<Vec<_>>().await);
    }
}

async fn subscribe(link: &Link, subject: &str, group: &str) -> Result<Subscriber, Fault> {
    let subscribed = link.client.queue_subscribe(subject.to_owned(), group.to_owned()).await;
    subscribed.map_err(|cause| Fault::unavailable("The message queue", cause))
}
