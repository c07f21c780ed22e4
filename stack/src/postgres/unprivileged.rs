//! A way to run `PostgreSQL` for whoever starts the stack.
//!
//! Not root: as oneself. Root, and the checkout open to all: as `nobody`. Root in a closed folder: in a user namespace,
//! where root's files appear as somebody else's. Where that is forbidden (many containers): as `nobody` on a copy below
//! the system's temporary folder. Each way is tried with a real start before it is chosen.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Uid, User};

use super::binaries;
use crate::child::{Layer, Spec};
use crate::fingerprint::Fingerprint;
use crate::places::DataDir;

/// Enters a user namespace in which root is user 1000.
const NAMESPACE: [&str; 4] = ["unshare", "--user", "--map-user=1000", "--map-group=1000"];

/// How `PostgreSQL`'s binaries are run, and where they and the data are.
#[derive(Debug)]
pub(super) struct Unprivileged {
    installation: PathBuf,
    home: PathBuf,
    /// User and group that own the data and run the server; none: our own.
    identity: Option<(u32, u32)>,
    namespace: bool,
}

impl Unprivileged {
    /// Finds the first way that works on this machine.
    pub(super) fn find(installation: &Path, data: &DataDir) -> Result<Self> {
        let own = Self {
            installation: installation.to_path_buf(),
            home: data.path().to_path_buf(),
            identity: None,
            namespace: false,
        };
        if !Uid::effective().is_root() {
            return Ok(own);
        }
        let nobody =
            User::from_name("nobody").ok().flatten().context("there is no user `nobody` to run PostgreSQL as")?;
        let identity = Some((nobody.uid.as_raw(), nobody.gid.as_raw()));
        let as_nobody = Self { identity, ..own };
        if as_nobody.works() {
            return Ok(as_nobody);
        }
        let in_namespace = Self { identity: None, namespace: true, ..as_nobody };
        if in_namespace.works() {
            return Ok(in_namespace);
        }
        let staged = stage(installation, data, identity)?;
        if staged.works() {
            return Ok(staged);
        }
        bail!("PostgreSQL does not run as root, and no other way works here: run this as an ordinary user")
    }

    /// The folder in which the cluster lives.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// A program of the installation, run this way.
    pub(super) fn spec(&self, name: &str, program: &str) -> Spec {
        let (program, before) = self.invocation(program);
        let mut spec = Spec::new(name, Layer::Postgres, program, &self.home).arguments(before);
        spec.identity = self.identity;
        spec
    }

    /// Gives a file or folder, with all it holds, to the user that the server runs as.
    pub(super) fn hand_over(&self, path: &Path) -> Result<()> {
        let (user, group) = match self.identity {
            Some(identity) => identity,
            None if Uid::effective().is_root() => (0, 0),
            None => return Ok(()),
        };
        let metadata = path.symlink_metadata()?;
        if metadata.uid() == user {
            // The way has not changed since it was handed over whole.
            return Ok(());
        }
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        give(path, user, group).with_context(|| format!("{} cannot be handed over", path.display()))
    }

    /// Runs `initdb --version` in the folder of the data: it needs all the libraries that the server does, and libpq.
    fn works(&self) -> bool {
        let (program, before) = self.invocation("initdb");
        let mut command = Command::new(program);
        command.args(before).arg("--version").current_dir(&self.home).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.identity {
            command.uid(user).gid(group);
        }
        command.status().is_ok_and(|status| status.success())
    }

    fn invocation(&self, program: &str) -> (PathBuf, Vec<OsString>) {
        let path = binaries(&self.installation).join(program);
        if !self.namespace {
            return (path, Vec::new());
        }
        let before = NAMESPACE[1..].iter().map(OsString::from).chain([path.into_os_string()]);
        (PathBuf::from(NAMESPACE[0]), before.collect())
    }
}

/// Files before the folder that holds them, so that an interruption leaves the outermost to be done again.
fn give(path: &Path, user: u32, group: u32) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user, group)?;
        }
    }
    lchown(path, Some(user), Some(group))
}

/// Copies the installation to a folder that `nobody` can reach. Its name depends on the data folder alone, so that the
/// data is found again.
fn stage(installation: &Path, data: &DataDir, identity: Option<(u32, u32)>) -> Result<Unprivileged> {
    let id = Fingerprint::default().text(&data.path().to_string_lossy()).finish();
    let home = PathBuf::from("/var/tmp").join(format!("switchboard-{}", &id[..16]));
    fs::create_dir_all(&home).context("PostgreSQL cannot be copied to /var/tmp")?;
    let metadata = home.symlink_metadata()?;
    // Anybody may make folders there: one that is not root's own is not trusted.
    anyhow::ensure!(metadata.is_dir() && metadata.uid() == 0, "{} is not root's", home.display());
    fs::set_permissions(&home, fs::Permissions::from_mode(0o711))?;
    let version = Fingerprint::default().file(&binaries(installation).join("postgres"))?.finish();
    let copy = home.join(format!("installation-{}", &version[..16]));
    if !copy.is_dir() {
        let unfinished = home.join("installation.new");
        let _ = fs::remove_dir_all(&unfinished);
        for (from, to) in parts(installation) {
            copy_tree(&from, &unfinished.join(to)).context("PostgreSQL cannot be copied to /var/tmp")?;
        }
        fs::rename(&unfinished, &copy)?;
    }
    let installation = copy.join("package/installation");
    // `--fresh` wipes the data folder and not this one; a missing file of secrets tells that it did.
    if !data.join("secrets").exists() {
        let _ = fs::remove_dir_all(home.join("postgres"));
    }
    Ok(Unprivileged { installation, home, identity, namespace: false })
}

/// The installation, and the libraries that Python's tools for wheels put beside its package and find by relative
/// paths: on Linux two levels up, on macOS one.
fn parts(installation: &Path) -> Vec<(PathBuf, String)> {
    let mut parts = vec![(installation.to_path_buf(), "package/installation".to_owned())];
    let Some(package) = installation.parent() else { return parts };
    if package.join(".dylibs").is_dir() {
        parts.push((package.join(".dylibs"), "package/.dylibs".to_owned()));
    }
    let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".libs";
    let libraries = package.with_file_name(&name);
    if libraries.is_dir() {
        parts.push((libraries, name));
    }
    parts
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
