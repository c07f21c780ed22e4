//! What says whom we talk to, and as whom.

use sha2::{Digest, Sha256};
use shared::{
    command::configurations::{Credential, Transport, Via},
    id::{ConfigurationId, OrganizationId, SessionId},
};
use url::Url;

/// Where an MCP server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// At the other end of HTTP.
    Endpoint(Url),
    /// In the stdio mode of the `FastMCP` service, which starts it for us.
    Program {
        /// Its name in the operator's catalogue.
        catalogue: String,
        /// Its directory, `<organization>/<member or _>/<configuration>-<generation>` or
        /// `<organization>/<member>/<session>`: each segment 1 to 64 of `A-Z a-z 0-9 _ -`.
        workspace: String,
        /// Whether the directory is a session's, which was brought before: another would be empty.
        is_kept: bool,
    },
}

impl Target {
    /// Where it is over HTTP; a program is nowhere.
    pub const fn endpoint(&self) -> Option<&Url> {
        if let Self::Endpoint(url) = self { Some(url) } else { None }
    }

    /// Kind and fields, so that no two targets read the same.
    fn parts(&self) -> [&[u8]; 3] {
        match self {
            Self::Endpoint(url) => [b"endpoint", url.as_str().as_bytes(), b""],
            Self::Program { catalogue, workspace, is_kept } => {
                let kind: &[u8] = if *is_kept { b"kept program" } else { b"program" };
                [kind, catalogue.as_bytes(), workspace.as_bytes()]
            }
        }
    }
}

/// Everything needed to reach one MCP server on behalf of one tenant.
#[derive(Clone, Debug)]
pub struct Specification {
    /// The tenant.
    pub organization: OrganizationId,
    /// The configuration.
    pub configuration: ConfigurationId,
    /// Its generation: a changed configuration is another server.
    pub generation: i64,
    /// The session whose client it is; `None` for the one of all calls outside of sessions.
    pub session: Option<SessionId>,
    /// Where the server is.
    pub target: Target,
    /// How it is reached.
    pub transport: Transport,
    /// Which client speaks to it; legacy SSE always goes through the `FastMCP` service.
    pub via: Via,
    /// How we authenticate.
    pub credential: Credential,
}

impl Specification {
    /// SHA-256 over all that decides whom we talk to and as whom. Fields are length-prefixed, so
    /// that no two specifications read the same.
    pub(super) fn digest(&self) -> [u8; 32] {
        let credential: [&[u8]; 3] = match &self.credential {
            Credential::None => [b"none", b"", b""],
            Credential::Bearer(token) => [b"bearer", b"", token.reveal().as_bytes()],
            Credential::Header { name, value } => [b"header", name.as_bytes(), value.reveal().as_bytes()],
        };
        let target = self.target.parts();
        let session: &[u8] = self.session.as_ref().map_or(b"", |session| session.0.as_bytes());
        let fields: [&[u8]; 12] = [
            self.organization.0.as_bytes(),
            self.configuration.0.as_bytes(),
            &self.generation.to_be_bytes(),
            session,
            target[0],
            target[1],
            target[2],
            self.transport.name().as_bytes(),
            self.via.name().as_bytes(),
            credential[0],
            credential[1],
            credential[2],
        ];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}
