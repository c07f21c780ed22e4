//! The variables that templates speak of. Their values are data: sanitised, of bounded length, and never
//! read as a template.

use chrono::Utc;
use serde::{Deserialize, Serialize};
use shared::{
    command::{organizations::Organization, users::Member},
    context::Role,
    db::prompts::Offered,
};
use tera::Context;

use super::{Asked, Seen, checks, sanitise::value};

/// Variables and their fields; a variable without fields has the empty one.
pub(super) const VARIABLES: [(&str, &str); 9] = [
    ("organization", "id"),
    ("organization", "name"),
    ("user", "id"),
    ("user", "subject"),
    ("user", "email"),
    ("user", "role"),
    ("session", "id"),
    ("session", "agent_type"),
    ("date", ""),
];
/// The one list.
pub(super) const TOOLS: &str = "tools";
/// What is known of each of its items.
pub(super) const OF_A_TOOL: [&str; 3] = ["configuration", "name", "description"];
/// The variables whose values neither an operator nor an admin of the moment chose.
pub(super) const FOREIGN: [&str; 7] = [
    "organization.name",
    "user.subject",
    "user.email",
    AGENT_TYPE,
    "tools.configuration",
    "tools.name",
    "tools.description",
];
/// The one of them that is the session's.
pub(super) const AGENT_TYPE: &str = "session.agent_type";
/// What is known of the place within it.
pub(super) const LOOP: [&str; 4] = ["index", "first", "last", "length"];

/// The most tools that a template hears of.
pub(super) const MAX_TOOLS: usize = 100;
/// The longest value, in characters.
const MAX_VALUE_CHARS: usize = 300;

/// A value as templates are told it; what looks suspicious in it, or was taken out of it, is noted.
fn told(variable: &'static str, raw: &str, signs: &mut Vec<Seen>) -> String {
    let value = value(raw, MAX_VALUE_CHARS);
    for sign in checks::signs_of(raw, &value) {
        let seen = (sign, Some(variable));
        if !signs.contains(&seen) {
            signs.push(seen);
        }
    }
    value
}

/// What looks suspicious in the kind of agent that a session is for.
pub(super) fn signs_of_agent_type(asked: &Asked<'_>) -> Vec<Seen> {
    let mut signs = Vec::new();
    told(AGENT_TYPE, asked.agent_type, &mut signs);
    signs
}

/// What an organization and its member are to a template.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Standing {
    organization: Named,
    user: Person,
}

#[derive(Clone, Debug, Serialize)]
struct Named {
    id: String,
    name: String,
}

#[derive(Clone, Debug, Serialize)]
struct Person {
    id: String,
    subject: String,
    email: String,
    role: &'static str,
}

/// A tool as a template hears of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Tool {
    configuration: String,
    name: String,
    description: String,
}

impl Standing {
    /// Of rows that were read.
    pub(super) fn new(organization: &Organization, member: &Member, signs: &mut Vec<Seen>) -> Self {
        Self {
            organization: Named {
                id: organization.id.to_string(),
                name: told("organization.name", &organization.name, signs),
            },
            user: Person {
                id: member.id.to_string(),
                subject: told("user.subject", &member.subject, signs),
                email: told("user.email", member.email.as_deref().unwrap_or_default(), signs),
                role: member.role.name(),
            },
        }
    }

    /// A standing like any, for trying a template out.
    pub(super) fn example() -> Self {
        Self {
            organization: Named { id: "00000000-0000-0000-0000-000000000000".to_owned(), name: "Example".to_owned() },
            user: Person {
                id: "00000000-0000-0000-0000-000000000000".to_owned(),
                subject: "somebody".to_owned(),
                email: "somebody@example.com".to_owned(),
                role: Role::User.name(),
            },
        }
    }
}

impl Tool {
    /// Those that are offered, each with its definition.
    pub(super) fn all(offered: &[Offered], definitions: &[Vec<u8>], signs: &mut Vec<Seen>) -> Vec<Self> {
        #[derive(Deserialize)]
        struct Described {
            #[serde(default)]
            description: Option<String>,
        }
        let mut read = |(tool, definition): (&Offered, &Vec<u8>)| {
            let described = serde_json::from_slice::<Described>(definition).ok();
            let description = described.and_then(|tool| tool.description).unwrap_or_default();
            Self {
                configuration: told("tools.configuration", &tool.configuration, signs),
                name: told("tools.name", &tool.name, signs),
                description: told("tools.description", &description, signs),
            }
        };
        offered.iter().zip(definitions).map(&mut read).collect()
    }

    /// Tools like any, for trying a template out.
    pub(super) fn examples() -> Vec<Self> {
        let example = |name: &str| Self {
            configuration: "example".to_owned(),
            name: name.to_owned(),
            description: "Does what an example does.".to_owned(),
        };
        vec![example("first"), example("second")]
    }
}

/// What every session's templates are given.
pub(super) fn base(standing: &Standing, tools: &[Tool]) -> Context {
    let mut context = Context::new();
    context.insert("organization", &standing.organization);
    context.insert("user", &standing.user);
    context.insert(TOOLS, tools);
    context
}

/// What one session's templates are given beside that. A copy of the base shares its values.
pub(super) fn of_session(base: &Context, asked: &Asked<'_>) -> Context {
    let mut context = base.clone();
    context.insert(
        "session",
        &serde_json::json!({
            "id": value(asked.session, MAX_VALUE_CHARS),
            "agent_type": value(asked.agent_type, MAX_VALUE_CHARS),
        }),
    );
    context.insert("date", &Utc::now().format("%Y-%m-%d").to_string());
    context
}
