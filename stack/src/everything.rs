//! npm's reference MCP server, which speaks the handshake era of the protocol: installed from its own lock for the
//! end-to-end tests, which want an upstream that nobody here wrote.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::environment;
use crate::fingerprint::{self, Fingerprint};
use crate::places::Places;
use crate::progress::Progress;
use crate::web;

const FILES: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// Installs the server unless it is, and returns its script.
///
/// # Errors
/// The end of npm's own words.
pub fn ensure(places: &Places, progress: Progress) -> Result<PathBuf> {
    let home = places.dev().join("everything");
    let script = home.join("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    let source = places.root().join("stack/environment/everything");
    let wanted = FILES.iter().try_fold(Fingerprint::default(), |hash, name| hash.file(&source.join(name)))?.finish();
    let stamp = home.join(".switchboard-stamp");
    let installed = || script.is_file() && fingerprint::matches(&stamp, &wanted);
    if installed() {
        return Ok(script);
    }
    let _turn = environment::take_turn(places, progress)?;
    if !installed() {
        progress.blocking("everything server", || {
            fs::create_dir_all(&home)?;
            for name in FILES {
                fs::copy(source.join(name), home.join(name)).with_context(|| format!("{name} cannot be copied"))?;
            }
            let mut npm = Command::new(places.tool("npm"));
            npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&home);
            environment::run(npm.env("PATH", web::locked_path(places)))?;
            fs::write(&stamp, &wanted).context("the everything server cannot be stamped")
        })?;
    }
    Ok(script)
}
