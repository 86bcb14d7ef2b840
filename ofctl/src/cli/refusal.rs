//! How a switch's refusal is shown: the error, and the message that it is about.

use std::fmt::Write;

use ofctl::port::NoNames;
use ofctl::print::write_flow_mod;
use ofctl::wire::{self, ErrorCode, ErrorMessage, Header, Message, Protocol, Xid};

/// What a code does not say by itself to whoever wrote the flow.
fn hint(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::ActionBadType => {
            Some("(the switch cannot do one of these actions, or not in this way; its log says which)")
        }
        _ => None,
    }
}

/// Two lines as OVS prints them; a dump of the bytes follows where they make no sense to us either.
pub fn describe(protocol: Protocol, xid: Xid, error: &ErrorMessage) -> String {
    let mut text = format!("OFPT_ERROR (xid={xid:#x}): {}\n", error.code);
    let Some(header) = Header::parse(&error.data) else { return text };
    let decoded = wire::decode(protocol, &error.data);
    if let Ok((xid, Message::FlowMod(_, flow))) = &decoded {
        // Writing to a string cannot fail.
        let _ = write_flow_mod(&mut text, *xid, flow, &NoNames);
        text.push('\n');
        if let Some(hint) = hint(error.code) {
            let _ = writeln!(text, "{hint}");
        }
        return text;
    }
    let name = name(header.kind, &error.data);
    let _ = write!(text, "{name} (xid={:#x}):", header.xid);
    if error.data.len() < usize::from(header.length) {
        let _ = writeln!(text, "\n(***truncated to {} bytes from {}***)", error.data.len(), header.length);
        dump(&mut text, &error.data);
        return text;
    }
    match decoded {
        Ok(_) => text.push('\n'),
        Err(wrong) => {
            let _ = writeln!(text, " ***decode error: {}***", wrong.code);
            dump(&mut text, &error.data);
        }
    }
    text
}

/// What OpenFlow calls a message that the tool sends.
fn name(kind: u8, bytes: &[u8]) -> &'static str {
    match kind {
        0 => "OFPT_HELLO",
        4 => match bytes.get(12..16) {
            Some([0, 0, 0, 12]) => "NXT_SET_FLOW_FORMAT",
            Some([0, 0, 0, 13]) => "NXT_FLOW_MOD",
            Some([0, 0, 0, 15]) => "NXT_FLOW_MOD_TABLE_ID",
            Some([0, 0, 0, 29]) => "NXT_CT_FLUSH_ZONE",
            Some([0, 0, 0, 32]) => "NXT_CT_FLUSH",
            _ => "OFPT_VENDOR",
        },
        5 => "OFPT_FEATURES_REQUEST",
        7 => "OFPT_GET_CONFIG_REQUEST",
        14 => "OFPT_FLOW_MOD",
        16 => "OFPT_STATS_REQUEST",
        18 => "OFPT_BARRIER_REQUEST",
        _ => "message",
    }
}

/// Sixteen bytes a line: offset, hexadecimal, text.
fn dump(text: &mut String, bytes: &[u8]) {
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "{:08x} ", line * 16);
        for column in 0..16 {
            let before = if column == 8 { '-' } else { ' ' };
            match chunk.get(column) {
                Some(byte) => {
                    let _ = write!(text, "{before}{byte:02x}");
                }
                None => text.push_str("   "),
            }
        }
        let printable = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let _ = writeln!(text, " |{:<16}|", chunk.iter().map(printable).collect::<String>());
    }
}
