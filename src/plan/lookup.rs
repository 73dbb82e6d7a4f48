//! A plan's questions, answered by the cache on disk.

use pipe_stage::Digest;

use super::Lookup;
use crate::{
    cache::{ActionRecord, Flaw, Home, Key, Records, Store},
    config::StageName,
};

/// What a home knows of one pipeline.
#[derive(Debug, Clone)]
pub struct CacheLookup {
    store: Store,
    records: Records,
    pipeline: String,
}

impl CacheLookup {
    /// What `home` knows of the pipeline of this name.
    pub fn new(home: &Home, pipeline: &str) -> Self {
        Self { store: Store::new(home), records: Records::new(home), pipeline: pipeline.to_owned() }
    }
}

impl Lookup for CacheLookup {
    fn record(&self, key: &Key) -> Option<ActionRecord> {
        self.records.get(key)
    }

    fn last(&self, stage: &StageName) -> Option<ActionRecord> {
        self.records.last(&self.pipeline, stage.as_str())
    }

    fn verify(&self, artifact: &Digest) -> Result<(), Flaw> {
        self.store.verify(artifact).map(|_| ())
    }
}
