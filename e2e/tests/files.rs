//! Files of sessions: bytes that come back as they went in, for their member and for nobody else, at paths
//! that mean one thing; and nothing that is left behind.

use std::{collections::BTreeSet, sync::Arc};

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    sessions,
    world::{Answer, Client, PATIENCE, System, Tenant},
};

mod breaking_off;
mod conditions;
mod limits;
mod paths;
mod removing;
mod round_trips;
mod strangers;

pub(crate) use self::{breaking_off::*, conditions::*, limits::*, paths::*, removing::*, round_trips::*, strangers::*};

/// The size of a part, written down a second time.
pub(crate) const PART: usize = 512 * 1024;

/// A session's workspace, as its member sees it.
#[derive(Clone)]
pub(crate) struct Workspace {
    pub(crate) client: Client,
    pub(crate) organization: Uuid,
    pub(crate) session: Value,
}

/// An answer whose body is bytes.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Workspace {
    /// A session of the tenant's user.
    pub(crate) async fn open(tenant: &Tenant) -> Self {
        Self::of(&tenant.user, tenant.id).await
    }

    /// A session of a member.
    pub(crate) async fn of(client: &Client, organization: Uuid) -> Self {
        Self { client: client.clone(), organization, session: sessions::open(client, json!({})).await }
    }

    pub(crate) fn id(&self) -> &str {
        self.session["id"].as_str().expect("an id")
    }

    /// Where its files are.
    pub(crate) fn files(&self) -> String {
        format!("{}/files", sessions::item(&self.session))
    }

    /// Where one is; the path is spelled as it stands in an address.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.files())
    }

    pub(crate) fn writing(&self, path: &str, bytes: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client.request(Method::PUT, &self.at(path)).body(bytes)
    }

    pub(crate) async fn put(&self, path: &str, bytes: impl Into<reqwest::Body>) -> Answer {
        self.client.send(self.writing(path, bytes)).await
    }

    /// Writes what must be taken.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let (this, path, bytes) = (self.clone(), path.to_owned(), bytes.to_vec());
        async move {
            let answer = this.put(&path, bytes).await;
            assert!(answer.status.is_success(), "{caller}: {path}: {} {}", answer.status, answer.text);
            answer.json()
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.got(self.client.request(Method::GET, &self.at(path))).await
    }

    pub(crate) async fn got(&self, request: RequestBuilder) -> Got {
        let response = request.send().await.expect("the gateway answers");
        let (status, headers) = (response.status(), response.headers().clone());
        Got { status, headers, bytes: response.bytes().await.expect("a whole body").to_vec() }
    }

    /// Reads what must be there.
    pub(crate) async fn read(&self, path: &str) -> Vec<u8> {
        let got = self.get(path).await;
        assert_eq!(got.status, 200, "{path}: {}", String::from_utf8_lossy(&got.bytes));
        got.bytes
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.client.delete(&self.at(path)).await
    }

    /// The paths of a listing, all pages of it.
    pub(crate) async fn paths(&self, query: &str) -> Vec<String> {
        let (mut paths, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.client.get(&format!("{}?{query}{cursor}", self.files())).await;
            assert_eq!(page.status, 200, "{}", page.text);
            let page = page.json();
            let items = page["items"].as_array().expect("items").iter();
            paths.extend(items.map(|item| item["path"].as_str().expect("a path").to_owned()));
            let Some(next) = page["next"].as_str() else { return paths };
            cursor = format!("&cursor={}", url::form_urlencoded::byte_serialize(next.as_bytes()).collect::<String>());
        }
    }

    /// What its files take, as the session says.
    pub(crate) async fn bytes_in_use(&self) -> i64 {
        self.client.get(&sessions::item(&self.session)).await.json()["files"]["bytes"].as_i64().expect("a number")
    }

    /// The session's row.
    pub(crate) async fn row(&self, system: &System) -> Value {
        const ROW: &str = "SELECT to_jsonb(s) FROM sessions s WHERE id::text = $1";
        system.eventually("the session", ROW, self.id()).await
    }
}

/// Bytes that are the same nowhere twice, so that a part in the wrong place shows.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The tag of a content.
pub(crate) fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", shared::hex(&Sha256::digest(bytes)))
}

/// The subjects that the stream of files holds of an organization, tombstones on their way out included.
pub(crate) async fn in_stream(system: &System, organization: Uuid) -> BTreeSet<String> {
    let nats = system.nats("jetstream").await;
    let question = json!({ "subjects_filter": format!("files.{organization}.>") });
    let answer = nats.request("$JS.API.STREAM.INFO.FILES", question.to_string().into()).await.expect("an answer");
    let info: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(info["config"]["name"], "FILES", "{info}");
    info["state"]["subjects"].as_object().into_iter().flatten().map(|(subject, _)| subject.clone()).collect()
}

/// The subjects that rows speak of, by what they are rows of.
async fn in_rows(system: &System, organization: Uuid) -> (BTreeSet<String>, BTreeSet<String>) {
    let database = system.database("superuser").await;
    let rows: Vec<(Uuid, Uuid, i32, bool)> =
        sqlx::query_as("SELECT session_id, id, parts, state = 'file' FROM session_files WHERE organization_id = $1")
            .bind(organization)
            .fetch_all(&database)
            .await
            .expect("the query runs");
    database.close().await;
    let (mut files, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (session, id, parts, is_file) in rows {
        let subjects = (0..parts).map(|part| format!("files.{organization}.{session}.{id}.{part}"));
        if is_file { files.extend(subjects) } else { others.extend(subjects) }
    }
    (files, others)
}

/// Waits until the stream holds the parts of an organization's files and not one subject more; answers
/// how many.
pub(crate) async fn settled(system: &System, organization: Uuid) -> usize {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let (files, _) = in_rows(system, organization).await;
        let there = in_stream(system, organization).await;
        if files == there {
            return files.len();
        }
        let (stray, lost): (Vec<_>, Vec<_>) = (there.difference(&files).collect(), files.difference(&there).collect());
        assert!(std::time::Instant::now() < deadline, "never settled: stray {stray:?}, lost {lost:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// No part is without a row, whatever is going on.
pub(crate) async fn every_part_has_its_row(system: &System, organization: Uuid) {
    let there = in_stream(system, organization).await;
    let (files, others) = in_rows(system, organization).await;
    let known: BTreeSet<String> = files.union(&others).cloned().collect();
    // A row goes after its parts: what went between the two looks is a tombstone.
    let unknown: BTreeSet<&String> = there.difference(&known).collect();
    let later = in_stream(system, organization).await;
    let (files, others) = in_rows(system, organization).await;
    let still: Vec<&&String> = unknown
        .iter()
        .filter(|part| later.contains(**part) && !files.contains(**part) && !others.contains(**part))
        .collect();
    for part in still {
        assert!(is_tombstone(system, part).await, "{part} has no row");
    }
}

async fn is_tombstone(system: &System, subject: &str) -> bool {
    let nats = system.nats("jetstream").await;
    let question = json!({ "last_by_subj": subject });
    let answer = nats.request("$JS.API.STREAM.MSG.GET.FILES", question.to_string().into()).await.expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    answer["message"]["data"].as_str().unwrap_or_default().is_empty()
}

/// A system that the tests of this module share.
pub(crate) type Shared = Arc<System>;
