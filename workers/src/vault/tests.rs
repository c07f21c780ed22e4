//! What the vault promises, each with the attack that would break it.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use shared::{id::OrganizationId, secret::Secret};
use uuid::Uuid;

use super::*;

fn key(salt: u8) -> String {
    let bytes: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(n).wrapping_mul(7).wrapping_add(n ^ salt)).collect();
    STANDARD.encode(bytes)
}

fn config(keys: &str) -> VaultConfig {
    VaultConfig { keys: Secret::new(keys.to_owned()), active: None }
}

fn vault() -> Vault {
    Vault::new(&config(&format!("k1:{},k0:{}", key(1), key(2)))).unwrap()
}

fn tenant(vault: &Vault) -> (OrganizationId, DataKey) {
    let organization = OrganizationId::new();
    let WrappedKey { dek_id, kek_id, wrapped } = vault.new_tenant_key(organization).unwrap();
    (organization, vault.unwrap_tenant_key(organization, dek_id, &kek_id, &wrapped).unwrap())
}

fn place(organization: OrganizationId) -> Place<'static> {
    Place { table: "mcp_configurations", column: "secret", organization, row: Uuid::from_u128(7), generation: 3 }
}

#[test]
fn what_is_sealed_opens_at_its_place() {
    let (organization, key) = tenant(&vault());
    for plain in [Vec::new(), b"token".to_vec(), vec![0; 70_000]] {
        let sealed = key.seal(&place(organization), &plain).unwrap();
        assert_eq!(sealed.len(), plain.len() + 46);
        assert_eq!(sealed_with(&sealed).unwrap(), key.dek_id());
        assert_eq!(key.open(&place(organization), &sealed).unwrap().reveal(), &plain);
    }
}

#[test]
fn a_value_moved_anywhere_else_does_not_open() {
    let vault = vault();
    let (organization, key) = tenant(&vault);
    let home = place(organization);
    let sealed = key.seal(&home, b"token").unwrap();
    for moved in [
        Place { table: "oauth_connections", ..home },
        Place { column: "refresh", ..home },
        Place { row: Uuid::from_u128(8), ..home },
        Place { generation: 4, ..home },
        Place { generation: -3, ..home },
    ] {
        assert_eq!(key.open(&moved, &sealed).unwrap_err(), VaultError::Closed, "{moved:?}");
    }
    let (other, other_key) = tenant(&vault);
    assert_eq!(key.open(&place(other), &sealed).unwrap_err(), VaultError::OtherOrganization);
    assert_eq!(other_key.open(&place(other), &sealed).unwrap_err(), VaultError::OtherKey);
    assert_eq!(key.seal(&place(other), b"token").unwrap_err(), VaultError::OtherOrganization);
}

#[test]
fn the_organization_and_the_key_name_are_bound_even_under_the_same_key() {
    let shared_key = random::<KEY_BYTES>().unwrap();
    let (organization, other) = (OrganizationId::new(), OrganizationId::new());
    let (dek_id, other_dek) = (DekId(Uuid::from_u128(1)), DekId(Uuid::from_u128(2)));
    let key = DataKey::new(organization, dek_id, shared_key.clone());
    let mut sealed = key.seal(&place(organization), b"token").unwrap();
    let elsewhere = DataKey::new(other, dek_id, shared_key.clone());
    assert_eq!(elsewhere.open(&place(other), &sealed).unwrap_err(), VaultError::Closed);
    sealed[2..18].copy_from_slice(other_dek.0.as_bytes());
    let renamed = DataKey::new(organization, other_dek, shared_key);
    assert_eq!(renamed.open(&place(organization), &sealed).unwrap_err(), VaultError::Closed);
}

#[test]
fn no_changed_bit_and_no_cut_goes_unnoticed() {
    let (organization, key) = tenant(&vault());
    let sealed = key.seal(&place(organization), b"token").unwrap();
    for position in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[position / 8] ^= 1 << (position % 8);
        assert!(key.open(&place(organization), &changed).is_err(), "bit {position}");
    }
    for length in 0..sealed.len() {
        assert!(key.open(&place(organization), &sealed[..length]).is_err(), "length {length}");
    }
}

