//! A schema as a graph: which subschemas apply to the same value, which to its members. Only what
//! can be reached from the root is in it.

use std::{collections::HashMap, ptr::from_ref};

use serde_json::Value;

/// Subschemas beside which others of the same keyword apply to the same value.
const SAME_VALUE: [&str; 9] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];
/// Of these, one applies to a property; to an item.
const ONE_OF: [&[&str]; 2] = [&["properties", "additionalProperties"], &["prefixItems", "items", "additionalItems"]];
/// Each of these applies to a property; to an item.
const EACH: [&[&str]; 2] =
    [&["patternProperties", "unevaluatedProperties", "propertyNames"], &["contains", "unevaluatedItems"]];
/// Keywords whose value is an object of schemas by name.
const BY_NAME: [&str; 6] =
    ["properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"];
/// Keywords with lists that are gone through at every look.
const LISTS: [&str; 6] = ["properties", "patternProperties", "required", "enum", "dependentRequired", "dependencies"];
/// What searching a text costs, in looks.
const SEARCH_LOOKS: u64 = 50;
/// As many entries of a list cost as much as a look.
const ENTRIES_PER_LOOK: usize = 8;
/// The most targets of one dynamic reference.
const MAX_TARGETS: usize = 8;

/// One schema.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Applied to the value that this one is applied to.
    pub(super) same_value: Vec<usize>,
    /// Applied to its properties; to its items.
    pub(super) members: [Members; 2],
    /// Has to find out which members were evaluated.
    pub(super) marks: bool,
    /// What it costs by itself, in looks.
    pub(super) own: u64,
}

/// Schemas applied to members.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// One of these to each member.
    pub(super) one_of: Vec<usize>,
    /// Perhaps all of these to each member.
    pub(super) each: Vec<usize>,
}

/// The whole.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    searches: bool,
}

impl Graph {
    /// The root's number.
    pub(super) const ROOT: usize = 0;

    /// Reads a document; `None` when a reference leads out of it.
    pub(super) fn read(root: &Value) -> Option<Self> {
        let mut reader = Reader {
            root,
            id: root.get("$id").and_then(Value::as_str).map(|id| id.trim_end_matches('#')),
            anchors: anchors(root)?,
            numbers: HashMap::new(),
            found: Vec::new(),
        };
        reader.number(root);
        let mut graph = Self { nodes: Vec::new(), searches: false };
        while let Some(&schema) = reader.found.get(graph.nodes.len()) {
            graph.searches |= schema.get("pattern").is_some() || schema.get("patternProperties").is_some();
            graph.nodes.push(reader.node(schema)?);
        }
        Some(graph)
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    pub(super) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether texts are searched.
    pub(super) const fn searches(&self) -> bool {
        self.searches
    }

    /// Every node after those that apply to the same value; `None` when one comes back to itself
    /// or the way is longer than `max_steps`.
    pub(super) fn inner_first(&self, max_steps: u32) -> Option<Vec<usize>> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut states = vec![State::New; self.nodes.len()];
        for index in 0..self.nodes.len() {
            self.visit(index, max_steps, &mut states, &mut order)?;
        }
        Some(order)
    }

    fn visit(&self, index: usize, steps_left: u32, states: &mut [State], order: &mut Vec<usize>) -> Option<()> {
        match states[index] {
            State::Done => return Some(()),
            State::Open => return None,
            State::New => states[index] = State::Open,
        }
        let steps_left = steps_left.checked_sub(1)?;
        for &branch in &self.nodes[index].same_value {
            self.visit(branch, steps_left, states, order)?;
        }
        states[index] = State::Done;
        order.push(index);
        Some(())
    }
}

#[derive(Clone, Copy)]
enum State {
    New,
    Open,
    Done,
}

struct Reader<'a> {
    root: &'a Value,
    id: Option<&'a str>,
    anchors: HashMap<&'a str, Vec<&'a Value>>,
    numbers: HashMap<*const Value, usize>,
    found: Vec<&'a Value>,
}

