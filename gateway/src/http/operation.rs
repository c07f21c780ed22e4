//! Operations: one method of one path, what serves it, and what its document says about it. The
//! router and the document are both made of these rows, so that no route exists without its document.

use std::{borrow::Cow, collections::BTreeSet};

use poem::{
    EndpointExt, IntoEndpoint, IntoResponse, Route,
    endpoint::BoxEndpoint,
    http::{Method, StatusCode},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use shared::{
    command::{Access, Command},
    fault::Code,
};

use super::{etag::IfMatch, methods::Methods, problem::EdgeError};

/// Puts a type's schema into the document and refers to it.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What an answer carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// Nothing.
    Empty,
    /// JSON of a type.
    Json(Describe),
    /// Something else, by its media type.
    Other(&'static str),
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Header,
}

/// A parameter beside those of the query.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) place: Place,
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) required: bool,
    pub(super) describe: Describe,
}

/// The command behind an operation: its name, and who may send it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sends {
    pub(super) name: &'static str,
    pub(super) access: Access,
}

/// A fault that an operation may answer: one of the table's, or one of the edge's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        let face = code.face();
        Self { status: face.http, name: face.name, title: face.title }
    }
}

impl From<EdgeError> for Failure {
    fn from(error: EdgeError) -> Self {
        let (status, name, title) = error.parts();
        Self { status: status.as_u16(), name, title }
    }
}

/// What any command may end in, whatever it does: the token, the role, the organization's share, and
/// the parts of the system on its road.
const OF_ANY_COMMAND: [Code; 7] = [
    Code::Unauthenticated,
    Code::Forbidden,
    Code::Throttled,
    Code::Unavailable,
    Code::Timeout,
    Code::OutcomeUnknown,
    Code::Internal,
];

/// One row of the table.
pub struct Operation {
    method: Method,
    path: &'static str,
    handler: BoxEndpoint<'static>,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) sends: Option<Sends>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) query: Vec<Describe>,
    pub(super) body: Option<Describe>,
    pub(super) answers: Vec<(StatusCode, Content)>,
    pub(super) is_tagged: bool,
    pub(super) failures: BTreeSet<Failure>,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

macro_rules! methods {
    ($($name:ident $method:ident),*) => {
        $(
            #[doc = concat!("`", stringify!($method), "` of a path (`:id` stands for one segment): what serves it and what it does.")]
            pub(super) fn $name<E>(path: &'static str, handler: E, summary: &'static str) -> Operation
            where
                E: IntoEndpoint,
                E::Endpoint: 'static,
                <E::Endpoint as poem::Endpoint>::Output: IntoResponse,
            {
                Operation::new(Method::$method, path, handler.into_endpoint().map_to_response().boxed(), summary)
            }
        )*
    };
}

methods!(get GET, post POST, put PUT, delete DELETE);

impl Operation {
    fn new(method: Method, path: &'static str, handler: BoxEndpoint<'static>, summary: &'static str) -> Self {
        Self {
            method,
            path,
            handler,
            tag: "",
            summary,
            sends: None,
            parameters: Vec::new(),
            query: Vec::new(),
            body: None,
            answers: Vec::new(),
            is_tagged: false,
            failures: BTreeSet::new(),
        }
    }

    /// The method.
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The path as the router reads it: `:id` stands for one segment.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// The path as `OpenAPI` writes it: `{id}` stands for one segment.
    pub fn template(&self) -> String {
        let segment = |segment: &str| match segment.strip_prefix(':') {
            Some(name) => format!("{{{name}}}"),
            None => segment.to_owned(),
        };
        self.path.split('/').map(segment).collect::<Vec<_>>().join("/")
    }

    /// Sends this command: the name, who may, and the faults that every command may end in.
    pub(super) fn sends<C: Command>(mut self) -> Self {
        self.sends = Some(Sends { name: C::NAME, access: C::ACCESS });
        self.or_fails(OF_ANY_COMMAND)
    }

    /// Sends no command, but is for members alone; `name` stands for the command's.
    pub(super) fn for_members(mut self, name: &'static str) -> Self {
        self.sends = Some(Sends { name, access: Access::User });
        self.or_fails([Code::Unauthenticated, Code::Forbidden, Code::Throttled, Code::Unavailable, Code::Internal])
    }

