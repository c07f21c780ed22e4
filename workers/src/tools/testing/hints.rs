//! What a person can do about a trial that ended early.

use shared::{
    Code, Fault,
    command::configurations::{Credential, Stage, Transport},
};

use crate::{egress::Refused, upstream::Specification};

/// About an address that may not be connected to.
pub(super) const fn of_address(refused: Refused) -> &'static str {
    match refused {
        Refused::Scheme => "Give the server's https address.",
        Refused::UserInfo => "Leave the user name out of the address and give the secret under `auth`.",
        Refused::Host => "Check the spelling of the host.",
        Refused::Port => "Let the server listen on 443, 8443 or another port that is open to MCP servers.",
        _ => "Give a public address; a private host has to be opened by whoever runs this deployment.",
    }
}

/// About the stage that was not passed.
pub(super) const fn of(stage: Stage, specification: &Specification) -> &'static str {
    match stage {
        Stage::Address | Stage::Dns => "Check the spelling of the host: it must resolve to a public address.",
        Stage::Tcp => "Check that the server runs and that its port can be reached from the internet.",
        Stage::Tls => "Have the server's certificate put right, its intermediate certificates included.",
        Stage::Program => "Ask whoever runs this deployment: its log says why the program did not start.",
        Stage::Http => "Look into the server's own log.",
        Stage::Protocol => match specification.transport {
            Transport::Sse => {
                "Check the path: old servers of HTTP+SSE usually have /sse. Newer ones need transport `http`."
            }
            Transport::Stdio => "Ask whoever runs this deployment: what was started does not speak MCP.",
            Transport::Http => "Check the path, which often is /mcp. An old server of HTTP+SSE needs transport `sse`.",
        },
        Stage::Auth => match specification.credential {
            Credential::None => {
                "The server wants a credential: give a bearer token or a header. One that wants OAuth cannot be used yet."
            }
            _ => "Check that the secret is whole, still valid, and meant for this server.",
        },
        Stage::Tools => "The server can be talked to, but does not list its tools: look into its own log.",
    }
}

/// The same where the fault says more.
pub(super) fn of_fault(stage: Stage, fault: &Fault, specification: &Specification) -> &'static str {
    let says = |text: &str| fault.message.contains(text);
    match stage {
        Stage::Program if fault.field.as_deref() == Some("catalogue") => {
            "Choose a program of /api/v1/mcp/catalogue, or ask whoever runs this deployment to offer this one."
        }
        Stage::Http if fault.code == Code::Timeout => {
            "The server takes a connection and then says nothing: is it overloaded?"
        }
        Stage::Http if says("redirects") => "Register the address that it redirects to.",
        Stage::Http if says("no MCP endpoint") => of(Stage::Protocol, specification),
        Stage::Http if says("less often") => "Wait, and have the server's limit raised.",
        _ => of(stage, specification),
    }
}

/// About a server that is fine and empty.
pub(super) const fn no_tools(specification: &Specification) -> &'static str {
    match specification.credential {
        Credential::None => "The server offers no tools; perhaps it does with a credential.",
        _ => "The server offers no tools to this credential.",
    }
}
