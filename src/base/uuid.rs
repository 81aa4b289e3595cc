//! UUIDs (RFC 9562), lower-case. Ids of ours are of version 7 (section 5.7): the time, then chance. Rows
//! that come one after another lie beside one another in every index, so that a commit writes a few
//! pages at its end and none in the middle. Nobody can guess one: 74 bits are of chance.

use crate::base::dice::Dice;

/// Version 7, of a moment on the wall clock in milliseconds since 1970.
pub fn uuid(unix_ms: u64, dice: &mut Dice) -> String {
    let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
    let chance = dice.next_u128() & !(0xffff_ffff_ffff << 80);
    of_version(7, time | chance)
}

/// Of these bits, but for the six that say version and variant.
pub fn of_version(version: u8, bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | u128::from(version) << 76 | 2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// Whether it is `8-4-4-4-12` hexadecimal digits (RFC 9562 section 4), none of them upper-case. Any
/// version will do.
pub fn is_lower_uuid(text: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => digit(byte),
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_time_comes_first_and_the_rest_is_chance() {
        let mut dice = Dice::new([2; 16]);
        // The moment of RFC 9562 appendix A.6.
        let ids: BTreeSet<String> = (0..100)
            .map(|_| uuid(0x017f_22e2_79b0, &mut dice))
            .collect();
        assert_eq!(ids.len(), 100);
        for id in &ids {
            assert!(is_lower_uuid(id), "{id}");
            assert!(id.starts_with("017f22e2-79b0-7"), "{id}");
            assert!("89ab".contains(&id[19..20]), "{id}");
        }
        let chance: BTreeSet<&str> = ids.iter().map(|id| &id[24..]).collect();
        assert_eq!(chance.len(), 100);
    }

    #[test]
    fn version_and_variant_stand_where_they_belong() {
        let none = "00000000-0000-8000-8000-000000000000";
        let all = "ffffffff-ffff-4fff-bfff-ffffffffffff";
        assert_eq!(
            (of_version(8, 0), of_version(4, u128::MAX)),
            (none.into(), all.into())
        );
    }

    #[test]
    fn who_comes_later_has_the_greater_one() {
        let mut dice = Dice::new([3; 16]);
        let ids: Vec<String> = (0..300).map(|ms| uuid(ms * 1_000, &mut dice)).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn what_only_looks_like_one_is_found_out() {
        assert!(is_lower_uuid("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"));
        for text in [
            "",
            "017F22E2-79b0-7cc3-98c4-dc0c0c07398f",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
        ] {
            assert!(!is_lower_uuid(text), "{text:?}");
        }
    }
}
