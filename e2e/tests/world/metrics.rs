//! What processes tell of themselves, and how far each of them knows the shared state.

use serde_json::Value;
use shared::bus::kv::Bucket;

use super::System;
use crate::promises::accidents::until;

impl System {
    /// The metrics of a worker, by the name of its log; `None` where it has just ended.
    pub(crate) async fn metrics(&self, worker: &str) -> Option<String> {
        let log = std::fs::read_to_string(self.log_dir.join(format!("{worker}.log"))).expect("its log");
        let started = log.lines().rev().find(|line| line.contains("worker started")).expect("it started");
        let started: Value = serde_json::from_str(started).expect("a JSON line");
        let address = started["ops"].as_str().expect("where its metrics are");
        match self.http.get(format!("http://{address}/metrics")).send().await {
            Ok(answer) => Some(answer.text().await.expect("metrics")),
            Err(error) if error.is_connect() => None,
            Err(error) => panic!("{worker} does not tell its metrics: {error}"),
        }
    }

    /// The workers of a pool that run, by the names of their logs.
    async fn workers(&self, pool: &str) -> Vec<String> {
        let running = self.stack().await.supervisor().running();
        let is_one = |name: &String| name.strip_prefix(pool).is_some_and(|rest| rest.starts_with('-'));
        running.into_iter().map(|(name, _)| name).filter(is_one).collect()
    }

    /// The sum of whole numbers over the workers of a pool and all metrics that begin so.
    pub(crate) async fn measured(&self, pool: &str, metric: &str) -> u64 {
        let mut sum = 0;
        for worker in self.workers(pool).await {
            let Some(metrics) = self.metrics(&worker).await else { continue };
            let lines = metrics.lines().filter(|line| line.starts_with(metric));
            let values = lines.map(|line| line.rsplit_once(' ').expect("a value").1);
            sum += values.map(|value| value.parse::<u64>().expect("a whole number")).sum::<u64>();
        }
        sum
    }

    /// Waits until every tool worker knows what the others wrote of configurations until now: news travel by
    /// another road than calls.
    pub(crate) async fn configurations_are_known(&self) {
        let latest = self.revision(Bucket::Configs).await;
        let line = format!("switchboard_state_revision{{bucket=\"{}\"}} ", Bucket::Configs.name());
        for worker in self.workers("tool").await {
            until(&format!("{worker} knows revision {latest}"), async || {
                let Some(metrics) = self.metrics(&worker).await else { return true };
                let known = metrics.lines().find_map(|found| found.strip_prefix(&line));
                known.is_some_and(|known| known.parse::<u64>().expect("a revision") >= latest)
            })
            .await;
        }
    }

    /// The latest revision of a bucket.
    async fn revision(&self, bucket: Bucket) -> u64 {
        let nats = self.nats("jetstream").await;
        let question = format!("$JS.API.STREAM.INFO.{}", bucket.stream());
        let answer = nats.request(question, "".into()).await.expect("JetStream answers");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        answer["state"]["last_seq"].as_u64().unwrap_or_else(|| panic!("no revision: {answer}"))
    }
}