#[test]
fn a_wrapped_key_opens_for_its_organization_and_name_only() {
    let vault = vault();
    let organization = OrganizationId::new();
    let WrappedKey { dek_id, kek_id, wrapped } = vault.new_tenant_key(organization).unwrap();
    let open = |organization, dek_id, kek_id: &str, wrapped: &[u8]| {
        vault.unwrap_tenant_key(organization, dek_id, kek_id, wrapped).unwrap_err()
    };
    assert_eq!((kek_id.as_str(), wrapped.len()), ("k1", 62));
    assert_eq!(open(OrganizationId::new(), dek_id, "k1", &wrapped), VaultError::Closed);
    assert_eq!(open(organization, DekId(Uuid::nil()), "k1", &wrapped), VaultError::Closed);
    assert_eq!(open(organization, dek_id, "k0", &wrapped), VaultError::Closed);
    assert_eq!(open(organization, dek_id, "k9", &wrapped), VaultError::UnknownKek("k9".into()));
    assert_eq!(open(organization, dek_id, "k1", b"plain"), VaultError::Malformed);
    for position in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[position] ^= 0x80;
        assert!(vault.unwrap_tenant_key(organization, dek_id, "k1", &changed).is_err(), "byte {position}");
    }
}

#[test]
fn a_retired_key_still_opens_and_no_longer_wraps() {
    let organization = OrganizationId::new();
    let before = Vault::new(&config(&format!("old:{}", key(1)))).unwrap();
    let WrappedKey { dek_id, kek_id, wrapped } = before.new_tenant_key(organization).unwrap();
    let after =
        Vault::new(&VaultConfig { active: Some("new".into()), ..config(&format!("old:{},new:{}", key(1), key(2))) })
            .unwrap();
    let sealed = before
        .unwrap_tenant_key(organization, dek_id, &kek_id, &wrapped)
        .unwrap()
        .seal(&place(organization), b"token")
        .unwrap();
    let reopened = after.unwrap_tenant_key(organization, dek_id, &kek_id, &wrapped).unwrap();
    assert_eq!(reopened.open(&place(organization), &sealed).unwrap().reveal(), b"token");
    assert_eq!(after.new_tenant_key(organization).unwrap().kek_id, "new");
}

#[test]
fn weak_and_malformed_keys_stop_the_start() {
    let encode = |bytes: &[u8]| STANDARD.encode(bytes);
    let ascending: Vec<u8> = (0..32).collect();
    let repeated: Vec<u8> = b"\x81\x13\xf7\x2c\x99\x05\xe1\x44".repeat(4);
    for (wrong, why) in [
        (format!("k1:{}", encode(&[0; 32])), "too regular"),
        (format!("k1:{}", encode(&[0xa7; 32])), "too regular"),
        (format!("k1:{}", encode(&ascending)), "too regular"),
        (format!("k1:{}", encode(&repeated)), "too regular"),
        (format!("k1:{}", encode(b"correct horse battery staple 123")), "too regular"),
        (format!("k1:{EXAMPLE_KEY}"), "example"),
        (format!("k1:{}", EXAMPLE_KEY.trim_end_matches('=')), "example"),
        (format!("k1:{}", encode(&[7; 16])), "16 bytes"),
        (format!("k1:{}", encode(&[7; 33])), "33 bytes"),
        ("k1:***".into(), "not base64"),
        (key(1), "id:base64"),
        (format!(":{}", key(1)), "an id has"),
        (format!("a b:{}", key(1)), "an id has"),
        (format!("k1:{},k1:{}", key(1), key(2)), "stands twice"),
        (format!("k1:{},k2:{}", key(1), key(1)), "two ids"),
        (String::new(), "no key"),
    ] {
        let error = format!("{:#}", Vault::new(&config(&wrong)).unwrap_err());
        assert!(error.contains(why), "{wrong}: {error}");
        assert!(!error.contains(wrong.rsplit(':').next().filter(|text| text.len() > 6).unwrap_or("-----")), "{error}");
    }
    let unknown = VaultConfig { active: Some("k9".into()), ..config(&format!("k1:{}", key(1))) };
    assert!(Vault::new(&unknown).is_err());
}

