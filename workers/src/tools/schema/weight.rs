//! What a schema can cost, known before it is compiled. Schemas come from servers that are not
//! trusted, references let a small one grow without bounds, and a check cannot be interrupted.
//!
//! The weight says how often at most one value inside the arguments is looked at: subschemas that
//! apply to the same value (`allOf`, `$ref`, ...) add up, those of which only one applies (one
//! property, one item) do not. It is worked out from the innermost level of the arguments outwards,
//! as deep as JSON of ours may nest, so that recursion needs no special case.

mod graph;

use serde_json::Value;
use shared::json::MAX_DEPTH;

use self::graph::{Graph, Node};

/// The heaviest schema that is checked at all.
pub(super) const MAX_WEIGHT: u64 = 10_000;
/// The most steps from the schema's root to its innermost check: a checker that recurses needs a
/// stack frame for each, and a thread has 2 MiB.
const MAX_STEPS: u32 = 1_000;
const OBJECT: usize = 0;
const ARRAY: usize = 1;

/// A bearable schema's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// Looks at one value, at most. At least 1.
    pub(super) looks: u64,
    /// Whether texts are searched, so that their length counts too.
    pub(super) searches: bool,
}

/// What applying one schema costs at one depth below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Looks at one value at that depth, by the kind of the value at the top.
    looks: [u64; 2],
    /// The same for finding out which members were evaluated (`unevaluatedProperties`).
    marks: [u64; 2],
    /// The longest way down.
    steps: u32,
}

impl Cost {
    fn worst(&self) -> u64 {
        self.looks[OBJECT].max(self.looks[ARRAY])
    }
}

/// The weight; `None` for what must not be compiled: too heavy, too deep, endless, or with
/// references that lead out of the document.
pub(super) fn weigh(schema: &Value) -> Option<Weight> {
    let graph = Graph::read(schema)?;
    let order = graph.inner_first(MAX_STEPS)?;
    let mut looks = 1;
    let mut below: Option<Vec<Cost>> = None;
    for _ in 0..=MAX_DEPTH {
        let level = level(&graph, &order, below.as_deref());
        let root = level[Graph::ROOT];
        looks = looks.max(root.worst());
        if looks > MAX_WEIGHT || root.steps > MAX_STEPS {
            return None;
        }
        if level.iter().all(|cost| cost.worst() == 0) {
            break;
        }
        below = Some(level);
    }
    Some(Weight { looks, searches: graph.searches() })
}

/// All costs one level further down, from those of the level before.
fn level(graph: &Graph, order: &[usize], below: Option<&[Cost]>) -> Vec<Cost> {
    let mut costs = vec![Cost::default(); graph.len()];
    for &index in order {
        let node = graph.node(index);
        let mut cost = children(node, below);
        cost.steps += 1;
        for &branch in &node.same_value {
            let inner: Cost = costs[branch];
            cost.steps = cost.steps.max(inner.steps.saturating_add(1));
            for kind in [OBJECT, ARRAY] {
                cost.looks[kind] = cost.looks[kind].saturating_add(inner.looks[kind]);
                // Whether a branch counts is found out by checking it, once more with its reasons.
                let twice = inner.looks[kind].saturating_mul(2);
                cost.marks[kind] = cost.marks[kind].saturating_add(inner.marks[kind]).saturating_add(twice);
            }
        }
        if node.marks {
            for kind in [OBJECT, ARRAY] {
                cost.looks[kind] = cost.looks[kind].saturating_add(cost.marks[kind]);
            }
        }
        costs[index] = cost;
    }
    costs
}

