//! Our reading and printing of flows beside that of the installed `ovs-ofctl`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on had better panic")]

use std::process::Command as Process;

use ofctl::flow::Command;
use ofctl::port::NoNames;
use ofctl::print::write_flow_mod;
use ofctl::syntax::parse_flow;

/// What `parse-flow` says of a flow: its last line, or the error.
fn reference(text: &str) -> Result<String, String> {
    let output = Process::new("ovs-ofctl").args(["parse-flow", text]).output().unwrap();
    if output.status.success() {
        let stdout = String::from_utf8(output.stdout).unwrap();
        Ok(stdout.lines().last().unwrap().trim_end().to_owned())
    } else {
        let stderr = String::from_utf8(output.stderr).unwrap();
        // Log lines may come first.
        let error = stderr.lines().find_map(|line| line.strip_prefix("ovs-ofctl: "));
        Err(error.unwrap_or(&stderr).to_owned())
    }
}

fn ours(text: &str) -> Result<String, String> {
    let flow = parse_flow(text, Command::Add, &NoNames).map_err(|error| error.to_string())?;
    let mut line = String::new();
    write_flow_mod(&mut line, 1, &flow, &NoNames).unwrap();
    Ok(line)
}

/// Flow texts on which both agree, to the letter, on the flow or on the error.
const SAME: &str = include_str!("flows/same.txt");

/// Flow texts on which we differ by design, each with what we say.
const DIFFERENT: &str = include_str!("flows/different.txt");

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn flows_read_and_print_as_in_ovs() {
    if Process::new("ovs-ofctl").arg("--version").output().is_err() {
        eprintln!("ovs-ofctl is not installed: nothing to compare with");
        return;
    }
    let differences: Vec<String> = lines(SAME)
        .filter_map(|text| {
            let (ours, theirs) = (ours(text), reference(text));
            (ours != theirs).then(|| format!("{text}\n  ours:   {ours:?}\n  theirs: {theirs:?}"))
        })
        .collect();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn deviations_from_ovs() {
    let failures: Vec<String> = lines(DIFFERENT)
        .filter_map(|case| {
            let (text, expected) = case.split_once(" => ").unwrap();
            let said = ours(text).unwrap_or_else(|error| format!("error: {error}"));
            (said != expected).then(|| format!("{text}\n  said:     {said}\n  expected: {expected}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
