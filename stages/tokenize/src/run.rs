//! One thread reads batches of rows, `num_proc` threads look into them and encode them, and this one writes them in order.
//!
//! Every batch has a channel of its own for its result; the writer gets the channels in the order of the batches. What
//! is under way is bounded by the two queues, and neither threads nor batches change a byte of the output.

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use pipe_records::{Batch, DataFile, Found, Limits, Options};
use pipe_samples::{Totals, Writer};
use pipe_stage::{Context, Failure};

use crate::{
    Config, Error, OnBadRow,
    augment::{Augmenter, Drawn},
    closing,
    encode::{Encoded, Encoder, Length, Trouble},
    model::Model,
    row::{BadRow, Row, RowReader, Shape},
    shapes::Shapes,
    tally::{Place, Tally},
};

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let options = Options { format: config.format, text_document: config.text_document };
    let found = pipe_records::find(context.inputs("data"), &options)?;
    context.info(describe(&found));
    let files = found.files;
    let model = Model::load(context.input("model")?, &config.chat_template_kwargs)?;
    let maker = Maker {
        reader: RowReader::new(config.shape, &config.columns),
        augmenter: Augmenter::new(config)?,
        encoder: Encoder::new(config, &model)?,
        files: &files,
    };
    let writer = Writer::create(&context.output())?;
    let (tally, totals) = encode_all(config, context, &options, &maker, writer)?;
    if let Some((field, column)) = maker.reader.columns.never_seen().filter(|_| tally.rows > 0) {
        let (field, column) = (field.to_owned(), column.to_owned());
        return Err(Error::NoColumn { rows: tally.rows, field, column, bad: tally.describe() }.into());
    }
    closing::refuse(config, &tally, &totals)?;
    closing::warn(config, &tally, context);
    tally.report(context);
    tally.shapes.report(context, &files);
    context.figure("samples", totals.rows);
    context.figure("tokens", totals.tokens);
    context.figure("tokens_trained", totals.trained_tokens);
    Ok(())
}

/// What turns a batch into samples. Shared by all threads.
struct Maker<'a> {
    reader: RowReader,
    augmenter: Augmenter,
    encoder: Encoder<'a>,
    files: &'a [DataFile],
}

/// A batch, and in which repeat it was read.
struct Work {
    batch: Batch,
    repeat: u32,
    reply: Reply,
}

/// What a thread made of a batch.
struct Done {
    rows: Vec<(Place, Made)>,
    shapes: Shapes,
    read_bytes: u64,
}

/// What became of a row.
type Made = Result<(Drawn, Encoded), BadRow>;

type Reply = SyncSender<Result<Done, Error>>;

fn encode_all(
    config: &Config,
    context: &Context,
    options: &Options,
    maker: &Maker<'_>,
    mut writer: Writer,
) -> Result<(Tally, Totals), Failure> {
    let threads = threads(config, context);
    let batch_rows = usize::try_from(config.batch_size).unwrap_or(usize::MAX);
    let (work, todo) = sync_channel::<Work>(threads);
    let (order, replies) = sync_channel(2 * threads);
    let todo = &Mutex::new(todo);
    let mut tally = Tally::new(config);
    let (files, repeats) = (maker.files, config.repeat);
    thread::scope(|scope| {
        scope.spawn(move || read_all(files, options, batch_rows, repeats, &work, &order));
        for _ in 0..threads {
            scope.spawn(move || {
                // The lock is held while waiting, not while encoding.
                let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(Work { batch, repeat, reply }) = next() {
                    // A writer that has failed no longer waits for it.
                    let _ = reply.send(maker.encode_batch(batch, repeat));
                }
            });
        }
        // Leaving this block drops `replies`, which stops the reader and then the others.
        write_all(config, context, files, replies, &mut writer, &mut tally)
    })?;
    Ok((tally, writer.finish()?))
}

fn threads(config: &Config, context: &Context) -> usize {
    let configured = config.num_proc.map(|threads| usize::try_from(threads).unwrap_or(usize::MAX));
    let available = || thread::available_parallelism().map_or(1, NonZero::get);
    // More threads than this only cost memory, and the queues' sizes must not overflow.
    configured.or(context.cpus()).unwrap_or_else(available).clamp(1, 1024)
}