/// What a node's members cost; at the top, what the node itself costs.
fn children(node: &Node, below: Option<&[Cost]>) -> Cost {
    let Some(below) = below else {
        return Cost { looks: [node.own; 2], ..Cost::default() };
    };
    let all = node.members.iter().flat_map(|members| members.one_of.iter().chain(&members.each));
    let mut cost = Cost { steps: all.map(|&inner| below[inner].steps).max().unwrap_or(0), ..Cost::default() };
    for kind in [OBJECT, ARRAY] {
        let members = &node.members[kind];
        let one = members.one_of.iter().map(|&inner| below[inner].worst()).max().unwrap_or(0);
        let each = members.each.iter().map(|&inner| below[inner].worst()).fold(0, u64::saturating_add);
        cost.looks[kind] = one.saturating_add(each);
        cost.marks[kind] = each;
    }
    cost
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn looks(schema: &Value) -> Option<u64> {
        weigh(schema).map(|weight| weight.looks)
    }

    /// `a0` refers to `a1` and so on, each as the function says; the last is an integer.
    fn chain(length: usize, link: impl Fn(Value) -> Value) -> Value {
        let mut defs = serde_json::Map::new();
        for number in 0..length {
            let next = json!({ "$ref": format!("#/$defs/a{}", number + 1) });
            defs.insert(format!("a{number}"), link(next));
        }
        defs.insert(format!("a{length}"), json!({ "type": "integer" }));
        json!({ "$ref": "#/$defs/a0", "$defs": defs })
    }

    #[test]
    fn ordinary_schemas_weigh_little() {
        let many: serde_json::Map<String, Value> =
            (0..200).map(|number| (format!("p{number}"), json!({ "type": ["string", "null"] }))).collect();
        let schema = json!({ "type": "object", "properties": many, "required": ["p1"], "additionalProperties": false });
        assert!(looks(&schema).unwrap() < 50, "{:?}", looks(&schema));
        let list = json!({ "properties": { "next": { "$ref": "#" }, "value": { "type": "integer" } } });
        assert!(looks(&list).unwrap() < 10);
        assert_eq!(looks(&json!(true)), Some(1));
    }

    #[test]
    fn any_json_and_trees_are_bearable_because_a_value_is_of_one_kind_and_a_member_has_one_name() {
        let any_json = json!({ "$ref": "#/$defs/j", "$defs": { "j": { "anyOf": [
            { "type": ["string", "number", "boolean", "null"] },
            { "type": "array", "items": { "$ref": "#/$defs/j" } },
            { "type": "object", "additionalProperties": { "$ref": "#/$defs/j" } },
        ] } } });
        assert!(looks(&any_json).unwrap() < 20, "{:?}", looks(&any_json));
        let tree = json!({ "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } });
        assert!(looks(&tree).unwrap() < 10);
    }

    #[test]
    fn recursion_in_two_branches_is_unbearable() {
        let branch = json!({ "type": "array", "items": { "$ref": "#/$defs/a" } });
        let schema = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "anyOf": [
            { "$ref": "#/$defs/b" }, { "$ref": "#/$defs/c" },
        ] }, "b": branch, "c": branch } });
        assert_eq!(looks(&schema), None);
        let names = json!({ "properties": { "a": { "$ref": "#" } }, "patternProperties": { "a": { "$ref": "#" } } });
        assert_eq!(looks(&names), None);
    }

    #[test]
    fn a_chain_that_doubles_with_every_link_is_unbearable_and_one_that_does_not_is_not() {
        for word in ["anyOf", "allOf", "oneOf"] {
            let doubling = chain(30, |next| json!({ word: [next.clone(), next] }));
            assert_eq!(looks(&doubling), None, "{word}");
            assert!(looks(&chain(30, |next| json!({ word: [next] }))).is_some());
        }
        let conditional = chain(30, |next| json!({ "if": next.clone(), "then": next }));
        assert_eq!(looks(&conditional), None);
    }

    #[test]
    fn marking_what_was_evaluated_multiplies() {
        let nested = |depth: usize, last: Value| {
            (0..depth).fold(last, |inner, _| json!({ "anyOf": [inner], "unevaluatedProperties": false }))
        };
        assert!(looks(&nested(2, json!({}))).is_some());
        assert_eq!(looks(&nested(16, json!({}))), None);
    }

    #[test]
    fn what_is_endless_too_deep_or_elsewhere_is_unbearable() {
        let myself = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/a" }] } } });
        assert_eq!(looks(&myself), None);
        assert_eq!(looks(&chain(5_000, |next| next)), None);
        assert!(looks(&chain(500, |next| next)).is_some());
        let wide = chain(40, |next| json!({ "items": (0..30).fold(next, |inner, _| json!({ "allOf": [inner] })) }));
        assert_eq!(looks(&wide), None, "1,200 steps through 40 levels");
        for elsewhere in ["other.json", "https://json-schema.org/draft/2020-12/schema", "#/$defs/missing", "#none"] {
            assert_eq!(looks(&json!({ "properties": { "a": { "$ref": elsewhere } } })), None, "{elsewhere}");
        }
    }

    #[test]
    fn long_lists_of_names_and_patterns_count() {
        let names: Vec<String> = (0..8_000).map(|number| format!("n{number}")).collect();
        assert!(looks(&json!({ "items": { "required": names } })).unwrap() >= 1_000);
        assert!(weigh(&json!({ "properties": { "a": { "pattern": "^a" } } })).unwrap().searches);
        let searched: Vec<Value> = (0..1_000).map(|_| json!({ "pattern": "(a?){0,300}" })).collect();
        assert_eq!(looks(&json!({ "allOf": searched })), None);
    }

    #[test]
    fn references_by_anchor_and_by_the_documents_own_id_are_followed() {
        let schema = json!({ "$id": "urn:x", "anyOf": [{ "$ref": "urn:x#/$defs/a" }, { "$ref": "#b" }],
            "$defs": { "a": { "$anchor": "b", "type": "string" } } });
        assert_eq!(looks(&schema), Some(5));
        let dynamic =
            json!({ "$dynamicAnchor": "n", "items": { "$dynamicRef": "#n" }, "contains": { "$dynamicRef": "#n" } });
        assert_eq!(looks(&dynamic), None);
    }
}
