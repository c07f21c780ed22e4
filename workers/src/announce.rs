//! News that other processes act upon at once: written to the shared state after the commit. What
//! fails here is put right by the reconciler within a minute.

use shared::{
    bus::{
        Bus,
        kv::Bucket,
        state::{ConfigurationState, Limits, access_key, configuration_key, limits_key},
    },
    command::users::Admitted,
    id::{ConfigurationId, OrganizationId},
};

/// What changed.
#[derive(Clone, Debug)]
pub enum Announcement {
    /// An organization's limits.
    Limits(OrganizationId, Limits),
    /// A member's standing, by subject.
    Access(OrganizationId, String, Admitted),
    /// A configuration.
    Configuration(OrganizationId, ConfigurationId, ConfigurationState),
}

impl Announcement {
    /// Writes it.
    pub async fn spread(&self, bus: &Bus) {
        let written = match self {
            Self::Limits(organization, limits) => bus.put(Bucket::Limits, &limits_key(*organization), limits, None).await,
            Self::Access(organization, subject, admitted) => {
                bus.put(Bucket::Access, &access_key(*organization, subject), admitted, None).await
            }
            Self::Configuration(organization, id, state) => {
                bus.put(Bucket::Configs, &configuration_key(*organization, *id), state, None).await
            }
        };
        if let Err(fault) = written {
            tracing::warn!(%fault, announcement = ?self, "news not spread; the reconciler will");
        }
    }
}
