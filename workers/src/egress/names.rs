//! Name resolution as a trait, because what an attacker's name server answers, and answers
//! differently the second time, must be part of the tests.

use std::{io, net::IpAddr};

use futures::future::BoxFuture;

/// Turns a host name into addresses.
pub trait Names: Send + Sync + std::fmt::Debug {
    /// Every address of the name, unfiltered.
    fn look_up<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn look_up<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
