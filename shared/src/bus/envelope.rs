//! The envelope: the tenant in the subject and in a header of its own, the rest of the context in one other, the
//! command in MessagePack. What does not agree with itself is refused here.

use std::borrow::Cow;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::subject::Address;
use crate::{
    command::Command,
    context::{Actor, Context, Deadline, Role, is_valid_subject},
    fault::{Code, Fault},
    id::CallId,
};

/// The tenant once more: it must be the subject's.
const ORGANIZATION: &str = "Org";
/// [`Circumstances`] as JSON. One header and not one for each: the client keeps headers as a table of strings, which
/// cost more to make and to read than the command itself.
const CONTEXT: &str = "Context";

/// The context as it travels.
#[derive(Serialize, Deserialize)]
struct Circumstances<'a> {
    #[serde(borrow)]
    actor: Cow<'a, str>,
    role: Role,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    operator: bool,
    #[serde(borrow)]
    request: Cow<'a, str>,
    /// Milliseconds since the Unix epoch.
    deadline: u64,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    trace: Option<Cow<'a, str>>,
    /// A queued command's name; its subject has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    /// Where a queued command is answered: its message's reply is the stream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<&'a str>,
}

/// What a stream's delivery says about itself, in the subject to acknowledge it at
/// (`$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<..>.<timestamp>.<..>`; servers with a
/// domain put domain and account before the stream).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Which of the streams of calls it is, if it is one.
    partition: Option<u16>,
    /// How often, this time included.
    pub(super) delivered: u64,
    sequence: u64,
    /// When it was stored, in nanoseconds since the Unix epoch.
    pub(super) at_ns: u64,
}

impl Stored {
    pub(super) fn parse(ack: &str) -> Option<Self> {
        let tokens = ack.strip_prefix("$JS.ACK.")?.split('.');
        let before = match tokens.clone().count() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let mut tokens = tokens.skip(before);
        let of = tokens.next()?.strip_prefix("CALLS_").and_then(partition);
        // Behind the consumer's name; what is left out is its place in the consumer's order.
        let mut numbers = tokens.skip(1).map(|number| number.parse().ok());
        let mut number = || numbers.next()?;
        let (delivered, sequence, _, at_ns): (u64, u64, u64, u64) = (number()?, number()?, number()?, number()?);
        Some(Self { partition: of, delivered, sequence, at_ns })
    }

    /// True where the stream is the one that holds messages of this subject. Another account's, or one that
    /// somebody made, delivers no call.
    pub(super) fn holds(&self, subject: &str) -> bool {
        let wanted = subject.strip_prefix("calls.").and_then(|rest| partition(rest.split('.').next()?));
        wanted.is_some() && wanted == self.partition
    }

    /// Names the call by where the server stored it: no sender can choose it, and every delivery
    /// of one message has the same name. Of deliveries that their partition's stream made, and no others.
    pub(super) fn call(&self) -> CallId {
        let place = format!("{}/{}/{}", self.partition.unwrap_or_default(), self.sequence, self.at_ns);
        CallId(Uuid::new_v5(&Uuid::NAMESPACE_OID, place.as_bytes()))
    }
}

/// A partition's number as it stands in names: another spelling of it is another name.
fn partition(text: &str) -> Option<u16> {
    let is_plain = text.len() == 1 || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

/// A message read as a command's envelope, the command itself still packed.
#[derive(Clone)]
pub struct Envelope {
    /// Whose, who, until when.
    pub context: Context,
    /// `noun.verb`.
    pub command: String,
    /// This command on its way.
    pub call: CallId,
    /// Where the answer goes.
    pub reply: String,
    /// The command in MessagePack.
    pub payload: Bytes,
    /// True when it came through a lane.
    pub queued: bool,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The payload may hold a secret.
        f.debug_struct("Envelope").field("command", &self.command).field("call", &self.call).finish_non_exhaustive()
    }
}

/// Why a message is no envelope of ours. Nobody is answered: the sender cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The subject is no command's.
    #[error("subject")]
    Subject,
    /// A header is missing or malformed.
    #[error("header")]
    Header,
    /// The `Org` header is not the subject's organization.
    #[error("organization")]
    Organization,
    /// Nowhere to answer to.
    #[error("reply")]
    Reply,
}

