#![allow(clippy::unwrap_used)]
//! The examples of RFC 7541, what is no block, bombs, and what is encoded is decoded.

use proptest::prelude::*;

use super::{encode, *};
use crate::http::Known;

const BOUNDS: Bounds = Bounds { fields: 101, bytes: 16 * 1024 };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| (byte as char).to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let mut list = FieldList::default();
    decoder.decode(block, &mut list, BOUNDS)?;
    assert!(!list.exceeds());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let fields: Vec<_> = list.iter().map(|(name, value)| (text(name), text(value))).collect();
    assert_eq!(fields.len(), list.len());
    Ok(fields)
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A block, what it says, and the size of the table behind it.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

fn examples(decoder: &mut Decoder, blocks: &[Example<'_>]) {
    for (block, fields, size) in blocks {
        assert_eq!(decoded(decoder, &hex(block)).unwrap(), pairs(fields));
        assert_eq!(decoder.table_size(), *size);
    }
}

#[test]
fn single_fields_of_appendix_c_2() {
    for (block, field, size) in [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            ("custom-key", "custom-header"),
            55,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path"), 0),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret"), 0),
        ("82", (":method", "GET"), 0),
    ] {
        examples(&mut Decoder::new(4096), &[(block, &[field], size)]);
    }
}

#[test]
fn requests_of_appendix_c_3_and_c_4() {
    let first: &[_] =
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    let second = &[first, &[("cache-control", "no-cache")]].concat()[..];
    let third: &[_] = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        let [one, two, three] = blocks;
        examples(&mut decoder, &[(one, first, 57), (two, second, 110), (three, third, 164)]);
        let table: Vec<_> = (0..3).map(|n| decoder.table_entry(n).unwrap()).collect();
        let expected: [(&[u8], &[u8]); 3] = [
            (b"custom-key", b"custom-value"),
            (b"cache-control", b"no-cache"),
            (b":authority", b"www.example.com"),
        ];
        assert_eq!(table, expected);
        assert_eq!(decoder.table_entry(3), None);
    }
}

#[test]
fn responses_of_appendix_c_5_and_c_6_which_evict() {
    let date = "Mon, 21 Oct 2013 20:13:21 GMT";
    let first: &[_] = &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", date),
        ("location", "https://www.example.com"),
    ];
    let second = &[&[(":status", "307")], &first[1..]].concat()[..];
    let third: &[_] = &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ];
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 \
             474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 \
             666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 \
             3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 \
             63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
             b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        // Of 256 bytes, as the examples have it.
        decoded(&mut decoder, &[0x3f, 0xe1, 0x01]).unwrap();
        let [one, two, three] = blocks;
        examples(&mut decoder, &[(one, first, 222), (two, second, 222), (three, third, 215)]);
    }
}

#[test]
fn what_is_no_block() {
    for (block, error) in [
        ("80", Error::Index),
        ("be", Error::Index),
        ("7e 00", Error::Index),
        ("ff", Error::Truncated),
        ("ff 80", Error::Truncated),
        ("ff ff ff ff ff 00", Error::Integer),
        ("ff 80 80 80 80 00", Error::Integer),
        ("40", Error::Truncated),
        ("40 03 61 61", Error::Truncated),
        ("40 01 61", Error::Truncated),
        ("40 01 61 02 62", Error::Truncated),
        ("40 01 61 7f ff ff ff 07", Error::Integer),
        // The table may be as large as was announced, and that is said in front.
        ("3f e2 1f", Error::Size),
        ("82 20", Error::Size),
        // A string that is padded with zeros, with more than seven bits, with EOS in it, or with nothing but padding.
        ("40 01 61 81 18", Error::Huffman),
        ("40 01 61 82 1f ff", Error::Huffman),
        ("40 01 61 84 ff ff ff ff", Error::Huffman),
        ("40 01 61 85 1f ff ff ff fc", Error::Huffman),
        ("40 01 61 81 ff", Error::Huffman),
    ] {
        assert_eq!(decoded(&mut Decoder::new(4096), &hex(block)), Err(error), "{block}");
    }
    for block in ["", "20", "3f e1 1f", "20 3f e1 1f 82", "40 01 61 80", "40 01 61 81 1f", "ff 80 00 82"] {
        let expected = if block.starts_with("ff") { Err(Error::Index) } else { Ok(()) };
        assert_eq!(decoded(&mut Decoder::new(4096), &hex(block)).map(drop), expected, "{block}");
    }
}

