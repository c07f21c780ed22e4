//! The console, as it was built into this binary; without a build, a page that says so.

use poem::{
    IntoResponse, Request, Response, get, handler,
    http::{StatusCode, header},
};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Built;

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Switchboard</title><p>Switchboard is running. \
    The console was not built into this gateway: run <code>cargo dev setup</code>, then build again.";

/// Only our own scripts, styles and answers; no frames.
const POLICY: &str = "default-src 'self'; img-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The console's paths: pages and their parts, which no API describes.
pub const PATHS: [&str; 3] = ["/", "/assets/*path", "/favicon.svg"];

/// The console's routes.
pub fn routes() -> poem::Route {
    let [page, assets, icon] = PATHS;
    poem::Route::new().at(page, get(index)).at(assets, get(asset)).at(icon, get(asset))
}

#[handler]
fn index() -> Response {
    match Built::get("index.html") {
        Some(page) => answer("text/html; charset=utf-8", "no-cache", page.data.into_owned()),
        None => answer("text/html; charset=utf-8", "no-cache", NOT_BUILT.as_bytes().to_vec()),
    }
}

#[handler]
fn asset(request: &Request) -> Response {
    let path = request.original_uri().path().trim_start_matches('/');
    let Some(file) = Built::get(path) else { return StatusCode::NOT_FOUND.into_response() };
    // Names under /assets/ carry a hash of the content.
    let caching = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    answer(content_type(path), caching, file.data.into_owned())
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("html") => "text/html; charset=utf-8",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

fn answer(content_type: &str, caching: &str, body: Vec<u8>) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, caching)
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "no-referrer")
        .body(body)
}
