//! Frames: what a worker sends back. One final frame ends a command; progress may come before it.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{fault::Fault, json::Raw};

/// A frame on the caller's inbox, in MessagePack with named fields (so that versions may differ by
/// a field). It never starts with `{`, which tells it from JetStream's own JSON acknowledgements.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame<T> {
    /// MCP `notifications/progress` parameters.
    Progress(Raw),
    /// The end.
    Done(Result<T, Fault>),
}

impl<T: Serialize> Frame<T> {
    /// The bytes on the wire.
    pub fn encode(&self) -> Result<Bytes, Fault> {
        rmp_serde::to_vec_named(self).map(Bytes::from).map_err(Fault::internal)
    }
}

impl<T: DeserializeOwned> Frame<T> {
    /// Reads the bytes on the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        rmp_serde::from_slice(bytes).map_err(Fault::internal)
    }
}

/// True for the server's own JSON.
pub(super) fn is_acknowledgement(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

/// True where the server says, as it does for nearly every call, that a stream of calls took one in. It need not be
/// parsed.
pub(super) fn says_that_a_call_is_kept(bytes: &[u8]) -> bool {
    bytes.starts_with(br#"{"stream":"CALLS_"#)
}

/// True where it says so of the audit stream.
pub(super) fn says_that_a_record_is_kept(bytes: &[u8]) -> bool {
    bytes.starts_with(br#"{"stream":"AUDIT","#)
}

/// Which stream did not take something in, and why, if this is such a word.
pub(super) fn refusal(bytes: &[u8]) -> Option<(String, PublishError)> {
    let PublishAck { stream, error } = PublishAck::read(bytes)?;
    Some((stream, error?))
}

/// The progress that a frame tells of, if it is not the last.
pub(super) fn progress(bytes: &[u8]) -> Option<Raw> {
    // A map of one field (0x81) whose name has eight characters (0xa8): nearly every frame is the last.
    if !bytes.starts_with(b"\x81\xa8progress") {
        return None;
    }
    match Frame::<()>::decode(bytes) {
        Ok(Frame::Progress(params)) => Some(params),
        Ok(Frame::Done(_)) | Err(_) => None,
    }
}

/// The server's word on a stored message (JetStream publish acknowledgement).
#[derive(Clone, Debug, Deserialize)]
pub struct PublishAck {
    /// The stream that stored it.
    #[serde(default)]
    pub stream: String,
    /// Why it did not.
    #[serde(default)]
    pub error: Option<PublishError>,
}

/// Why the server stored nothing.
#[derive(Clone, Debug, Deserialize)]
pub struct PublishError {
    /// JetStream's own code, e.g. 10077: the subject's bound is reached.
    #[serde(default)]
    pub err_code: u32,
    /// For the log.
    #[serde(default)]
    pub description: String,
}

impl PublishAck {
    /// Reads an acknowledgement; frames are none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if is_acknowledgement(bytes) { serde_json::from_slice(bytes).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Code;

    #[test]
    fn a_frame_is_never_taken_for_an_acknowledgement() {
        let frames = [
            Frame::Progress(Raw::empty_object()),
            Frame::Done(Ok(7_u32)),
            Frame::Done(Err(Fault::new(Code::Timeout, "late"))),
        ];
        for frame in frames {
            let bytes = frame.encode().unwrap();
            assert!(PublishAck::read(&bytes).is_none());
            Frame::<u32>::decode(&bytes).unwrap();
        }
    }

    #[test]
    fn a_refusal_names_its_code() {
        let refused = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"},"stream":"CALLS_1","seq":0}"#;
        assert_eq!(PublishAck::read(refused).unwrap().error.unwrap().err_code, 10077);
        assert!(!says_that_a_call_is_kept(refused));
        assert!(!says_that_a_call_is_kept(br#"{"stream":"AUDIT","seq":7}"#));
        assert!(says_that_a_call_is_kept(br#"{"stream":"CALLS_1","seq":7}"#));
    }
}