#[test]
fn what_breaks_off_is_no_field() {
    // A whole field, and one that lacks its name, part of it, its value, part of that; or whose name has no entry.
    for broken in ["00", "00 03 61", "00 01 61", "40 01 61 02 62", "0f 80", "7f 70"] {
        let mut list = FieldList::default();
        Decoder::new(4096).decode(&hex(&format!("82 {broken}")), &mut list, BOUNDS).unwrap_err();
        assert_eq!(list.iter().collect::<Vec<_>>(), [(&b":method"[..], &b"GET"[..])], "{broken}");
        assert_eq!(list.len(), 1);
    }
}

#[test]
fn the_table_is_within_what_was_announced_and_its_memory_within_three_times_that() {
    let mut decoder = Decoder::new(4096);
    for n in 0..2000u32 {
        let mut block = vec![0x40];
        encode::integer(&mut block, 0, 7, 10);
        block.extend_from_slice(format!("name{n:06}").as_bytes());
        let value = vec![b'v'; (n as usize * 37) % 3000];
        encode::integer(&mut block, 0, 7, value.len());
        block.extend_from_slice(&value);
        // It is the first of the table then.
        block.push(0xbe);
        let fields = decoded(&mut decoder, &block).unwrap();
        assert_eq!(fields[0], fields[1]);
        assert!(
            decoder.table_size() <= 4096 && decoder.table_held() <= 3 * 4096 + 4096,
            "{}",
            decoder.table_held()
        );
    }
    // What is larger than the table empties it.
    let mut block = vec![0x40, 1, b'a'];
    encode::integer(&mut block, 0, 7, 5000);
    block.extend_from_slice(&[b'v'; 5000]);
    decoded(&mut decoder, &block).unwrap();
    assert_eq!((decoder.table_size(), decoder.table_entry(0)), (0, None));
    decoded(&mut decoder, &[0x20]).unwrap();
    assert_eq!(decoder.table_held(), 0);
    assert_eq!(decoded(&mut decoder, &[0x40, 1, b'a', 1, b'b', 0xbe]), Err(Error::Index));
}

#[test]
fn a_field_may_be_named_by_what_it_evicts() {
    let mut decoder = Decoder::new(4096);
    let block = hex("3f 0a 40 01 61 01 62 7e 01 63 be");
    assert_eq!(decoded(&mut decoder, &block).unwrap(), pairs(&[("a", "b"), ("a", "c"), ("a", "c")]));
}

#[test]
fn bombs_are_gone_over_and_not_kept() {
    let mut large = vec![0x40, 1, b'x'];
    encode::integer(&mut large, 0, 7, 4000);
    large.extend_from_slice(&[b'x'; 4000]);
    let references = [&large[..], &[0xbe; 60_000]].concat();
    let crumbs = [&b"\x60\x01a"[..], &[0xbe; 60_000]].concat();
    let empty = [0x00, 0x00, 0x00].repeat(20_000);
    let mut coded = vec![0x00, 1, b'x'];
    // `0` takes five bits.
    let zeros = huffman_of(&[b'0'; 90_000]);
    encode::integer(&mut coded, 0x80, 7, zeros.len());
    coded.extend_from_slice(&zeros);
    for block in [references, crumbs, empty, coded] {
        let mut list = FieldList::default();
        Decoder::new(4096).decode(&block, &mut list, BOUNDS).unwrap();
        list.fit();
        assert!(list.exceeds() && list.len() <= BOUNDS.fields);
        assert!(list.held() <= 2 * BOUNDS.bytes, "{}", list.held());
    }
}

