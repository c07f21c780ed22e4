//! Which file a request is about. The path is taken from the request line as it was sent and decoded
//! once, by one reader: what the router made of it on its way here does not count.

use poem::{FromRequest, Request, RequestBody, Result};
use schemars::JsonSchema;
use shared::{
    Fault,
    command::files::{FilePath, MAX_PATH_BYTES},
    id::SessionId,
};

use crate::http::problem::Problem;

/// A file of a session.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) session: SessionId,
    pub(crate) path: FilePath,
}

/// A path, as the document describes it.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is asked for")]
pub(crate) struct PathParameter(
    #[schemars(length(min = 1, max = MAX_PATH_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f\\]*$"))] String,
);

/// Names before the path: an empty one, `api`, `v1`, `sessions`, the id, `files`.
const BEFORE: usize = 6;

impl<'a> FromRequest<'a> for Location {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        Ok(read(request.uri().path()).map_err(Problem::from)?)
    }
}

fn read(sent: &str) -> std::result::Result<Location, Fault> {
    let mut names = sent.splitn(BEFORE + 1, '/');
    let (id, path) = (names.nth(4).unwrap_or_default(), names.nth(1).unwrap_or_default());
    let session = id.parse().map_err(|_| Fault::invalid("id", "An id is a UUID."))?;
    Ok(Location { session, path: FilePath::parse(&decoded(path)?)? })
}

/// Percent-decoded (RFC 3986 section 2.1), once, and UTF-8 then.
fn decoded(sent: &str) -> std::result::Result<String, Fault> {
    let refused = |message: &str| Fault::invalid("path", message);
    let mut bytes = Vec::with_capacity(sent.len());
    let mut rest = sent.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(refused("A percent sign is followed by two hexadecimal digits."));
        };
        bytes.push(u8::try_from(16 * high + low).unwrap_or_default());
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| refused("The path is not UTF-8."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(sent: &str) -> std::result::Result<String, Option<String>> {
        let session = SessionId::new();
        match read(&format!("/api/v1/sessions/{session}/files/{sent}")) {
            Ok(location) => {
                assert_eq!(location.session, session);
                Ok(location.path.to_string())
            }
            Err(fault) => Err(fault.field),
        }
    }

    #[test]
    fn a_path_is_decoded_once() {
        for (sent, meant) in [
            ("a.txt", "a.txt"),
            ("a/b", "a/b"),
            ("a%2Fb", "a/b"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("%252e%252e/x", "%2e%2e/x"),
            ("a%252Fb", "a%2Fb"),
            ("gr%C3%B6%C3%9Fe", "größe"),
            ("a;b,c=d:e@f", "a;b,c=d:e@f"),
        ] {
            assert_eq!(path(sent).as_deref(), Ok(meant), "{sent}");
        }
    }

    #[test]
    fn what_no_path_is_spelled_like_is_refused() {
        for sent in [
            "",
            "/",
            "%2F",
            "%2Fetc",
            "..",
            "%2e%2e",
            ".%2e/x",
            "a/..%2fb",
            "a%2f%2fb",
            "a%5Cb",
            "%00",
            "a%0Ab",
            "%7F",
            "%c0%ae",
            "%e0%80%ae",
            "%ff",
            "%ed%a0%80",
            "%",
            "a%2",
            "a%zz",
            "a%%41",
            "%ef%bc%8e%ef%bc%8e",
            "u%CC%88",
            "a%E2%80%AEb",
        ] {
            assert_eq!(path(sent), Err(Some("path".to_owned())), "{sent}");
        }
        assert_eq!(read("/api/v1/sessions/x/files/a").unwrap_err().field.as_deref(), Some("id"));
    }
}
