//! Workspaces of sessions on the host of programs (`fastmcp/README.md`, "Workspaces of sessions"): a
//! directory is brought to what the session's files are, and what a program changed is taken from it.
//! What is there is recognised by a digest of all of it, so that nothing needs to be remembered of what
//! earlier calls came to.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::{
    Deadline, Fault, hex,
    id::{OrganizationId, SessionId},
};
use uuid::Uuid;

use super::{COURTESY, Service, answer};
use crate::upstream::within;

/// The host of programs, as the keeper of workspaces.
#[derive(Clone, Debug)]
pub struct Workspaces(Service);

/// A file as both sides name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Names with slashes between them.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// What a workspace may hold.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of one.
    pub file_bytes: u64,
}

/// What a program left in a workspace.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Collected {
    /// More than it may hold: `files`, `bytes`, or one `file`. Nothing was taken.
    Excess {
        /// What there is too much of.
        excess: String,
        /// The file that is too large.
        path: Option<String>,
    },
    /// What differs from what was brought.
    Changes {
        /// Files that are new or others.
        changed: Vec<Known>,
        /// Paths where no file is any more.
        removed: Vec<String>,
        /// What is no file.
        skipped: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Brought {
    current: bool,
    missing: Vec<String>,
}

impl Workspaces {
    pub(in crate::upstream) const fn of(service: Service) -> Self {
        Self(service)
    }

    /// A turn at a workspace, for whoever holds its lease.
    pub fn turn(&self, workspace: String, holder: Uuid, deadline: Deadline) -> Turn {
        Turn { service: self.0.clone(), workspace, holder: holder.simple().to_string(), deadline }
    }

    /// Ends everything in a session's workspace and removes it.
    pub async fn drop_session(&self, organization: OrganizationId, session: SessionId) -> Result<(), Fault> {
        let body = json!({ "organization": organization, "session": session }).to_string().into_bytes();
        within(Deadline::after(COURTESY), async {
            answer::whole(self.0.post("/workspaces/drop", body, "-").await?).await.map(drop)
        })
        .await
    }
}

/// A turn at a workspace.
#[derive(Clone, Debug)]
pub struct Turn {
    service: Service,
    workspace: String,
    holder: String,
    deadline: Deadline,
}

impl Turn {
    /// Names it; in hexadecimal digits.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Begins the turn. Answers the paths of files that are to be [`put`](Self::put).
    pub async fn bring(&self, files: &[Known]) -> Result<Vec<String>, Fault> {
        let digest = digest(files);
        let Brought { current, .. } = self.ask("/workspaces/bring", json!({ "digest": digest })).await?;
        if current {
            return Ok(Vec::new());
        }
        let Brought { missing, .. } =
            self.ask("/workspaces/bring", json!({ "digest": digest, "files": files })).await?;
        Ok(missing)
    }

    /// Brings a piece of a missing file, in order.
    pub async fn put(&self, path: &str, offset: u64, piece: &Bytes) -> Result<(), Fault> {
        let head = self.body(json!({ "path": path, "offset": offset, "size": piece.len() }));
        let mut body = BytesMut::with_capacity(head.len() + 1 + piece.len());
        body.put_slice(&head);
        body.put_u8(b'\n');
        body.put_slice(piece);
        self.post("/workspaces/put", body.into()).await.map(drop)
    }

    /// What the program left.
    pub async fn collect(&self, most: Most) -> Result<Collected, Fault> {
        let Most { files, bytes, file_bytes } = most;
        let most = json!({ "max_files": files, "max_bytes": bytes, "max_file_bytes": file_bytes });
        self.ask("/workspaces/collect", most).await
    }

    /// A piece of a file that was collected.
    pub async fn get(&self, path: &str, offset: u64, size: usize) -> Result<Bytes, Fault> {
        let body = self.body(json!({ "path": path, "offset": offset, "size": size }));
        let piece = self.post("/workspaces/get", body).await?;
        if piece.len() == size { Ok(piece) } else { Err(Fault::internal("a collected file is shorter than told")) }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &'static str, fields: serde_json::Value) -> Result<T, Fault> {
        let answer = self.post(path, self.body(fields)).await?;
        serde_json::from_slice(&answer).map_err(Fault::internal)
    }

    fn body(&self, mut fields: serde_json::Value) -> Vec<u8> {
        fields["workspace"] = self.workspace.as_str().into();
        fields["holder"] = self.holder.as_str().into();
        fields.to_string().into_bytes()
    }

    async fn post(&self, path: &'static str, body: Vec<u8>) -> Result<Bytes, Fault> {
        within(self.deadline, async { answer::whole(self.service.post(path, body, "-").await?).await }).await
    }
}

/// SHA-256 over the lines `<sha256> <size> <path>`, by path, each ended by a NUL.
fn digest(files: &[Known]) -> String {
    let mut files: Vec<&Known> = files.iter().collect();
    files.sort_unstable_by(|one, other| one.path.as_bytes().cmp(other.path.as_bytes()));
    let mut hash = Sha256::new();
    for Known { path, size, sha256 } in files {
        hash.update(format!("{sha256} {size} {path}\0"));
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_that_the_host_computes() {
        let known = |path: &str, content: &str| Known {
            path: path.to_owned(),
            size: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
        };
        assert_eq!(digest(&[]), hex(&Sha256::digest("")));
        // The same as in `fastmcp/tests/test_workspaces.py`.
        let files = [known("b/c", "x"), known("é", ""), known("a", "xy")];
        assert_eq!(digest(&files), "5a15c4a07b57cd1f3cdf9052bda12d869c6b60c5cbe71e2e5381349af2ef2654");
    }

    #[test]
    fn what_is_too_much_and_what_changed_are_told_apart() {
        let read = |text: &str| serde_json::from_str::<Collected>(text).unwrap();
        assert!(matches!(read(r#"{"excess":"file","path":"a"}"#), Collected::Excess { path: Some(_), .. }));
        assert!(matches!(read(r#"{"excess":"bytes","path":null}"#), Collected::Excess { path: None, .. }));
        assert!(matches!(read(r#"{"changed":[],"removed":["a"],"skipped":[]}"#), Collected::Changes { .. }));
    }
}
