//! NATS by hand: the lines of its protocol on a socket. A client library reports a refusal whenever
//! it likes; here everything the server had to say about a line stands before the PONG that follows
//! it, so "refused" and "nothing came" are facts and not guesses about time.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::world::{PATIENCE, System};

/// One connection as a role's user.
pub(crate) struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// A subject of the role's own where it listens.
    pub(crate) inbox: String,
    subscriptions: u64,
    refusals: Vec<String>,
    heard: Vec<Heard>,
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) subject: String,
    pub(crate) reply: Option<String>,
    pub(crate) payload: Vec<u8>,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

impl Wire {
    /// Connects and subscribes an inbox of the role's own.
    pub(crate) async fn connect(system: &System, role: &str) -> Self {
        let address = system.nats_url.trim_start_matches("nats://");
        let (reader, writer) = TcpStream::connect(address).await.expect("NATS listens").into_split();
        let inbox = format!("_INBOX_{role}.{}", uuid::Uuid::new_v4().simple());
        let reader = BufReader::new(reader);
        let mut wire = Self { reader, writer, inbox, subscriptions: 0, refusals: Vec::new(), heard: Vec::new() };
        let hello = json!({
            "user": role, "pass": system.nats_password(role), "headers": true, "no_responders": true,
            "verbose": false, "pedantic": false, "lang": "by-hand", "version": "0", "protocol": 1,
        });
        wire.write(format!("CONNECT {hello}\r\n").as_bytes()).await;
        let inbox = wire.inbox.clone();
        assert_eq!(wire.subscribe(&inbox, None).await, None, "{role} listens to its own inbox");
        wire
    }

    /// Subscribes; answers the server's refusal, if it refused.
    pub(crate) async fn subscribe(&mut self, subject: &str, queue: Option<&str>) -> Option<String> {
        self.subscriptions += 1;
        let queue = queue.map_or_else(String::new, |queue| format!("{queue} "));
        let line = format!("SUB {subject} {queue}{}\r\n", self.subscriptions);
        self.write(line.as_bytes()).await;
        self.settle().await;
        self.refusals.pop()
    }

    /// Publishes with the inbox as reply; answers the server's refusal, if it refused.
    pub(crate) async fn publish(&mut self, subject: &str, payload: &[u8]) -> Option<String> {
        let line = format!("PUB {subject} {} {}\r\n", self.inbox, payload.len());
        self.write(&[line.as_bytes(), payload, b"\r\n"].concat()).await;
        self.settle().await;
        self.refusals.pop()
    }

    /// The same with headers and without a reply, unless one is given.
    pub(crate) async fn publish_with(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Option<String> {
        let mut block = String::from("NATS/1.0\r\n");
        for (name, value) in headers {
            let _ = write!(block, "{name}: {value}\r\n");
        }
        block.push_str("\r\n");
        let reply = reply.map_or_else(String::new, |reply| format!("{reply} "));
        let line = format!("HPUB {subject} {reply}{} {}\r\n", block.len(), block.len() + payload.len());
        self.write(&[line.as_bytes(), block.as_bytes(), payload, b"\r\n"].concat()).await;
        self.settle().await;
        self.refusals.pop()
    }

    /// Everything heard so far.
    pub(crate) async fn heard(&mut self) -> Vec<Heard> {
        self.settle().await;
        std::mem::take(&mut self.heard)
    }

    /// The next message.
    pub(crate) async fn next(&mut self, what: &str) -> Heard {
        let next = async {
            while self.heard.is_empty() {
                self.read_one().await;
            }
            self.heard.remove(0)
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("{what} never came"))
    }

    /// A request and its answer, which must come.
    pub(crate) async fn request(&mut self, subject: &str, payload: &Value) -> Value {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        assert_eq!(self.publish(subject, payload.as_bytes()).await, None, "{subject}");
        self.next(subject).await.json()
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.expect("NATS takes what is written");
    }

    /// Reads until the server has answered everything written so far.
    async fn settle(&mut self) {
        self.write(b"PING\r\n").await;
        let settled = async { while !self.read_one().await {} };
        tokio::time::timeout(PATIENCE, settled).await.expect("NATS answers a PING");
    }

    /// Reads one protocol message; true for a PONG.
    async fn read_one(&mut self) -> bool {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).await.expect("NATS stays connected");
        assert!(read > 0, "NATS closed the connection after {:?}", self.refusals);
        let tokens: Vec<&str> = line.split_ascii_whitespace().collect();
        match tokens.first().copied().unwrap_or_default() {
            "PONG" => return true,
            "PING" => self.write(b"PONG\r\n").await,
            "-ERR" => self.refusals.push(line.trim_start_matches("-ERR").trim().to_owned()),
            "MSG" => self.read_message(&tokens, false).await,
            "HMSG" => self.read_message(&tokens, true).await,
            _ => {}
        }
        false
    }

    /// `MSG subject sid [reply] bytes` or `HMSG subject sid [reply] header-bytes bytes`.
    async fn read_message(&mut self, tokens: &[&str], has_headers: bool) {
        let numbers = if has_headers { 2 } else { 1 };
        let number = |from_end: usize| tokens[tokens.len() - from_end].parse::<usize>().expect("a length");
        let reply = (tokens.len() == 4 + numbers).then(|| tokens[3].to_owned());
        let mut bytes = vec![0; number(1) + 2];
        self.reader.read_exact(&mut bytes).await.expect("a whole message");
        bytes.truncate(number(1));
        let payload = bytes.split_off(if has_headers { number(2) } else { 0 });
        self.heard.push(Heard { subject: tokens[1].to_owned(), reply, payload });
    }
}
