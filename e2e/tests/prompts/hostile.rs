//! Templates that mean harm: refused when they are saved, refused when they got into the database, and no
//! worker goes down or falls silent over one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PROMPTS, body, item, preview, preview_with, write};
use crate::world::{Client, System};

/// Each would read what is not told, or not end, or blow up.
fn hostile() -> Vec<String> {
    let mut all: Vec<String> = [
        "{{ get_env(name='HOME') }}",
        "{{ get_env(name='DATABASE_URL') }}",
        "{{ __tera_context }}",
        "{% include '/etc/passwd' %}",
        "{% extends 'base' %}",
        "{% import 'macros' as m %}",
        "{% macro m() %}{{ self::m() }}{% endmacro %}{{ self::m() }}",
        "{% component c() %}{{ <c() /> }}{% endcomponent %}{{ <c() /> }}",
        "{% for i in range(end=100000) %}{{ i }}{% endfor %}",
        "{% for a in range(end=3000) %}{% for b in range(end=3000) %}x{% endfor %}{% endfor %}",
        "{% for a in tools %}{% for b in tools %}{{ b.description }}{% endfor %}{% endfor %}",
        "{{ throw(message='x') }}",
        "{{ user.id | replace(from='0', to='00000000000000000000') }}",
        "{{ 9 ** 99999999 }}",
        "{{ organization.secret }}",
        "{{ tools",
        "{% if user.id %}",
    ]
    .map(str::to_owned)
    .to_vec();
    // As long as a body may be, and as long as a template may be.
    for many in [100_000, 2_000] {
        all.push(format!("{{{{ {}1 }}}}", "1+".repeat(many)));
        all.push(format!("{{{{ {}1{} }}}}", "(".repeat(many), ")".repeat(many)));
        all.push(format!("{{{{ {}1{} }}}}", "[".repeat(many), "]".repeat(many)));
        all.push(format!("{{% if {}user.id %}}x{{% endif %}}", "not ".repeat(many)));
        all.push("{% if user.id %}".repeat(many / 4));
        all.push("{{ user.id }}".repeat(many / 4));
    }
    all
}

/// Fails if any process of the system ended.
async fn everything_lives(system: &System) {
    let death = system.stack().await.death().now_or_never();
    assert!(death.is_none(), "{death:?}");
}

pub(crate) async fn a_hostile_template_is_refused_on_save_and_no_worker_minds(system: Arc<System>) {
    let tenant = system.organization().await;
    let good = write(&tenant.admin, "organization", "good", json!({ "template": "{{ date }}" })).await;
    for template in hostile() {
        let asked = Instant::now();
        let answer = tenant.admin.post(PROMPTS, &body("organization", "bad", json!({ "template": template }))).await;
        let about = || template.chars().take(60).collect::<String>();
        assert_eq!(answer.problem(400, "invalid")["field"], "template", "{}", about());
        let replaced = json!({ "name": "good", "template": template });
        let answer = tenant.admin.put(&item(&good), "*", &replaced).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "template", "{}", about());
        assert!(asked.elapsed() < Duration::from_secs(10), "{}: {:?}", about(), asked.elapsed());
    }
    // A member has no templates at all, and braces in what they write are braces.
    let own = tenant.user.post(PROMPTS, &body("user", "bad", json!({ "template": "{{ date }}" }))).await;
    assert_eq!(own.problem(400, "invalid")["field"], "template");
    write(&tenant.user, "user", "braces", json!({ "content": "{{ get_env(name='HOME') }} {% include 'x' %}" })).await;
    let composed = preview_with(&tenant.user, &[("text", "{{ organization.id }}")]).await.json();
    let text = composed["text"].as_str().expect("a text");
    for words in ["{{ get_env(name='HOME') }} {% include 'x' %}", "\n{{ organization.id }}\n"] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(tenant.admin.get(&item(&good)).await.json(), good, "nothing was kept");
    everything_lives(&system).await;
}

/// Puts a template into a row past every check.
async fn plant(system: &System, prompt: &Value, template: &str) {
    let id: Uuid = prompt["id"].as_str().expect("an id").parse().expect("a uuid");
    let superuser = system.database("superuser").await;
    sqlx::query("UPDATE system_prompts SET template = $2, content = NULL WHERE id = $1")
        .bind(id)
        .bind(template)
        .execute(&superuser)
        .await
        .expect("it is planted");
    superuser.close().await;
}

/// Somebody for whom nothing was composed yet.
fn newcomer(system: &System, organization: Uuid, number: usize) -> Client {
    system.client(&system.token(organization, &format!("fresh-{number}-{organization}"), stack::issuer::Role::User))
}

pub(crate) async fn a_hostile_template_in_the_database_is_not_rendered(system: Arc<System>) {
    let tenant = system.organization().await;
    let prompt = write(&tenant.admin, "organization", "planted", json!({ "template": "{{ date }}" })).await;
    let stored = hostile().into_iter().filter(|template| template.len() <= 16_384);
    for (number, template) in stored.enumerate() {
        plant(&system, &prompt, &template).await;
        let asked = Instant::now();
        let refused = newcomer(&system, tenant.id, number).get("/api/v1/prompts/preview").await;
        let problem = refused.problem(409, "conflict");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("planted")), "{problem}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{template}: {:?}", asked.elapsed());
    }
    // The rest of the world goes on, and so does this organization once it is put right.
    let other = system.organization().await;
    preview(&other.user).await;
    let right = tenant.admin.put(&item(&prompt), "*", &json!({ "name": "planted", "content": "fine" })).await;
    assert_eq!(right.status, 200, "{}", right.text);
    assert!(preview(&newcomer(&system, tenant.id, 999)).await["text"].as_str().expect("a text").contains("fine"));
    everything_lives(&system).await;
}

pub(crate) async fn a_template_that_turns_into_too_much_is_refused_by_its_name(system: Arc<System>) {
    let tenant = system.organization().await;
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "x" })).await.status, 200);
    // With the tools that a trial knows it is within bounds; with real ones it is not.
    let line = "{{ tool.description }} and so on, and so on, and so on. ".repeat(195);
    let template = format!("{{% for tool in tools %}}{line}{{% endfor %}}");
    write(&tenant.admin, "organization", "swelling", json!({ "template": template })).await;
    let refused = tenant.user.get("/api/v1/prompts/preview").await;
    let problem = refused.problem(409, "conflict");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("`swelling`")), "{problem}");
}
