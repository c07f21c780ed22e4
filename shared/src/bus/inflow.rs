//! A subscription that can be ended without losing what is on its way. The client library forgets
//! a subscription as soon as it asked the server to end it, and drops what the server had sent by
//! then (measured with 1 ms between them: 55 messages in 40 drains). So the end is announced some
//! messages ahead: the server stops exactly there, and the client keeps listening until then. What
//! does not come by itself we send to the group, as messages that say nothing; the server gives them
//! to any member, and all of them pass over those.
//!
//! The server counts anew after a reconnect and the client library does not, so that the two would
//! stop at different messages: a lost connection takes its subscription along, and a new one begins.

use std::{collections::VecDeque, time::Duration};

use async_nats::{Message, Subscriber, connection::State};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::OptionFuture};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::link::Link;
use crate::fault::Fault;

/// What says nothing. Commands, offers and deliveries name where they are answered; this does not.
const FILLER: &[u8] = b"fill";
/// Fillers sent at once: of the last few, most go to other members.
const LEAST_FILLERS: u64 = 64;
const MOST_FILLERS: u64 = 4_096;
/// How often fillers are sent.
const FILL_EVERY: Duration = Duration::from_millis(20);
/// How soon a server is asked again that did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// So often none of them came here: they come to nobody.
const MOST_IN_VAIN: u32 = 8;
/// How long an end may take. A server that stands still for longer is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// What members of a queue group hear.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) subject: String,
    pub(super) name: &'static str,
    /// A subject that the group hears and its members may publish.
    pub(super) own: String,
    /// How many messages ahead an end is announced: more than can be on their way to one member. Of more
    /// than these some are lost.
    pub(super) ahead: u64,
}

/// Messages of one member of a queue group.
#[derive(Debug)]
pub(super) struct Inflow {
    link: Link,
    group: Group,
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
    /// The subscription ends with this message.
    last: u64,
    /// When fillers are sent, the next time.
    fill_at: Instant,
    filled: Filled,
    cut_at: Instant,
}

/// The fillers that were sent last.
#[derive(Clone, Copy, Debug)]
struct Filled {
    count: u64,
    /// Messages received before.
    received: u64,
    /// How often they were sent since one came.
    in_vain: u32,
}

enum Came {
    Message(Option<Message>),
    /// The connection is lost.
    Loss,
    /// Too little, for long enough.
    TooLittle,
}

impl Inflow {
    /// Joins a queue group.
    pub(super) async fn join(link: Link, group: Group) -> Result<Self, Fault> {
        let lost = *link.losses.borrow();
        let subscriber = Some(subscribe(&link, &group).await?);
        let (received, at_hand, ending) = (0, VecDeque::new(), None);
        Ok(Self { link, group, subscriber, lost, received, at_hand, ending })
    }

