//! JSON on a stream: requests back to back without delimiters, and long texts written piece by piece.

use std::io::{self, Write};
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

/// Why a byte stream cannot be decoded any further.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A message must start with `{`.
    #[error("expected a JSON object, found byte 0x{0:02x}")]
    NotAnObject(u8),
    /// The object is no JSON, or not the message expected.
    #[error("bad message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// No end in sight.
    #[error("message longer than {0} bytes")]
    TooLong(usize),
}

/// Cuts a byte stream into JSON objects and decodes each as a `T`.
///
/// Every byte is looked at once while the end of an object is sought, however the stream is cut into pieces.
/// After an error the stream has lost its framing: the decoder must not be used any further.
#[derive(Debug)]
pub struct Decoder<T> {
    buffer: Vec<u8>,
    /// How many bytes of the buffer `frame` has seen.
    scanned: usize,
    frame: Frame,
    limit: usize,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Decoder<T> {
    /// A decoder that refuses messages of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), scanned: 0, frame: Frame::default(), limit, message: PhantomData }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message; `None`: more bytes are needed.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn next_message(&mut self) -> Result<Option<T>, DecodeError> {
        if self.scanned == 0 {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.buffer.drain(..blank);
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(&byte) => return Err(DecodeError::NotAnObject(byte)),
            }
        }
        while let Some(&byte) = self.buffer.get(self.scanned) {
            if self.scanned == self.limit {
                return Err(DecodeError::TooLong(self.limit));
            }
            self.scanned += 1;
            if self.frame.ends_with(byte) {
                let message = serde_json::from_slice(&self.buffer[..self.scanned])?;
                self.buffer.drain(..self.scanned);
                self.scanned = 0;
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

/// Where the scan is inside an object. It follows brackets and strings only; whether what lies between is
/// JSON is for the parser to say.
#[derive(Debug, Default)]
struct Frame {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Frame {
    /// Takes the next byte; whether it ends the object.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// Writes a text as the inside of a JSON string, without the quotes. Pieces written one after the other make
/// one string.
///
/// # Errors
/// The writer's.
pub fn escape(text: &str, out: &mut impl Write) -> io::Result<()> {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x00..=0x1f => b'u',
            _ => continue,
        };
        out.write_all(&text.as_bytes()[plain..at])?;
        plain = at + 1;
        if short == b'u' {
            write!(out, "\\u{byte:04x}")?;
        } else {
            out.write_all(&[b'\\', short])?;
        }
    }
    out.write_all(&text.as_bytes()[plain..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::message::Request;

    fn decode_all(decoder: &mut Decoder<Value>, bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
        decoder.push(bytes);
        let mut messages = Vec::new();
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn messages_back_to_back_with_blanks_between() {
        let mut decoder = Decoder::new(100);
        let messages = decode_all(&mut decoder, b" {\"a\":1}{\"b\":[{}]}\n\t{\"c\":\"}\\\"{\"} {").unwrap();
        assert_eq!(messages, [json!({"a": 1}), json!({"b": [{}]}), json!({"c": "}\"{"})]);
        assert_eq!(decode_all(&mut decoder, b"}").unwrap(), [json!({})]);
    }

    #[test]
    fn garbage_is_named() {
        let error = |bytes: &[u8]| decode_all(&mut Decoder::new(10), bytes).unwrap_err().to_string();
        assert_eq!(error(b"GET /"), "expected a JSON object, found byte 0x47");
        assert_eq!(error(b"  \xff"), "expected a JSON object, found byte 0xff");
        assert_eq!(error(b"{}[]"), "expected a JSON object, found byte 0x5b");
        assert_eq!(error(b"{]"), "bad message: key must be a string at line 1 column 2");
        assert_eq!(error(b"{\"a\":12345}"), "message longer than 10 bytes");
        assert_eq!(error(b"{\"\xff\":1}"), "bad message: invalid unicode code point at line 1 column 3");
    }

    #[test]
    fn a_message_of_just_the_limit_passes() {
        assert_eq!(decode_all(&mut Decoder::new(7), b"{\"a\":1}").unwrap(), [json!({"a": 1})]);
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let mut bytes = b"{\"a\":".to_vec();
        bytes.extend([b'['; 10_000]);
        bytes.extend([b']'; 10_000]);
        bytes.push(b'}');
        let error = decode_all(&mut Decoder::new(1 << 20), &bytes).unwrap_err().to_string();
        assert!(error.starts_with("bad message: recursion limit exceeded"), "{error}");
    }

    #[test]
    fn requests_are_strict() {
        let parse = |text: &str| serde_json::from_str::<Request>(text);
        let version =
            Request { id: json!("x"), method: "version".into(), params: vec![json!("a"), json!(1)] };
        assert_eq!(parse(r#"{"params":["a",1],"id":"x","method":"version"}"#).unwrap(), version);
        assert!(parse(r#"{"id":0,"method":"version"}"#).is_err());
        assert!(parse(r#"{"method":"version","params":[]}"#).is_err());
        assert!(parse(r#"{"id":0,"method":"version","params":{}}"#).is_err());
        assert!(parse(r#"{"id":0,"method":"version","params":[],"more":1}"#).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_cut_of_a_stream_gives_the_same_messages(
            bodies in prop::collection::vec(any_json(), 0..4),
            cuts in prop::collection::vec(1_usize..20, 1..8),
        ) {
            let messages: Vec<Value> = bodies.into_iter().map(|body| json!({ "x": body })).collect();
            let stream: Vec<u8> = messages.iter().flat_map(|m| m.to_string().into_bytes()).collect();
            let mut decoder = Decoder::new(stream.len() + 1);
            let mut decoded = Vec::new();
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                decoded.extend(decode_all(&mut decoder, piece).unwrap());
                rest = tail;
            }
            prop_assert_eq!(decoded, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_all(&mut Decoder::new(16), &bytes);
        }

        #[test]
        fn escaped_text_reads_back(pieces: Vec<String>) {
            let mut out = b"\"".to_vec();
            for piece in &pieces {
                escape(piece, &mut out).unwrap();
            }
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), pieces.concat());
        }
    }
}
