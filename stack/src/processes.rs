//! What the operating system knows of processes: signals to whole groups, who is alive, who carries a stack's mark.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The environment variable that marks every process of a stack. Its value is the stack's id.
pub(crate) const MARK: &str = "SWITCHBOARD_STACK";

/// Sends a signal to a child's whole process group. A group that is gone already is no failure.
pub(crate) fn signal_group(leader: i32, signal: Signal) {
    let _ = killpg(Pid::from_raw(leader), signal);
}

/// Whether a process runs: a zombie, which only waits for its parent to look, does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok() && !is_zombie(pid)
}

/// The ids of running processes that carry this stack's mark, grandchildren included.
///
/// Empty where the system has no `/proc` (macOS). `PostgreSQL` overwrites its environment for its process title, so its
/// own processes are known by their recorded ids instead.
pub fn tagged(stack: &str) -> Vec<i32> {
    let mark = format!("{MARK}={stack}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
        })
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// The state letter stands after the command's name, which is in parentheses and may itself contain some.
fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z')))
        .unwrap_or(false)
}
