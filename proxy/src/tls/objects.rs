//! What OpenSSL calls object identifiers, in names of subjects.

use amphora_x509::oid::{self, dotted};

/// `openssl list -objects` of OpenSSL 3.0: the dotted form, and the short name.
const OBJECTS: &str = include_str!("objects.txt");

/// As much of a dotted form as HAProxy has room for, 127 characters.
const LONGEST: usize = 127;

/// The short name (OBJ_nid2sn), or the dotted form where there is none, as HAProxy writes it.
pub(super) fn short_name(identifier: &[u8]) -> String {
    let usual = match identifier {
        oid::COMMON_NAME => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        oid::EMAIL_ADDRESS => "emailAddress",
        _ => {
            let mut dotted = dotted(identifier);
            dotted.truncate(LONGEST);
            let mut known = OBJECTS.lines().filter_map(|line| line.split_once(' '));
            let known = known.find(|(number, _)| *number == dotted).map(|(_, name)| name.to_owned());
            return known.unwrap_or(dotted);
        }
    };
    usual.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_twice_is_the_same() {
        for usual in [
            oid::COMMON_NAME,
            &[0x55, 4, 6],
            &[0x55, 4, 7],
            &[0x55, 4, 8],
            &[0x55, 4, 10],
            &[0x55, 4, 11],
            oid::EMAIL_ADDRESS,
        ] {
            let line = format!("{} {}", dotted(usual), short_name(usual));
            assert!(OBJECTS.lines().any(|known| known == line), "{line}");
        }
        assert_eq!(short_name(&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25]), "DC");
        assert_eq!(short_name(&[0x2a, 3, 4]), "1.2.3.4");
        // 1.2 and forty arcs of 1.
        assert_eq!(short_name(&[&[0x2a][..], &[1; 100]].concat()), format!("1.2{}", ".1".repeat(62)));
    }
}
