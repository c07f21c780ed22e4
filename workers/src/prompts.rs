//! System prompts: composing one for a session out of what the platform, the organization and the
//! member have to say.

use sha2::{Digest, Sha256};
use shared::{
    Fault,
    command::prompts::{Composed, Layer, MAX_UNTRUSTED_CHARS, Part},
    db::Transaction,
};

use crate::pools::Session;

/// For which session a prompt is composed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The member's subject. The organization is the transaction's.
    pub subject: &'a str,
    /// The session's id; empty in a preview.
    pub session: &'a str,
    /// What kind of agent it is for; may be empty.
    pub agent_type: &'a str,
    /// What the session itself has to say.
    pub text: Option<Given<'a>>,
}

/// Text that came with a request.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Where it stood in the request: a refusal names it.
    pub field: &'a str,
    /// The text.
    pub text: &'a str,
}

/// Composes the prompt of one session. Answers the same text in the same words only to the same lines
/// around what users wrote: those carry a nonce of this composition.
pub async fn compose(_parts: &Session, _transaction: &mut Transaction, asked: &Asked<'_>) -> Result<Composed, Fault> {
    let Some(given) = asked.text else {
        return Ok(Composed { text: String::new(), sha256: hex(""), parts: Vec::new(), flags: Vec::new() });
    };
    let characters = given.text.chars().count();
    if characters > MAX_UNTRUSTED_CHARS {
        return Err(Fault::invalid(given.field, format!("Use at most {MAX_UNTRUSTED_CHARS} characters.")));
    }
    let part = Part {
        scope: Layer::Session,
        prompt: None,
        name: None,
        version: None,
        sha256: hex(given.text),
        characters: u32::try_from(characters).unwrap_or(u32::MAX),
    };
    Ok(Composed { text: given.text.to_owned(), sha256: hex(given.text), parts: vec![part], flags: Vec::new() })
}

/// SHA-256 in hexadecimal.
fn hex(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
