//! Octets, both ways, and what of an answer is believed.

use ipnet::Ipv4Net;

use super::{
    super::{
        frame,
        lease::{LeaseRoute, Unfit},
        message::Malformed,
    },
    *,
};

fn question() -> Question {
    Question {
        kind: Kind::Request,
        transaction: 0x0102_0304,
        seconds: 5,
        address: Ipv4Addr::UNSPECIFIED,
        mac: MAC,
        requested: Some(ADDRESS),
        server: Some(SERVER),
        largest: 1500,
    }
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn a_request_octet_by_octet() {
    let message = question().write();
    assert_eq!(message.len(), 300);
    assert_eq!(message[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0, 0]);
    assert_eq!(message[12..28], [0; 16]);
    assert_eq!((&message[28..34], &message[34..236]), (&MAC.0[..], &[0; 202][..]));
    #[rustfmt::skip]
    assert_eq!(message[236..273], [
        99, 130, 83, 99, 53, 1, 3, 50, 4, 10, 78, 0, 50, 54, 4, 10, 78, 0, 2, 57, 2, 0x05, 0xdc,
        55, 7, 1, 121, 3, 26, 51, 58, 59, 255, 0, 0, 0, 0,
    ]);
    assert_eq!(read_question(&message), question());
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let full = Answer {
        renewal: Some(1000),
        rebinding: Some(2000),
        classless_routes: Some(vec![
            (net("0.0.0.0/0"), SERVER),
            (net("10.80.0.0/13"), Ipv4Addr::UNSPECIFIED),
            (net("192.0.2.7/32"), SERVER),
        ]),
        mtu: Some(1450),
        ..answer(Kind::Ack, &question())
    };
    for answer in [full, answer(Kind::Nak, &question()), answer(Kind::Offer, &question())] {
        assert_eq!(Answer::read(&write_answer(&answer)), Ok(answer));
    }
}

#[test]
fn options_go_on_in_the_names_and_come_in_parts() {
    let routes: Vec<_> =
        (0..40).map(|n| (Ipv4Net::new(Ipv4Addr::new(10, 90, n, 0), 24).unwrap(), SERVER)).collect();
    let long = Answer { classless_routes: Some(routes), ..answer(Kind::Ack, &question()) };
    let message = write_answer(&long);
    assert!(message.windows(2).filter(|octets| *octets == [121, 255]).count() == 1, "it is in two parts");
    assert_eq!(Answer::read(&message), Ok(long));

    // The mask in the name of the file, the MTU in that of the server.
    let expected = Answer { mtu: Some(1400), ..answer(Kind::Ack, &question()) };
    let mut message = write_answer(&Answer { mask: None, mtu: None, ..expected.clone() });
    message.pop();
    message.extend([52, 1, 3, 255]);
    message[108..115].copy_from_slice(&[1, 4, 255, 255, 255, 0, 255]);
    message[44..49].copy_from_slice(&[26, 2, 0x05, 0x78, 255]);
    assert_eq!(Answer::read(&message), Ok(expected));
}

#[test]
fn what_is_malformed_is_no_answer() {
    let good = write_answer(&answer(Kind::Ack, &question()));
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut message = good.clone();
        message.pop();
        edit(&mut message);
        Answer::read(&message)
    };
    assert_eq!(Answer::read(&good[..239]), Err(Malformed::Short));
    assert_eq!(with(&|message| message[0] = 1), Err(Malformed::Foreign));
    assert_eq!(with(&|message| message[2] = 16), Err(Malformed::Foreign));
    assert_eq!(with(&|message| message[236] = 0), Err(Malformed::Foreign));
    assert_eq!(with(&|message| message[242] = 3), Err(Malformed::Kind));
    assert_eq!(Answer::read(&good[..240]), Err(Malformed::Kind));
    assert_eq!(with(&|message| message.extend([9, 4, 1])), Err(Malformed::Cut));
    assert_eq!(with(&|message| message.push(9)), Err(Malformed::Cut));
    // Twice: eight octets of a mask.
    assert_eq!(with(&|message| message.extend([1, 4, 255, 0, 0, 0])), Err(Malformed::Length(1)));
    assert_eq!(with(&|message| message.extend([26, 1, 9])), Err(Malformed::Length(26)));
    assert_eq!(with(&|message| message.extend([121, 2, 33, 0])), Err(Malformed::Routes));
    assert_eq!(with(&|message| message.extend([121, 5, 24, 10, 0, 0, 1])), Err(Malformed::Routes));
    let many = [0, 10, 0, 0, 1].repeat(65);
    let add = |message: &mut Vec<u8>| {
        for part in many.chunks(255) {
            message.extend([121, part.len() as u8]);
            message.extend(part);
        }
    };
    assert_eq!(with(&add), Err(Malformed::Routes));
}

