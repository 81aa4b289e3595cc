//! The vault: what is kept, what opens where, keys that come and go. That another program reads the
//! same bytes is shown by `tests/vault.rs`.

use super::*;
use crate::push::devices::token_key::KEY_BYTES;

const ROW: Row<'static> = Row {
    app_id: "app",
    device_id: "phone-1",
    platform: Platform::Android,
    service: Service::Fcm,
};

fn dice() -> Dice {
    Dice::new([9; 16])
}

fn key(id: &str, first: u8) -> TokenKey {
    let bytes: Vec<u8> = (0..KEY_BYTES as u8).map(|n| first + n).collect();
    let id = KeyId::parse(id).expect("an id");
    TokenKey::parse(id, &BASE64.encode(&bytes)).expect("a key")
}

fn vault(keys: &[(&str, u8)], binding: Binding) -> TokenVault {
    let mut keys = keys.iter().map(|(id, first)| key(id, *first));
    let current = keys.next().expect("a current key");
    TokenVault::new(current, keys.collect(), binding, &mut dice()).expect("a working vault")
}

fn token(text: &str) -> ClearToken {
    ClearToken::parse(Service::Fcm, text).expect("a token")
}

fn opened(vault: &TokenVault, row: &Row<'_>, sealed: &SealedToken) -> Result<String, OpenFault> {
    let opened = vault.open(row, sealed);
    opened.map(|token| token.expose().to_string())
}

#[test]
fn what_is_sealed_opens_and_looks_like_nothing() {
    for binding in [Binding::Context, Binding::Row] {
        let vault = vault(&[("a", 1)], binding);
        let sealed = vault.seal(&ROW, &token("tiger:1"), &mut dice());
        assert_eq!(opened(&vault, &ROW, &sealed).as_deref(), Ok("tiger:1"));
        let decode = |text: &str| BASE64.decode(text.as_bytes()).expect("padded base64");
        assert_eq!(decode(&sealed.token_iv).len(), 12);
        assert_eq!(decode(&sealed.token_tag).len(), 16);
        assert_eq!(decode(&sealed.encrypted_token).len(), "tiger:1".len());
        assert_eq!(sealed.index.len(), 64);
        assert_eq!((sealed.key_id.as_str(), sealed.binding), ("a", binding));
        assert_eq!(format!("{sealed:?}"), "•••• by a");
    }
}

#[test]
fn every_token_has_an_iv_of_its_own() {
    let vault = vault(&[("a", 1)], Binding::Row);
    let mut dice = dice();
    let mut sealed: Vec<SealedToken> = Vec::new();
    for _ in 0..200 {
        sealed.push(vault.seal(&ROW, &token("same"), &mut dice));
    }
    let mut ivs: Vec<&str> = sealed.iter().map(|it| it.token_iv.as_str()).collect();
    ivs.sort_unstable();
    ivs.dedup();
    assert_eq!(ivs.len(), 200);
    assert_ne!(sealed[0].encrypted_token, sealed[1].encrypted_token);
    assert_eq!(sealed[0].index, sealed[1].index, "but it is found again");
}

#[test]
fn a_token_bound_to_its_row_opens_in_no_other() {
    let vault = vault(&[("a", 1)], Binding::Row);
    let sealed = vault.seal(&ROW, &token("tiger"), &mut dice());
    let others = [
        Row {
            app_id: "other",
            ..ROW
        },
        Row {
            device_id: "phone-2",
            ..ROW
        },
        Row {
            platform: Platform::Ios,
            ..ROW
        },
        Row {
            service: Service::FcmFid,
            ..ROW
        },
    ];
    for row in others {
        assert_eq!(
            opened(&vault, &row, &sealed),
            Err(OpenFault::Forged),
            "{row:?}"
        );
    }
    let unbound = SealedToken {
        binding: Binding::Context,
        ..sealed
    };
    assert_eq!(
        opened(&vault, &ROW, &unbound),
        Err(OpenFault::Forged),
        "nor by saying so"
    );
}

#[test]
fn a_token_that_is_bound_to_no_row_opens_in_any() {
    let vault = vault(&[("a", 1)], Binding::Context);
    let sealed = vault.seal(&ROW, &token("tiger"), &mut dice());
    let row = Row {
        device_id: "phone-2",
        ..ROW
    };
    assert_eq!(opened(&vault, &row, &sealed).as_deref(), Ok("tiger"));
}

