//! `cargo dev status`: which pools are there, who is alive in them and how full each organization's lane is, as NATS
//! itself knows it.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use shared::{
    bus::{
        Role,
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

/// How long NATS may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that are asked at once.
const AT_ONCE: usize = 32;

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
    let instances = tokio::time::timeout(PATIENCE, instances).await.context("NATS does not answer")??;
    let lanes = lanes(&administration).await?;
    Ok(table(&instances, lanes, now_unix_ms()))
}

/// Every open lane, with its oldest call where it has any.
async fn lanes(administration: &Administration) -> Result<Vec<Row>> {
    let partitions = stream::iter(0..PARTITIONS).map(|partition| administration.lanes(partition));
    let lanes: Vec<Vec<LaneState>> = partitions.buffered(AT_ONCE).try_collect().await?;
    let rows = stream::iter(lanes.into_iter().flatten()).map(|lane| async move {
        let oldest_at_ms = if lane.is_empty() { None } else { administration.oldest_call(lane.organization).await? };
        anyhow::Ok(Row { lane, oldest_at_ms })
    });
    rows.buffered(AT_ONCE).try_collect().await
}

/// A lane and when its oldest call came in, waiting or running.
struct Row {
    lane: LaneState,
    oldest_at_ms: Option<u64>,
}

fn table(instances: &[(String, Instance)], lanes: Vec<Row>, now_ms: u64) -> String {
    let stale_ms = u64::try_from(instances::STALE_AFTER.as_millis()).unwrap_or(u64::MAX);
    let mut alive: Vec<&(String, Instance)> =
        instances.iter().filter(|(_, instance)| now_ms.saturating_sub(instance.beat_at_ms) <= stale_ms).collect();
    alive.sort_by(|one, other| one.0.cmp(&other.0));
    let mut text = pools_table(&alive);
    text.push_str(&instances_table(&alive, now_ms));
    text.push_str(&lanes_table(lanes, now_ms));
    text
}

/// One line for each role, also where nobody is left to speak for it.
fn pools_table(alive: &[&(String, Instance)]) -> String {
    let mut text = format!("POOLS\n  {:<11} {:>9} {:>7} {:>7}\n", "pool", "processes", "healthy", "running");
    for role in Role::ALL {
        let of_role = || {
            let of_role = |entry: &&&(String, Instance)| entry.0.split('.').next() == Some(role.name());
            alive.iter().filter(of_role).map(|entry| &entry.1)
        };
        let healthy = of_role().filter(|instance| instance.healthy).count();
        let running: u64 = of_role().map(|instance| instance.running).sum();
        let missing = if healthy == 0 { "  NOBODY SERVES" } else { "" };
        let _ = writeln!(text, "  {:<11} {:>9} {healthy:>7} {running:>7}{missing}", role.name(), of_role().count());
    }
    text
}

fn instances_table(alive: &[&(String, Instance)], now_ms: u64) -> String {
    let mut text = String::from("INSTANCES\n");
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

fn lanes_table(mut rows: Vec<Row>, now_ms: u64) -> String {
    let (running, waiting) =
        rows.iter().fold((0, 0), |(running, waiting), row| (running + row.lane.running, waiting + row.lane.waiting));
    let mut text = format!("LANES ({} open, {running} calls running, {waiting} waiting)\n", rows.len());
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
    use shared::{bus::state::Limits, id::OrganizationId};

    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn instance(beat_at_ms: u64, healthy: bool, running: u64) -> Instance {
        Instance { beat_at_ms, version: "0.1.0".to_owned(), healthy, running }
    }

    fn row(limits: Limits, running: u64, waiting: u64, oldest_at_ms: Option<u64>) -> (OrganizationId, Row) {
        let organization = OrganizationId::new();
        (
            organization,
            Row { lane: LaneState { organization, limits, waiting, running, opened_at_ms: 0 }, oldest_at_ms },
        )
    }

    /// The words of each line.
    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn a_pool_that_nobody_serves_has_a_line_all_the_same() {
        let instances = [
            ("tool.aaaaaaaaaaaa".to_owned(), instance(NOW_MS - 100, true, 7)),
            ("tool.bbbbbbbbbbbb".to_owned(), instance(NOW_MS - 300, false, 3)),
            ("token.cccccccccccc".to_owned(), instance(NOW_MS - 60_000, true, 1)),
        ];
        let text = table(&instances, Vec::new(), NOW_MS);
        let lines = words(&text);
        assert_eq!(lines[0], ["POOLS"]);
        for role in Role::ALL {
            let line = lines[2..8].iter().find(|line| line[0] == role.name()).unwrap();
            let expected: &[&str] = match role.name() {
                "tool" => &["tool", "2", "1", "10"],
                other => &[other, "0", "0", "0", "NOBODY", "SERVES"],
            };
            assert_eq!(line, expected);
        }
        assert_eq!(lines[8], ["INSTANCES"]);
        assert_eq!(lines[9].join(" "), "tool aaaaaaaa 0.1.0 healthy 7 running beat 100 ms ago");
        assert_eq!(lines[10].join(" "), "tool bbbbbbbb 0.1.0 UNHEALTHY 3 running beat 300 ms ago");
        assert_eq!(lines[11].join(" "), "LANES (0 open, 0 calls running, 0 waiting)", "who is stale is gone");
    }

    #[test]
    fn the_fullest_lane_comes_first_with_its_oldest_call_and_saturation() {
        let (idle, idle_row) = row(Limits::concurrent(16), 0, 0, None);
        let (full, full_row) = row(Limits::concurrent(4), 4, 90, Some(NOW_MS - 2_500));
        let limits = Limits { paused: true, ..Limits::concurrent(8) };
        let (paused, paused_row) = row(limits, 2, 5, Some(NOW_MS - 61_000));
        let text = lanes_table(vec![idle_row, full_row, paused_row], NOW_MS);
        let lines: Vec<String> = words(&text).iter().map(|line| line.join(" ")).collect();
        assert_eq!(lines[0], "LANES (3 open, 6 calls running, 95 waiting)");
        assert_eq!(lines[2], format!("{full} 4 4 90 2.5 100%"));
        assert_eq!(lines[3], format!("{paused} 8 2 5 61.0 25% paused"));
        assert_eq!(lines[4], format!("{idle} 16 0 0 - 0%"));
    }

    #[test]
    fn a_variable_is_read_with_and_without_quotes() {
        assert_eq!(variable("A=1\nB='x y'\n", "B").as_deref(), Some("x y"));
        assert_eq!(variable("A=1\n", "A").as_deref(), Some("1"));
        assert_eq!(variable("A=1\n", "C"), None);
    }
}
