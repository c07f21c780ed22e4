//! What claims must say.

use serde_json::{Value, json};

use super::{
    super::{Denied, Role, Verified, claims::Rules},
    issuer::{self, EC_A, Issuer, LEEWAY_S, token},
};
use shared::id::OrganizationId;

const NOW_S: u64 = 1_800_000_000;

/// The default rules of `https://issuer.example`.
fn rules() -> Rules {
    let config: crate::auth::AuthConfig =
        serde_json::from_value(json!({ "issuer": "https://issuer.example", "audiences": "authenticated,switchboard" }))
            .unwrap();
    config.judge().unwrap().0
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": "authenticated",
        "sub": "user-1",
        "exp": NOW_S + 60,
        "app_metadata": { "org_id": issuer::organization() },
    })
}

fn judge(claims: &Value) -> Result<Verified, Denied> {
    rules().judge(claims.as_object().unwrap(), NOW_S)
}

/// The good claims with some replaced; null removes.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    let Value::Object(changes) = changes else { panic!("an object") };
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

#[tokio::test]
async fn refusals_by_claim_hold_on_the_whole_road() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let now_s = issuer.claims()["iat"].as_u64().unwrap();
    for (name, value, denied) in [
        ("exp", json!(now_s - 60), Denied::Expired),
        ("nbf", json!(now_s + 60), Denied::NotYetValid),
        ("iss", json!("https://issuer.example"), Denied::Issuer),
        ("aud", json!("another"), Denied::Audience),
        ("app_metadata", json!({}), Denied::NoTenant),
        ("role", json!("service_role"), Denied::NoTenant),
        ("sub", json!(""), Denied::Malformed),
    ] {
        let mut claims = issuer.claims();
        claims[name] = value;
        assert_eq!(authenticator.verify(&token(EC_A, &claims)).await, Err(denied), "{name}");
    }
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
}

#[test]
fn a_token_expires_on_the_second_plus_the_leeway() {
    assert!(judge(&with(json!({ "exp": NOW_S - LEEWAY_S + 1 }))).is_ok());
    assert_eq!(judge(&with(json!({ "exp": NOW_S - LEEWAY_S }))), Err(Denied::Expired));
    assert_eq!(judge(&with(json!({ "exp": 0 }))), Err(Denied::Expired));
    // A fraction is cut off: the stricter reading.
    assert_eq!(judge(&with(json!({ "exp": 1_799_999_995.9 }))), Err(Denied::Expired));
}

#[test]
fn a_token_begins_on_the_second_less_the_leeway() {
    assert!(judge(&with(json!({ "nbf": NOW_S + LEEWAY_S }))).is_ok());
    assert_eq!(judge(&with(json!({ "nbf": NOW_S + LEEWAY_S + 1 }))), Err(Denied::NotYetValid));
    assert_eq!(judge(&with(json!({ "nbf": 1_800_000_005.1 }))), Err(Denied::NotYetValid));
}

#[test]
fn a_token_without_a_readable_end_is_malformed() {
    for exp in
        [json!(null), json!("1900000000"), json!(-1), json!(-0.5), json!(1e300), json!([NOW_S + 60]), json!(true)]
    {
        assert_eq!(judge(&with(json!({ "exp": exp }))), Err(Denied::Malformed), "{exp}");
    }
    for nbf in [json!("soon"), json!(-1), json!({})] {
        assert_eq!(judge(&with(json!({ "nbf": nbf }))), Err(Denied::Malformed), "{nbf}");
    }
    assert!(judge(&with(json!({ "exp": u64::MAX }))).is_ok());
}

#[test]
fn the_issuer_is_compared_byte_for_byte() {
    for iss in [
        json!(null),
        json!(""),
        json!("https://issuer.example/"),
        json!("https://ISSUER.example"),
        json!("https://issuer.example.evil.example"),
        json!(["https://issuer.example"]),
    ] {
        assert_eq!(judge(&with(json!({ "iss": iss }))), Err(Denied::Issuer), "{iss}");
    }
}

#[test]
fn one_of_several_audiences_must_be_ours() {
    for aud in [json!("switchboard"), json!(["other", "authenticated"]), json!(["switchboard"])] {
        assert!(judge(&with(json!({ "aud": aud }))).is_ok(), "{aud}");
    }
    for aud in [
        json!(null),
        json!(""),
        json!([]),
        json!(["other"]),
        json!([["authenticated"]]),
        json!({ "authenticated": true }),
        json!("authenticated,switchboard"),
        json!("Authenticated"),
    ] {
        assert_eq!(judge(&with(json!({ "aud": aud }))), Err(Denied::Audience), "{aud}");
    }
}