#[test]
fn what_makes_no_sense_is_no_lease() {
    let lease = |edit: &dyn Fn(&mut Answer)| {
        let mut answer = answer(Kind::Ack, &question());
        edit(&mut answer);
        Lease::of(&answer)
    };
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    for wrong in
        ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
    {
        let wrong = address(wrong);
        assert_eq!(lease(&|answer| answer.address = wrong), Err(Unfit::Address(wrong)));
        assert!(wrong.is_link_local() || lease(&|answer| answer.server = Some(wrong)) == Err(Unfit::Server));
    }
    for mask in ["0.0.0.0", "128.0.0.0", "254.0.0.0", "255.0.255.0"] {
        assert_eq!(lease(&|answer| answer.mask = Some(address(mask))), Err(Unfit::Mask));
    }
    assert_eq!(lease(&|answer| answer.mask = None), Err(Unfit::Mask));
    for edge in ["10.78.0.0", "10.78.0.255"] {
        let edge = address(edge);
        let net = Ipv4Net::new(edge, 24).unwrap();
        assert_eq!(lease(&|answer| answer.address = edge), Err(Unfit::NotAHost(net)));
        let long = |mask| {
            move |answer: &mut Answer| {
                (answer.address, answer.mask) = (edge, Some(mask));
            }
        };
        assert!(lease(&long(Ipv4Addr::new(255, 255, 255, 254))).is_ok());
        assert!(lease(&long(Ipv4Addr::BROADCAST)).is_ok());
    }
    assert_eq!(lease(&|answer| answer.server = None), Err(Unfit::Server));
    for time in [None, Some(0), Some(29)] {
        assert_eq!(lease(&|answer| answer.lease = time), Err(Unfit::Time));
    }
}

#[test]
fn times_are_those_of_the_server_where_they_are_in_order() {
    let times = |renewal, rebinding| {
        let lease = Lease::of(&Answer { renewal, rebinding, ..answer(Kind::Ack, &question()) }).unwrap();
        (lease.renewal, lease.rebinding)
    };
    assert_eq!(times(None, None), (1800, 3150));
    assert_eq!(times(Some(10), Some(20)), (10, 20));
    assert_eq!(times(Some(10), None), (10, 3150));
    assert_eq!(times(None, Some(3000)), (1800, 3000));
    let wrong = [(Some(4), Some(20)), (Some(20), Some(10)), (Some(10), Some(3600)), (Some(3200), None)];
    for (renewal, rebinding) in wrong.into_iter().chain([(None, Some(1000)), (Some(0), None)]) {
        assert_eq!(times(renewal, rebinding), (1800, 3150));
    }
}

#[test]
fn routes_are_classless_ones_or_the_router() {
    let routes = |router, classless: Option<Vec<(&str, &str)>>| {
        let classless_routes = classless
            .map(|routes| routes.iter().map(|(to, by)| (net(to), by.parse().unwrap())).collect::<Vec<_>>());
        let answer = Answer { router, classless_routes, ..answer(Kind::Ack, &question()) };
        let route = |route: &LeaseRoute| {
            let by = route.gateway.map_or_else(|| "link".to_owned(), |gateway| gateway.to_string());
            format!("{} {by}", route.destination)
        };
        Lease::of(&answer).unwrap().routes.iter().map(route).collect::<Vec<_>>()
    };
    assert_eq!(routes(Some(SERVER), None), ["0.0.0.0/0 10.78.0.2"]);
    assert_eq!(routes(None, None), [""; 0]);
    assert_eq!(routes(Some(SERVER), Some(vec![])), [""; 0]);
    let all = vec![
        ("169.254.169.254/32", "10.78.0.2"),
        ("10.80.0.0/16", "0.0.0.0"),
        ("0.0.0.0/1", "10.78.0.9"),
        // Each of these is wrong in its way; the last one is to a destination that there is a way to.
        ("127.0.0.0/8", "10.78.0.2"),
        ("224.0.0.0/4", "10.78.0.2"),
        ("10.81.0.0/16", "127.0.0.1"),
        ("10.82.0.0/16", "255.255.255.255"),
        ("10.83.0.0/16", "10.78.0.50"),
        ("10.80.0.0/16", "10.78.0.2"),
    ];
    let right = ["169.254.169.254/32 10.78.0.2", "10.80.0.0/16 link", "0.0.0.0/1 10.78.0.9"];
    assert_eq!(routes(Some(SERVER), Some(all)), right);
}

#[test]
fn an_mtu_that_ends_ipv6_is_left_out() {
    let mtu = |mtu| Lease::of(&Answer { mtu, ..answer(Kind::Ack, &question()) }).unwrap().mtu;
    assert_eq!((mtu(Some(1279)), mtu(Some(1280)), mtu(None)), (None, Some(1280), None));
}

/// As [`frame::to_servers`], the other way round.
fn to_client(message: &[u8]) -> Vec<u8> {
    let mut frame = frame::to_servers(OTHER_MAC, SERVER, message);
    frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
    frame
}

#[test]
fn frames_carry_messages() {
    let message = question().write();
    let frame = to_client(&message);
    assert_eq!(frame::from_server(&frame), Some(&message[..]));
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        edit(&mut frame);
        frame::from_server(&frame).map(<[u8]>::to_vec)
    };
    // Padded; without a sum; with the part of the sum that hardware would go on from.
    assert_eq!(with(&|frame| frame.extend([0; 9])), Some(message.clone()));
    assert_eq!(with(&|frame| frame[40..42].fill(0)), Some(message.clone()));
    let sum = amphora_netlink::Checksum::default()
        .over(&SERVER.octets())
        .over(&[255; 4])
        .over(&[0, 17])
        .over(&(8 + message.len() as u16).to_be_bytes());
    assert_eq!(with(&|frame| frame[40..42].copy_from_slice(&(!sum.finish()).to_be_bytes())), Some(message));
    for at in [12, 14, 23, 24, 25, 36, 37, 40, 60] {
        assert_eq!(with(&|frame| frame[at] ^= 1), None, "octet {at}");
    }
    for length in 0..frame.len() {
        assert_eq!(frame::from_server(&frame[..length]), None);
    }
}

#[test]
fn arp_is_read() {
    let probe = frame::arp_probe(MAC, ADDRESS);
    assert_eq!(frame::read_arp(&probe), Some(((MAC, Ipv4Addr::UNSPECIFIED), ADDRESS)));
    assert_eq!(frame::read_arp(&probe[..41]), None);
}
