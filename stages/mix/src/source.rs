//! What a source gives: its rows in their order, those that were chosen, as often as was asked for.

use std::{path::PathBuf, sync::Arc};

use pipe_samples::{
    Lengths, Reader, Sample,
    choice::{choose, seed_for},
};

use crate::{Error, config};

/// The source that an input belongs to: the entries of a list (`zh/0`) and the stages of a matrix (`zh/r=8`) are one.
pub(crate) fn source_of(input: &str) -> &str {
    input.split('/').next().unwrap_or(input)
}

/// The rows of one pass.
#[derive(Debug, Clone)]
enum Rows {
    All,
    /// Ascending.
    These(Arc<[u64]>),
}

/// One source.
pub(crate) struct Source {
    pub(crate) name: String,
    /// Samples folders, read one after the other.
    folders: Vec<PathBuf>,
    /// Rows and tokens that it has.
    pub(crate) rows: u64,
    pub(crate) tokens: u64,
    /// The rows that are used, and how many they are.
    used: Rows,
    used_rows: u64,
    /// Passes over all rows that are used.
    passes: u64,
    /// The rows of the pass behind those, which is shorter.
    last: Rows,
    last_rows: u64,
    /// How often [`Source::next`] was called.
    pub(crate) taken_rows: u64,
    pub(crate) taken_tokens: u64,
    pass: Option<Pass>,
}

/// A pass under way.
struct Pass {
    rows: Rows,
    /// Rows given.
    given: u64,
    /// Row that comes next from the reader.
    at: u64,
    folder: usize,
    reader: Reader,
}

impl Source {
    /// Opens a source: folders by the names of their inputs. Nothing but lengths is read.
    pub(crate) fn open(
        name: &str,
        folders: Vec<(String, PathBuf)>,
        config: config::Source,
        seed: u64,
    ) -> Result<Self, Error> {
        let (mut rows, mut tokens) = (0, 0);
        for (input, folder) in &folders {
            let not_samples = |source| Error::NotSamples { input: input.clone(), source };
            for length in Lengths::open(folder).map_err(not_samples)? {
                rows += 1;
                tokens += u64::from(length.map_err(not_samples)?);
            }
        }
        if rows == 0 {
            return Err(Error::Empty { source_name: name.to_owned() });
        }
        let seed = seed_for(seed, name);
        let used_rows = config.max_rows.unwrap_or(rows).min(rows);
        let used: Rows = match used_rows < rows {
            true => Rows::These(choose(seed_for(seed, "max_rows"), rows, used_rows).into()),
            false => Rows::All,
        };
        let repeat = config.repeat.unwrap_or(1.0);
        let passes = repeat.trunc() as u64;
        // Exact: no file has 2^53 rows. A source gives at least one row.
        let last_rows = ((repeat.fract() * used_rows as f64).round() as u64).max(u64::from(passes == 0));
        let last = choose(seed_for(seed, "repeat"), used_rows, last_rows);
        let last = match &used {
            Rows::All => last,
            Rows::These(used) => last.into_iter().map(|at| used[at as usize]).collect(),
        };
        let fits = passes.checked_mul(used_rows).and_then(|rows| rows.checked_add(last_rows));
        if fits.is_none_or(|rows| rows > 1 << 63) {
            return Err(Error::TooMany { source_name: name.to_owned() });
        }
        Ok(Self {
            name: name.to_owned(),
            folders: folders.into_iter().map(|(_, folder)| folder).collect(),
            rows,
            tokens,
            used,
            used_rows,
            passes,
            last: Rows::These(last.into()),
            last_rows,
            taken_rows: 0,
            taken_tokens: 0,
            pass: None,
        })
    }

    /// Rows until it has ended.
    pub(crate) fn length(&self) -> u64 {
        self.passes * self.used_rows + self.last_rows
    }

    /// Rows taken that had been taken before.
    pub(crate) fn repeated_rows(&self) -> u64 {
        let different = if self.passes > 0 { self.used_rows } else { self.last_rows };
        self.taken_rows.saturating_sub(different)
    }

    /// Rows that were not taken once.
    pub(crate) fn left_rows(&self) -> u64 {
        self.rows - (self.taken_rows - self.repeated_rows())
    }

    /// The next sample; behind its end, it begins again.
    pub(crate) fn next(&mut self) -> Result<Sample, pipe_samples::Error> {
        let at = self.taken_rows % self.length();
        let whole = at / self.used_rows < self.passes;
        let starts = at.is_multiple_of(self.used_rows);
        let mut pass = match self.pass.take().filter(|_| !starts) {
            Some(pass) => pass,
            None => {
                let rows = if whole { self.used.clone() } else { self.last.clone() };
                Pass { rows, given: 0, at: 0, folder: 0, reader: Reader::open(&self.folders[0])? }
            }
        };
        let sample = pass.next(&self.folders)?;
        self.pass = Some(pass);
        self.taken_rows += 1;
        self.taken_tokens += sample.input_ids.len() as u64;
        Ok(sample)
    }
}

impl Pass {
    fn next(&mut self, folders: &[PathBuf]) -> Result<Sample, pipe_samples::Error> {
        let wanted = match &self.rows {
            Rows::All => self.at,
            Rows::These(rows) => rows[self.given as usize],
        };
        loop {
            let Some(sample) = self.reader.next() else {
                self.folder += 1;
                // There is one: the row that is wanted was counted.
                self.reader = Reader::open(&folders[self.folder])?;
                continue;
            };
            let sample = sample?;
            self.at += 1;
            if self.at > wanted {
                self.given += 1;
                return Ok(sample);
            }
        }
    }
}
