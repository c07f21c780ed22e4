//! News that other processes act upon at once: written to the shared state after the commit. What
//! fails here is put right by the reconciler, which is told.

use std::sync::Arc;

use shared::{
    audit::Event,
    bus::{
        Bus,
        kv::{Bucket, Watch},
        state::{
            ConfigurationState, Limits, PromptsState, SessionState, access_key, configuration_key, limits_key,
            prompts_key,
        },
    },
    command::users::Admitted,
    db::sessions::Place,
    id::{ConfigurationId, OrganizationId},
};
use tokio::sync::Notify;

use crate::files::burying::Leftovers;

/// What changed.
#[derive(Clone, Debug)]
pub enum Announcement {
    /// An organization's limits.
    Limits(OrganizationId, Limits),
    /// A member's standing, by subject.
    Access(OrganizationId, String, Admitted),
    /// Something happened to sessions: what follows from it waits to be run.
    Sessions,
    /// An event beside the command's own, which lies in the outbox.
    Trail(Box<Event>),
    /// A configuration.
    Configuration(OrganizationId, ConfigurationId, ConfigurationState),
    /// An organization's prompts.
    Prompts(OrganizationId, PromptsState),
    /// Something in a session's workspace is to be removed: for this worker, or whichever comes by.
    Leftovers(Place),
}

/// Spreads news without putting older ones last.
#[derive(Clone, Debug)]
pub struct Announcer {
    bus: Bus,
    /// Told when a piece of news could not be written.
    pub missed: Arc<Notify>,
    /// Told when something happened to sessions.
    pub happened: Arc<Notify>,
    /// What everybody believes about limits.
    pub limits: Watch<Limits>,
    /// What everybody believes about members.
    pub access: Watch<Admitted>,
    /// What everybody believes about configurations.
    pub configurations: Watch<ConfigurationState>,
    /// Which sessions everybody believes to be over.
    pub sessions: Watch<SessionState>,
    /// What everybody believes about prompts.
    pub prompts: Watch<PromptsState>,
    leftovers: Option<Leftovers>,
}

impl Announcer {
    /// Follows the buckets that `writes` names; the others stay empty.
    pub fn new(bus: &Bus, writes: &[Bucket]) -> Self {
        fn watch<T>(bus: &Bus, bucket: Bucket, writes: &[Bucket]) -> Watch<T>
        where
            T: serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
        {
            if writes.contains(&bucket) { bus.watch(bucket) } else { Watch::empty() }
        }
        Self {
            bus: bus.clone(),
            missed: Arc::default(),
            happened: Arc::default(),
            limits: watch(bus, Bucket::Limits, writes),
            access: watch(bus, Bucket::Access, writes),
            configurations: watch(bus, Bucket::Configs, writes),
            sessions: watch(bus, Bucket::Sessions, writes),
            prompts: watch(bus, Bucket::Prompts, writes),
            leftovers: None,
        }
    }

    /// Names leftovers here too.
    #[must_use]
    pub fn naming(self, leftovers: Leftovers) -> Self {
        Self { leftovers: Some(leftovers), ..self }
    }

    /// Writes one piece of news.
    pub async fn spread(&self, announcement: &Announcement) {
        let written = match announcement {
            Announcement::Limits(organization, limits) => {
                self.bus.put_newer(&self.limits, Bucket::Limits, &limits_key(*organization), limits).await
            }
            Announcement::Access(organization, subject, admitted) => {
                let key = access_key(*organization, subject);
                self.bus.put_newer(&self.access, Bucket::Access, &key, admitted).await
            }
            Announcement::Sessions => {
                self.happened.notify_one();
                Ok(())
            }
            Announcement::Trail(event) => self.bus.audit_beside(event).await,
            Announcement::Configuration(organization, id, state) => {
                let key = configuration_key(*organization, *id);
                self.bus.put_newer(&self.configurations, Bucket::Configs, &key, state).await
            }
            Announcement::Prompts(organization, state) => {
                self.bus.put_newer(&self.prompts, Bucket::Prompts, &prompts_key(*organization), state).await
            }
            Announcement::Leftovers(place) => {
                // Where there is no room for more, the next pass finds it.
                let _ = self.leftovers.as_ref().map(|leftovers| leftovers.try_send(*place));
                return;
            }
        };
        if let Err(fault) = written {
            tracing::warn!(%fault, ?announcement, "news not spread; the reconciler will");
            self.missed.notify_one();
        }
    }
}