#[test]
fn the_table_is_kept_of_fields_beyond_the_bounds() {
    let mut decoder = Decoder::new(4096);
    let mut list = FieldList::default();
    let block = [&b"\x00\x01a\x01b"[..], b"\x40\x01c\x01d"].concat();
    decoder.decode(&block, &mut list, Bounds { fields: 1, bytes: 1000 }).unwrap();
    assert!(list.exceeds());
    assert_eq!(list.iter().collect::<Vec<_>>(), [(&b"a"[..], &b"b"[..])]);
    assert_eq!(decoded(&mut decoder, &[0xbe]).unwrap(), pairs(&[("c", "d")]));
}

fn huffman_of(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    huffman::encode(text, &mut coded);
    coded
}

#[test]
fn the_static_table_is_found_by_its_indices() {
    for (n, (name, value)) in STATIC.iter().enumerate() {
        let mut list = FieldList::default();
        Decoder::new(4096).decode(&[0x80 | (n as u8 + 1)], &mut list, BOUNDS).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [(*name, *value)]);
        // A name that is known has the place that it is sent with.
        let mut block = Vec::new();
        encode::field(&mut block, name, b"v", Known::of(name));
        let mut list = FieldList::default();
        Decoder::new(4096).decode(&block, &mut list, BOUNDS).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [(*name, &b"v"[..])]);
    }
}

#[test]
fn what_is_encoded_is_what_others_encode() {
    let mut block = vec![encode::NO_TABLE];
    encode::status(&mut block, 200);
    encode::status(&mut block, 503);
    encode::method(&mut block, b"GET");
    encode::method(&mut block, b"POST");
    encode::method(&mut block, b"PUT");
    encode::scheme(&mut block, true);
    encode::scheme(&mut block, false);
    encode::path(&mut block, b"/");
    encode::path(&mut block, b"/a#<\xff>");
    encode::authority(&mut block, b"a:80");
    encode::protocol(&mut block, b"websocket");
    encode::field(&mut block, b"Content-Type", b"text/plain", Known::ContentType);
    encode::field(&mut block, b"SET-COOKIE", b"a=b", Known::SetCookie);
    encode::field(&mut block, b"X-One", b"", Known::Other);
    encode::field_of_parts(&mut block, b"set-cookie", &[b"a", b"=", b"b"]);
    let mut list = FieldList::default();
    Decoder::new(4096).decode(&block, &mut list, BOUNDS).unwrap();
    let expected: [(&[u8], &[u8]); 15] = [
        (b":status", b"200"),
        (b":status", b"503"),
        (b":method", b"GET"),
        (b":method", b"POST"),
        (b":method", b"PUT"),
        (b":scheme", b"https"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":path", b"/a#<\xff>"),
        (b":authority", b"a:80"),
        (b":protocol", b"websocket"),
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=b"),
        (b"x-one", b""),
        (b"set-cookie", b"a=b"),
    ];
    assert_eq!(list.iter().collect::<Vec<_>>(), expected);
}

