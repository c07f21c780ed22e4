//! No process outlives the supervisor, whatever ends it, and no data is lost: shown on the `dev` binary with a real
//! nats-server, `PostgreSQL` and demo server.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stack::places::Places;
use stack::{Progress, Scratch, environment};

const LIMIT: Duration = Duration::from_secs(40);

/// A running `dev up` on a folder of its own. A test that fails leaves it to the watchdog.
struct Up {
    process: Child,
    stderr: BufReader<ChildStderr>,
    words: String,
    children: Vec<i32>,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(|| {
        let places = Places::find().unwrap();
        environment::ensure(&places, Progress::Quiet).unwrap();
        places
    })
}

fn dev(data: &Path, arguments: &[&str]) -> Command {
    places();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dev"));
    command.args(arguments).arg("--data-dir").arg(data);
    command
}

impl Up {
    /// Starts and waits for the line that says ready.
    fn start(data: &Path, more: &[&str]) -> Self {
        let mut command = dev(data, &[&["up", "--no-build", "--without-product"], more].concat());
        let mut process = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut words = String::new();
        while stderr.read_line(&mut words).unwrap() > 0 && !words.contains("\nReady after") {}
        assert!(words.contains("\nReady after"), "did not start: {words}");
        let children = children_of(process.id());
        assert!(children.len() >= 4, "watchdog, nats, postgres and demo are children: {children:?}");
        Self { process, stderr, words, children }
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.process.id()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the supervisor ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn child(&self, name: &str) -> i32 {
        let found = self.children.iter().find(|child| command_of(**child).contains(name));
        *found.unwrap_or_else(|| panic!("{name} is not among the children"))
    }

    fn assert_nothing_is_left(&self) {
        until("every child is gone", || self.children.iter().all(|child| !runs(*child)));
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "plain threads, and processes whose state can only be asked for")]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A process: its id, its parent's, its state's letter, its command line.
struct Process {
    id: i32,
    parent: i32,
    state: String,
    command: String,
}

/// All processes, from `/proc` where there is one (minimal images have no `ps`).
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return processes_by_ps() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let (state, parent) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        Some(Process { id, parent, state, command: String::from_utf8_lossy(&command).into_owned() })
    })
    .collect()
}

fn processes_by_ps() -> Vec<Process> {
    let listing = Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat=,args="]).output().unwrap().stdout;
    let listing = String::from_utf8_lossy(&listing).into_owned();
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (id, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Process { id, parent, state: words.next()?.to_owned(), command: words.collect::<Vec<_>>().join(" ") })
    };
    listing.lines().filter_map(parse).collect()
}

/// Children and theirs: `PostgreSQL`'s processes included.
fn children_of(parent: u32) -> Vec<i32> {
    let all = processes();
    let mut family = vec![pid(parent).as_raw()];
    let mut seen = 0;
    while seen < family.len() {
        let parent = family[seen];
        family.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.id));
        seen += 1;
    }
    family.remove(0);
    family
}

fn command_of(id: i32) -> String {
    processes().into_iter().find(|process| process.id == id).map(|process| process.command).unwrap_or_default()
}

/// A zombie that nobody has looked at yet does not run.
fn runs(id: i32) -> bool {
    processes().iter().any(|process| process.id == id && !process.state.starts_with('Z'))
}

fn port(data: &Path, name: &str) -> String {
    let ports = fs::read_to_string(data.join("ports")).unwrap();
    ports.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap().to_owned()
}

fn sql(data: &Path, statement: &str) -> Output {
    let secrets = fs::read_to_string(data.join("secrets")).unwrap();
    let password = secrets.lines().find_map(|line| line.strip_prefix("postgres=")).unwrap().to_owned();
    let psql: PathBuf = places().postgres_installation().unwrap().join("bin/psql");
    let mut command = Command::new(psql);
    command.args(["-h", "127.0.0.1", "-p", &port(data, "postgres"), "-U", "postgres", "-At", "-c", statement]);
    command.env("PGPASSWORD", password).output().unwrap()
}

fn stopped_cleanly(data: &Path) -> bool {
    fs::read_to_string(data.join("log/postgres.log")).unwrap().contains("database system is shut down")
}

