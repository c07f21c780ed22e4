//! Configuration: one struct per concern, read once from the environment (and an optional TOML
//! file named by `SWITCHBOARD_CONFIG`), all errors reported together.

use std::collections::HashMap;

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::secret::Secret;

/// Collects the concerns of one process and what is wrong with them.
#[derive(Debug, Default)]
pub struct Reader {
    problems: Vec<String>,
}

impl Reader {
    /// Reads the concern whose variables start with `PREFIX_`; in the file it is the table
    /// `[prefix]`. The environment wins.
    pub fn read<T: DeserializeOwned>(&mut self, prefix: &str) -> Option<T> {
        let variables = format!("{}_", prefix.to_ascii_uppercase());
        let mut figment = Figment::new();
        if let Ok(path) = std::env::var("SWITCHBOARD_CONFIG") {
            figment = figment.merge(Toml::file(path).nested()).select(prefix);
        }
        // Values stay text (figment's own reader guesses types: a password of digits is no number).
        let from_environment: HashMap<String, String> = std::env::vars()
            .filter_map(|(name, value)| Some((name.strip_prefix(&variables)?.to_ascii_lowercase(), value)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        match figment.merge(Serialized::globals(from_environment)).extract::<T>() {
            Ok(value) => Some(value),
            Err(errors) => {
                for error in errors {
                    self.problems.push(sentence(&variables, &error));
                }
                None
            }
        }
    }

    /// Adds a problem that a type cannot see.
    pub fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// All problems at once, or nothing.
    pub fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }
}

/// `NATS_URL is missing`, `DATABASE_CONNECTIONS: ..`.
fn sentence(variables: &str, error: &figment::Error) -> String {
    if let figment::error::Kind::MissingField(field) = &error.kind {
        return format!("{variables}{} is missing", field.to_ascii_uppercase());
    }
    format!("{variables}{}: {}", error.path.join("_").to_ascii_uppercase(), error.kind)
}

/// Everything that is wrong with the configuration, one line each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is wrong:\n  {}", .0.join("\n  "))]
pub struct Problems(Vec<String>);

impl Problems {
    /// A single problem.
    pub fn one(text: impl Into<String>) -> Self {
        Self(vec![text.into()])
    }
}

/// `NATS_*`: how a role reaches NATS.
#[derive(Clone, Debug, Deserialize)]
pub struct Nats {
    /// `nats://host:port` or `tls://host:port`, several separated by commas.
    pub url: String,
    /// The role's user.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// A credentials file (`.creds`: JWT and `NKey` seed), instead of user and password.
    #[serde(default)]
    pub credentials: Option<std::path::PathBuf>,
    /// A file of root certificates, when the server's are private.
    #[serde(default)]
    pub root_certificates: Option<std::path::PathBuf>,
}

/// `JETSTREAM_*`: how gateways, tool workers and the controller reach JetStream, on the servers of `NATS_URL`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Jetstream {
    /// The controller's user is the administrator, a tool worker's hears lanes, a gateway's publishes calls.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// A credentials file, instead of user and password.
    #[serde(default)]
    pub credentials: Option<std::path::PathBuf>,
}

impl Jetstream {
    /// Another user on the same servers.
    pub fn on(&self, servers: &Nats) -> Nats {
        let Self { user, password, credentials } = self.clone();
        Nats { user, password, credentials, ..servers.clone() }
    }
}

/// `DATABASE_*`: how a pool reaches PostgreSQL.
#[derive(Clone, Debug, Deserialize)]
pub struct Database {
    /// `postgres://role:password@host:port/database`.
    pub url: Secret<String>,
    /// `session` (default) or `transaction` behind a transaction pooler.
    #[serde(default)]
    pub pool_mode: PoolMode,
    /// Most connections of this process.
    #[serde(default = "default_connections", deserialize_with = "number")]
    pub connections: u32,
}

/// What stands between us and PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// A connection of our own.
    #[default]
    Session,
    /// A pooler that lends a connection per transaction (Supavisor, `PgBouncer`): no prepared statements.
    Transaction,
}

fn default_connections() -> u32 {
    8
}

/// Reads a number that arrived as text or as a number.
pub fn number<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: serde::Deserializer<'de>,
    N: std::str::FromStr,
    N::Err: std::fmt::Display,
{
    let text = text(deserializer)?;
    text.trim().parse().map_err(serde::de::Error::custom)
}

/// Reads `true` or `false`.
pub fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match text(deserializer)?.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(serde::de::Error::custom(format!("`{other}` is neither true nor false"))),
    }
}

/// Reads a list separated by commas; blanks around items do not count.
pub fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = text(deserializer)?;
    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Scalar;
    impl serde::de::Visitor<'_> for Scalar {
        type Value = String;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("one value")
        }
        fn visit_str<E>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }
        fn visit_bool<E>(self, value: bool) -> Result<String, E> {
            Ok(value.to_string())
        }
        fn visit_u64<E>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }
        fn visit_i64<E>(self, value: i64) -> Result<String, E> {
            Ok(value.to_string())
        }
        fn visit_u128<E>(self, value: u128) -> Result<String, E> {
            Ok(value.to_string())
        }
        fn visit_f64<E>(self, value: f64) -> Result<String, E> {
            Ok(value.to_string())
        }
    }
    deserializer.deserialize_any(Scalar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_variable() {
        let none = Figment::from(Serialized::globals(HashMap::<String, String>::new()));
        let missing = none.clone().extract::<Nats>().unwrap_err();
        assert_eq!(sentence("NATS_", &missing), "NATS_URL is missing");
        let pairs = HashMap::from([("url", "postgres://x"), ("connections", "many")]);
        let wrong = none.merge(Serialized::globals(pairs)).extract::<Database>().unwrap_err();
        assert!(
            sentence("DATABASE_", &wrong).starts_with("DATABASE_CONNECTIONS: "),
            "{}",
            sentence("DATABASE_", &wrong)
        );
    }
}
