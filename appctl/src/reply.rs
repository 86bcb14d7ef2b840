//! Replies: written while the result is made, read while it arrives.
//!
//! A reply (`{"id":0,"result":"...","error":null}`, or `{"id":0,"error":"..."}`) may hold hundreds of megabytes
//! of result text. Neither side ever holds it: the server escapes piece by piece, the client unescapes straight
//! into its output.

use std::io::{self, BufRead, Write};

use serde_json::Value;

use crate::codec::escape;

/// Writes one reply, piece by piece.
#[derive(Debug)]
pub struct ReplyEncoder {
    id: Value,
    /// A piece of the result has been written.
    started: bool,
    /// The last piece of the result ended in a line break.
    line_ended: bool,
}

impl ReplyEncoder {
    /// A reply to the request with this id.
    #[must_use]
    pub fn new(id: Value) -> Self {
        Self { id, started: false, line_ended: true }
    }

    /// Adds a piece of the result.
    ///
    /// # Errors
    /// The writer's.
    pub fn result(&mut self, text: &str, out: &mut impl Write) -> io::Result<()> {
        if !self.started {
            self.started = true;
            write!(out, "{{\"id\":{},\"result\":\"", self.id)?;
        }
        if let Some(last) = text.bytes().last() {
            self.line_ended = last == b'\n';
        }
        escape(text, out)
    }

    /// Ends the reply, with an error text or as a success. As in OVS a missing last line break is supplied.
    ///
    /// An error after a part of the result has gone out leaves both in the reply. OVS's clients take that for
    /// a broken reply, ours prints both; either way the user sees that the result is not whole.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self, error: Option<&str>, out: &mut impl Write) -> io::Result<()> {
        let Some(error) = error else {
            let missing = if self.line_ended { "" } else { "\n" };
            self.result(missing, out)?;
            return out.write_all(b"\",\"error\":null}");
        };
        if self.started {
            out.write_all(b"\"")?;
        } else {
            write!(out, "{{\"id\":{}", self.id)?;
        }
        out.write_all(b",\"error\":\"")?;
        escape(error, out)?;
        let missing = if error.is_empty() || error.ends_with('\n') { "" } else { "\n" };
        escape(missing, out)?;
        out.write_all(b"\"}")
    }
}