    /// Waits until the server knows of it.
    pub(super) async fn wait_until_known(&self) {
        while !self.link.is_answered().await {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// The next message; `None` once ended. Cancel safe, until the end.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.at_hand.pop_front() {
                return Some(message);
            }
            let lost = self.lost;
            let fill = self.ending.map(|ending| sleep_until(ending.fill_at));
            let subscriber = self.subscriber.as_mut()?;
            let came = tokio::select! {
                // What came before the loss is handed out first.
                biased;
                message = subscriber.next() => Came::Message(message),
                Ok(_) = self.link.losses.wait_for(|losses| *losses != lost) => Came::Loss,
                Some(()) = OptionFuture::from(fill) => Came::TooLittle,
            };
            match came {
                Came::Message(Some(message)) => {
                    self.received += 1;
                    if !is_filler(&message) {
                        return Some(message);
                    }
                }
                Came::Message(None) => return None,
                Came::TooLittle => self.fill().await,
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
        match subscribe(&self.link, &self.group).await {
            Ok(subscriber) => (self.subscriber, self.received, self.lost) = (Some(subscriber), 0, lost),
            // The client is closed for good.
            Err(_logged) => self.subscriber = None,
        }
    }

    /// Ends soon. What comes until then is still handed out by [`Self::next`].
    pub(super) async fn end(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.gather();
        let (now, last) = (Instant::now(), self.received + self.group.ahead);
        let filled = Filled { count: 0, received: self.received, in_vain: 0 };
        let ending = Ending { last, fill_at: now, filled, cut_at: now + PATIENCE };
        self.ending = Some(ending);
        let Some(subscriber) = &mut self.subscriber else { return };
        let is_there =
            self.link.client.connection_state() == State::Connected && *self.link.losses.borrow() == self.lost;
        let is_announced =
            is_there && matches!(timeout_at(ending.cut_at, subscriber.unsubscribe_after(last)).await, Ok(Ok(())));
        if !is_announced {
            // Nothing is on its way over a connection that is lost.
            self.subscriber = None;
        }
    }

    /// Takes what the client library holds: it counts those as received, and so must we.
    fn gather(&mut self) {
        let Some(subscriber) = &mut self.subscriber else { return };
        // Unconstrained: a task's budget that is spent would look like an empty channel.
        while let Some(Some(message)) = tokio::task::unconstrained(subscriber.next()).now_or_never() {
            self.received += 1;
            if !is_filler(&message) {
                self.at_hand.push_back(message);
            }
        }
    }

    /// Returns once the server has given them out, or does not answer.
    async fn send_fillers(&self, count: u64) {
        for _ in 0..count {
            let filler = Bytes::from_static(FILLER);
            if let Err(cause) = self.link.client.publish(self.group.own.clone(), filler).await {
                tracing::debug!(%cause, "filling a subscription that ends");
            }
        }
        self.link.is_answered().await;
    }

    /// Sends what the end still lacks, as far as it comes here; cuts where none of it does.
    async fn fill(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        let (before, lacks, cut_at) = (ending.filled, ending.last.saturating_sub(self.received), ending.cut_at);
        let came = self.received - before.received;
        let count = (lacks * before.count.max(1) / came.max(1)).clamp(LEAST_FILLERS, MOST_FILLERS);
        let in_vain = if came == 0 { before.in_vain + 1 } else { 0 };
        ending.filled = Filled { count, received: self.received, in_vain };
        ending.fill_at = Instant::now() + FILL_EVERY;
        if in_vain < MOST_IN_VAIN && Instant::now() < cut_at {
            let (lost, mut losses) = (self.lost, self.link.losses.clone());
            tokio::select! {
                // A connection that is made anew is another's: `next` sees to it.
                _ = losses.wait_for(|losses| *losses != lost) => {}
                // A server that does not answer is asked again.
                _ = timeout_at(cut_at, self.send_fillers(count)) => {}
            }
            return;
        }
        tracing::warn!(subject = self.group.subject, in_vain, "a subscription was cut, and may have lost messages");
        self.gather();
        self.subscriber = None;
    }
}

fn is_filler(message: &Message) -> bool {
    message.reply.is_none() && *message.payload == *FILLER
}

async fn subscribe(link: &Link, group: &Group) -> Result<Subscriber, Fault> {
    let subscribed = link.client.queue_subscribe(group.subject.clone(), group.name.to_owned()).await;
    subscribed.map_err(|cause| Fault::unavailable("The message queue", cause))
}

#[cfg(test)]
mod tests {
    use async_nats::ConnectOptions;
    use tokio::sync::watch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_does_not_wait_for_a_server_that_is_away() {
        let client = ConnectOptions::new().client_capacity(4).retry_on_initial_connect().connect("127.0.0.1:1");
        let (_made, connections) = watch::channel(0);
        let (_lost, losses) = watch::channel(0);
        let link = Link { client: client.await.unwrap(), connections, losses, nobody: "nobody".to_owned() };
        let group = Group { subject: "work".to_owned(), name: "w", own: "work".to_owned(), ahead: 512 };
        let mut inflow = Inflow::join(link, group).await.unwrap();
        let began = Instant::now();
        inflow.end().await;
        assert!(inflow.next().await.is_none());
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }
}