impl Refusal {
    /// A label for logs and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Header => "header",
            Self::Organization => "organization",
            Self::Reply => "reply",
        }
    }
}

/// The headers of a command. `reply` is set for queued commands, whose reply subject belongs to
/// the stream's acknowledgement.
pub(super) fn headers<C: Command>(context: &Context, reply: Option<&str>) -> Result<HeaderMap, Fault> {
    let circumstances = Circumstances {
        actor: context.actor.subject.as_str().into(),
        role: context.actor.role,
        operator: context.actor.operator,
        request: context.request_id.as_str().into(),
        deadline: context.deadline.unix_ms(),
        trace: context.traceparent.as_deref().map(Into::into),
        command: reply.map(|_| C::NAME),
        reply,
    };
    let mut headers = HeaderMap::new();
    headers.insert(ORGANIZATION, context.organization.text(&mut Uuid::encode_buffer()));
    headers.insert(CONTEXT, serde_json::to_string(&circumstances).map_err(Fault::internal)?.as_str());
    Ok(headers)
}

/// Packs a command.
pub(super) fn pack<C: Command>(command: &C) -> Result<Bytes, Fault> {
    rmp_serde::to_vec_named(command).map(Bytes::from).map_err(Fault::internal)
}

impl Envelope {
    /// Reads a message. `stored` messages come from a stream: their reply stands in a header.
    pub(super) fn read(message: &Message, stored: Option<&Stored>, call: CallId) -> Result<Self, Refusal> {
        let address: Address = message.subject.parse().map_err(|_| Refusal::Subject)?;
        let headers = message.headers.as_ref().ok_or(Refusal::Header)?;
        let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str).ok_or(Refusal::Header);
        if text(ORGANIZATION)? != address.organization.text(&mut Uuid::encode_buffer()) {
            return Err(Refusal::Organization);
        }
        let read: Circumstances<'_> = serde_json::from_str(text(CONTEXT)?).map_err(|_| Refusal::Header)?;
        if !is_valid_subject(&read.actor) {
            return Err(Refusal::Header);
        }
        let context = Context {
            organization: address.organization,
            actor: Actor { subject: read.actor.into_owned(), role: read.role, operator: read.operator },
            request_id: read.request.into_owned(),
            deadline: Deadline::at_unix_ms(read.deadline),
            traceparent: read.trace.map(Cow::into_owned),
        };
        let command = match address.command {
            Some(command) => command,
            None => read.command.ok_or(Refusal::Header)?.to_owned(),
        };
        let reply = if stored.is_some() { read.reply } else { message.reply.as_deref() };
        Ok(Self {
            context,
            command,
            call,
            queued: stored.is_some(),
            reply: reply.filter(|reply| reply.starts_with("_INBOX_")).ok_or(Refusal::Reply)?.to_owned(),
            payload: message.payload.clone(),
        })
    }

    /// Unpacks the command.
    pub fn unpack<C: Command>(&self) -> Result<C, Fault> {
        rmp_serde::from_slice(&self.payload).map_err(|cause| {
            tracing::warn!(command = C::NAME, %cause, "undecodable payload");
            Fault::new(Code::Invalid, "The command could not be decoded.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bus::subject, command::users, id::OrganizationId};

    fn context() -> Context {
        Context {
            organization: OrganizationId::new(),
            actor: Actor { subject: "user-1".into(), role: Role::Admin, operator: false },
            request_id: "r-1".into(),
            deadline: Deadline::after(std::time::Duration::from_secs(5)),
            traceparent: None,
        }
    }

    fn message(context: &Context) -> Message {
        Message {
            subject: subject::direct::<users::Me>(context.organization).into(),
            reply: Some("_INBOX_gateway.a.1".into()),
            payload: pack(&users::Me {}).unwrap(),
            headers: Some(headers::<users::Me>(context, None).unwrap()),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn read(message: &Message) -> Result<Envelope, Refusal> {
        Envelope::read(message, None, CallId::new())
    }

    #[test]
    fn a_delivery_is_named_by_its_place_alone() {
        let first = Stored::parse("$JS.ACK.CALLS_3.t_abc.1.42.7.1700000000000000001.0").unwrap();
        let again = Stored::parse("$JS.ACK.CALLS_3.t_abc.2.42.9.1700000000000000001.0").unwrap();
        let domain = Stored::parse("$JS.ACK.hub.AbCd.CALLS_3.t_abc.1.42.7.1700000000000000001.0.x").unwrap();
        assert_eq!((first.delivered, again.delivered), (1, 2));
        assert_eq!(first.call(), again.call());
        assert_eq!(first, domain);
        assert_ne!(first.call(), Stored { sequence: 43, ..again }.call());
        assert!(first.holds("calls.3.tool.x"));
        for other in ["calls.4.tool.x", "calls.33.tool.x", "calls", "$KV.LIMITS.x", ""] {
            assert!(!first.holds(other), "{other}");
        }
        for made in ["SPY", "CALLS_03", "CALLS_+3", "CALLS_3x"] {
            let made = Stored::parse(&format!("$JS.ACK.{made}.t_abc.1.42.7.1700000000000000001.0")).unwrap();
            assert!(!made.holds("calls.3.tool.x") && !made.holds("calls.03.tool.x") && !made.holds(""));
        }
        for foreign in ["", "_INBOX_gateway.a.1", "$JS.ACK.CALLS_3.t.x.42.7.1.0", "$JS.ACK.a.b.c"] {
            assert_eq!(Stored::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_context_survives_the_journey() {
        let context = context();
        let envelope = read(&message(&context)).unwrap();
        assert_eq!(envelope.context, context);
        assert_eq!(envelope.command, "users.me");
        envelope.unpack::<users::Me>().unwrap();
    }

    #[test]
    fn another_organization_in_the_header_is_refused() {
        let context = context();
        let mut message = message(&context);
        message.headers.as_mut().unwrap().insert("Org", OrganizationId::new().to_string().as_str());
        assert_eq!(read(&message).unwrap_err(), Refusal::Organization);
    }

    #[test]
    fn a_missing_or_malformed_header_is_refused() {
        let context = context();
        let genuine = message(&context);
        let read_with = |organization: Option<&str>, circumstances: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ORGANIZATION, organization), (CONTEXT, circumstances)] {
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            }
            read(&Message { headers: Some(headers), ..genuine.clone() })
        };
        let text = |name: &str| genuine.headers.as_ref().unwrap().get(name).unwrap().as_str().to_owned();
        let (organization, circumstances) = (text(ORGANIZATION), text(CONTEXT));
        assert_eq!(read_with(Some(&organization), Some(&circumstances)).unwrap().context, context);
        assert_eq!(read_with(None, Some(&circumstances)).unwrap_err(), Refusal::Header);
        assert_eq!(read_with(Some(&organization), None).unwrap_err(), Refusal::Header);
        let whole: serde_json::Value = serde_json::from_str(&circumstances).unwrap();
        for name in ["actor", "role", "request", "deadline"] {
            for other in [serde_json::Value::Null, "two words".into(), [0].as_slice().into()] {
                let mut changed = whole.clone();
                if other.is_null() {
                    changed.as_object_mut().unwrap().remove(name);
                } else if name == "request" && other.is_string() {
                    continue;
                } else {
                    changed[name] = other;
                }
                let refusal = read_with(Some(&organization), Some(&changed.to_string())).unwrap_err();
                assert_eq!(refusal, Refusal::Header, "{changed}");
            }
        }
    }

    #[test]
    fn any_letters_survive_the_journey() {
        let request_id = "\"r\\1\" \u{e9}\u{1}".to_owned();
        let actor = Actor { subject: r#"a"b\c:d"#.into(), ..context().actor };
        let context = Context { actor, request_id, traceparent: Some("00-a\\b".into()), ..context() };
        assert_eq!(read(&message(&context)).unwrap().context, context);
    }

    #[test]
    fn an_answer_only_goes_to_an_inbox() {
        let mut message = message(&context());
        message.reply = Some("audit.forged".into());
        assert_eq!(read(&message).unwrap_err(), Refusal::Reply);
    }
}
