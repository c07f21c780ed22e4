//! The loops of a worker that have yet to hear their work. It is not ready before they do, nor heard of, so that whoever
//! it takes over from can leave once it is.

use tokio::sync::watch;

/// Loops that have yet to begin. Clones share the count.
#[derive(Clone, Debug)]
pub struct Beginnings(watch::Sender<usize>);

impl Beginnings {
    /// So many loops.
    pub fn of(loops: usize) -> Self {
        Self(watch::Sender::new(loops))
    }

    /// A loop has begun; each says so once.
    pub fn one_began(&self) {
        self.0.send_modify(|left| *left -= 1);
    }

    /// True once all have.
    pub fn are_over(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until all have.
    pub async fn over(&self) {
        // We hold a sender ourselves.
        let _ = self.0.subscribe().wait_for(|left| *left == 0).await;
    }
}
