//! A TCP relay whose connections a test can cut and heal: a network that fails between two processes
//! that are both well.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::copy_bidirectional,
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
                    counted.fetch_add(1, SeqCst);
                    pass(near, &target, looks).await;
                    counted.fetch_sub(1, SeqCst);
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

/// Passes bytes until either side closes or the relay is cut; dropping the sockets closes them.
async fn pass(mut near: TcpStream, target: &str, mut whole: watch::Receiver<bool>) {
    if !*whole.borrow_and_update() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        // How it ended is the business of those who talk.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}
