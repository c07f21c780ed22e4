//! Builds the console with the locked Node when its sources have changed, so that Node is no prerequisite.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::environment;
use crate::fingerprint::{self, Fingerprint};
use crate::places::Places;
use crate::progress::Progress;

/// Folders below `web/` that are made, not written.
const MADE: [&str; 4] = ["node_modules", "dist", "coverage", "test-results"];

/// Installs the console's packages and builds it into `web/dist`, unless that was done for these sources.
///
/// # Errors
/// The end of npm's own words.
pub fn ensure(places: &Places, progress: Progress) -> Result<()> {
    let web = places.root().join("web");
    if !web.join("package-lock.json").is_file() {
        progress.line("  console: no sources in web/, skipped");
        return Ok(());
    }
    let stamps = places.dev();
    let built = || -> Result<bool> {
        let sources = Fingerprint::default().tree(&web, &MADE)?.finish();
        Ok(web.join("dist/index.html").is_file() && fingerprint::matches(&stamps.join("web.stamp"), &sources))
    };
    if built()? && packages_are_installed(places)? {
        return Ok(());
    }
    let _turn = environment::take_turn(places, progress)?;
    if !packages_are_installed(places)? {
        progress.blocking("console packages", || {
            environment::run(npm(places).args(["ci", "--no-audit", "--no-fund"]))?;
            fs::write(stamps.join("web-packages.stamp"), packages(places)?).context("the packages cannot be stamped")
        })?;
    }
    if !built()? {
        progress.blocking("console build", || {
            // Taken before the build: what is changed during it is built again next time.
            let sources = Fingerprint::default().tree(&web, &MADE)?.finish();
            environment::run(npm(places).args(["run", "build"]))?;
            fs::write(stamps.join("web.stamp"), sources).context("the console cannot be stamped")
        })?;
    }
    Ok(())
}

/// The locked npm in `web/`, with the locked Node first on the PATH.
pub(crate) fn npm(places: &Places) -> Command {
    let mut command = Command::new(places.tool("npm"));
    command.current_dir(places.root().join("web")).env("PATH", locked_path(places)).env("CI", "1");
    command
}

/// The PATH with the locked environment's commands first.
pub(crate) fn locked_path(places: &Places) -> std::ffi::OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(places.venv().join("bin")).chain(std::env::split_paths(&old));
    std::env::join_paths(folders).unwrap_or(old)
}

fn packages_are_installed(places: &Places) -> Result<bool> {
    let stamp = places.dev().join("web-packages.stamp");
    let present = places.root().join("web/node_modules").is_dir();
    Ok(present && fingerprint::matches(&stamp, &packages(places)?))
}

fn packages(places: &Places) -> Result<String> {
    let web = places.root().join("web");
    Ok(Fingerprint::default().file(&web.join("package-lock.json"))?.file(&web.join("package.json"))?.finish())
}
