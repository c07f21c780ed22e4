//! The operator's catalogue of programs, as far as members may know it: names and descriptions.
//! The stdio mode of the `FastMCP` service reads the rest of the same file.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use shared::{
    Context, Fault,
    command::{
        Page,
        catalogue::{Entry, List},
        configurations::Scope as Ownership,
    },
    id::ConfigurationId,
};

use crate::{pools::Token, run::Run, scope::Scope};

/// `FASTMCP_CATALOGUE`, as the token pool sees it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CatalogueConfig {
    /// The file that the stdio mode of the `FastMCP` service reads; without one `stdio` is not offered.
    #[serde(default)]
    pub catalogue: Option<PathBuf>,
}

/// The programs that `stdio` configurations may name.
#[derive(Clone, Debug, Default)]
pub struct Programs(BTreeMap<String, Option<String>>);

/// An entry; its other fields are not ours to know.
#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    description: Option<String>,
}

impl Programs {
    /// Reads the file, if there is one. It is read once: a changed catalogue takes a restart.
    pub fn read(config: &CatalogueConfig) -> anyhow::Result<Self> {
        let Some(path) = &config.catalogue else { return Ok(Self::default()) };
        let text = std::fs::read(path).context("FASTMCP_CATALOGUE cannot be read")?;
        Self::parse(&text).context("FASTMCP_CATALOGUE")
    }

    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let listed: Vec<Listed> = serde_json::from_slice(text).context("is not a JSON list of entries with names")?;
        let mut programs = BTreeMap::new();
        for Listed { name, description } in listed {
            let mut bytes = name.bytes();
            let begins_well = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
            let is_name = begins_well && name.len() <= 64 && bytes.all(is_of_a_name);
            ensure!(is_name, "a name is not 1 to 64 of A-Z a-z 0-9 . _ -, or begins with none of the first three");
            ensure!(programs.insert(name, description).is_none(), "a name stands twice");
        }
        Ok(Self(programs))
    }

    /// Refuses a program that is not offered here, naming the field that is wrong.
    pub fn check(&self, name: &str) -> Result<(), Fault> {
        if self.0.is_empty() {
            let message = "Transport `stdio` is not offered here: this deployment has no catalogue of programs.";
            return Err(Fault::invalid("transport", message));
        }
        if self.0.contains_key(name) { Ok(()) } else { Err(no_such_program()) }
    }
}

/// What is said of a name that is not in the catalogue, here and where the service finds out.
pub(crate) fn no_such_program() -> Fault {
    Fault::invalid("catalogue", "There is no such program in the catalogue; /api/v1/mcp/catalogue lists what there is.")
}

/// The directory that a program works in: one for each generation of a configuration, so that what
/// it was before leaves nothing behind, and a member's own apart from the organization's. A subject
/// may be any text, so its hash stands for it.
pub fn workspace(context: &Context, scope: Ownership, configuration: ConfigurationId, generation: i64) -> String {
    let member = match scope {
        Ownership::Organization => "_".to_owned(),
        Ownership::User => {
            let hash = Sha256::digest(context.actor.subject.as_bytes());
            hash.iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        }
    };
    format!("{}/{member}/{configuration}-{generation}", context.organization)
}

const fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

impl Run for List {
    type Parts = Token;

    async fn run(self, scope: &mut Scope<'_, Token>) -> Result<Page<Entry>, Fault> {
        let programs = scope.parts.programs.0.iter();
        let items = programs.map(|(name, description)| Entry { name: name.clone(), description: description.clone() });
        Ok(Page { items: items.collect(), next: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: &[u8] = br#"[
        {"name": "files", "description": "Works with files.", "program": "/opt/files", "sha256": "..", "environment": {"K": "secret"}},
        {"name": "bare", "program": "/opt/bare", "sha256": ".."}
    ]"#;

    fn refused(programs: &Programs, name: &str) -> Option<String> {
        programs.check(name).unwrap_err().field
    }

    #[test]
    fn names_and_descriptions_are_all_that_is_kept_of_the_operators_file() {
        let programs = Programs::parse(ENTRIES).unwrap();
        assert_eq!(programs.0.keys().collect::<Vec<_>>(), ["bare", "files"]);
        assert_eq!(programs.0["files"].as_deref(), Some("Works with files."));
        assert!(!format!("{programs:?}").contains("secret") && !format!("{programs:?}").contains("/opt"));
    }

    #[test]
    fn a_program_that_is_not_offered_is_refused_by_field() {
        let programs = Programs::parse(ENTRIES).unwrap();
        programs.check("files").unwrap();
        assert_eq!(refused(&programs, "other").as_deref(), Some("catalogue"));
        assert_eq!(refused(&Programs::default(), "files").as_deref(), Some("transport"));
    }

    #[test]
    fn a_file_that_is_no_catalogue_stops_the_start() {
        for wrong in ["{}", "[{}]", r#"[{"name": ""}]"#, r#"[{"name": "../x"}]"#, r#"[{"name": "a"}, {"name": "a"}]"#] {
            Programs::parse(wrong.as_bytes()).expect_err(wrong);
        }
    }
}
