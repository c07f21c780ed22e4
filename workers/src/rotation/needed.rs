//! A worker without a key-encryption key that the database still needs would fail one call after the
//! other, hours after somebody removed the key. It refuses to work instead.

use std::time::Duration;

use shared::{
    Fault,
    db::{
        Database,
        tenant_keys::{self, KekUse},
    },
    id::OrganizationId,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::vault::Vault;

/// How soon a database that did not answer is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Refuses where keys are missing. A database that is away does not keep a worker from starting: then
/// the question is asked until it is answered, and the answer may still stop the worker; the task ends
/// with it.
pub async fn require(
    database: &Database,
    vault: &Vault,
    stop: &CancellationToken,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let known = vault.known();
    match in_use(database).await {
        Ok(uses) => {
            refuse_without(&known, &uses)?;
            Ok(tokio::spawn(async { Ok(()) }))
        }
        Err(fault) => {
            tracing::warn!(%fault, "it is not known yet whether all keys are here");
            Ok(tokio::spawn(ask_until_answered(database.clone(), known, stop.clone())))
        }
    }
}

async fn ask_until_answered(database: Database, known: Vec<String>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
        }
        if let Ok(uses) = in_use(&database).await {
            let refused = refuse_without(&known, &uses);
            if refused.is_err() {
                stop.cancel();
            }
            return refused;
        }
    }
}

/// What depends on which key-encryption key.
pub async fn in_use(database: &Database) -> Result<Vec<KekUse>, Fault> {
    let mut across = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    tenant_keys::keks_in_use(&mut across).await
}

/// One sentence for every key that is needed and not there.
pub fn refuse_without(known: &[String], uses: &[KekUse]) -> anyhow::Result<()> {
    let missing = uses.iter().filter(|used| !known.contains(&used.kek_id));
    let sentences: Vec<String> = missing
        .map(|KekUse { kek_id, data_keys, organizations }| {
            format!(
                "VAULT_KEYS lacks the key `{kek_id}`, which still wraps {data_keys} data keys of {organizations} \
                 organizations: their secrets would not open. Put it back; it may go once `workers rotate-keys --kek` \
                 has run and `workers rotate-keys --status` no longer names it"
            )
        })
        .collect();
    anyhow::ensure!(sentences.is_empty(), "{}", sentences.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_needed_and_missing_is_named_with_what_depends_on_it() {
        let used = |kek_id: &str| KekUse { kek_id: kek_id.to_owned(), data_keys: 12, organizations: 3 };
        let known = ["new".to_owned(), "spare".to_owned()];
        refuse_without(&known, &[used("new")]).unwrap();
        let refused = refuse_without(&known, &[used("new"), used("old")]).unwrap_err().to_string();
        assert!(refused.contains("`old`") && refused.contains("12 data keys of 3"), "{refused}");
        assert!(!refused.contains("`new`"), "{refused}");
    }
}
