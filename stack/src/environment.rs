//! One locked environment brings nats-server, `PostgreSQL`, Node and the Python packages.
//!
//! `uv` installs it from `stack/environment/requirements.txt`, which holds hashes and no address. Every failure ends in
//! one sentence that says what to install. A finished set-up is recognised in milliseconds, and two commands that find
//! an unfinished one take turns.

mod python;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::fingerprint::{self, Fingerprint};
use crate::places::Places;
use crate::progress::Progress;

/// uv itself, pinned by hash; used only where the machine has none.
const UV_LOCK: &str = include_str!("environment/uv.txt");

/// Makes the environment ready, or finds that it is.
///
/// # Errors
/// One sentence that says what is missing on this machine, or the end of the installer's own words.
pub fn ensure(places: &Places, progress: Progress) -> Result<()> {
    let lock = places.root().join("stack/environment/requirements.txt");
    let stamp = places.venv().join(".switchboard-stamp");
    if is_ready(places, &lock, &stamp)? {
        return Ok(());
    }
    fs::create_dir_all(places.dev()).context("the folder .dev cannot be made")?;
    let _turn = take_turn(places, progress)?;
    if is_ready(places, &lock, &stamp)? {
        return Ok(());
    }
    progress.line("Setting up the environment (once)");
    let python = python::find()?;
    let uv = progress.blocking("uv", || find_uv(places, &python))?;
    if !has_same_python(&places.venv(), &python) {
        progress.blocking("python environment", || {
            run(Command::new(&uv).args(["venv", "--quiet", "--clear", "--python"]).arg(&python.path).arg(places.venv()))
        })?;
    }
    progress.blocking("locked packages", || {
        let mut sync = Command::new(&uv);
        sync.args(["pip", "sync", "--quiet", "--require-hashes", "--python"]).arg(places.tool("python")).arg(&lock);
        run(&mut sync)
    })?;
    let fingerprint = current(places, &lock)?.context("the environment cannot be read after it was made")?;
    fs::write(&stamp, fingerprint).context("the environment cannot be stamped")
}

/// An exclusive lock on the set-up of this checkout, released when dropped.
pub(crate) fn take_turn(places: &Places, progress: Progress) -> Result<File> {
    let turn = File::create(places.dev().join("setup.lock")).context("the folder .dev cannot be written")?;
    if turn.try_lock().is_err() {
        progress.line("Another command is setting up; waiting for it");
        turn.lock().context("the lock of the set-up cannot be taken")?;
    }
    Ok(turn)
}

fn is_ready(places: &Places, lock: &Path, stamp: &Path) -> Result<bool> {
    Ok(current(places, lock)?.is_some_and(|fingerprint| fingerprint::matches(stamp, &fingerprint)))
}

/// The lock, the interpreter that was used and the place: scripts of an environment name their own folder.
fn current(places: &Places, lock: &Path) -> Result<Option<String>> {
    let Ok(configuration) = fs::read_to_string(places.venv().join("pyvenv.cfg")) else { return Ok(None) };
    // The link breaks when the interpreter is uninstalled.
    if !places.tool("python").exists() {
        return Ok(None);
    }
    let hash = Fingerprint::default().file(lock)?.text(&configuration).text(&places.venv().to_string_lossy());
    Ok(Some(hash.finish()))
}

fn has_same_python(venv: &Path, python: &python::Python) -> bool {
    venv.join("bin/python").exists()
        && fs::read_to_string(venv.join("pyvenv.cfg")).is_ok_and(|text| {
            let version = text.lines().find_map(|line| line.strip_prefix("version_info = "));
            version.is_some_and(|version| version.trim().starts_with(&python.version))
        })
}

/// The machine's uv, else one of our own, made with nothing but python3's venv and pip.
fn find_uv(places: &Places, python: &python::Python) -> Result<PathBuf> {
    if let Some(uv) = on_path("uv")
        && Command::new(&uv).arg("--version").output().is_ok_and(|output| output.status.success())
    {
        return Ok(uv);
    }
    let home = places.dev().join("uv");
    let (uv, stamp) = (home.join("bin/uv"), home.join(".switchboard-stamp"));
    let fingerprint = Fingerprint::default().text(UV_LOCK).text(&home.to_string_lossy()).finish();
    if uv.exists() && fingerprint::matches(&stamp, &fingerprint) {
        return Ok(uv);
    }
    // A half-made one is of no use.
    let _ = fs::remove_dir_all(&home);
    if let Err(error) = run(Command::new(&python.path).args(["-m", "venv"]).arg(&home)) {
        let _ = fs::remove_dir_all(&home);
        bail!(python::advice_when_venv_fails(&error));
    }
    let requirements = home.join("uv.txt");
    fs::write(&requirements, UV_LOCK)?;
    let mut install = Command::new(home.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]);
    run(install.arg(&requirements)).context("uv cannot be installed with pip")?;
    fs::write(stamp, fingerprint)?;
    Ok(uv)
}

/// The first executable of this name on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Runs an installer to its end; on failure the error is its last lines.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = Path::new(command.get_program()).file_name().map_or_else(String::new, lossy);
    let first = command.get_args().next().map_or_else(String::new, lossy);
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    bail!("`{name} {first}` failed ({}):\n{last}", output.status)
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}
