//! The envelope: the tenant in the subject, the rest of the context in headers, the command in
//! MessagePack. What does not agree with itself is refused here.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;

use super::subject::Address;
use crate::{
    command::Command,
    context::{Actor, Context, Deadline, Role, is_valid_subject},
    fault::{Code, Fault},
    id::CallId,
};

mod header {
    pub(super) const ORGANIZATION: &str = "Org";
    pub(super) const ACTOR: &str = "Actor";
    pub(super) const ROLE: &str = "Role";
    pub(super) const OPERATOR: &str = "Operator";
    pub(super) const REQUEST: &str = "Request-Id";
    pub(super) const DEADLINE: &str = "Deadline";
    pub(super) const COMMAND: &str = "Command";
    pub(super) const REPLY: &str = "Reply-To";
    pub(super) const TRACE: &str = "Traceparent";
}

/// What a stream's delivery says about itself, in the subject to acknowledge it at
/// (`$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<..>.<timestamp>.<..>`; servers with a
/// domain put domain and account before the stream).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    stream: &'a str,
    /// How often, this time included.
    pub(super) delivered: u64,
    sequence: u64,
    /// When it was stored, in nanoseconds since the Unix epoch.
    pub(super) at_ns: u64,
}

impl<'a> Stored<'a> {
    pub(super) fn parse(ack: &'a str) -> Option<Self> {
        let tokens: Vec<&str> = ack.strip_prefix("$JS.ACK.")?.split('.').collect();
        let tokens = match tokens.len() {
            7 => tokens.as_slice(),
            9.. => tokens.get(2..9)?,
            _ => return None,
        };
        let number = |at: usize| tokens[at].parse().ok();
        Some(Self { stream: tokens[0], delivered: number(2)?, sequence: number(3)?, at_ns: number(5)? })
    }

    /// Names the call by where the server stored it: no sender can choose it, and every delivery
    /// of one message has the same name.
    pub(super) fn call(&self) -> CallId {
        let place = format!("{}/{}/{}", self.stream, self.sequence, self.at_ns);
        CallId(uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, place.as_bytes()))
    }
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
pub(super) fn headers<C: Command>(context: &Context, reply: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ORGANIZATION, context.organization.to_string().as_str());
    headers.insert(header::ACTOR, context.actor.subject.as_str());
    headers.insert(header::ROLE, context.actor.role.name());
    if context.actor.operator {
        headers.insert(header::OPERATOR, "1");
    }
    headers.insert(header::REQUEST, context.request_id.as_str());
    headers.insert(header::DEADLINE, context.deadline.unix_ms().to_string().as_str());
    if let Some(trace) = &context.traceparent {
        headers.insert(header::TRACE, trace.as_str());
    }
    if let Some(reply) = reply {
        headers.insert(header::COMMAND, C::NAME);
        headers.insert(header::REPLY, reply);
    }
    headers
}

/// Packs a command.
pub(super) fn pack<C: Command>(command: &C) -> Result<Bytes, Fault> {
    rmp_serde::to_vec_named(command).map(Bytes::from).map_err(Fault::internal)
}

impl Envelope {
    /// Reads a message. `stored` messages come from a stream: their reply stands in a header.
    pub(super) fn read(message: &Message, stored: Option<&Stored<'_>>, call: CallId) -> Result<Self, Refusal> {
        let address: Address = message.subject.parse().map_err(|_| Refusal::Subject)?;
        let headers = message.headers.as_ref().ok_or(Refusal::Header)?;
        let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let required = |name: &str| text(name).ok_or(Refusal::Header);

        if required(header::ORGANIZATION)? != address.organization.to_string() {
            return Err(Refusal::Organization);
        }
        let subject = required(header::ACTOR)?;
        if !is_valid_subject(subject) {
            return Err(Refusal::Header);
        }
        let context = Context {
            organization: address.organization,
            actor: Actor {
                subject: subject.to_owned(),
                role: Role::parse(required(header::ROLE)?).ok_or(Refusal::Header)?,
                operator: text(header::OPERATOR) == Some("1"),
            },
            request_id: required(header::REQUEST)?.to_owned(),
            deadline: Deadline::at_unix_ms(required(header::DEADLINE)?.parse().map_err(|_| Refusal::Header)?),
            traceparent: text(header::TRACE).map(str::to_owned),
        };
        let command = match address.command {
            Some(command) => command,
            None => required(header::COMMAND)?.to_owned(),
        };
        let reply = if stored.is_some() {
            text(header::REPLY).map(str::to_owned)
        } else {
            message.reply.as_ref().map(ToString::to_string)
        };
        Ok(Self {
            context,
            command,
            call,
            queued: stored.is_some(),
            reply: reply.filter(|reply| reply.starts_with("_INBOX_")).ok_or(Refusal::Reply)?,
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
            headers: Some(headers::<users::Me>(context, None)),
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
        for name in ["Org", "Actor", "Role", "Request-Id", "Deadline"] {
            let mut message = message(&context);
            let kept = message.headers.take().unwrap();
            let mut headers = HeaderMap::new();
            for (key, values) in kept.iter() {
                if key.to_string() != name {
                    headers.insert(key.clone(), values[0].clone());
                }
            }
            message.headers = Some(headers);
            assert_eq!(read(&message).unwrap_err(), Refusal::Header, "{name}");
        }
    }

    #[test]
    fn an_answer_only_goes_to_an_inbox() {
        let mut message = message(&context());
        message.reply = Some("audit.forged".into());
        assert_eq!(read(&message).unwrap_err(), Refusal::Reply);
    }
}
