//! CSV with tabs instead of commas.

use crate::{Error, Options, Unit, batch::Chunks, source::Source};

pub(crate) struct Reader;

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["tsv"]
    }

    fn claims(&self, extension: &str, _head: &[u8]) -> bool {
        extension == "tsv"
    }

    fn unit(&self) -> Unit {
        Unit::Line
    }

    fn open(&self, source: Source, _options: &Options) -> Result<Box<dyn Chunks>, Error> {
        super::csv::open(source, b'\t')
    }
}
