//! Transport `stdio`: programs of the operator's catalogue through the whole road, and hostile ones
//! against their tenant's neighbours and us. What a box withstands from inside is tried in
//! `fastmcp/tests/test_boxes.py`; here it is what the product hands it.

use std::sync::Arc;

use serde_json::{Map, Value};
use stack::DEMO_PROGRAM;

use crate::world::System;

pub(crate) async fn members_see_names_and_descriptions_of_the_catalogue_and_nothing_else(system: Arc<System>) {
    let tenant = system.organization().await;
    let answer = tenant.user.get("/api/v1/mcp/catalogue").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let listed = answer.json();
    assert_eq!(listed["next"], Value::Null);
    let items = listed["items"].as_array().expect("items");
    assert_eq!(items.len(), 1, "{listed}");
    assert_eq!(items[0]["name"], DEMO_PROGRAM);
    assert!(items[0]["description"].as_str().is_some_and(|text| text.starts_with("Works with files")));
    assert_eq!(items[0].as_object().map(Map::len), Some(2), "{listed}");
}
