//! Connections to NATS as one of its users.

use shared::{config, secret::Secret};

use super::System;

impl System {
    /// A NATS connection as a role's user, raw: for trying what the role must not do.
    pub(crate) async fn nats(&self, role: &str) -> async_nats::Client {
        async_nats::ConnectOptions::new()
            .user_and_password(role.to_owned(), self.nats_password(role).to_owned())
            .custom_inbox_prefix(format!("_INBOX_{role}"))
            .connect(&self.nats_url)
            .await
            .expect("NATS lets the role in")
    }

    /// How our own code connects as a user of the bus.
    pub(crate) fn nats_config(&self, user: &str) -> config::Nats {
        config::Nats {
            url: self.nats_url.clone(),
            user: Some(user.to_owned()),
            password: Some(Secret::new(self.nats_password(user).to_owned())),
            credentials: None,
            root_certificates: None,
        }
    }

    /// A role's password on the bus, for speaking its protocol by hand.
    pub(crate) fn nats_password(&self, role: &str) -> &str {
        &self.nats_passwords.iter().find(|(name, _)| *name == role).expect("a role").1
    }
}
