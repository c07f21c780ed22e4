//! Properties of whatever is composed.

use proptest::prelude::*;

use shared::command::prompts::{MAX_OWN_PROMPTS, MAX_SCOPE_BYTES, MAX_UNTRUSTED_CHARS};

use super::*;

/// Pieces as they come from the database and a request: any text, any order, few enough ids and names
/// that some are equal.
fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let layer = proptest::sample::select(vec![Layer::Global, Layer::Organization, Layer::User]);
    let piece =
        (layer, 0..4_u16, "[ab]{1,2}", any::<u128>(), "(?s).{1,40}").prop_map(|(layer, priority, name, id, text)| {
            let prompt = Some((PromptId(uuid::Uuid::from_u128(id)), name, 1));
            Piece { layer, priority, prompt, sha256: hex(&Sha256::digest(&text)), text, signs: vec![] }
        });
    let session = proptest::option::of("(?s).{1,40}").prop_map(|text| {
        text.map(|text| Piece {
            layer: Layer::Session,
            priority: 0,
            prompt: None,
            sha256: hex(&Sha256::digest(&text)),
            text,
            signs: vec![("changes_role", None)],
        })
    });
    (proptest::collection::vec(piece, 0..12), session).prop_map(|(mut pieces, session)| {
        pieces.extend(session);
        pieces
    })
}

fn nonce() -> Nonce {
    Nonce::fixed("00112233445566778899aabbccddeeff")
}

/// The stretches of the text that the parts say they are.
fn stretches(composed: &Composed) -> Vec<String> {
    let mut characters = composed.text.chars();
    let stretches =
        composed.parts.iter().map(|part| characters.by_ref().take(part.characters as usize).collect()).collect();
    assert_eq!(characters.next(), None, "something is nobody's");
    stretches
}