    /// Reads the path's `:id` as this type of id.
    pub(super) fn at_id<T: JsonSchema>(self) -> Self {
        self.at::<T>("id", "Which.").or_fails([Code::Unknown])
    }

    /// Reads a segment of the path. What stands there may also make it a path that does not exist.
    pub(super) fn at<T: JsonSchema>(self, name: &'static str, about: &'static str) -> Self {
        self.parameter::<T>(Place::Path, name, about, true).or_fails([EdgeError::Route])
    }

    /// Reads `If-Match`, which says what is replaced.
    pub(super) fn if_match(self) -> Self {
        self.parameter::<IfMatch>(Place::Header, "If-Match", "The `ETag` that you read, or `*`.", true)
            .or_fails([Code::Stale])
            .or_fails([EdgeError::Precondition])
    }

    /// Reads `If-Match` where there is one.
    pub(super) fn may_match(self) -> Self {
        self.parameter::<IfMatch>(Place::Header, "If-Match", "Only if it still has this `ETag`.", false)
            .or_fails([Code::Stale])
    }

    /// Reads a header where there is one.
    pub(super) fn may_bring<T: JsonSchema>(self, name: &'static str, about: &'static str) -> Self {
        self.parameter::<T>(Place::Header, name, about, false)
    }

    /// Answers with the `ETag` of what it shows.
    pub(super) fn tagged(mut self) -> Self {
        self.is_tagged = true;
        self
    }

    fn parameter<T: JsonSchema>(
        mut self,
        place: Place,
        name: &'static str,
        about: &'static str,
        required: bool,
    ) -> Self {
        let describe = SchemaGenerator::subschema_for::<T>;
        self.parameters.push(Parameter { place, name, about, required, describe });
        self.or_fails([Code::Invalid])
    }

    /// Reads the fields of this type from the query; any other parameter is refused.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query.push(T::json_schema);
        self.or_fails([Code::Invalid])
    }

    /// Reads a JSON body of this type.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(SchemaGenerator::subschema_for::<T>);
        self.or_fails([Code::Invalid]).or_fails([EdgeError::TooLarge, EdgeError::MediaType])
    }

    /// Answers JSON of this type.
    pub(super) fn answers<T: JsonSchema>(self, status: StatusCode) -> Self {
        self.answers_with(status, Content::Json(SchemaGenerator::subschema_for::<T>))
    }

    /// Answers that it is done, and nothing else.
    pub(super) fn answers_nothing(self) -> Self {
        self.answers_with(StatusCode::NO_CONTENT, Content::Empty)
    }

    /// Answers 200 with something that is no JSON of ours.
    pub(super) fn answers_other(self, media_type: &'static str) -> Self {
        self.answers_with(StatusCode::OK, Content::Other(media_type))
    }

    fn answers_with(mut self, status: StatusCode, content: Content) -> Self {
        self.answers.push((status, content));
        self
    }

    /// May end in these faults too.
    pub(super) fn or_fails<F: Into<Failure>>(mut self, failures: impl IntoIterator<Item = F>) -> Self {
        self.failures.extend(failures.into_iter().map(Into::into));
        self
    }
}

/// The operations of one noun, which is their chapter in the document.
pub(super) fn of<const N: usize>(tag: &'static str, operations: [Operation; N]) -> Vec<Operation> {
    operations.into_iter().map(|operation| Operation { tag, ..operation }).collect()
}

/// Their router.
pub(super) fn router(operations: Vec<Operation>) -> Route {
    let mut paths: Vec<(&'static str, Methods)> = Vec::new();
    for Operation { method, path, handler, .. } in operations {
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => *methods = std::mem::take(methods).with(method, handler),
            None => paths.push((path, Methods::default().with(method, handler))),
        }
    }
    paths.into_iter().fold(Route::new(), |route, (path, methods)| route.at(path, methods))
}

/// Who may send a command, in words.
pub(super) const fn audience(access: Access) -> &'static str {
    match access {
        Access::User => "any member",
        Access::Admin => "admins",
        Access::Operator => "platform operators",
    }
}

/// A sentence about who may use an operation.
pub(super) fn who(operation: &Operation) -> Cow<'static, str> {
    match operation.sends {
        Some(Sends { access, .. }) => format!("For {}.", audience(access)).into(),
        None => "For anybody: no token is asked for.".into(),
    }
}