#[test]
fn every_signal_that_asks_for_an_end_stops_all_children_in_order_and_keeps_the_data() {
    let scratch = Scratch::new().unwrap();
    let data = scratch.path();
    for (round, signal) in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().enumerate() {
        let mut up = Up::start(data, &[]);
        let statement = if round == 0 { "CREATE TABLE kept (round int)" } else { "SELECT 1" };
        assert!(sql(data, statement).status.success());
        assert!(sql(data, &format!("INSERT INTO kept VALUES ({round})")).status.success());
        up.signal(signal);
        assert_eq!(up.wait().code(), Some(0), "{signal}");
        // The supervisor waited for them: nothing is left at the moment it ends.
        assert!(up.children.iter().all(|child| !runs(*child)), "{signal} left a child");
        assert!(stopped_cleanly(data), "{signal}");
    }
    let up = Up::start(data, &[]);
    assert_eq!(String::from_utf8(sql(data, "SELECT count(*) FROM kept").stdout).unwrap().trim(), "3");
    drop(up);
    let _up = Up::start(data, &["--fresh"]);
    assert!(!sql(data, "SELECT count(*) FROM kept").status.success(), "--fresh kept a table");
}

#[test]
fn a_killed_supervisor_leaves_no_child_even_a_frozen_one_and_the_next_start_finds_the_data() {
    let scratch = Scratch::new().unwrap();
    let data = scratch.path();
    let mut up = Up::start(data, &[]);
    assert!(sql(data, "CREATE TABLE kept (round int)").status.success());
    kill(Pid::from_raw(up.child("nats-server")), Signal::SIGSTOP).unwrap();
    up.signal(Signal::SIGKILL);
    up.wait();
    up.assert_nothing_is_left();
    assert!(stopped_cleanly(data), "postgres was not given time to stop");
    let _again = Up::start(data, &[]);
    assert!(sql(data, "SELECT count(*) FROM kept").status.success());
}

#[test]
fn a_child_that_dies_stops_the_rest_and_is_named_with_its_last_lines() {
    let scratch = Scratch::new().unwrap();
    let mut up = Up::start(scratch.path(), &[]);
    kill(Pid::from_raw(up.child("nats-server")), Signal::SIGKILL).unwrap();
    assert_eq!(up.wait().code(), Some(1));
    let mut said = String::new();
    up.stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains("nats ended (signal: 9") && said.contains("Server is ready"), "{said}");
    assert!(up.children.iter().all(|child| !runs(*child)), "a child was left");
    assert!(stopped_cleanly(scratch.path()));
}

#[test]
fn a_second_start_says_that_one_runs_already_and_down_stops_it() {
    let scratch = Scratch::new().unwrap();
    let mut up = Up::start(scratch.path(), &[]);
    let second = dev(scratch.path(), &["up", "--no-build", "--without-product"]).output().unwrap();
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(words.contains("already running") && words.contains(&up.process.id().to_string()), "{words}");
    // Somebody must wait for the supervisor while `down` waits for its lock.
    let mut down = dev(scratch.path(), &["down"]).spawn().unwrap();
    assert_eq!(up.wait().code(), Some(0));
    assert!(down.wait().unwrap().success());
    assert!(up.children.iter().all(|child| !runs(*child)), "down left a child");
    let nothing = dev(scratch.path(), &["down"]).output().unwrap();
    assert!(nothing.status.success());
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing was running"));
}

#[test]
fn a_port_of_the_last_run_that_is_taken_is_replaced_and_a_requested_one_is_refused() {
    let scratch = Scratch::new().unwrap();
    let data = scratch.path();
    drop(Up::start(data, &[]));
    let nats = port(data, "nats");
    let mut again = Up::start(data, &[]);
    assert_eq!(port(data, "nats"), nats, "a free port is kept: {}", again.words);
    again.signal(Signal::SIGINT);
    again.wait();
    let holder = TcpListener::bind(("127.0.0.1", nats.parse().unwrap())).unwrap();
    let _moved = Up::start(data, &[]);
    assert_ne!(port(data, "nats"), nats);

    let other = Scratch::new().unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    let refused = dev(other.path(), &["up", "--no-build", "--without-product", "--port", &taken]).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(words.contains(&format!("port {taken} is already in use")), "{words}");
}

#[test]
fn secrets_are_for_their_owner_only_and_no_log_holds_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new().unwrap();
    let mut up = Up::start(scratch.path(), &[]);
    up.signal(Signal::SIGINT);
    up.wait();
    let file = scratch.path().join("secrets");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secrets = fs::read_to_string(file).unwrap();
    let values: Vec<&str> = secrets.lines().filter_map(|line| Some(line.split_once('=')?.1)).collect();
    assert!(values.len() >= 7);
    for log in fs::read_dir(scratch.path().join("log")).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(values.iter().all(|value| !text.contains(value)));
    }
}
