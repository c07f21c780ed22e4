//! Templates: tera's, as far as docs/prompts.md allows. A template is stored, and rendered, only if it
//! passes the grammar of `grammar`, so that what it costs is known from its length: no loop within a
//! loop, no recursion, nothing that is not a documented variable.

use std::io::{self, Write};

use shared::{Code, Fault, command::prompts::MAX_LAYER_BYTES};
use tera::{Context, Tera};

mod grammar;

pub(super) use grammar::{Outline, Refused, check};

/// The most bytes that one template may turn into: what its layer may.
pub(super) const MAX_RENDERED_BYTES: usize = MAX_LAYER_BYTES;

/// Compiles templates that passed [`check`], by name.
pub(super) fn compile<'a>(templates: impl Iterator<Item = (String, &'a str)>) -> Result<Tera, Fault> {
    let mut tera = Tera::new();
    // A prompt is no page.
    tera.autoescape_on(Vec::<&str>::new());
    tera.add_raw_templates(templates).map_err(Fault::internal)?;
    Ok(tera)
}

/// Renders one. Fails where it turns into too much.
pub(super) fn render(tera: &Tera, name: &str, variables: &Context) -> Result<String, Fault> {
    let mut text = Bounded { bytes: Vec::new(), is_full: false };
    match tera.render_to(name, variables, &mut text) {
        Ok(()) => String::from_utf8(text.bytes).map_err(Fault::internal),
        Err(_) if text.is_full => {
            Err(Fault::new(Code::Conflict, format!("It turns into more than {MAX_RENDERED_BYTES} bytes.")))
        }
        Err(cause) => Err(Fault::internal(cause)),
    }
}

/// Takes so much and no more, so that a template ends where its text would not be used.
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_RENDERED_BYTES {
            self.is_full = true;
            return Err(io::Error::other("too much"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
