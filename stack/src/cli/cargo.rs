//! Cargo, called from a program that cargo runs.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::places::Places;

/// The cargo that runs us, at the top of the checkout, without what it told us about our own package: some build
/// scripts watch those variables, and would run again at every change between a nested and a plain call.
pub(crate) fn cargo(places: &Places) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(places.root());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix));
        if told || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds with the given arguments; cargo shows its own progress.
pub(super) fn build(places: &Places, arguments: &[&str]) -> Result<()> {
    let status = cargo(places).arg("build").args(arguments).status().context("cargo cannot be run")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}
