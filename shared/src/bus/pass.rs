//! Passing on: a call that waits in the hand of a full worker goes to one that has room. It cannot go
//! back to the queue, where that would count as an attempt, and a full worker cannot leave the group
//! while calls wait, which loses some (docs/adr/0010).
//!
//! A worker with room listens for offers. A full one offers, and sends the delivery to the inbox that
//! says yes; from then on it is the other's. Nothing is ever taken back: what comes too late is left
//! to the queue's own patience.

use std::time::{Duration, Instant};

use async_nats::{Message, Subject};
use bytes::Bytes;

use super::{
    Bus,
    inflow::{Group, Inflow},
    subject,
    work::Delivered,
};
use crate::{command::Pool, fault::Fault};

/// Where the queue would have delivered the call from.
const SUBJECT: &str = "Pass-Subject";
/// Where the call is acknowledged.
const ACK: &str = "Pass-Ack";
/// How long ago the server last knew that the slot is held, in milliseconds.
const AGE_MS: &str = "Pass-Age-Ms";

/// How many offers ahead the end of hearing them is announced ([`super::inflow`]). Workers come and go as they fill, and
/// each full one makes few at once; one that is lost is made again.
const AHEAD: u64 = 32;

/// How long either side waits for the other's next word.
const PATIENCE: Duration = Duration::from_secs(2);

/// What full workers of a pool offer.
#[derive(Debug)]
pub struct Offers {
    inflow: Inflow,
    bus: Bus,
}

/// A call that a full worker would pass on.
#[derive(Debug)]
pub struct Offer {
    from: Option<Subject>,
    bus: Bus,
}

impl Bus {
    /// Hears offers from now on, as one of the workers with room.
    pub async fn offers(&self, pool: Pool) -> Result<Offers, Fault> {
        let subject = subject::pass(pool);
        let group = Group { own: subject.clone(), subject, name: subject::WORK_GROUP, ahead: AHEAD };
        Ok(Offers { inflow: Inflow::join(self.link(), group).await?, bus: self.clone() })
    }

    /// Passes a delivery on to a worker with room; false when there is none, and only then it is
    /// still ours. `age` says how long ago the server last knew that its slot is held.
    pub async fn pass_on(&self, pool: Pool, delivered: &Delivered, age: impl Fn() -> Duration) -> bool {
        let client = &self.0.client;
        let offered = client.request(subject::pass(pool), Bytes::new());
        let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, offered).await else { return false };
        let Some(taker) = answer.reply else { return false };
        let (mut headers, payload) = delivered.content();
        headers.insert(SUBJECT, delivered.subject());
        headers.insert(ACK, delivered.slot.subject());
        // Looked at after the yes, from which the taker counts.
        headers.insert(AGE_MS, age().as_millis().to_string().as_str());
        // Whether it arrives is not known here; sent is sent.
        client.publish_with_headers(taker, headers, payload).await.is_ok()
    }
}

impl Offers {
    /// The next offer; `None` once ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Offer> {
        self.inflow.next().await.map(|message| Offer { from: message.reply, bus: self.bus.clone() })
    }

    /// Hears nothing new; what was offered until then is still handed out by [`Self::next`].
    pub async fn end(&mut self) {
        self.inflow.end().await;
    }
}

impl Offer {
    /// Takes the call over. `None` when it never came.
    pub async fn accept(self) -> Option<Delivered> {
        let accepted_at = Instant::now();
        let sent = self.bus.0.client.request(self.from?, Bytes::new());
        let message = tokio::time::timeout(PATIENCE, sent).await.ok()?.ok()?;
        let (message, age) = unpack(message)?;
        // It was sent after we said yes, so the slot was certainly held this long before that.
        Delivered::read(&self.bus, message, accepted_at.checked_sub(age)?)
    }

    /// Leaves the call to others.
    pub async fn decline(self) {
        if let Some(from) = self.from {
            // Unanswered, it is ours no more than declined.
            let _ = self.bus.0.client.publish(from, Bytes::new()).await;
        }
    }
}

/// The message as the queue delivered it, and how old it is.
fn unpack(mut message: Message) -> Option<(Message, Duration)> {
    let headers = message.headers.as_ref()?;
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    let (subject, ack) = (text(SUBJECT)?, text(ACK)?);
    let age = Duration::from_millis(text(AGE_MS)?.parse().ok()?);
    (message.subject, message.reply) = (subject.into(), Some(ack.into()));
    Some((message, age))
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;

    use super::*;

    fn passed(headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        Message {
            subject: "_INBOX_tool.a.1".into(),
            reply: None,
            payload: Bytes::from_static(b"arguments"),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn what_was_passed_on_reads_as_it_was_delivered() {
        let ack = "$JS.ACK.CALLS_3.t_abc.1.42.7.1700000000000000001.0";
        let message = passed(&[(SUBJECT, "calls.3.tool.x"), (ACK, ack), (AGE_MS, "1500")]);
        let (message, age) = unpack(message).unwrap();
        assert_eq!((message.subject.as_str(), message.reply.as_deref()), ("calls.3.tool.x", Some(ack)));
        assert_eq!((message.payload.as_ref(), age), (b"arguments".as_slice(), Duration::from_millis(1_500)));
    }

    #[test]
    fn anything_else_is_not_taken() {
        assert!(unpack(passed(&[])).is_none());
        assert!(unpack(passed(&[(SUBJECT, "calls.3.tool.x"), (ACK, "x"), (AGE_MS, "-1")])).is_none());
    }
}