#[test]
fn what_was_altered_does_not_open() {
    let vault = vault(&[("a", 1), ("b", 2)], Binding::Row);
    let sealed = vault.seal(&ROW, &token("tiger"), &mut dice());
    let flip = |column: &str, at: usize| {
        let mut bytes = BASE64.decode(column.as_bytes()).expect("base64");
        bytes[at] ^= 0x80;
        BASE64.encode(&bytes)
    };
    let mut altered = Vec::new();
    for at in 0..5 {
        let encrypted_token = flip(&sealed.encrypted_token, at);
        altered.push(SealedToken {
            encrypted_token,
            ..sealed.clone()
        });
    }
    for at in 0..12 {
        let token_iv = flip(&sealed.token_iv, at);
        altered.push(SealedToken {
            token_iv,
            ..sealed.clone()
        });
    }
    for at in 0..16 {
        let token_tag = flip(&sealed.token_tag, at);
        altered.push(SealedToken {
            token_tag,
            ..sealed.clone()
        });
    }
    let key_id = KeyId::parse("b").expect("an id");
    altered.push(SealedToken {
        key_id,
        ..sealed.clone()
    });
    for altered in altered {
        assert_eq!(
            opened(&vault, &ROW, &altered),
            Err(OpenFault::Forged),
            "{altered:?}"
        );
    }
}

#[test]
fn damaged_columns_are_told_by_name() {
    let vault = vault(&[("a", 1)], Binding::Row);
    let sealed = vault.seal(&ROW, &token("tiger"), &mut dice());
    let short = BASE64.encode(&[0; 8]);
    let table = [
        (
            SealedToken {
                token_iv: short.clone(),
                ..sealed.clone()
            },
            "token_iv",
        ),
        (
            SealedToken {
                token_tag: short,
                ..sealed.clone()
            },
            "token_tag",
        ),
        (
            SealedToken {
                token_tag: String::new(),
                ..sealed.clone()
            },
            "token_tag",
        ),
        (
            SealedToken {
                encrypted_token: "?".into(),
                ..sealed
            },
            "encrypted_token",
        ),
    ];
    for (damaged, column) in table {
        assert_eq!(
            opened(&vault, &ROW, &damaged),
            Err(OpenFault::Column(column))
        );
    }
}

#[test]
fn a_rotation_seals_anew_what_an_older_key_sealed() {
    let old = vault(&[("a", 1)], Binding::Context);
    let both = vault(&[("b", 2), ("a", 1)], Binding::Row);
    let new = vault(&[("b", 2)], Binding::Row);
    let mut dice = Dice::new([1; 16]);
    let sealed = old.seal(&ROW, &token("tiger"), &mut dice);
    assert_eq!(opened(&both, &ROW, &sealed).as_deref(), Ok("tiger"));
    let unknown = OpenFault::UnknownKey(sealed.key_id.clone());
    assert_eq!(opened(&new, &ROW, &sealed), Err(unknown));
    assert!(both.indexes("app", &token("tiger")).contains(&sealed.index));

    let again = both
        .reseal(&ROW, &sealed, &mut dice)
        .expect("it opens")
        .expect("another");
    assert_eq!((again.key_id.as_str(), again.binding), ("b", Binding::Row));
    assert_eq!(opened(&new, &ROW, &again).as_deref(), Ok("tiger"));
    assert_eq!(new.indexes("app", &token("tiger")), [again.index.as_str()]);
    assert_eq!(
        both.reseal(&ROW, &again, &mut dice),
        Ok(None),
        "nothing is left to do"
    );
    let forged = SealedToken {
        binding: Binding::Row,
        ..sealed
    };
    assert_eq!(
        both.reseal(&ROW, &forged, &mut dice),
        Err(OpenFault::Forged)
    );
}

#[test]
fn a_token_is_found_by_app_service_and_identity() {
    let vault = vault(&[("a", 1), ("b", 2)], Binding::Row);
    let indexes = |app: &str, token: &ClearToken| vault.indexes(app, token);
    let one = indexes("app", &token("tiger"));
    assert_eq!(one.len(), 2);
    assert_ne!(one[0], one[1], "each key has an index of its own");
    assert_eq!(one, indexes("app", &token("tiger")));
    assert_ne!(one, indexes("other", &token("tiger")));
    assert_ne!(one, indexes("app", &token("tigers")));
    let fid = ClearToken::parse(Service::FcmFid, "tiger").expect("an id");
    assert_ne!(one, indexes("app", &fid));
}

