//! The audit events that calls have left in the stream: the writer waits for a full batch, so an idle processor does
//! not mean that the work of the calls is done.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use stack::Stack;

const POLL: Duration = Duration::from_millis(300);
/// The writer catches up within seconds, or something is wrong with it.
const POLLS: u32 = 200;

/// What nats-server says of the writer.
pub(super) struct Backlog {
    client: reqwest::Client,
    url: String,
}

/// `/jsz?consumers=true` of nats-server's monitoring, as far as it is read.
#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    #[serde(default)]
    consumer_detail: Vec<Consumer>,
}

#[derive(Deserialize)]
struct Consumer {
    num_pending: u64,
    num_ack_pending: u64,
}

impl Backlog {
    pub(super) fn of(stack: &Stack) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { client, url: format!("{}/jsz?consumers=true", stack.nats_monitor_url()) })
    }

    /// Waits until every event is in the database.
    pub(super) async fn until_written(&self) -> Result<()> {
        for _ in 0..POLLS {
            if self.events().await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("the audit trail does not catch up");
    }

    async fn events(&self) -> Result<u64> {
        let text = self.client.get(&self.url).send().await?.error_for_status()?.bytes().await?;
        unwritten(&text).context("nats-server does not tell of the audit stream's writer")
    }
}

/// Events that wait or are being written; none when the answer tells of no writer.
fn unwritten(jsz: &[u8]) -> Option<u64> {
    let jsz: Jsz = serde_json::from_slice(jsz).ok()?;
    let mut streams = jsz.account_details.into_iter().flat_map(|account| account.stream_detail);
    let writers = streams.find(|stream| stream.name == "AUDIT")?.consumer_detail;
    (!writers.is_empty()).then(|| writers.iter().map(|writer| writer.num_pending + writer.num_ack_pending).sum())
}

#[cfg(test)]
mod tests {
    use super::unwritten;

    #[test]
    fn events_that_wait_and_events_being_written_count_and_an_unknown_writer_is_not_taken_for_an_idle_one() {
        let jsz = br#"{"streams":2,"account_details":[{"name":"APP","stream_detail":[{"name":"CALLS_0"},
            {"name":"AUDIT","consumer_detail":[{"name":"writer","num_pending":7,"num_ack_pending":500}]}]}]}"#;
        assert_eq!(unwritten(jsz), Some(507));
        assert_eq!(unwritten(br#"{"account_details":[{"stream_detail":[{"name":"AUDIT"}]}]}"#), None);
        assert_eq!(unwritten(b"{}"), None);
    }
}
