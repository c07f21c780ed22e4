//! What servers say to the secrets that are sent to them: people see whether a secret is still good
//! before somebody's call fails. Written only when it changes, beside the call and not within it, by
//! a role that may change these columns of a configuration and no others.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use serde::Deserialize;
use shared::{
    Code, Context, Fault,
    command::configurations::{Authentication, Configuration, Credential, SecretState},
    db,
};

use super::catalogue::Entry;
use crate::pools::Tool;

/// A database that is busy for a moment is asked again.
const TRY_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)];

/// What is known of one secret.
#[derive(Debug)]
pub(super) struct SecretUse {
    generation: i64,
    state: Mutex<SecretState>,
}

impl SecretUse {
    /// As the database knows it; `None` where there is no secret.
    pub(super) fn of(configuration: &Configuration, generation: i64) -> Option<Self> {
        match configuration.auth {
            Authentication::None => None,
            Authentication::Bearer { state, .. } | Authentication::Header { state, .. } => {
                Some(Self { generation, state: Mutex::new(state) })
            }
        }
    }

    fn is(&self, state: SecretState) -> bool {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) == state
    }

    /// Takes the new state in; answers the one before where it differs.
    fn swap(&self, seen: SecretState) -> Option<SecretState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *state;
        *state = seen;
        (before != seen).then_some(before)
    }
}

/// Notes how the server took the secret. Costs nothing while that stays the same.
pub(super) fn note<T>(parts: &Tool, context: &Context, entry: &Arc<Entry>, outcome: Result<&T, &Fault>) {
    let Some(secret) = entry.secret() else { return };
    let seen = match outcome {
        Ok(_) => SecretState::Valid,
        Err(fault) if fault.code == Code::Reconnect => refused(&entry.specification().credential),
        Err(_) => return,
    };
    let Some(before) = secret.swap(seen) else { return };
    let (database, context, entry) = (parts.database.clone(), context.clone(), Arc::clone(entry));
    tokio::spawn(async move {
        let Some(secret) = entry.secret() else { return };
        for pause in TRY_AFTER {
            tokio::time::sleep(pause).await;
            if !secret.is(seen) {
                // Something else was seen meanwhile, and is noted by whoever saw it.
                return;
            }
            let written = async {
                let mut transaction = database.tenant(&context).await?;
                db::configurations::note_secret(&mut transaction, entry.id(), secret.generation, seen).await?;
                transaction.commit().await
            };
            match written.await {
                Ok(()) => return,
                Err(fault) => tracing::debug!(%fault, "the state of a secret was not noted"),
            }
        }
        // The next use tries again.
        secret.swap(before);
    });
}

/// Why a server refused it, as far as the secret itself tells: some are JWTs (RFC 7519 section 4.1.4).
fn refused(credential: &Credential) -> SecretState {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let text = match credential {
        Credential::None => return SecretState::Refused,
        Credential::Bearer(token) => token.reveal(),
        Credential::Header { value, .. } => value.reveal(),
    };
    let claims = text.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let expires = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok()).map(|claims| claims.exp);
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit 2^52")]
    let now = Utc::now().timestamp() as f64;
    if expires.is_some_and(|expires| expires < now) { SecretState::Expired } else { SecretState::Refused }
}

#[cfg(test)]
mod tests {
    use shared::secret::Secret;

    use super::*;

    #[test]
    fn a_token_that_tells_its_end_is_expired_and_any_other_refused() {
        let state = |text: String| refused(&Credential::Bearer(Secret::new(text)));
        let jwt = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(state(jwt(r#"{"exp":1000000000,"sub":"x"}"#)), SecretState::Expired);
        assert_eq!(state(jwt(r#"{"exp":32503680000}"#)), SecretState::Refused);
        assert_eq!(state(jwt(r#"{"exp":"soon"}"#)), SecretState::Refused);
        assert_eq!(state("opaque".to_owned()), SecretState::Refused);
        assert_eq!(state("a.b.c".to_owned()), SecretState::Refused);
    }

    #[test]
    fn only_a_change_is_news() {
        let secret = SecretUse { generation: 1, state: Mutex::new(SecretState::Unused) };
        assert_eq!(secret.swap(SecretState::Valid), Some(SecretState::Unused));
        assert_eq!(secret.swap(SecretState::Valid), None);
        assert_eq!(secret.swap(SecretState::Refused), Some(SecretState::Valid));
    }
}