#[test]
fn keys_that_cannot_be_told_apart_are_refused() {
    let new = |older: Vec<TokenKey>| {
        TokenVault::new(key("a", 1), older, Binding::Row, &mut dice()).map(|_| ())
    };
    let id = |text: &str| KeyId::parse(text).expect("an id");
    assert_eq!(new(vec![key("a", 2)]), Err(VaultFault::Twice(id("a"))));
    assert_eq!(new(vec![key("b", 1)]), Err(VaultFault::Twice(id("b"))));
    let many = |count: u8| (0..count).map(|n| key(&format!("k{n}"), n + 2)).collect();
    assert_eq!(new(many(15)), Ok(()));
    assert_eq!(new(many(16)), Err(VaultFault::TooManyKeys));
}

#[test]
fn another_key_under_a_known_name_is_found_before_it_seals() {
    let known = |vault: &TokenVault| -> Vec<(KeyId, Fingerprint)> {
        let keys = vault.keys();
        keys.map(|(id, print)| (id.clone(), print.clone()))
            .collect()
    };
    let before = known(&vault(&[("a", 1)], Binding::Row));
    let id = before[0].0.clone();
    let check = |keys: &[(&str, u8)]| vault(keys, Binding::Row).check_known(&before);
    assert_eq!(check(&[("b", 2), ("a", 1)]), Ok(()));
    assert_eq!(check(&[("a", 2)]), Err(VaultFault::Another(id.clone())));
    assert_eq!(check(&[("b", 2)]), Err(VaultFault::Missing(id)));
}

#[test]
fn the_self_test_finds_a_key_that_does_not_work() {
    assert!(computes_as_published());
    let mut dice = dice();
    let good = Slot::new(&key("a", 1));
    assert!(good.works(&mut dice));
    let (bytes, iv, tag) = good.encrypt([1; 12], b"x", "tiger");
    let other = Slot::new(&key("a", 2));
    assert!(other.decrypt(iv, b"x", bytes.clone(), tag).is_none());
    assert!(good.decrypt(iv, b"x", bytes, tag).is_some());
}

#[test]
fn faults_say_which_key_and_nothing_of_it() {
    let id = KeyId::parse("2026-11").expect("an id");
    let faults = [
        VaultFault::Twice(id.clone()),
        VaultFault::Another(id.clone()),
        VaultFault::Missing(id.clone()),
        VaultFault::SelfTest(Some(id.clone())),
    ];
    for fault in faults {
        assert!(fault.text().contains("2026-11"), "{fault:?}");
    }
    assert!(OpenFault::UnknownKey(id).text().contains("2026-11"));
    assert!(OpenFault::Column("token_iv").text().contains("token_iv"));
}

#[test]
fn a_credential_opens_under_its_own_name_and_app_with_any_key_that_is_there() {
    let old = vault(&[("a", 1)], Binding::Row);
    let sealed = old.seal_secret(("app", "main"), "tiger", &mut dice());
    assert_eq!(format!("{sealed:?}"), "•••• by a");
    let open = |vault: &TokenVault, whose: (&str, &str), sealed: &SealedSecret| {
        vault
            .open_secret(whose, sealed)
            .map(|text| text.to_string())
    };
    assert_eq!(open(&old, ("app", "main"), &sealed).as_deref(), Ok("tiger"));
    for whose in [("app", "other"), ("other", "main"), ("main", "app")] {
        assert_eq!(open(&old, whose, &sealed), Err(OpenFault::Forged));
    }
    let new = vault(&[("b", 50), ("a", 1)], Binding::Row);
    assert!(old.is_current_secret(&sealed) && !new.is_current_secret(&sealed));
    assert_eq!(open(&new, ("app", "main"), &sealed).as_deref(), Ok("tiger"));
    let alone = vault(&[("b", 50)], Binding::Row);
    let fault = open(&alone, ("app", "main"), &sealed);
    assert!(matches!(fault, Err(OpenFault::UnknownKey(_))), "{fault:?}");
    let mut altered = sealed.clone();
    altered.tag.replace_range(
        ..1,
        if altered.tag.starts_with('A') {
            "B"
        } else {
            "A"
        },
    );
    assert_eq!(
        open(&old, ("app", "main"), &altered),
        Err(OpenFault::Forged)
    );
}