/// Why a reply could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The connection failed, or ended in the middle.
    #[error("{0}")]
    Input(#[source] io::Error),
    /// The output failed.
    #[error("{0}")]
    Output(#[source] io::Error),
    /// This is no reply.
    #[error("malformed reply")]
    Malformed,
}

/// Reads one reply. The result text goes to `out`, flushed whenever the input runs dry; the error text, if
/// there is one, is returned. A server that fails half-way sends both.
///
/// # Errors
/// See [`ReplyError`]; a part of the result may have been written.
pub fn read_reply(input: &mut impl BufRead, out: &mut impl Write) -> Result<Option<String>, ReplyError> {
    let mut error = None;
    expect(input, b'{')?;
    loop {
        expect(input, b'"')?;
        let key = string(input)?;
        expect(input, b':')?;
        match (key.as_str(), next_token(input)?) {
            ("result", b'"') => unescape(input, out)?,
            ("error", b'"') => error = Some(string(input)?),
            (_, b'"') => unescape(input, &mut io::sink())?,
            (_, first) => skip_scalar(input, first)?,
        }
        match next_token(input)? {
            b',' => {}
            b'}' => return Ok(error),
            _ => return Err(ReplyError::Malformed),
        }
    }
}

/// Skips blanks and takes the byte after them.
fn next_token(input: &mut impl BufRead) -> Result<u8, ReplyError> {
    loop {
        let byte = next_byte(input)?;
        if !byte.is_ascii_whitespace() {
            return Ok(byte);
        }
    }
}

fn expect(input: &mut impl BufRead, wanted: u8) -> Result<(), ReplyError> {
    if next_token(input)? == wanted { Ok(()) } else { Err(ReplyError::Malformed) }
}

fn next_byte(input: &mut impl BufRead) -> Result<u8, ReplyError> {
    let byte = filled(input)?[0];
    input.consume(1);
    Ok(byte)
}

/// The bytes at hand, at least one; the end of the input is an error.
fn filled(input: &mut impl BufRead) -> Result<&[u8], ReplyError> {
    match input.fill_buf() {
        Ok([]) => Err(ReplyError::Input(io::ErrorKind::UnexpectedEof.into())),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(ReplyError::Input(error)),
    }
}

/// Skips a number, `null`, `true` or `false` that starts with `first`.
fn skip_scalar(input: &mut impl BufRead, first: u8) -> Result<(), ReplyError> {
    let part_of_scalar = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !part_of_scalar(first) {
        return Err(ReplyError::Malformed);
    }
    while part_of_scalar(filled(input)?[0]) {
        input.consume(1);
    }
    Ok(())
}

/// The rest of a string whose opening quote has been taken.
fn string(input: &mut impl BufRead) -> Result<String, ReplyError> {
    let mut bytes = Vec::new();
    unescape(input, &mut bytes)?;
    String::from_utf8(bytes).map_err(|_| ReplyError::Malformed)
}

/// Writes the rest of a string whose opening quote has been taken.
fn unescape(input: &mut impl BufRead, out: &mut impl Write) -> Result<(), ReplyError> {
    loop {
        let bytes = filled(input)?;
        let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let plain = end.unwrap_or(bytes.len());
        out.write_all(&bytes[..plain]).map_err(ReplyError::Output)?;
        let at_end = end.map(|at| bytes[at]);
        let consumed = plain + usize::from(end.is_some());
        let left = bytes.len() - consumed;
        input.consume(consumed);
        let dry = match at_end {
            Some(b'"') => return Ok(()),
            Some(_) => unescape_one(input, out)? >= left,
            None => true,
        };
        // Before waiting for more, show what there is: the result may be a live report.
        if dry {
            out.flush().map_err(ReplyError::Output)?;
        }
    }
}

/// Writes the character that an escape sequence stands for; its backslash has been taken. Returns the length of what
/// it takes.
fn unescape_one(input: &mut impl BufRead, out: &mut impl Write) -> Result<usize, ReplyError> {
    let mut length = 1;
    let character = match next_byte(input)? {
        same @ (b'"' | b'\\' | b'/') => char::from(same),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let character = unescape_unicode(input)?;
            length += 4 + if character > '\u{ffff}' { 6 } else { 0 };
            character
        }
        _ => return Err(ReplyError::Malformed),
    };
    let mut utf8 = [0; 4];
    out.write_all(character.encode_utf8(&mut utf8).as_bytes()).map_err(ReplyError::Output)?;
    Ok(length)
}

/// The character of `\uXXXX`, or of the surrogate pair `\uXXXX\uXXXX`; the first `\u` has been taken.
fn unescape_unicode(input: &mut impl BufRead) -> Result<char, ReplyError> {
    let high = hex4(input)?;
    let code = match high {
        0xd800..=0xdbff => {
            if (next_byte(input)?, next_byte(input)?) != (b'\\', b'u') {
                return Err(ReplyError::Malformed);
            }
            let low = hex4(input)?.checked_sub(0xdc00).filter(|low| *low < 0x400);
            0x10000 + ((high - 0xd800) << 10) + low.ok_or(ReplyError::Malformed)?
        }
        _ => high,
    };
    char::from_u32(code).ok_or(ReplyError::Malformed)
}

