//! What stops the start.

use serde_json::{Value, json};

use super::super::{AuthConfig, Authenticator};
use super::issuer::install_tls;

const SECRET: &str = "a secret that is at least thirty-two bytes long";

/// As read from the environment: every value is text.
fn config(changes: Value) -> AuthConfig {
    let mut variables = json!({ "issuer": "https://issuer.example/auth/v1", "audiences": "authenticated" });
    let Value::Object(changes) = changes else { panic!("an object") };
    for (name, value) in changes {
        variables[name] = value;
    }
    serde_json::from_value(variables).unwrap()
}

fn problem(changes: Value) -> String {
    install_tls();
    Authenticator::new(&config(changes)).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_supabase_s() {
    let config = config(json!({ "audiences": " authenticated , switchboard ," }));
    assert_eq!(config.audiences, ["authenticated", "switchboard"]);
    assert_eq!(config.leeway_seconds, 5);
    let (_, keys) = config.judge().unwrap();
    assert_eq!(keys.as_str(), "https://issuer.example/auth/v1/.well-known/jwks.json");
    let slashed = self::config(json!({ "issuer": "https://issuer.example/", "leeway_seconds": "0" }));
    assert_eq!(slashed.leeway_seconds, 0);
    assert_eq!(slashed.judge().unwrap().1.as_str(), "https://issuer.example/.well-known/jwks.json");
}

#[test]
fn no_authority_is_read_from_what_users_edit() {
    for variable in ["tenant_claim", "role_claim", "operator_claim"] {
        for path in [
            "user_metadata",
            "user_metadata.org_id",
            "User_Metadata.org_id",
            "app.user_metadata.org_id",
            "raw_user_meta_data.x",
        ] {
            let problem = problem(json!({ variable: path }));
            let name = format!("AUTH_{}: lies in metadata that users edit", variable.to_uppercase());
            assert!(problem.contains(&name), "{path}: {problem}");
        }
        for path in [".", "a..b", ".a", "a."] {
            assert!(problem(json!({ variable: path })).contains("no list of names"), "{path}");
        }
    }
    install_tls();
    assert!(Authenticator::new(&config(json!({ "tenant_claim": "org_id" }))).is_ok());
}

#[test]
fn keys_come_over_https_or_from_this_host() {
    install_tls();
    for url in [
        "https://keys.example/jwks",
        "http://localhost:9999/jwks",
        "http://127.0.0.1/jwks",
        "http://127.8.8.8/jwks",
        "http://[::1]:80/jwks",
    ] {
        assert!(Authenticator::new(&config(json!({ "jwks_url": url }))).is_ok(), "{url}");
    }
    for url in [
        "http://keys.example/jwks",
        "http://localhost.evil.example/jwks",
        "http://10.0.0.1/jwks",
        "http://0.0.0.0/jwks",
        "file:///etc/passwd",
        "https://user:password@keys.example/jwks",
        "keys",
        "",
    ] {
        let problem = problem(json!({ "jwks_url": url }));
        assert!(problem.contains("AUTH_JWKS_URL"), "{url}: {problem}");
        assert!(!problem.contains("password@"), "{problem}");
    }
    assert!(problem(json!({ "issuer": "http://issuer.example" })).contains("AUTH_JWKS_URL"));
}

#[test]
fn a_short_secret_is_refused_and_none_is_shown() {
    let short = &SECRET[..31];
    let problem = problem(json!({ "hs256_secret": short }));
    assert!(problem.contains("AUTH_HS256_SECRET"), "{problem}");
    assert!(!problem.contains(short));
    install_tls();
    let config = config(json!({ "hs256_secret": SECRET }));
    let authenticator = Authenticator::new(&config).unwrap();
    let shown = format!("{config:?} {authenticator:?}");
    assert!(!shown.contains(SECRET) && !shown.contains(&format!("{:?}", SECRET.as_bytes())), "{shown}");
}

#[test]
fn every_problem_is_named_at_once() {
    let problem = problem(json!({
        "issuer": "", "audiences": ",", "jwks_url": "http://keys.example", "leeway_seconds": "301",
        "hs256_secret": "short", "tenant_claim": "user_metadata.org_id",
    }));
    for name in ["ISSUER", "AUDIENCES", "JWKS_URL", "LEEWAY_SECONDS", "HS256_SECRET", "TENANT_CLAIM"] {
        assert!(problem.contains(&format!("AUTH_{name}: ")), "{name}: {problem}");
    }
}
