//! The gateway's routes, read from the code that declares them, so that a new one is noticed here.

use std::path::Path;

use syn::{
    Block, Expr, Lit, Pat, Stmt,
    visit::{self, Visit},
};

/// A method and a path pattern (`:id` stands for one segment).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteLine {
    pub(super) method: String,
    pub(super) path: String,
}

/// Every route of `gateway/src/http.rs` and of the assets.
pub(super) fn declared() -> Vec<RouteLine> {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src");
    let read = |file: &str| std::fs::read_to_string(gateway.join(file)).expect("the gateway's sources");
    let mut routes = within(&read("http.rs"), "routes", &["/api/v1", "/"]);
    routes.extend(within(&read("assets.rs"), "routes", &[]));
    routes.sort();
    routes
}

/// The routes that a function declares. A `nest` of what is no local of the function must be known.
pub(super) fn within(source: &str, function: &str, nests: &[&str]) -> Vec<RouteLine> {
    let file = syn::parse_file(source).expect("Rust");
    let body = file.items.iter().find_map(|item| match item {
        syn::Item::Fn(found) if found.sig.ident == function => Some(&found.block),
        _ => None,
    });
    let (locals, chain) = split(body.expect("the function that declares the routes"));
    assert_eq!(chain.nests.iter().map(|(prefix, _)| prefix.as_str()).collect::<Vec<_>>(), nests, "nests of routes");
    let mut routes = chain.routes;
    for (prefix, local) in chain.nests {
        let Some((_, nested)) = locals.iter().find(|(name, _)| Some(name) == local.as_ref()) else { continue };
        assert!(nested.nests.is_empty(), "a nest within a nest is not understood here");
        routes.extend(
            nested
                .routes
                .iter()
                .map(|route| RouteLine { method: route.method.clone(), path: format!("{prefix}{}", route.path) }),
        );
    }
    routes
}

/// What the function's locals declare, by name, and what its last expression does.
fn split(body: &Block) -> (Vec<(String, Chain)>, Chain) {
    let (mut locals, mut last) = (Vec::new(), Chain::default());
    for statement in &body.stmts {
        match statement {
            Stmt::Local(local) => {
                let mut chain = Chain::default();
                chain.visit_local(local);
                if let Pat::Ident(name) = &local.pat {
                    locals.push((name.ident.to_string(), chain));
                }
            }
            Stmt::Expr(expression, _) => last.visit_expr(expression),
            _ => {}
        }
    }
    (locals, last)
}

/// A chain of `.at(path, methods)` and `.nest(prefix, what)`.
#[derive(Default)]
struct Chain {
    routes: Vec<RouteLine>,
    nests: Vec<(String, Option<String>)>,
}

impl<'ast> Visit<'ast> for Chain {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        // The receiver comes first: the routes stand in the order of the source.
        visit::visit_expr_method_call(self, call);
        let name = call.method.to_string();
        let Some(Expr::Lit(literal)) = call.args.first() else {
            assert!(name != "at" && !name.starts_with("nest"), "a route whose path is no literal");
            return;
        };
        let Lit::Str(path) = &literal.lit else { return };
        if name == "at" {
            let mut methods = Methods::default();
            methods.visit_expr(&call.args[1]);
            assert!(!methods.0.is_empty(), "{} has no methods that are understood here", path.value());
            self.routes.extend(methods.0.into_iter().map(|method| RouteLine { method, path: path.value() }));
        } else if name.starts_with("nest") {
            let local = match &call.args[1] {
                Expr::Path(path) => path.path.get_ident().map(ToString::to_string),
                _ => None,
            };
            self.nests.push((path.value(), local));
        }
    }
}

/// `get(..)`, `post(..).get(..)` and the like.
#[derive(Default)]
struct Methods(Vec<String>);

impl Methods {
    fn note(&mut self, name: &str) {
        if ["get", "post", "put", "delete", "patch", "head", "options", "trace", "connect"].contains(&name) {
            self.0.push(name.to_uppercase());
        }
    }
}

impl<'ast> Visit<'ast> for Methods {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(path) = &*call.func
            && let Some(last) = path.path.segments.last()
        {
            self.note(&last.ident.to_string());
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        visit::visit_expr_method_call(self, call);
        self.note(&call.method.to_string());
    }
}
