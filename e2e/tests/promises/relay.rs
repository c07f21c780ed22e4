//! A TCP relay whose connections a test can cut and heal: a network that fails between two processes
//! that are both well.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A running relay. It ends with the tests' runtime.
pub(crate) struct Relay {
    port: u16,
    /// True while the network is whole.
    whole: watch::Sender<bool>,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    /// Relays to the server of an address `nats://host:port`.
    pub(crate) async fn to(url: &str) -> Self {
        Self::that_cuts(url, None).await
    }

    /// The same; only connections of this user of the server are counted, and cut.
    pub(crate) async fn of(user: &'static str, url: &str) -> Self {
        Self::that_cuts(url, Some(user)).await
    }

    async fn that_cuts(url: &str, user: Option<&'static str>) -> Self {
        let target = url.strip_prefix("nats://").expect("a NATS address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (whole, looks) = watch::channel(true);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (target, looks, counted) = (target.clone(), looks.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    if let Some((near, far)) = introduce(near, &target, user, &looks).await {
                        counted.fetch_add(1, SeqCst);
                        pass(near, far, looks).await;
                        counted.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        Self { port, whole, connections }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Connections open now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Breaks every connection, and every new one until healed.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets connections through again.
    pub(crate) fn heal(&self) {
        self.whole.send_replace(true);
    }
}

/// Connects to the server, passes its first word on, and what the client says to that: who it is. Answers the two sides
/// of a connection that may be cut; one of another user is passed on to its end.
async fn introduce(
    mut near: TcpStream,
    target: &str,
    user: Option<&str>,
    whole: &watch::Receiver<bool>,
) -> Option<(TcpStream, TcpStream)> {
    if user.is_none() && !*whole.borrow() {
        return None;
    }
    let mut far = TcpStream::connect(target).await.ok()?;
    let Some(user) = user else { return Some((near, far)) };
    let mut word = vec![0; 16 * 1024];
    let length = far.read(&mut word).await.ok()?;
    near.write_all(&word[..length]).await.ok()?;
    let length = near.read(&mut word).await.ok()?;
    let is_theirs = String::from_utf8_lossy(&word[..length]).contains(&format!("\"user\":\"{user}\""));
    if is_theirs && !*whole.borrow() {
        return None;
    }
    far.write_all(&word[..length]).await.ok()?;
    if is_theirs {
        return Some((near, far));
    }
    let _ = copy_bidirectional(&mut near, &mut far).await;
    None
}

/// Passes bytes until either side closes or the relay is cut; dropping the sockets closes them.
async fn pass(mut near: TcpStream, mut far: TcpStream, mut whole: watch::Receiver<bool>) {
    tokio::select! {
        // How it ended is the business of those who talk.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}