/// What another encoder (hpack 4 of PyPI) has made of fields, in the Huffman code and without, a smaller table among them.
#[test]
fn what_others_encode_is_what_is_decoded() {
    type Fields = &'static [(&'static [u8], &'static [u8])];
    let blocks: [(&str, Fields); 6] = [
        (
            "8d628327e41f4088f2b507aa65aa1d2583ff808f",
            &[(b":status", b"404"), (b"etag", b"cX="), (b"x-long-name", b"|0b")],
        ),
        (
            "8862043163c3627f000731623b62316259771a5958205a58303d586362307ec32fa9a93d20315a3163207c7e2f621263587cc35a2f597ec362632f2f3d7ea96363",
            &[
                (b":status", b"200"),
                (b"etag", b"1c\xc3b"),
                (b"x-long-name", b"1b;b1bY"),
                (b"set-cookie", b"YX ZX0=Xcb0~\xc3/\xa9\xa9= 1Z1c |~/"),
                (b"etag", b"cX|\xc3Z/Y~\xc3bc//=~\xa9cc"),
            ],
        ),
        (
            "8d5f8553fffdd53f629a1ffffbb07efe7ff63029cc3f7f7ffd27effffbbf6ff3fffe2fff6297fb0f327ef30847ffdfd7d41f3fffe3031cffe47fffeeff7f0498fbfbfbfcffefdc60203fffddfdfc623fc1f3fc806407df3f",
            &[
                (b":status", b"404"),
                (b"content-type", b" \xa9 "),
                (b"etag", b"a\xa9=ZX~b0 Y1;;~cZ\xa9;9Y\xc39"),
                (b"etag", b";1YcZY11a~Z9 aY\xc3=/Y|b\xa9"),
                (b"x-long-name", b";;;X~;b0c0\xa9ZX/bXaYX=ac0;Y"),
            ],
        ),
        (
            "3f45480333303277263d7e58587ea97e7e206359582f397e5a7c61307c3d59617c2063397c3d5a3d317c2f3130313b4003782d610c7c7e3d6161397e39303da93d77053158317e30",
            &[
                (b":status", b"302"),
                (b"set-cookie", b"=~XX~\xa9~~ cYX/9~Z|a0|=Ya| c9|=Z=1|/101;"),
                (b"x-a", b"|~=aa9~90=\xa9="),
                (b"set-cookie", b"1X1~0"),
            ],
        ),
        (
            "8d62a91fff6027e7d83ffbfbfffc5827dffffbbf64fdfde63e7fffeef3ffec1cf98c7f9ff39ffff10006f8144088f2b507aa65aa1d259461ffffe3ce383fffddff9fffc7fe73e7ff3fe0ff",
            &[
                (b":status", b"404"),
                (b"etag", b"a~=cX;0~Z\xc3/c;\xa9;cZZYaY\xa9Y~=YYaaX|Y\xc300a90 "),
                (b"x-long-name", b"/9\xc3Yb=\xa9|\xc3|YY||a"),
            ],
        ),
        (
            "8d7e004003782d610b597e58622f7c7c7e586231",
            &[(b":status", b"404"), (b"x-long-name", b""), (b"x-a", b"Y~Xb/||~Xb1")],
        ),
    ];
    let mut decoder = Decoder::new(4096);
    for (block, fields) in blocks {
        let mut list = FieldList::default();
        decoder.decode(&hex(block), &mut list, BOUNDS).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), fields, "{block}");
    }
}

proptest! {
    #[test]
    fn huffman_comes_back(text: Vec<u8>) {
        let mut out = Vec::new();
        prop_assert_eq!(huffman::decode(&huffman_of(&text), &mut out), Ok(()));
        prop_assert_eq!(out, text);
    }

    #[test]
    fn fields_come_back(
        fields in prop::collection::vec(("[a-z][a-z-]{0,20}", prop::collection::vec(any::<u8>(), 0..300)), 0..50),
    ) {
        let mut block = Vec::new();
        for (name, value) in &fields {
            encode::field(&mut block, name.as_bytes(), value, Known::of(name.as_bytes()));
        }
        let mut list = FieldList::default();
        let bounds = Bounds { fields: 50, bytes: 1 << 20 };
        prop_assert_eq!(Decoder::new(4096).decode(&block, &mut list, bounds), Ok(()));
        let expected: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..])).collect();
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_within_the_bounds(blocks: Vec<Vec<u8>>) {
        let mut decoder = Decoder::new(4096);
        let bounds = Bounds { fields: 10, bytes: 1000 };
        for block in blocks {
            let mut list = FieldList::default();
            let result = decoder.decode(&block, &mut list, bounds);
            prop_assert!(list.len() <= bounds.fields);
            let size: usize = list.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
            prop_assert!(size <= bounds.bytes);
            prop_assert!(decoder.table_size() <= 4096);
            if result.is_err() {
                break;
            }
        }
    }
}
