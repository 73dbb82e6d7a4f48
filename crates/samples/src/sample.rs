//! Samples in memory: one, a view of one, and all of a file in three flat vectors.

use std::path::Path;

use crate::{Error, Reader};

/// The label of a position that the loss leaves out, as in PyTorch and Transformers.
pub const IGNORED: i32 = -100;

/// One sample. `labels` has the length of `input_ids`; position `t` holds the label of id `t` (not shifted).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// The same ids, or [`IGNORED`].
    pub labels: Vec<i32>,
}

impl Sample {
    /// A borrowed view.
    pub fn view(&self) -> SampleRef<'_> {
        SampleRef { input_ids: &self.input_ids, labels: &self.labels }
    }
}

/// A view of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRef<'a> {
    /// Token ids.
    pub input_ids: &'a [u32],
    /// The same ids, or [`IGNORED`].
    pub labels: &'a [i32],
}

impl SampleRef<'_> {
    /// Number of ids.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Number of positions that the loss of next-token prediction counts: labels other than [`IGNORED`] behind the
    /// first, which nothing predicts.
    pub fn trained(&self) -> usize {
        self.labels.iter().skip(1).filter(|label| **label != IGNORED).count()
    }
}

/// All samples of a folder, compact: eight bytes a token and eight a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    input_ids: Vec<u32>,
    labels: Vec<i32>,
    /// Sample `i` is `offsets[i]..offsets[i + 1]`; the first offset is 0.
    offsets: Vec<usize>,
}

impl Default for Samples {
    fn default() -> Self {
        Self { input_ids: Vec::new(), labels: Vec::new(), offsets: vec![0] }
    }
}

impl Samples {
    /// Reads every sample of a samples folder, in the file's order.
    ///
    /// # Errors
    /// If the folder holds no samples or is damaged.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let mut samples = Self::default();
        for sample in Reader::open(folder)? {
            samples.push(sample?.view());
        }
        Ok(samples)
    }

    /// Adds a sample at the end.
    pub fn push(&mut self, sample: SampleRef<'_>) {
        self.input_ids.extend_from_slice(sample.input_ids);
        self.labels.extend_from_slice(sample.labels);
        self.offsets.push(self.input_ids.len());
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of all samples.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Sample `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<SampleRef<'_>> {
        let range = *self.offsets.get(index)?..*self.offsets.get(index.checked_add(1)?)?;
        Some(SampleRef { input_ids: &self.input_ids[range.clone()], labels: &self.labels[range] })
    }

    /// All samples in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SampleRef<'_>> {
        self.offsets.windows(2).map(|pair| SampleRef {
            input_ids: &self.input_ids[pair[0]..pair[1]],
            labels: &self.labels[pair[0]..pair[1]],
        })
    }
}