impl<'a> Reader<'a> {
    /// The schema's number, a new one at first sight.
    fn number(&mut self, schema: &'a Value) -> usize {
        *self.numbers.entry(from_ref(schema)).or_insert_with(|| {
            self.found.push(schema);
            self.found.len() - 1
        })
    }

    fn numbers<'k>(&mut self, schema: &'a Value, keywords: impl IntoIterator<Item = &'k &'k str>) -> Vec<usize> {
        keywords.into_iter().flat_map(|keyword| subschemas(schema, keyword)).map(|inner| self.number(inner)).collect()
    }

    fn node(&mut self, schema: &'a Value) -> Option<Node> {
        let mut same_value = self.numbers(schema, &SAME_VALUE);
        for target in self.targets(schema)? {
            same_value.push(self.number(target));
        }
        let members = [0, 1]
            .map(|kind| Members { one_of: self.numbers(schema, ONE_OF[kind]), each: self.numbers(schema, EACH[kind]) });
        let marks = schema.get("unevaluatedProperties").is_some() || schema.get("unevaluatedItems").is_some();
        let entries: usize = LISTS.iter().filter_map(|keyword| schema.get(keyword)).map(entries).sum();
        let searches = schema.get("pattern").map_or(0, |_| SEARCH_LOOKS)
            + subschemas(schema, "patternProperties").count() as u64 * SEARCH_LOOKS;
        Some(Node { same_value, members, marks, own: 1 + (entries / ENTRIES_PER_LOOK) as u64 + searches })
    }

    /// What the schema's references lead to.
    fn targets(&self, schema: &'a Value) -> Option<Vec<&'a Value>> {
        let mut targets = Vec::new();
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(reference) = schema.get(keyword).and_then(Value::as_str) else { continue };
            let local = self.id.and_then(|id| reference.strip_prefix(id)).unwrap_or(reference);
            match local.strip_prefix('#').or_else(|| local.is_empty().then_some(""))? {
                // Percent-encoding is not worth reading: nobody writes it who does not have to.
                pointer if pointer.is_empty() || pointer.starts_with('/') => {
                    targets.push(self.root.pointer(pointer)?);
                }
                anchor => targets.extend(self.anchors.get(anchor)?),
            }
        }
        (targets.len() <= MAX_TARGETS).then_some(targets)
    }
}

fn entries(list: &Value) -> usize {
    match list {
        Value::Array(items) => items.len(),
        // The lists of `dependentRequired` stand one level further in.
        Value::Object(fields) => fields.values().map(|inner| 1 + inner.as_array().map_or(0, Vec::len)).sum(),
        _ => 0,
    }
}

/// The schemas under a keyword: one, a list, or an object of them by name.
fn subschemas<'a>(schema: &'a Value, keyword: &str) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    match schema.get(keyword) {
        Some(Value::Array(items)) => Box::new(items.iter()),
        Some(Value::Object(fields)) if BY_NAME.contains(&keyword) => Box::new(fields.values()),
        Some(single) => Box::new(std::iter::once(single)),
        None => Box::new(std::iter::empty()),
    }
}

/// All anchors, wherever they stand; `None` if a part of the document is one of its own (`$id`),
/// because references mean something else there.
fn anchors(root: &Value) -> Option<HashMap<&str, Vec<&Value>>> {
    let keywords = || SAME_VALUE.iter().chain(ONE_OF[0]).chain(ONE_OF[1]).chain(EACH[0]).chain(EACH[1]);
    let mut anchors: HashMap<&str, Vec<&Value>> = HashMap::new();
    let mut open = vec![root];
    while let Some(schema) = open.pop() {
        if schema.get("$id").is_some() && !std::ptr::eq(schema, root) {
            return None;
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(name) = schema.get(keyword).and_then(Value::as_str) {
                anchors.entry(name).or_default().push(schema);
            }
        }
        for keyword in keywords().chain(&["$defs", "definitions"]) {
            open.extend(subschemas(schema, keyword));
        }
    }
    Some(anchors)
}
