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

use super::{Asked, sanitise::value, signs};
use crate::tools::admits;

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
/// What is known of the place within it.
pub(super) const LOOP: [&str; 4] = ["index", "first", "last", "length"];

/// The most tools that a template hears of.
pub(super) const MAX_TOOLS: u32 = 100;
/// The longest value, in characters.
const MAX_VALUE_CHARS: usize = 300;

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
    pub(super) fn new(organization: &Organization, member: &Member) -> Self {
        Self {
            organization: Named { id: organization.id.to_string(), name: value(&organization.name, MAX_VALUE_CHARS) },
            user: Person {
                id: member.id.to_string(),
                subject: value(&member.subject, MAX_VALUE_CHARS),
                email: value(member.email.as_deref().unwrap_or_default(), MAX_VALUE_CHARS),
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
    /// Those that are offered.
    pub(super) fn all(offered: Vec<Offered>) -> Vec<Self> {
        #[derive(Deserialize)]
        struct Described {
            #[serde(default)]
            description: Option<String>,
        }
        let read = |tool: Offered| {
            let described = serde_json::from_slice::<Described>(&tool.definition).ok();
            Self {
                configuration: value(&tool.configuration, MAX_VALUE_CHARS),
                name: value(&tool.name, MAX_VALUE_CHARS),
                description: value(&described.and_then(|tool| tool.description).unwrap_or_default(), MAX_VALUE_CHARS),
            }
        };
        offered.into_iter().filter(|tool| admits(&tool.filter, &tool.name)).map(read).collect()
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

/// What one composition's templates are given.
pub(super) fn context(standing: &Standing, tools: &[Tool], asked: &Asked<'_>) -> Context {
    let mut context = Context::new();
    context.insert("organization", &standing.organization);
    context.insert("user", &standing.user);
    context.insert(
        "session",
        &serde_json::json!({
            "id": value(asked.session, MAX_VALUE_CHARS),
            "agent_type": value(asked.agent_type, MAX_VALUE_CHARS),
        }),
    );
    context.insert("date", &Utc::now().format("%Y-%m-%d").to_string());
    context.insert(TOOLS, tools);
    context
}

/// The values that somebody else chose, each with its variable.
pub(super) fn foreign<'a>(
    standing: &'a Standing,
    tools: &'a [Tool],
    asked: &Asked<'_>,
) -> Vec<(&'static str, std::borrow::Cow<'a, str>)> {
    let mut values = vec![
        ("organization.name", standing.organization.name.as_str().into()),
        ("user.subject", standing.user.subject.as_str().into()),
        ("user.email", standing.user.email.as_str().into()),
        ("session.agent_type", value(asked.agent_type, MAX_VALUE_CHARS).into()),
    ];
    for tool in tools {
        values.push(("tools.name", tool.name.as_str().into()));
        values.push(("tools.description", tool.description.as_str().into()));
    }
    values
}

/// What looks suspicious in values that got into a text.
pub(super) fn signs(
    foreign: &[(&'static str, std::borrow::Cow<'_, str>)],
    text: &str,
) -> Vec<(&'static str, Option<&'static str>)> {
    let mut found = Vec::new();
    for (variable, value) in foreign {
        for sign in signs::seen(value) {
            let seen = (sign, Some(*variable));
            if text.contains(value.as_ref()) && !found.contains(&seen) {
                found.push(seen);
            }
        }
    }
    found
}