proptest! {
    #[test]
    fn parts_cover_every_character_and_each_holds_what_it_names(pieces in pieces()) {
        let composed = put_together(pieces.clone(), &nonce()).unwrap();
        let stretches = stretches(&composed);
        prop_assert_eq!(stretches.concat(), composed.text.as_str());
        prop_assert_eq!(composed.parts.len(), pieces.len());
        for (part, stretch) in composed.parts.iter().zip(&stretches) {
            let source = pieces.iter().find(|piece| {
                piece.prompt.as_ref().map(|(id, ..)| *id) == part.prompt && piece.sha256 == part.sha256
            });
            prop_assert!(source.is_some_and(|piece| stretch.contains(&piece.text)), "{part:?}");
        }
        prop_assert_eq!(composed.sha256, hex(&Sha256::digest(&composed.text)));
    }

    #[test]
    fn layers_come_in_their_order_and_priorities_within_them(pieces in pieces()) {
        let composed = put_together(pieces.clone(), &nonce()).unwrap();
        let place = |part: &Part| {
            let piece = pieces.iter().find(|piece| piece.prompt.as_ref().map(|(id, ..)| *id) == part.prompt);
            (part.scope, piece.map_or(0, |piece| piece.priority), part.name.clone())
        };
        let places: Vec<_> = composed.parts.iter().map(place).collect();
        prop_assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn nothing_of_a_lower_layer_comes_before_or_into_the_global_one(pieces in pieces()) {
        let (global, lower): (Vec<Piece>, Vec<Piece>) =
            pieces.clone().into_iter().partition(|piece| piece.layer == Layer::Global);
        let alone = put_together(global, &nonce()).unwrap();
        let composed = put_together(pieces, &nonce()).unwrap();
        prop_assert!(composed.text.starts_with(&alone.text));
        let rest = &composed.text[alone.text.len()..];
        prop_assert!(rest.is_empty() || alone.text.is_empty() || rest.starts_with(GAP));
        prop_assert_eq!(rest.is_empty(), lower.is_empty());
    }

    #[test]
    fn equal_pieces_and_nonces_make_equal_prompts_in_whatever_order_they_come(pieces in pieces()) {
        let composed = put_together(pieces.clone(), &nonce()).unwrap();
        let backwards = put_together(pieces.into_iter().rev().collect(), &nonce()).unwrap();
        prop_assert_eq!(composed, backwards);
    }

    #[test]
    fn what_a_user_wrote_stands_between_lines_that_they_could_not_write(text in "(?s).{0,200}") {
        let piece = |layer| Piece {
            layer, priority: 0, prompt: None, sha256: String::new(), text: text.clone(), signs: vec![],
        };
        for (layer, whose) in [(Layer::User, "user"), (Layer::Session, "session")] {
            let nonce = Nonce::new();
            let composed = put_together(vec![piece(layer)], &nonce).unwrap();
            let (start, end) = (format!("[{whose} text {}]\n", nonce.0), format!("\n[end of {whose} text {}]", nonce.0));
            prop_assert!(composed.text.starts_with(&start) && composed.text.ends_with(&end));
            prop_assert_eq!(composed.text.matches(&end).count(), 1, "the author wrote the line that ends their part");
        }
        let trusted = put_together(vec![piece(Layer::Organization)], &nonce()).unwrap();
        prop_assert_eq!(trusted.text, text);
    }
}

#[test]
fn two_nonces_are_never_the_same() {
    assert_ne!(Nonce::new(), Nonce::new());
    assert_eq!(Nonce::new().0.len(), 32);
}

#[test]
fn a_prompt_that_is_too_long_is_refused_and_not_cut() {
    let piece = |layer, bytes| Piece {
        layer,
        priority: 0,
        prompt: None,
        sha256: String::new(),
        text: "x".repeat(bytes),
        signs: vec![],
    };
    let most = MAX_LAYER_BYTES - GAP.len();
    for (layer, whose) in [(Layer::Global, "The platform's"), (Layer::Organization, "The organization's")] {
        assert_eq!(put_together(vec![piece(layer, most)], &nonce()).unwrap().text.len(), most);
        let refused = put_together(vec![piece(layer, most), piece(layer, 1)], &nonce()).unwrap_err();
        assert!(refused.code == Code::Conflict && refused.message.starts_with(whose), "{refused}");
    }
    let refused = put_together(vec![piece(Layer::User, MAX_COMPOSED_BYTES)], &nonce());
    assert_eq!(refused.unwrap_err().code, Code::Conflict);
}

/// Each layer with as much as may be stored or rendered: no layer can take the room of another.
#[test]
fn the_most_of_every_layer_fits_together() {
    let piece = |layer, priority, bytes| Piece {
        layer,
        priority,
        prompt: Some((PromptId(uuid::Uuid::from_u128(u128::from(priority))), "x".repeat(100), 1)),
        sha256: String::new(),
        text: "x".repeat(bytes),
        signs: vec![],
    };
    let most = MAX_LAYER_BYTES - GAP.len();
    let mut pieces = vec![piece(Layer::Global, 0, most), piece(Layer::Organization, 0, most)];
    let own = u16::try_from(MAX_OWN_PROMPTS).unwrap();
    pieces.extend((0..own).map(|own_one| piece(Layer::User, own_one, MAX_SCOPE_BYTES / usize::from(own) + 1)));
    pieces.push(piece(Layer::Session, 0, MAX_UNTRUSTED_CHARS * 4));
    assert!(put_together(pieces, &nonce()).unwrap().text.len() <= MAX_COMPOSED_BYTES);
}

#[test]
fn a_flag_names_the_part_that_it_is_about() {
    let piece = |layer, signs: Vec<(&'static str, Option<&'static str>)>| Piece {
        layer,
        priority: 0,
        prompt: None,
        sha256: String::new(),
        text: "x".to_owned(),
        signs,
    };
    let pieces = vec![
        piece(Layer::Session, vec![("changes_role", None)]),
        piece(Layer::Organization, vec![("overrides_instructions", Some("tools.description"))]),
        piece(Layer::Global, vec![]),
    ];
    let composed = put_together(pieces, &nonce()).unwrap();
    let flag = |part, sign: &str, variable: Option<&str>| Flag {
        part,
        sign: sign.to_owned(),
        variable: variable.map(str::to_owned),
    };
    assert_eq!(
        composed.flags,
        [flag(1, "overrides_instructions", Some("tools.description")), flag(2, "changes_role", None)]
    );
}
