//! Tokenizers and chat templates, equal to their Python originals.
