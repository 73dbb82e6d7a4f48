//! What can go wrong with tokenizers and templates.

use std::path::PathBuf;

/// Why a tokenizer or template could not be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder lacks a file.
    #[error("{} has no {file}; give the folder of a Hugging Face model with its tokenizer", .folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The name of the file.
        file: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is no JSON.
    #[error("{} is not valid JSON", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field of a file is not what it should be.
    #[error("{}: {field} must be {expected}", .path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// `tokenizer.json` describes something that this program cannot run.
    #[error("cannot use {}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Text could not be turned into ids, or ids into text.
    #[error("cannot {action}")]
    Code {
        /// `encode` or `decode`, with what.
        action: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The chat template is no Jinja that this program knows.
    #[error("cannot parse the chat template of {}", .folder.display())]
    Template {
        /// The model's folder.
        folder: PathBuf,
        /// Where and why.
        source: minijinja::Error,
    },
    /// The chat template refuses a conversation.
    #[error("the chat template refuses the conversation")]
    Render {
        /// Where and why.
        #[source]
        source: minijinja::Error,
    },
    /// The assistant's part cannot be told from the rest.
    #[error(
        "cannot find the text of message {message} in what the chat template writes, so its tokens cannot be told from the rest"
    )]
    Span {
        /// The message, counted from 1.
        message: usize,
    },
    /// The template changes special tokens that stand in the conversation's text.
    #[error(
        "the chat template treats special tokens that stand in the conversation's text as it treats no other text, so they cannot be told from its own; take them out of the row"
    )]
    SpecialInText,
    /// The tokenizer cannot keep special tokens as text.
    #[error(
        "special tokens stand in the conversation's text and cannot be kept as text: this tokenizer's special tokens change the text beside them; set `special_tokens_in_text: parse`, or take them out of the row"
    )]
    NotApart,
}
