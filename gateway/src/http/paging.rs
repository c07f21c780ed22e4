//! `?cursor=` and `?limit=` of lists.

use poem::{FromRequest, Request, RequestBody, Result};
use schemars::JsonSchema;
use shared::{Fault, command::MAX_PAGE};

use super::problem::Problem;

const DEFAULT_LIMIT: u32 = 50;
/// The path of a file is the longest.
const MAX_CURSOR_BYTES: usize = 1_024;

/// Where a list goes on, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct Paging {
    /// `next` of the page before.
    #[schemars(length(min = 1, max = MAX_CURSOR_BYTES))]
    pub cursor: Option<String>,
    /// The most items of the page.
    #[schemars(default = "default_limit", range(min = 1, max = MAX_PAGE))]
    pub limit: u32,
}

const fn default_limit() -> u32 {
    DEFAULT_LIMIT
}

impl<'a> FromRequest<'a> for Paging {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> Result<Self> {
        let Paged { paging, filter: NoFilter } = Paged::from_request(request, body).await?;
        Ok(paging)
    }
}

/// What else a list may be asked for.
pub trait Filter: Default {
    /// Takes a parameter in; `None` where there is no such parameter.
    fn take(&mut self, name: &str, value: &str) -> Option<std::result::Result<(), Fault>>;
}

/// A list without further parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NoFilter;

impl Filter for NoFilter {
    fn take(&mut self, _name: &str, _value: &str) -> Option<std::result::Result<(), Fault>> {
        None
    }
}

/// Where a list goes on, and which of its items are wanted.
#[derive(Clone, Debug)]
pub struct Paged<F> {
    /// Where, and how much.
    pub paging: Paging,
    /// Which.
    pub filter: F,
}

impl<'a, F: Filter + Send> FromRequest<'a> for Paged<F> {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        let mut filter = F::default();
        let query = request.uri().query().unwrap_or_default();
        let paging = read(query, &mut filter).map_err(Problem::from)?;
        Ok(Self { paging, filter })
    }
}

fn read(query: &str, filter: &mut impl Filter) -> std::result::Result<Paging, Fault> {
    let mut paging = Paging { cursor: None, limit: DEFAULT_LIMIT };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                paging.limit = limit.ok_or_else(|| Fault::invalid("limit", format!("Use 1 to {MAX_PAGE}.")))?;
            }
            "cursor" if (1..=MAX_CURSOR_BYTES).contains(&value.len()) && !value.contains('\0') => {
                paging.cursor = Some(value.into_owned());
            }
            "cursor" => return Err(Fault::invalid("cursor", "Give back `next` as it was.")),
            other => match filter.take(other, &value) {
                Some(taken) => taken?,
                None => return Err(Fault::invalid(other, "There is no such parameter.")),
            },
        }
    }
    Ok(paging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_cursors_are_checked() {
        let read = |query| read(query, &mut NoFilter);
        assert_eq!(read("").unwrap(), Paging { cursor: None, limit: 50 });
        assert_eq!(read("limit=2&cursor=a%2Fb").unwrap(), Paging { cursor: Some("a/b".into()), limit: 2 });
        for bad in ["limit=0", "limit=201", "limit=x", "cursor=", "cursor=%00", "page=2"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
