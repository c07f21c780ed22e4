//! What `cargo dev` does, command by command. The binary only reads arguments.

mod cargo;
mod token;
mod up;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use token::{Token, token};
pub use up::{Up, up};

pub(crate) use cargo::cargo;

use crate::instance::Instance;
use crate::places::Places;
use crate::progress::Progress;
use crate::{environment, web};

/// Installs what the stack needs on this machine and builds the console.
///
/// # Errors
/// One sentence that says what is missing.
pub fn setup() -> Result<()> {
    let places = Places::find()?;
    environment::ensure(&places, Progress::Lines)?;
    web::ensure(&places, Progress::Lines)
}

/// Writes what nats-server may know of the product's subjects and permissions, from the code that uses them.
///
/// # Errors
/// When `nats/` cannot be written.
pub fn topology() -> Result<()> {
    let folder = Places::find()?.root().join("nats");
    shared::bus::topology::write(&folder).context("nats/ cannot be written")
}

/// Prints pools, instances and lanes of the running stack.
///
/// # Errors
/// When nothing runs, or NATS does not answer.
pub fn status(data_dir: Option<&Path>) -> Result<()> {
    let places = Places::find()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(crate::status::show(&data_folder(&places, data_dir)))?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// Stops the running stack and waits until it has.
///
/// # Errors
/// When it does not stop.
pub fn down(data_dir: Option<&Path>) -> Result<()> {
    let places = Places::find()?;
    let stopped = Instance::stop(&data_folder(&places, data_dir).join("pid"))?;
    Progress::Lines.line(if stopped { "stopped" } else { "nothing was running" });
    Ok(())
}

/// Builds everything with optimisation and becomes the bench.
///
/// # Errors
/// When something does not build.
pub fn bench(arguments: &[String]) -> Result<()> {
    setup()?;
    let places = Places::find()?;
    cargo::build(&places, &["--release", "--workspace", "--bins"])?;
    let program = places.in_profile("release", "bench");
    Err(std::process::Command::new(&program).args(arguments).exec()).context("the bench cannot be run")
}

/// The folder of the stack that commands mean when they name none.
fn data_folder(places: &Places, asked: Option<&Path>) -> PathBuf {
    asked.map_or_else(|| places.dev(), Path::to_path_buf)
}
