//! Finds a Python that the locked packages support, or says in one sentence what to install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow};

use super::on_path;

/// The minor versions for which every locked package has a build.
const OLDEST: u32 = 10;
const NEWEST: u32 = 14;

/// A usable interpreter.
#[derive(Debug)]
pub(super) struct Python {
    pub(super) path: PathBuf,
    /// `3.<minor>.<patch>`.
    pub(super) version: String,
}

/// Debian splits venv off python3, and says so only in many lines.
pub(super) fn advice_when_venv_fails(error: &anyhow::Error) -> String {
    let words = format!("{error:#}");
    if ["ensurepip", "No module named venv", "No module named pip"].iter().any(|sign| words.contains(sign)) {
        return "python3 has no venv and pip: install the package python3-venv (Debian, Ubuntu: `apt-get install \
                python3-venv`), or install uv"
            .to_owned();
    }
    format!("python3 cannot make an environment for uv: {words}")
}

/// `python3`, else a newer or older one by its versioned name.
pub(super) fn find() -> Result<Python> {
    let names =
        std::iter::once("python3".to_owned()).chain((OLDEST..=NEWEST).rev().map(|minor| format!("python3.{minor}")));
    let found: Vec<Python> = names.filter_map(|name| on_path(&name)).filter_map(|path| ask(&path)).collect();
    choose(found).map_err(|sentence| anyhow!(sentence))
}

fn choose(found: Vec<Python>) -> Result<Python, String> {
    let Some(first) = found.first().map(|python| python.version.clone()) else {
        return Err(format!(
            "python3 is not installed: install Python 3.{OLDEST} to 3.{NEWEST} with venv (Debian, Ubuntu: `apt-get \
             install python3 python3-venv`)"
        ));
    };
    let supported = |python: &Python| minor(&python.version).is_some_and(|minor| (OLDEST..=NEWEST).contains(&minor));
    found.into_iter().find(supported).ok_or_else(|| {
        let too = if minor(&first).is_some_and(|minor| minor > NEWEST) { "newer" } else { "older" };
        format!(
            "python3 is {first}, which is {too} than the locked packages support: install Python 3.{OLDEST} to \
             3.{NEWEST} beside it (it is found by its name, such as python3.{NEWEST})"
        )
    })
}

fn minor(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    (parts.next()? == "3").then(|| parts.next()?.parse().ok()).flatten()
}

/// Asks the interpreter for itself: what is on the PATH may be a version manager's shim.
fn ask(path: &Path) -> Option<Python> {
    let question = "import sys; print(sys.executable); print('.'.join(map(str, sys.version_info[:3])))";
    let output = Command::new(path).args(["-c", question]).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (path, version) = text.trim().split_once('\n')?;
    Some(Python { path: PathBuf::from(path), version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(version: &str) -> Python {
        Python { path: PathBuf::from(version), version: version.to_owned() }
    }

    #[test]
    fn the_first_supported_python_is_chosen() {
        let found = vec![python("3.15.1"), python("3.13.2"), python("3.11.7")];
        assert_eq!(choose(found).unwrap().version, "3.13.2");
        assert_eq!(choose(vec![python("3.10.0")]).unwrap().version, "3.10.0");
    }

    #[test]
    fn a_missing_an_old_and_a_new_python_are_each_named_in_one_sentence() {
        assert!(choose(vec![]).unwrap_err().contains("python3 is not installed"));
        let old = choose(vec![python("3.9.2")]).unwrap_err();
        assert!(old.contains("3.9.2, which is older") && old.contains("3.10 to 3.14"), "{old}");
        assert!(choose(vec![python("3.15.0")]).unwrap_err().contains("3.15.0, which is newer"));
    }

    #[test]
    fn a_python_without_venv_names_the_package() {
        let advice = advice_when_venv_fails(&anyhow!("because ensurepip is not available"));
        assert!(advice.contains("python3-venv") && !advice.contains('\n'), "{advice}");
        assert!(advice_when_venv_fails(&anyhow!("disk full")).contains("disk full"));
    }
}
