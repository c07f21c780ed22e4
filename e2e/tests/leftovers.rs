//! After the last test: no message waits unacknowledged, no lane holds a slot, and once the stack
//! is stopped none of its processes lives.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{PATIENCE, System, World};

/// Looks; says what was left behind.
pub(crate) fn check(world: &World) -> bool {
    let Some(running) = world.started() else { return true };
    let system = running.system();
    let calls = running.block_on(unfinished_calls(system));
    running.block_on(system.stop());
    let processes = wait_for_processes(&system.stack_id);
    for (what, left) in [("calls", &calls), ("processes", &processes)] {
        if left.is_empty() {
            println!("test leftovers::no_{what}_are_left_behind ... ok");
        } else {
            println!("test leftovers::no_{what}_are_left_behind ... FAILED: {}", left.join(", "));
        }
    }
    calls.is_empty() && processes.is_empty()
}

/// Streams of calls that do not become empty.
async fn unfinished_calls(system: &System) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = calls_in_streams(system).await;
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn calls_in_streams(system: &System) -> Vec<String> {
    let url = format!("{}/jsz?streams=true&consumers=true&accounts=true", system.nats_monitor_url);
    let answer: Value = match system.http.get(url).send().await {
        Ok(response) => response.json().await.unwrap_or_default(),
        Err(cause) => return vec![format!("the monitor does not answer: {cause}")],
    };
    let accounts = answer["account_details"].as_array().cloned().unwrap_or_default();
    let streams = accounts.iter().flat_map(|account| account["stream_detail"].as_array().cloned().unwrap_or_default());
    let (mut seen, mut left) = (0, Vec::new());
    for stream in streams {
        let name = stream["name"].as_str().unwrap_or_default().to_owned();
        if !name.starts_with("CALLS_") {
            continue;
        }
        seen += 1;
        let messages = stream["state"]["messages"].as_u64().unwrap_or(u64::MAX);
        let pending: u64 = stream["consumer_detail"]
            .as_array()
            .map_or(0, |lanes| lanes.iter().filter_map(|lane| lane["num_ack_pending"].as_u64()).sum());
        if messages > 0 || pending > 0 {
            left.push(format!("{name}: {messages} messages, {pending} unacknowledged"));
        }
    }
    if seen != usize::from(shared::id::PARTITIONS) {
        left.push(format!("{seen} streams of calls instead of {}", shared::id::PARTITIONS));
    }
    left
}

fn wait_for_processes(stack_id: &str) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = stack::tagged(stack_id);
        if left.is_empty() || Instant::now() > deadline {
            return left.iter().map(ToString::to_string).collect();
        }
        std::thread::yield_now();
    }
}
