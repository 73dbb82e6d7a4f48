//! YAML documents that keep their positions, deserialised with every error at once.
//!
//! A document becomes a tree of [`Node`]s, each with the span of text that it came from, so that values can be
//! interpolated or overridden before they meet their type, and so that an error can point at the very character.
//! Scalars stay text until a type asks for them: `no` is a fine string and a bad boolean.
//!
//! The language is YAML 1.2 less what makes configuration surprising: keys are unique texts, and there are no tags,
//! no merge keys, one document a file, and bounds on size, depth and the expansion of aliases.

use serde::de::DeserializeOwned;

mod access;
mod deserialize;
mod fault;
mod hole;
mod node;
mod parse;
mod recovery;
mod scalar;
mod suggest;
mod syntax;

pub use parse::{MAX_BYTES, MAX_DEPTH, MAX_NODES, Parsed, parse, parse_with_recovery};
pub use suggest::{nearest, unknown_name_help};

/// A half-open range of byte offsets in the source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

/// A value of a document with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a [`Node`] can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A scalar: its text, and whether it stood in quotes (then it is a string and nothing else).
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Quoted or block scalar.
        quoted: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the text; keys are unique.
    Mapping(Vec<(Key, Node)>),
}

/// The key of a mapping with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// Its text.
    pub name: String,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it has a place.
    pub span: Option<Span>,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// Reads one value out of a node, reporting every problem that it has, not only the first.
///
/// Structs take exactly the fields that they declare, with or without `deny_unknown_fields`. Numbers and booleans
/// are plain scalars; a string takes any scalar but nothing at all (`~`, `null`); an `Option` takes nothing as `None`.
///
/// # Errors
/// All problems: unknown fields (with the nearest known name), wrong types, missing fields.
pub fn deserialize<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Problem>> {
    recovery::with_recovery(node)
}
