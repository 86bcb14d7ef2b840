//! The outermost grammar, shared by flows and by the arguments of actions: keys with or without values,
//! separated by commas and blanks.
//!
//! A value after `=` or `:` ends at a separator outside parentheses; one in parentheses ends where they close.

use nom::branch::alt;
use nom::bytes::complete::{is_a, is_not, take_while};
use nom::character::complete::{char, one_of};
use nom::combinator::{eof, opt, peek, recognize, value};
use nom::multi::many0_count;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

const SEPARATORS: &str = ", \t\r\n";

/// A key, and the value if there is one: `tcp`, `priority=5`, `output:1`, `ct(commit)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub key: &'a str,
    pub value: Option<&'a str>,
}

impl<'a> Item<'a> {
    /// The value, empty where there is none.
    pub fn argument(&self) -> &'a str {
        self.value.unwrap_or_default()
    }
}

/// What the grammar itself can refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrammarError<'a> {
    /// A parenthesis is not closed: the text from the key on.
    Unbalanced(&'a str),
    /// Something follows a closing parenthesis without a separator.
    TrailingText(&'a str),
}

/// The items of a text, in order. Ends after the first error.
pub struct Items<'a> {
    rest: &'a str,
}

impl<'a> Items<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Skips separators; what is left is a key, or nothing.
    fn skip_separators(&mut self) {
        self.rest = self.rest.trim_start_matches(|c| SEPARATORS.contains(c));
    }

    /// Takes one more `+flag` or `-flag` item that continues a list of flags: `ct_state=+trk,+new`.
    pub fn continued_flag(&mut self) -> Option<&'a str> {
        self.skip_separators();
        let flag: IResult<&str, &str> = preceded(peek(one_of("+-")), is_not(SEPARATORS)).parse(self.rest);
        let (rest, flag) = flag.ok()?;
        self.rest = rest;
        Some(flag)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, GrammarError<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_separators();
        let start = std::mem::take(&mut self.rest);
        if start.is_empty() {
            return None;
        }
        let Ok((rest, item)) = item(start) else {
            return Some(Err(GrammarError::Unbalanced(start)));
        };
        if end_of_item(rest).is_err() {
            return Some(Err(GrammarError::TrailingText(rest)));
        }
        self.rest = rest;
        Some(Ok(item))
    }
}

/// Where the actions of a flow start: the text before `actions=` or `action=`, and the text after it. As in OVS, nothing
/// need separate the two.
pub fn split_actions(text: &str) -> Option<(&str, &str)> {
    text.match_indices("action").map(|(at, _)| at).find_map(|at| {
        let after = &text[at + "action".len()..];
        let actions = after.strip_prefix('s').unwrap_or(after).strip_prefix('=')?;
        Some((&text[..at], actions))
    })
}

fn item(text: &str) -> IResult<&str, Item<'_>> {
    let key = take_while(|c| !":=(".contains(c) && !SEPARATORS.contains(c));
    let plain =
        preceded(one_of(":="), recognize(many0_count(alt((recognize(parenthesised), is_not(", \t\r\n("))))));
    let (rest, (key, value)) = (key, opt(alt((plain, parenthesised)))).parse(text)?;
    // An opening parenthesis that nothing closes stands where a separator should.
    if rest.starts_with('(') {
        return Err(nom::Err::Failure(nom::error::Error::new(rest, nom::error::ErrorKind::Char)));
    }
    Ok((rest, Item { key, value }))
}

/// What is between a parenthesis and the one that closes it.
fn parenthesised(text: &str) -> IResult<&str, &str> {
    let inside = recognize(many0_count(alt((is_not("()"), recognize(parenthesised)))));
    delimited(char('('), inside, char(')')).parse(text)
}

/// A closing parenthesis without an opening one is an item of its own, so that it is named as unknown.
fn end_of_item(rest: &str) -> IResult<&str, ()> {
    alt((value((), eof), value((), peek(is_a(SEPARATORS))), value((), peek(char(')'))))).parse(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, Option<&str>)> {
        Items::new(text).map(|item| item.unwrap()).map(|item| (item.key, item.value)).collect()
    }

    #[test]
    fn keys_and_values() {
        assert_eq!(
            split(" tcp, priority=5\ttable:3"),
            [("tcp", None), ("priority", Some("5")), ("table", Some("3"))]
        );
        assert_eq!(
            split("ct(commit,nat(src=1.2.3.4)),output:reg0[0..3]"),
            [("ct", Some("commit,nat(src=1.2.3.4)")), ("output", Some("reg0[0..3]"))]
        );
        assert_eq!(split("reg0[0..7]=,resubmit(,1)"), [("reg0[0..7]", Some("")), ("resubmit", Some(",1"))]);
        assert_eq!(split(" ,, "), []);
    }

    #[test]
    fn what_is_not_balanced() {
        let last = |text| Items::new(text).last().unwrap();
        assert_eq!(last("1,ct(commit,nat(src)"), Err(GrammarError::Unbalanced("ct(commit,nat(src)")));
        assert_eq!(last("ct(commit)output:1"), Err(GrammarError::TrailingText("output:1")));
        assert_eq!(last("ct(commit))"), Ok(Item { key: ")", value: None }));
    }

    #[test]
    fn actions_are_the_rest() {
        assert_eq!(split_actions("tcp actions=1,2"), Some(("tcp ", "1,2")));
        assert_eq!(split_actions("action=drop"), Some(("", "drop")));
        assert_eq!(split_actions("ip_frag=firstactions=1"), Some(("ip_frag=first", "1")));
        assert_eq!(split_actions("tcp,actions:drop"), None);
    }
}
