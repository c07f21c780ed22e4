//! System prompts: who writes what, what every version was, what a session would get of it all, and what
//! nobody can do with a template or a text.

use serde_json::{Value, json};

use crate::world::{Answer, Client, System};

mod bad_input;
mod composing;
mod hostile;
mod news;
mod scopes;
mod versions;

pub(crate) use self::{bad_input::*, composing::*, hostile::*, news::*, scopes::*, versions::*};

pub(crate) const PROMPTS: &str = "/api/v1/prompts";

/// Where one is.
fn item(prompt: &Value) -> String {
    format!("{PROMPTS}/{}", prompt["id"].as_str().expect("an id"))
}

/// Writes one; answers it as it is shown.
pub(crate) async fn write(client: &Client, scope: &str, name: &str, more: Value) -> Value {
    let made = client.post(PROMPTS, &body(scope, name, more)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()
}

/// A body with content, unless `more` says something else.
fn body(scope: &str, name: &str, more: Value) -> Value {
    let mut body = json!({ "scope": scope, "name": name });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    if body.get("template").is_none() && body.get("content").is_none() {
        body["content"] = json!(format!("Say {name}."));
    }
    body
}

/// What a member would get, with a text of a session.
async fn preview_with(client: &Client, query: &[(&str, &str)]) -> Answer {
    let request = client.request(reqwest::Method::GET, &format!("{PROMPTS}/preview")).query(query);
    client.send(request).await
}

/// What the caller would get.
pub(crate) async fn preview(client: &Client) -> Value {
    let answer = preview_with(client, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// The stretches of a composed text, each with its part. Together they are the text.
pub(crate) fn stretches(composed: &Value) -> Vec<(Value, String)> {
    let mut text = composed["text"].as_str().expect("a text").chars();
    let parts = composed["parts"].as_array().expect("parts");
    let stretch = |part: &Value| {
        let characters = part["characters"].as_u64().and_then(|count| usize::try_from(count).ok()).expect("a count");
        let stretch: String = text.by_ref().take(characters).collect();
        (part.clone(), stretch)
    };
    let stretches: Vec<_> = parts.iter().map(stretch).collect();
    assert_eq!(text.next(), None, "something is nobody's: {composed}");
    stretches
}

/// Removes a prompt that everybody on the system sees, whatever becomes of the test.
async fn withdraw(operator: &Client, prompt: &Value) {
    let gone = operator.delete(&item(prompt)).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
}

fn operator(system: &System) -> Client {
    system.client(&system.seeded.operator_token)
}
