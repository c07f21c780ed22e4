//! The load generator: a closed loop of callers, each on one kept connection, in a process of its own.
//!
//! It must be the lightest process of the run: on two cores what it uses is taken from what it measures. So a caller
//! copies a prepared body around a text of its own, and looks for that text in the answer's bytes.

pub(crate) mod caller;
pub(crate) mod process;
pub(crate) mod tally;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::shape::Shape;

/// The line that ends the warm-up, from the generator.
pub(crate) const WARM: &str = "warm";
/// The line that begins the measurement, to the generator.
pub(crate) const GO: &str = "go";

/// What a generator is told, as one line of JSON on its standard input: headers may hold a token, which must not stand
/// in a list of processes. For the same reason there is no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The body before and after the text.
    pub(crate) body: (String, String),
    pub(crate) shape: Shape,
    pub(crate) callers: u16,
    pub(crate) warm_up_s: f64,
    pub(crate) window_s: f64,
}
