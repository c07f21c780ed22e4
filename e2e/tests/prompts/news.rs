//! What was written is composed of by every worker, whichever kept something older.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::json;
use stack::{Pool, issuer::Role};

use super::{item, operator, preview, withdraw, write};
use crate::{
    sessions,
    users::{newcomer, path},
    world::{Client, System},
};

/// A write is heard by every worker within this time.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// Enough that each of two workers answers some.
const AT_ONCE: usize = 16;

/// How often a worker composed so far of what it kept.
async fn kept(system: &System, worker: &str) -> u64 {
    let metrics = system.metrics(worker).await.expect("it runs");
    let count = "switchboard_prompts_compose_seconds_count{sources=\"kept\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(count));
    count.map_or(0, |count| count.parse().expect("a count"))
}

/// What many previews at once say, each a line that begins with `mark`.
async fn said(client: &Client, mark: &str) -> Vec<String> {
    let composed = join_all((0..AT_ONCE).map(|_| preview(client))).await;
    let line = |composed: &serde_json::Value| {
        let text = composed["text"].as_str().expect("a text");
        let line = text.lines().find(|line| line.starts_with(mark));
        line.unwrap_or_else(|| panic!("no line begins with {mark}: {text}")).to_owned()
    };
    composed.iter().map(line).collect()
}

/// Waits until every worker says it. Until then they say what they said before, and nothing older; from
/// then on nothing else.
async fn all_say(client: &Client, mark: &str, before: &str, now: &str) {
    let asked = Instant::now();
    loop {
        let said = said(client, mark).await;
        if said.iter().all(|line| line == now) {
            break;
        }
        let known = |line: &String| line == before || line == now;
        assert!(said.iter().all(known), "after {before}, on the way to {now}: {said:?}");
        assert!(asked.elapsed() < HEARD_WITHIN, "{now} was not heard everywhere: {said:?}");
    }
    let again = said(client, mark).await;
    assert!(again.iter().all(|line| line == now), "back from {now}: {again:?}");
}

pub(crate) async fn a_write_is_in_what_every_worker_composes_next(system: Arc<System>) {
    let second = system.stack().await.add_worker(Pool::Session).await.expect("a second session worker");
    let workers = ["session-1", second.as_str()];
    let before = join_all(workers.map(|worker| kept(&system, worker))).await;
    let tenant = system.organization().await;
    let operator = operator(&system);
    let tag = tenant.id.simple().to_string();
    let prompts = [
        (&operator, "global", format!("global-{tag}")),
        (&tenant.admin, "organization", "counted".to_owned()),
        (&tenant.user, "user", "counted".to_owned()),
    ];
    for (client, scope, name) in &prompts {
        let mark = format!("{scope}-{tag}");
        let line = |number: usize| format!("{mark} {number}");
        let prompt = write(client, scope, name, json!({ "content": line(0) })).await;
        // Until every worker has heard of it there is no such line at all.
        let asked = Instant::now();
        while !join_all((0..AT_ONCE).map(|_| preview(&tenant.user)))
            .await
            .iter()
            .all(|composed| composed["text"].as_str().is_some_and(|text| text.contains(&line(0))))
        {
            assert!(asked.elapsed() < HEARD_WITHIN, "{mark} was not heard everywhere");
        }
        for number in 1..=8 {
            let body = json!({ "name": name, "content": line(number) });
            let changed = client.put(&item(&prompt), "*", &body).await;
            assert_eq!(changed.status, 200, "{}", changed.text);
            all_say(&tenant.user, &mark, &line(number - 1), &line(number)).await;
        }
        // Gone is gone everywhere.
        withdraw(client, &prompt).await;
        let asked = Instant::now();
        while join_all((0..AT_ONCE).map(|_| preview(&tenant.user)))
            .await
            .iter()
            .any(|composed| composed["text"].as_str().is_some_and(|text| text.contains(&mark)))
        {
            assert!(asked.elapsed() < HEARD_WITHIN, "{mark} was not forgotten everywhere");
        }
    }
    // Both answered, and of what they kept: otherwise none of this was put to the test.
    let after = join_all(workers.map(|worker| kept(&system, worker))).await;
    assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{workers:?}: {before:?}, {after:?}");
    system.stack().await.stop_one(&second).await.expect("it stops");
}

pub(crate) async fn what_a_template_is_told_of_a_person_and_an_organization_is_the_latest(system: Arc<System>) {
    let second = system.stack().await.add_worker(Pool::Session).await.expect("a second session worker");
    let tenant = system.organization().await;
    let (member, seen) = newcomer(&system, &tenant, "member", Role::User).await;
    let template = "told {{ organization.name }} {{ user.email }} {{ user.role }}";
    write(&tenant.admin, "organization", "told", json!({ "template": template })).await;
    let line = |name: &str, email: &str, role: &str| format!("told {name} {email} {role}");
    let name = tenant.admin.get("/api/v1/organization").await.json()["name"].as_str().expect("a name").to_owned();
    let email = seen["email"].as_str().expect("an address").to_owned();
    let asked = Instant::now();
    while !join_all((0..AT_ONCE).map(|_| preview(&member)))
        .await
        .iter()
        .all(|composed| composed["text"].as_str().is_some_and(|text| text.contains("told ")))
    {
        assert!(asked.elapsed() < HEARD_WITHIN, "it was not heard everywhere");
    }
    let first = line(&name, &email, "user");
    all_say(&member, "told ", &first, &first).await;

    assert_eq!(tenant.admin.put("/api/v1/organization", "*", &json!({ "name": "Renamed" })).await.status, 200);
    let renamed = line("Renamed", &email, "user");
    all_say(&member, "told ", &first, &renamed).await;
    assert_eq!(tenant.admin.put(&path(&seen), "*", &json!({ "email": "new@example.test" })).await.status, 200);
    let moved = line("Renamed", "new@example.test", "user");
    all_say(&member, "told ", &renamed, &moved).await;
    assert_eq!(tenant.admin.put(&path(&seen), "*", &json!({ "role": "admin" })).await.status, 200);
    all_say(&member, "told ", &moved, &line("Renamed", "new@example.test", "admin")).await;
    system.stack().await.stop_one(&second).await.expect("it stops");
}

pub(crate) async fn a_session_is_opened_with_the_latest_of_every_prompt(system: Arc<System>) {
    let second = system.stack().await.add_worker(Pool::Session).await.expect("a second session worker");
    let tenant = system.organization().await;
    let prompt = write(&tenant.admin, "organization", "latest", json!({ "content": "number 0" })).await;
    for number in 1..=12 {
        // Both workers keep what was said before.
        join_all((0..AT_ONCE).map(|_| preview(&tenant.user))).await;
        let body = json!({ "name": "latest", "content": format!("number {number}") });
        let changed = tenant.admin.put(&item(&prompt), "*", &body).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        // Answered: whoever opens now is not told what was.
        let opened = sessions::open(&tenant.user, json!({})).await;
        let part =
            opened["prompt"]["parts"].as_array().expect("parts").iter().find(|part| part["prompt"] == prompt["id"]);
        assert_eq!(part.map(|part| &part["version"]), Some(&changed.json()["version"]), "{opened}");
        assert_eq!(tenant.user.delete(&sessions::item(&opened)).await.status, 204);
    }
    system.stack().await.stop_one(&second).await.expect("it stops");
}
