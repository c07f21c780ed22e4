//! What a prompt may say, by the field that says it.

use std::sync::Arc;

use shared::{
    Fault,
    command::prompts::{
        MAX_NAME_CHARS, MAX_SOURCE_BYTES, MAX_UNTRUSTED_CHARS, PRIORITY, Scope as Owner, Settings, Source,
    },
};

use super::{
    Asked, HIDDEN,
    sanitise::{hides, is_hidden, sanitised},
    signs, template,
    variables::{self, Standing, Tool},
};
use crate::{pools::Session, scope::Scope};

/// Judges what is said, sanitises what a member says, and notes what looked suspicious in it.
pub(super) async fn settings(
    scope: &mut Scope<'_, Session>,
    owner: Owner,
    mut settings: Settings,
) -> Result<Settings, Fault> {
    let is_odd = |character: char| character.is_control() || is_hidden(character);
    let name = &settings.name;
    if name.trim().is_empty() || name.contains(is_odd) || name.chars().count() > MAX_NAME_CHARS {
        return Err(Fault::invalid("name", format!("Use 1 to {MAX_NAME_CHARS} characters that can be seen.")));
    }
    if !PRIORITY.contains(&settings.priority) {
        return Err(Fault::invalid("priority", format!("Use {} to {}.", PRIORITY.start(), PRIORITY.end())));
    }
    settings.source = match (owner, settings.source) {
        (Owner::User, Source::Template(_)) => {
            return Err(Fault::invalid("template", "A member's own prompt has `content`: no template is made of it."));
        }
        (Owner::User, Source::Content(given)) => {
            let text = untrusted("content", &given)?;
            let signs = signs_of(&given, &text);
            if !signs.is_empty() {
                scope.notes.detail("prompt_flags", signs);
            }
            Source::Content(text)
        }
        (_, source) => {
            trusted(source.field(), source.text())?;
            source
        }
    };
    if let Source::Template(text) = &settings.source {
        tried(text).await?;
    }
    Ok(settings)
}

/// Text of an operator or admin: theirs to choose, as long as it can be stored.
fn trusted(field: &str, text: &str) -> Result<(), Fault> {
    if text.trim().is_empty() || text.len() > MAX_SOURCE_BYTES {
        return Err(Fault::invalid(field, format!("Use 1 to {MAX_SOURCE_BYTES} bytes, not of white space alone.")));
    }
    if text.contains('\0') {
        return Err(Fault::invalid(field, "There is a NUL in it, which is no text."));
    }
    Ok(())
}

/// Text of a member, sanitised.
pub(super) fn untrusted(field: &str, given: &str) -> Result<String, Fault> {
    let text = sanitised(given);
    if text.trim().is_empty() || text.chars().count() > MAX_UNTRUSTED_CHARS {
        return Err(Fault::invalid(
            field,
            format!("Use 1 to {MAX_UNTRUSTED_CHARS} characters, not of white space alone."),
        ));
    }
    Ok(text.into_owned())
}

/// What looks suspicious in a member's text, as it was given and as it was sanitised: each sign
/// once.
pub(super) fn signs_of(given: &str, sanitised: &str) -> Vec<&'static str> {
    let mut found = signs::seen(sanitised);
    if hides(given) {
        found.push(HIDDEN);
    }
    found
}

/// A template passes the grammar, the engine's own parser, and is rendered once. Off the threads that
/// everything else runs on.
async fn tried(text: &str) -> Result<(), Fault> {
    let text: Arc<str> = text.into();
    let trial = move || {
        let refused = |refused: template::Refused| format!("Line {}: {}", refused.line, refused.why);
        template::check(&text).map_err(refused)?;
        let engine = |fault: Fault| fault.message;
        let name = "trial";
        let compiled = template::compile([(name.to_owned(), &*text)].into_iter())
            .map_err(|_| "The template engine cannot read it.".to_owned())?;
        let asked = Asked { subject: "somebody", session: "", agent_type: "example", text: None };
        let base = variables::base(&Standing::example(), &Tool::examples());
        let context = variables::of_session(&base, &asked);
        template::render(&compiled, name, &context).map(drop).map_err(engine)
    };
    let tried = tokio::task::spawn_blocking(trial).await.map_err(Fault::internal)?;
    tried.map_err(|why| Fault::invalid("template", why))
}
