//! What holds for every message and for every sequence of bytes.

use crate::messages::{PROTOCOL, message};
use ofctl::wire::{Framer, Header, Message, Protocol, StatsBody, StatsReply, decode, encode, error_reply};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_itself(message in message(), xid: u32) {
        let bytes = encode(PROTOCOL, xid, &message).unwrap();
        prop_assert_eq!(usize::from(Header::parse(&bytes).unwrap().length), bytes.len());
        prop_assert_eq!(decode(PROTOCOL, &bytes), Ok((xid, message)));
    }

    #[test]
    fn random_bytes_never_panic(kind in 0u8..24, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![1, kind, 0, 0, 0, 0, 0, 1];
        bytes.extend(body);
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let _ = decode(PROTOCOL, &bytes);
    }

    #[test]
    fn changed_bytes_never_panic(message in message(), changes in prop::collection::vec(any::<(usize, u8)>(), 1..4)) {
        let mut bytes = encode(PROTOCOL, 1, &message).unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Err(error) = decode(PROTOCOL, &bytes) {
            let reply = error_reply(error.code, &bytes);
            prop_assert!(reply.is_empty() || matches!(decode(Protocol::default(), &reply), Ok((_, Message::Error(_)))));
        }
    }

    #[test]
    fn truncations_never_panic(message in message(), keep: usize, patch: bool) {
        let mut bytes = encode(PROTOCOL, 1, &message).unwrap();
        bytes.truncate(keep % bytes.len());
        if patch && bytes.len() >= 8 {
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            let _ = decode(PROTOCOL, &bytes);
        } else {
            prop_assert!(decode(PROTOCOL, &bytes).is_err());
        }
    }

    #[test]
    fn a_framer_finds_the_messages_however_they_are_cut(
        messages in prop::collection::vec(message(), 1..5),
        cuts in prop::collection::vec(1usize..50, 1..50),
    ) {
        let encoded: Vec<Vec<u8>> = messages.iter().map(|m| encode(PROTOCOL, 9, m).unwrap()).collect();
        let stream = encoded.concat();
        let mut framer = Framer::new();
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(cut.min(rest.len()));
            framer.push(now);
            rest = later;
            while let Some(message) = framer.next_message().unwrap() {
                found.push(message.to_vec());
            }
        }
        prop_assert_eq!(found, encoded);
        prop_assert!(framer.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_long_reply_goes_in_parts(flows in prop::collection::vec(crate::messages::flow_entry(), 400..600)) {
        let body = StatsBody::Flow(ofctl::wire::FlowFormat::Nxm, flows.clone());
        let bytes = encode(PROTOCOL, 7, &Message::StatsReply(StatsReply { body, more: false })).unwrap();
        let mut framer = Framer::new();
        framer.push(&bytes);
        let (mut all, mut parts, mut last) = (Vec::new(), 0, false);
        while let Some(message) = framer.next_message().unwrap() {
            let (7, Message::StatsReply(StatsReply { body: StatsBody::Flow(_, part), more })) =
                decode(PROTOCOL, message).unwrap() else { panic!("another message") };
            prop_assert!(!last);
            last = !more;
            parts += 1;
            all.extend(part);
        }
        prop_assert!(last);
        prop_assert_eq!(parts > 1, bytes.len() > 65535);
        prop_assert_eq!(all, flows);
    }
}

#[test]
fn a_header_shorter_than_itself_ends_the_stream() {
    let mut framer = Framer::new();
    framer.push(&[1, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(framer.next_message().unwrap_err().to_string(), "received too-short ofp_header (7 bytes)");
}
