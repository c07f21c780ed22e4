//! How old a delivery can be. A process that was frozen, or whose network stood still, finds
//! deliveries waiting that the server has long given to somebody else, and they look like new ones.
//! So the server is asked again and again: what comes after an answer was sent after its question.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::link::Link;

const ASK_EVERY: Duration = Duration::from_secs(1);

/// Asks as long as it lives.
#[derive(Debug)]
pub(super) struct Heard {
    since: watch::Receiver<Instant>,
    _asking: AbortOnDropHandle<()>,
}

impl Heard {
    /// Begins before anything was delivered.
    pub(super) fn start(link: Link) -> Self {
        let (heard, since) = watch::channel(Instant::now());
        let asking = AbortOnDropHandle::new(tokio::spawn(ask(link, heard)));
        Self { since, _asking: asking }
    }

    /// What is taken now was not delivered before this.
    pub(super) fn since(&self) -> Instant {
        *self.since.borrow()
    }
}

async fn ask(link: Link, heard: watch::Sender<Instant>) {
    let mut connections = link.connections.clone();
    connections.mark_unchanged();
    let mut asked = Instant::now();
    loop {
        // One question late: within this process an answer may overtake deliveries that came before it.
        let earlier = std::mem::replace(&mut asked, Instant::now());
        let since = tokio::select! {
            answered = link.is_answered() => answered.then_some(earlier),
            // Nothing of an old connection comes over a new one.
            Ok(()) = connections.changed() => Some(Instant::now()),
        };
        if let Some(since) = since {
            heard.send_replace(since);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
