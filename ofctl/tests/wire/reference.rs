//! Our messages as the installed `ovs-ofctl` reads them, where there is one.

use std::process;

use crate::messages::{PROTOCOL, flow_mod, message, to_hex};
use ofctl::flow::{Command, DEFAULT_PRIORITY};
use ofctl::port::NoNames;
use ofctl::print::write_flow_mod;
use ofctl::wire::{ErrorCode, FlowFormat, Message, encode, flow_format};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What `ofp-print` makes of a message. None: there is no `ovs-ofctl` here, or it found that the random actions
/// do not suit the random match or message, which is not the codec's business.
fn reference(bytes: &[u8]) -> Option<String> {
    let output = process::Command::new("ovs-ofctl").args(["ofp-print", &to_hex(bytes)]).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let unsuited = ["OFPBAC_MATCH_INCONSISTENT", "OFPBIC_UNSUP_INST"];
    (!unsuited.iter().any(|code| text.contains(code))).then_some(text)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn every_message_makes_sense_to_open_vswitch() {
    runner(60)
        .run(&message(), |message| {
            let bytes = encode(PROTOCOL, 1, &message).unwrap();
            let unknown_to_3_1 = match &message {
                Message::Error(error) => matches!(error.code, ErrorCode::Unknown { .. }),
                Message::CtFlush(flush) => flush.mark.is_some() || flush.label.is_some(),
                _ => false,
            };
            if unknown_to_3_1 {
                return Ok(());
            }
            if let Some(text) = reference(&bytes) {
                prop_assert!(!text.contains("decode error"), "{text}");
                prop_assert!(text.contains("xid=0x1"), "{text}");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn flow_mods_read_as_they_print() {
    runner(60)
        .run(&flow_mod(), |mut flow| {
            // Without NXT_FLOW_MOD_TABLE_ID, which ofp-print takes for granted not to be in force.
            flow.table = None;
            if flow.command == Command::Delete {
                // Means nothing there, and is not printed.
                flow.priority = DEFAULT_PRIORITY;
            }
            let format = flow_format(&flow.matching, flow.cookie_mask);
            let bytes =
                encode(ofctl::wire::Protocol::default(), 1, &Message::FlowMod(format, flow.clone())).unwrap();
            if let Some(text) = reference(&bytes) {
                let mut ours = String::new();
                write_flow_mod(&mut ours, 1, &flow, &NoNames).unwrap();
                let body = |text: &str| text.trim_end().split_once(": ").map(|(_, body)| body.to_owned());
                let name = if format == FlowFormat::Nxm { "NXT_FLOW_MOD" } else { "OFPT_FLOW_MOD" };
                prop_assert!(text.starts_with(name), "{text}");
                prop_assert_eq!(body(&text), body(&ours));
            }
            Ok(())
        })
        .unwrap();
}