fn hex4(input: &mut impl BufRead) -> Result<u32, ReplyError> {
    (0..4).try_fold(0, |code, _| {
        let digit = char::from(next_byte(input)?).to_digit(16).ok_or(ReplyError::Malformed)?;
        Ok(code << 4 | digit)
    })
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// Result text, error text.
    fn read(reply: &[u8], buffer: usize) -> Result<(String, Option<String>), ReplyError> {
        let mut out = Vec::new();
        let error = read_reply(&mut BufReader::with_capacity(buffer, reply), &mut out)?;
        Ok((String::from_utf8(out).unwrap(), error))
    }

    #[test]
    fn results_and_errors() {
        let ok = br#"{"id":0,"result":"a\n\"b\"\t\\\/\u00e9\ud83d\ude00","error":null}"#;
        assert_eq!(read(ok, 64).unwrap(), ("a\n\"b\"\t\\/\u{e9}\u{1f600}".to_owned(), None));
        let refused = br#" { "error" : "no\n" , "id" : "x" } "#;
        assert_eq!(read(refused, 3).unwrap(), (String::new(), Some("no\n".to_owned())));
        let halfway = br#"{"id":-1.5e+3,"result":"half","error":"gone"}"#;
        assert_eq!(read(halfway, 1).unwrap(), ("half".to_owned(), Some("gone".to_owned())));
    }

    /// Gives its pieces one by one, each only when all of the text before it has been shown.
    struct Live<'a> {
        pieces: Vec<(&'static str, &'static str)>,
        shown: &'a std::cell::RefCell<String>,
        wanted: String,
    }

    impl io::Read for Live<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert_eq!(*self.shown.borrow(), self.wanted);
            if self.pieces.is_empty() {
                return Ok(0);
            }
            let (piece, text) = self.pieces.remove(0);
            self.wanted.push_str(text);
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    /// Shows what was written when it is flushed.
    struct Screen<'a>(Vec<u8>, &'a std::cell::RefCell<String>);

    impl Write for Screen<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.1.borrow_mut().push_str(&String::from_utf8(std::mem::take(&mut self.0)).unwrap());
            Ok(())
        }
    }

    #[test]
    fn what_has_arrived_is_shown_before_more_is_waited_for() {
        let shown = std::cell::RefCell::default();
        let pieces = vec![
            (r#"{"id":0,"result":"#, ""),
            (r#""a line\n"#, "a line\n"),
            (r"half", "half"),
            (r" a line\n\u00e9", " a line\n\u{e9}"),
            (r"\ud83d\ude00", "\u{1f600}"),
            (r#"","error":null}"#, ""),
        ];
        let live = Live { pieces, shown: &shown, wanted: String::new() };
        let error = read_reply(&mut BufReader::new(live), &mut Screen(Vec::new(), &shown)).unwrap();
        assert_eq!(error, None);
        assert_eq!(*shown.borrow(), "a line\nhalf a line\n\u{e9}\u{1f600}");
    }

    fn encode(pieces: &[&str], error: Option<&str>) -> String {
        let mut out = Vec::new();
        let mut encoder = ReplyEncoder::new(Value::from(7));
        for piece in pieces {
            encoder.result(piece, &mut out).unwrap();
        }
        encoder.finish(error, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_look_like_those_of_ovs() {
        assert_eq!(encode(&[], None), r#"{"id":7,"result":"","error":null}"#);
        assert_eq!(encode(&["a\n\"", "b"], None), r#"{"id":7,"result":"a\n\"b\n","error":null}"#);
        assert_eq!(encode(&["a\n", ""], None), r#"{"id":7,"result":"a\n","error":null}"#);
        assert_eq!(encode(&[], Some("no")), r#"{"id":7,"error":"no\n"}"#);
        assert_eq!(encode(&[], Some("no\n")), r#"{"id":7,"error":"no\n"}"#);
        assert_eq!(encode(&["ha"], Some("gone")), r#"{"id":7,"result":"ha","error":"gone\n"}"#);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in [
            "garbage",
            "[]",
            r#"{"result":"\x"}"#,
            r#"{"result":"\ud800x"}"#,
            r#"{"result":"\ud800\u0041"}"#,
            r#"{"result":"\udc00"}"#,
            r#"{"result":"\u12g4"}"#,
            r#"{"result":["a"]}"#,
            r#"{"result" "a"}"#,
            r#"{"result":"a" "b"}"#,
        ] {
            assert!(matches!(read(bad.as_bytes(), 8), Err(ReplyError::Malformed)), "{bad}");
        }
    }

    #[test]
    fn an_end_in_the_middle_is_an_input_error() {
        let whole = br#"{"id":0,"result":"a\u00e9","error":null}"#;
        for cut in 0..whole.len() {
            let Err(ReplyError::Input(error)) = read(&whole[..cut], 8) else { panic!("cut at {cut}") };
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    proptest! {
        #[test]
        fn any_reply_reads_back_through_any_buffer(
            pieces: Vec<String>,
            error: Option<String>,
            buffer in 1_usize..16,
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let reply = encode(&pieces, error.as_deref());
            prop_assert!(serde_json::from_str::<Value>(&reply).is_ok());
            let line = |text: String| {
                if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" }
            };
            let result = if error.is_some() { pieces.concat() } else { line(pieces.concat()) };
            prop_assert_eq!(read(reply.as_bytes(), buffer).unwrap(), (result, error.map(line)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, 4);
        }
    }
}
