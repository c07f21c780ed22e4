//! `cargo dev status`: who is alive and how full each organization's lane is, as NATS itself knows it.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use shared::{
    bus::{
        administration::Administration,
        instances::{self, Instance},
        kv::Bucket,
        lanes::LaneState,
    },
    config,
    context::now_unix_ms,
    id::PARTITIONS,
    secret::Secret,
};

/// What stands in `.dev/env`.
fn variable(env: &str, name: &str) -> Option<String> {
    env.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(|value| value.trim_matches('\'').to_owned())
}

/// Prints pools, instances and lanes of the stack whose data lie in `data_dir`.
///
/// # Errors
/// When no stack runs there, or NATS does not answer.
pub async fn show(data_dir: &Path) -> Result<String> {
    let env =
        std::fs::read_to_string(data_dir.join("env")).context("nothing runs here: start it with `cargo dev up`")?;
    let address = variable(&env, "NATS_URL").context("NATS_URL is missing in the env file")?;
    let url = url::Url::parse(&address)?;
    let nats = config::Nats {
        url: format!("nats://{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(4222)),
        user: Some(url.username().to_owned()),
        password: url.password().map(|password| Secret::new(password.to_owned())),
        credentials: None,
        root_certificates: None,
    };
    let administration = Administration::connect(&nats).await?;
    let instances = administration.entries::<Instance>(Bucket::Instances);
    let instances = tokio::time::timeout(Duration::from_secs(5), instances).await.context("NATS does not answer")??;
    let mut lanes = Vec::new();
    for partition in 0..PARTITIONS {
        for lane in administration.lanes(partition).await? {
            let oldest_at_ms = administration.oldest_call(lane.organization).await?;
            lanes.push(Row { lane, oldest_at_ms });
        }
    }
    Ok(table(&instances, lanes))
}

/// A lane and when its oldest call came in.
struct Row {
    lane: LaneState,
    oldest_at_ms: Option<u64>,
}

fn table(instances: &[(String, Instance)], lanes: Vec<Row>) -> String {
    let mut text = instances_table(instances);
    text.push_str(&lanes_table(lanes));
    text
}

fn instances_table(instances: &[(String, Instance)]) -> String {
    let mut text = String::from("INSTANCES\n");
    let now_ms = now_unix_ms();
    let stale_ms = u64::try_from(instances::STALE_AFTER.as_millis()).unwrap_or(u64::MAX);
    let mut alive: Vec<_> =
        instances.iter().filter(|(_, instance)| now_ms.saturating_sub(instance.beat_at_ms) <= stale_ms).collect();
    alive.sort_by(|one, other| one.0.cmp(&other.0));
    for (key, instance) in alive {
        let (role, id) = key.split_once('.').unwrap_or((key, ""));
        let state = if instance.healthy { "healthy" } else { "UNHEALTHY" };
        let age_ms = now_ms.saturating_sub(instance.beat_at_ms);
        let _ = writeln!(
            text,
            "  {role:<11} {:<8} {:<8} {state:<9} {:>5} running  beat {age_ms} ms ago",
            &id[..id.len().min(8)],
            instance.version,
            instance.running
        );
    }
    text
}

fn lanes_table(mut rows: Vec<Row>) -> String {
    let now_ms = now_unix_ms();
    let mut text = format!("LANES ({})\n", rows.len());
    rows.sort_by_key(|row| std::cmp::Reverse(row.lane.waiting + row.lane.running));
    let _ = writeln!(
        text,
        "  {:<36} {:>5} {:>7} {:>7} {:>9} {:>10}",
        "organization", "limit", "running", "waiting", "oldest s", "saturation"
    );
    for Row { lane, oldest_at_ms } in rows {
        let limit = u64::from(lane.limits.concurrency_limit).max(1);
        let oldest = oldest_at_ms.map_or_else(
            || "-".to_owned(),
            |at| format!("{:.1}", Duration::from_millis(now_ms.saturating_sub(at)).as_secs_f64()),
        );
        let paused = if lane.limits.paused { " paused" } else { "" };
        let _ = writeln!(
            text,
            "  {:<36} {limit:>5} {:>7} {:>7} {oldest:>9} {:>9}%{paused}",
            lane.organization.to_string(),
            lane.running,
            lane.waiting,
            100 * lane.running / limit
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_read_with_and_without_quotes() {
        assert_eq!(variable("A=1\nB='x y'\n", "B").as_deref(), Some("x y"));
        assert_eq!(variable("A=1\n", "A").as_deref(), Some("1"));
        assert_eq!(variable("A=1\n", "C"), None);
    }
}
