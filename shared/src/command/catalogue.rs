//! The operator's catalogue: programs that a configuration of transport `stdio` may name. What a
//! program is (its path, its arguments, its environment) stays with the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One program, as members see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Program")]
pub struct Entry {
    /// What a configuration names.
    pub name: String,
    /// For people.
    pub description: Option<String>,
}

/// Lists the programs by name; none where the operator offers none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {}