fn read_all(
    files: &[DataFile],
    options: &Options,
    batch_rows: usize,
    repeats: u32,
    work: &SyncSender<Work>,
    order: &SyncSender<Receiver<Result<Done, Error>>>,
) {
    let limits = Limits { rows: batch_rows, ..Limits::default() };
    for repeat in 0..repeats {
        let mut wanted = true;
        let read = pipe_records::read(files, options, limits, |batch| {
            let (reply, result) = sync_channel(1);
            wanted = order.send(result).is_ok() && work.send(Work { batch, repeat, reply }).is_ok();
            wanted
        });
        if let Err(error) = read {
            let (reply, result) = sync_channel(1);
            let _ = reply.send(Err(error.into()));
            let _ = order.send(result);
            return;
        }
        if !wanted {
            return;
        }
    }
}

impl Maker<'_> {
    fn encode_batch(&self, batch: Batch, repeat: u32) -> Result<Done, Error> {
        let (file, read_bytes) = (batch.file, batch.read_bytes);
        let (mut rows, mut shapes) = (Vec::new(), Shapes::default());
        let mut fatal = None;
        batch.records(&mut |number, record| {
            if fatal.is_some() {
                return;
            }
            let place = Place { file, number };
            let row = record.map_err(BadRow::from).and_then(|record| self.reader.read(record)).map_err(Trouble::Row);
            let encoded = match row.and_then(|row| self.encode(row, place, repeat)) {
                Ok((shape, drawn, encoded)) => {
                    shapes.add(file, shape);
                    Ok((drawn, encoded))
                }
                Err(Trouble::Row(bad)) => Err(bad),
                Err(Trouble::Missing(missing)) => {
                    fatal = Some(Error::Model { place: place.name(self.files), missing });
                    return;
                }
                Err(Trouble::Fatal(error)) => {
                    fatal = Some(error);
                    return;
                }
            };
            rows.push((place, encoded));
        });
        fatal.map_or(Ok(Done { rows, shapes, read_bytes }), Err)
    }

    fn encode(
        &self,
        (shape, mut row): (Shape, Row),
        place: Place,
        repeat: u32,
    ) -> Result<(Shape, Drawn, Encoded), Trouble> {
        let drawn = self.augmenter.augment(&mut row, place, repeat);
        Ok((shape, drawn, self.encoder.encode(row)?))
    }
}

/// What is read and what is not, in a sentence.
fn describe(found: &Found) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for file in &found.files {
        *counts.entry(file.format.name()).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(format, files)| format!("{files} as {format}")).collect();
    let aside = match &found.left_aside[..] {
        [] => String::new(),
        [one] => format!("; leaves {one} aside"),
        [first, others @ ..] => format!("; leaves {first} and {} more aside", others.len()),
    };
    let files = if found.files.len() == 1 { "file" } else { "files" };
    format!("reads {files}: {}{aside}", counts.join(", "))
}

fn write_all(
    config: &Config,
    context: &Context,
    files: &[DataFile],
    replies: Receiver<Receiver<Result<Done, Error>>>,
    writer: &mut Writer,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let total_bytes = files.iter().map(|file| file.bytes).sum::<u64>().saturating_mul(config.repeat.into());
    let mut read_bytes = 0;
    for reply in replies {
        // Without an answer its thread has panicked, and leaving the scope says so.
        let Ok(done) = reply.recv() else { break };
        let done = done?;
        for (place, row) in done.rows {
            tally.rows += 1;
            match row {
                Ok((drawn, encoded)) => {
                    tally.drawn(drawn);
                    tally.length(encoded.length);
                    if encoded.length == Length::TooLong {
                        continue;
                    }
                    tally.open_ended += u64::from(encoded.open_ended);
                    tally.ends(encoded.ends);
                    tally.special_in_text(encoded.special_in_text, || place.name(files));
                    writer.write(encoded.sample.view())?;
                }
                Err(bad) if config.on_bad_row == OnBadRow::Skip => tally.bad(bad.reason, place.name(files)),
                Err(bad) => {
                    return Err(Failure::from(Error::BadRow { place: place.name(files), reason: bad.detail })
                        .hint("correct the row, or set `on_bad_row: skip` to leave out and count such rows"));
                }
            }
        }
        tally.shapes.merge(&done.shapes);
        read_bytes += done.read_bytes;
        context.progress("bytes", read_bytes, Some(total_bytes));
        if context.cancelled() {
            return Err(Failure::cancelled());
        }
    }
    Ok(())
}
