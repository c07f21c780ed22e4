//! The gateway's routes, from the table that they are made of, so that a new one is noticed here.

/// A method and a path pattern (`:id` stands for one segment).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteLine {
    pub(super) method: String,
    pub(super) path: String,
}

/// Every route of the table and of the console's assets.
pub(super) fn declared() -> Vec<RouteLine> {
    let line = |method: &str, path: &str| RouteLine { method: method.to_owned(), path: path.to_owned() };
    let table = gateway::http::operations();
    let mut routes: Vec<RouteLine> = table.iter().map(|row| line(row.method().as_str(), row.path())).collect();
    routes.extend(gateway::assets::PATHS.map(|path| line("GET", path)));
    routes.sort();
    routes
}
