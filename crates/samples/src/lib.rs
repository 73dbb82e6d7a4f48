//! Tokenized samples in Parquet: what tokenize writes and train reads.
