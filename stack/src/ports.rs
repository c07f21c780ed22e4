//! Loopback ports that stay the same from one run to the next while they are free.
//!
//! New ports come from a range that neither Linux nor macOS uses for outgoing connections: a port found free there is
//! not taken by somebody's connection a moment later. What is left of the race is answered by the supervisor, which
//! starts a child again on another port when it could not bind.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

use crate::secrets::lines;

const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;
const TRIES: usize = 2_000;

/// Ports by the name of what listens on them, kept in a file of `name=port` lines.
#[derive(Debug)]
pub(crate) struct PortBook {
    file: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    port: u16,
    /// Handed out by this run.
    taken: bool,
    /// Asked for by a person: never replaced by another.
    requested: bool,
}

impl PortBook {
    /// Reads the ports of the last run.
    pub(crate) fn open(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let entries = text
            .lines()
            .filter_map(|line| {
                let (name, port) = line.split_once('=')?;
                Some((name.to_owned(), Entry { port: port.parse().ok()?, taken: false, requested: false }))
            })
            .collect();
        Self { file, entries: Mutex::new(entries) }
    }

    /// The port that a name had in the last run.
    pub(crate) fn last(file: &Path, name: &str) -> Option<u16> {
        Self::open(file.to_path_buf()).lock().get(name).map(|entry| entry.port)
    }

    /// Fixes a port that somebody asked for.
    ///
    /// # Errors
    /// When something listens there already.
    pub(crate) fn request(&self, name: &str, port: u16) -> Result<()> {
        if !is_free(port) {
            bail!("port {port} is already in use: stop what listens there, or choose another port");
        }
        self.lock().insert(name.to_owned(), Entry { port, taken: false, requested: true });
        Ok(())
    }

    /// The port of this name: the one of the last run when it is free, else a new one.
    ///
    /// # Errors
    /// When no free port is found.
    pub(crate) fn take(&self, name: &str) -> Result<u16> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(name)
            && (entry.taken || entry.requested || is_free(entry.port))
        {
            entry.taken = true;
            return Ok(entry.port);
        }
        let port = unused(&entries)?;
        entries.insert(name.to_owned(), Entry { port, taken: true, requested: false });
        self.save(&entries)?;
        Ok(port)
    }

    /// Forgets a port that could not be bound, unless somebody asked for it.
    pub(crate) fn give_up(&self, name: &str) {
        let mut entries = self.lock();
        if entries.get(name).is_some_and(|entry| !entry.requested) {
            entries.remove(name);
        }
    }

    fn save(&self, entries: &BTreeMap<String, Entry>) -> Result<()> {
        Ok(fs::write(&self.file, lines(entries.iter().map(|(name, entry)| (name, entry.port))))?)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a listener can be bound on loopback. A server on all addresses counts as taken too.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn unused(entries: &BTreeMap<String, Entry>) -> Result<u16> {
    for _ in 0..TRIES {
        let port = rand::random_range(FIRST..=LAST);
        if entries.values().all(|entry| entry.port != port) && is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free loopback port between {FIRST} and {LAST} was found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn book(scratch: &Scratch) -> PortBook {
        PortBook::open(scratch.path().join("ports"))
    }

    #[test]
    fn a_port_is_kept_for_the_next_run_while_it_is_free_and_replaced_when_it_is_not() {
        let scratch = Scratch::new().unwrap();
        let port = book(&scratch).take("nats").unwrap();
        assert_eq!(book(&scratch).take("nats").unwrap(), port);
        let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(book(&scratch).take("nats").unwrap(), port);
    }

    #[test]
    fn two_names_never_share_a_port_and_one_name_has_one_port_per_run() {
        let scratch = Scratch::new().unwrap();
        let book = book(&scratch);
        let (nats, postgres) = (book.take("nats").unwrap(), book.take("postgres").unwrap());
        assert_ne!(nats, postgres);
        assert_eq!(book.take("nats").unwrap(), nats);
    }

    #[test]
    fn a_requested_port_that_is_taken_is_refused_with_its_number() {
        let scratch = Scratch::new().unwrap();
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = book(&scratch).request("gateway", port).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} is already in use")), "{error}");
    }

    #[test]
    fn a_port_given_up_is_replaced_unless_it_was_requested() {
        let scratch = Scratch::new().unwrap();
        let book = book(&scratch);
        let first = book.take("nats").unwrap();
        book.give_up("nats");
        let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(book.take("nats").unwrap(), first);
        let wanted = unused(&BTreeMap::new()).unwrap();
        book.request("gateway", wanted).unwrap();
        book.give_up("gateway");
        assert_eq!(book.take("gateway").unwrap(), wanted);
    }
}