#[test]
fn a_token_without_a_tenant_of_the_issuer_s_making_is_refused() {
    let organization = issuer::organization();
    for changes in [
        json!({ "app_metadata": null }),
        json!({ "app_metadata": {} }),
        json!({ "app_metadata": "org" }),
        json!({ "app_metadata": { "org_id": null } }),
        json!({ "app_metadata": { "org_id": "acme" } }),
        json!({ "app_metadata": { "org_id": [organization] } }),
        json!({ "app_metadata": null, "user_metadata": { "org_id": organization } }),
        json!({ "app_metadata": null, "user_metadata": { "app_metadata": { "org_id": organization } } }),
        json!({ "app_metadata": null, "org_id": organization }),
    ] {
        assert_eq!(judge(&with(changes.clone())), Err(Denied::NoTenant), "{changes}");
    }
}

#[test]
fn only_an_operator_belongs_to_the_platform() {
    let nil = OrganizationId::PLATFORM;
    assert_eq!(judge(&with(json!({ "app_metadata": { "org_id": nil } }))), Err(Denied::NoTenant));
    let operator = judge(&with(json!({ "app_metadata": { "platform_role": "operator" } }))).unwrap();
    assert!(operator.operator);
    assert_eq!(operator.organization, OrganizationId::PLATFORM);
    let at_home = json!({ "platform_role": "operator", "org_id": issuer::organization() });
    let at_home = judge(&with(json!({ "app_metadata": at_home }))).unwrap();
    assert!(at_home.operator);
    assert_eq!(at_home.organization, issuer::organization());
    // A tenant that cannot be read is not the same as none.
    let confused = json!({ "platform_role": "operator", "org_id": "acme" });
    assert_eq!(judge(&with(json!({ "app_metadata": confused }))), Err(Denied::NoTenant));
}

#[test]
fn nothing_but_the_operator_claim_makes_an_operator() {
    for platform_role in [json!("Operator"), json!(true), json!(["operator"]), json!("admin")] {
        let metadata = json!({ "org_id": issuer::organization(), "platform_role": platform_role });
        assert!(!judge(&with(json!({ "app_metadata": metadata }))).unwrap().operator, "{platform_role}");
    }
    let claimed = with(json!({ "user_metadata": { "platform_role": "operator" }, "platform_role": "operator" }));
    assert!(!judge(&claimed).unwrap().operator);
}

#[test]
fn an_absent_or_unheard_of_role_is_a_user_s() {
    let role = |role: Value| {
        let metadata = json!({ "org_id": issuer::organization(), "org_role": role });
        judge(&with(json!({ "app_metadata": metadata, "user_metadata": { "org_role": "admin" } }))).unwrap().role
    };
    assert_eq!(role(json!("admin")), Role::Admin);
    for other in [json!("user"), json!(null), json!("owner"), json!("ADMIN"), json!(["admin"]), json!(1)] {
        assert_eq!(role(other.clone()), Role::User, "{other}");
    }
}

#[test]
fn database_roles_are_no_people() {
    for role in ["service_role", "anon"] {
        assert_eq!(judge(&with(json!({ "role": role }))), Err(Denied::NoTenant), "{role}");
    }
    assert!(judge(&with(json!({ "role": "authenticated" }))).is_ok());
}

#[test]
fn a_subject_must_travel_in_headers() {
    let long = "s".repeat(256);
    for sub in [json!(null), json!(""), json!("a b"), json!("a\r\nb"), json!("zoë"), json!(7), json!(long)] {
        assert_eq!(judge(&with(json!({ "sub": sub }))), Err(Denied::Malformed), "{sub}");
    }
    assert_eq!(judge(&with(json!({ "sub": "auth0|17" }))).unwrap().subject, "auth0|17");
}

#[test]
fn an_e_mail_that_is_none_is_left_out() {
    for email in [json!(null), json!("ada"), json!("a@b\nBcc: x"), json!(7), json!(format!("{}@b", "a".repeat(260)))] {
        assert_eq!(judge(&with(json!({ "email": email }))).unwrap().email, None, "{email}");
    }
}

#[test]
fn a_namespaced_claim_is_found_although_its_name_has_dots() {
    let config: crate::auth::AuthConfig = serde_json::from_value(json!({
        "issuer": "https://issuer.example", "audiences": "authenticated", "tenant_claim": "https://acme.example/org",
    }))
    .unwrap();
    let claims = with(json!({ "app_metadata": null, "https://acme.example/org": issuer::organization() }));
    let verified = config.judge().unwrap().0.judge(claims.as_object().unwrap(), NOW_S).unwrap();
    assert_eq!(verified.organization, issuer::organization());
}
