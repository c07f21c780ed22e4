//! `/docs/faults`: what every `type` of a problem document points to, written from the one table.

use poem::{Response, handler, http::header};
use shared::fault::{Code, Retry};

use super::{
    operation::{self, Operation, get},
    problem::EdgeError,
};

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "Documentation",
        [get("/docs/faults", page, "What every fault means, as a page.").answers_other("text/html")],
    )
}

pub(super) const fn advice(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "Do not repeat it as it is.",
        Retry::AfterReconnecting => "Connect the account again, then repeat it.",
        Retry::After => "Repeat it after the time in Retry-After.",
        Retry::Safe => "Repeat it: nothing was accepted.",
        Retry::MayRepeatTheEffect => "Repeating it may repeat its effect.",
    }
}

/// The page.
#[handler]
pub(crate) fn page() -> Response {
    use std::fmt::Write as _;
    let mut rows = String::new();
    for face in Code::ALL.map(Code::face) {
        let _ = write!(
            rows,
            "<tr id=\"{0}\"><td><code>{0}</code><td>{1}<td>{2}<td>{3}",
            face.name,
            face.http,
            face.title,
            advice(face.retry)
        );
    }
    for error in EdgeError::ALL {
        let (status, name, _) = error.parts();
        let (status, advice) = (status.as_u16(), advice(Retry::Never));
        let _ = write!(rows, "<tr id=\"{name}\"><td><code>{name}</code><td>{status}<td>{error}<td>{advice}");
    }
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Switchboard: faults</title>\
         <h1>Faults</h1><p>Every error of the API is a problem document (RFC 9457) whose <code>code</code> is one of these. \
         <code>instance</code> is the request id: quote it when you ask for help.\
         <table border=1 cellpadding=6><tr><th>Code<th>HTTP<th>Meaning<th>What to do{rows}</table></html>"
    );
    Response::builder()
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'")
        .body(page)
}
