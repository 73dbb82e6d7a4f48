//! Tokenizers and chat templates of Hugging Face model folders, equal to their Python originals.
//!
//! [`Tokenizer`] gives the ids of the Python library `tokenizers`; [`ChatTemplate`] renders conversations as
//! Transformers does through Jinja2. Both read only the folder that they are given, and nothing that they return
//! depends on time, locale or thread.
//!
//! One difference from Python's `tokenizers` 0.23 is known: letters and marks that Unicode 16 and 17 added (such as
//! U+10D69) are letters and marks here, and unassigned there, so that text around them may be split in another place.

mod error;
mod folder;
mod missing_bytes;
mod prompter;
mod python;
mod rendered;
mod spans;
mod special;
mod stream;
mod template;
mod tokenizer;

pub use error::Error;
pub use prompter::Prompter;
pub use rendered::{Rendered, SpecialInText};
pub use stream::{Passed, StopStrings, TextStream};
pub use template::{ChatTemplate, Conversation, RESERVED};
pub use tokenizer::Tokenizer;