#[test]
fn nothing_prints_a_key() {
    let config = config(&format!("k1:{}", key(1)));
    let vault = Vault::new(&config).unwrap();
    let material = Zeroizing::new([0xab_u8; KEY_BYTES]);
    let cache = DataKeys::default();
    let kept =
        cache.keep(OrganizationId::PLATFORM, DataKey::new(OrganizationId::PLATFORM, DekId(Uuid::nil()), material));
    let printed = format!("{config:?} {vault:?} {kept:?} {cache:?} {config:#?} {vault:#?} {kept:#?}").to_lowercase();
    for shown in [key(1).to_lowercase().as_str(), "171", "0xab", "abab"] {
        assert!(!printed.contains(shown), "{shown} in {printed}");
    }
}

#[test]
fn ten_thousand_sealings_have_ten_thousand_nonces() {
    let (organization, key) = tenant(&vault());
    let nonces: HashSet<Vec<u8>> =
        (0..10_000).map(|_| key.seal(&place(organization), b"token").unwrap()[18..30].to_vec()).collect();
    assert_eq!(nonces.len(), 10_000);
}

#[test]
fn a_forgotten_key_is_no_longer_at_hand() {
    let vault = vault();
    let (organization, key) = tenant(&vault);
    let (keys, dek_id) = (DataKeys::default(), key.dek_id());
    keys.keep(organization, key);
    assert!(keys.get(organization, dek_id).is_some());
    assert!(keys.get(OrganizationId::new(), dek_id).is_none());
    keys.forget(organization, dek_id);
    assert!(keys.get(organization, dek_id).is_none());
}

#[test]
fn the_example_is_32_bytes_of_base64() {
    assert_eq!(STANDARD.decode(EXAMPLE_KEY).unwrap().len(), KEY_BYTES);
}

#[test]
fn a_key_wrapped_anew_opens_what_it_sealed_and_needs_its_old_wrapping_no_more() {
    let (old, new) = (format!("k0:{}", key(2)), format!("k1:{}", key(1)));
    let organization = OrganizationId::new();
    let before = Vault::new(&config(&old)).unwrap();
    let WrappedKey { dek_id, kek_id, wrapped } = before.new_tenant_key(organization).unwrap();
    let sealed = before
        .unwrap_tenant_key(organization, dek_id, &kek_id, &wrapped)
        .unwrap()
        .seal(&place(organization), b"token")
        .unwrap();
    let during = Vault::new(&config(&format!("{new},{old}"))).unwrap();
    let again = during.rewrap_tenant_key(organization, dek_id, &kek_id, &wrapped).unwrap();
    assert_eq!((again.dek_id, again.kek_id.as_str()), (dek_id, "k1"));
    assert_ne!(again.wrapped, wrapped);
    let after = Vault::new(&config(&new)).unwrap();
    let opened = after.unwrap_tenant_key(organization, dek_id, &again.kek_id, &again.wrapped).unwrap();
    assert_eq!(opened.open(&place(organization), &sealed).unwrap().reveal(), b"token");
    // One that another organization's row claims to be its own is not wrapped anew.
    let stolen = during.rewrap_tenant_key(OrganizationId::new(), dek_id, &kek_id, &wrapped);
    assert_eq!(stolen.unwrap_err(), VaultError::Closed);
    assert_eq!(
        after.rewrap_tenant_key(organization, dek_id, &kek_id, &wrapped).unwrap_err(),
        VaultError::UnknownKek("k0".to_owned())
    );
}
