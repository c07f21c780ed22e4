//! What requests left behind in the audit trail: how a test shows that a refusal at the edge never
//! became a command.

use serde_json::Value;
use uuid::Uuid;

use crate::world::{System, Tenant};

/// The request ids of one test, and the way to look them up.
pub(crate) struct Trail<'a> {
    system: &'a System,
    tenant: &'a Tenant,
    ids: Vec<String>,
}

impl<'a> Trail<'a> {
    pub(crate) const fn new(system: &'a System, tenant: &'a Tenant) -> Self {
        Self { system, tenant, ids: Vec::new() }
    }

    /// A new request id, remembered.
    pub(crate) fn id(&mut self) -> String {
        let id = format!("trail-{}", Uuid::now_v7());
        self.ids.push(id.clone());
        id
    }

    /// Waits until everything audited so far is in the table: the trail keeps its order, so the
    /// row of a command sent now comes after all of them.
    pub(crate) async fn caught_up(&self) {
        let fence = format!("fence-{}", Uuid::now_v7());
        let request = self.tenant.admin.request(reqwest::Method::GET, "/api/v1/me").header("x-request-id", &fence);
        let answer = self.tenant.admin.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        self.system
            .eventually(
                "the fence",
                "SELECT to_jsonb(l) FROM audit_logs l WHERE request_id = $1 AND action = 'users.me'",
                &fence,
            )
            .await;
    }

    /// The audit rows of the requests so far, each with its request id.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let database = self.system.database("superuser").await;
        let query = "SELECT to_jsonb(l) - 'event' FROM audit_logs l WHERE request_id = ANY($1) ORDER BY occurred_at";
        sqlx::query_scalar(query).bind(&self.ids).fetch_all(&database).await.expect("the query runs")
    }

    /// Checks that none of the requests became a command.
    pub(crate) async fn left_nothing(&self) {
        self.caught_up().await;
        let rows = self.rows().await;
        assert!(!self.ids.is_empty() && rows.is_empty(), "commands were sent: {rows:?}");
    }
}
