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
    Config, Error, OnBadRow, SpecialTokensInText,
    encode::{Encoded, Encoder, Trouble},
    model::Model,
    row::{BadRow, RowReader},
    shapes::Shapes,
    tally::{Place, Tally},
};

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let options = Options { format: config.format, text_document: config.text_document };
    let found = pipe_records::find(context.inputs("data"), &options)?;
    context.info(describe(&found));
    let files = found.files;
    let model = Model::load(context.input("model")?, &config.chat_template_kwargs)?;
    let encoder = Encoder::new(config, &model)?;
    let reader = RowReader::new(config.shape, &config.columns);
    let writer = Writer::create(&context.output())?;
    let (tally, totals) = encode_all(config, context, &files, &options, (&reader, &encoder), writer)?;
    if let Some((field, column)) = reader.columns.never_seen().filter(|_| tally.rows > 0) {
        let (field, column) = (field.to_owned(), column.to_owned());
        return Err(Error::NoColumn { rows: tally.rows, field, column, bad: tally.describe() }.into());
    }
    if totals.rows == 0 {
        return Err(Error::NoSamples { rows: tally.rows, bad: tally.describe() }.into());
    }
    if totals.trained_tokens == 0 {
        return Err(Error::NothingTrained { rows: totals.rows }.into());
    }
    if let Some(cut) = tally.never_ends() {
        let hint = if cut {
            "raise `max_length`, or leave long rows out before"
        } else {
            "give the input `model` a chat template that closes turns with a special token, such as <|im_end|>"
        };
        return Err(Failure::from(Error::NeverEnds).hint(hint));
    }
    if tally.bad_rows() > 0 {
        context.warn(format!("left out {} of {} rows{}", tally.bad_rows(), tally.rows, tally.describe()));
    }
    if tally.open_ended > 0 {
        context.warn(format!(
            "{} completions end without an end token, so a model cannot learn where to stop: set add_eos, \
             unless the data has its own",
            tally.open_ended
        ));
    }
    if let Some(found) = tally.describe_special() {
        context.warn(match config.special_tokens_in_text {
            SpecialTokensInText::Text => format!(
                "{found}; they were taken as text like any other (where a chat template has already been applied to the \
                 texts, set `special_tokens_in_text: parse`)"
            ),
            SpecialTokensInText::Parse => format!("{found}; they were taken as tokens, as `special_tokens_in_text` says"),
        });
    }
    tally.report(context);
    tally.shapes.report(context, &files);
    context.figure("samples", totals.rows);
    context.figure("tokens", totals.tokens);
    context.figure("tokens_trained", totals.trained_tokens);
    Ok(())
}

/// What a thread made of a batch.
struct Done {
    rows: Vec<(Place, Result<Encoded, BadRow>)>,
    shapes: Shapes,
    read_bytes: u64,
}

type Reply = SyncSender<Result<Done, Error>>;

fn encode_all(
    config: &Config,
    context: &Context,
    files: &[DataFile],
    options: &Options,
    (reader, encoder): (&RowReader, &Encoder<'_>),
    mut writer: Writer,
) -> Result<(Tally, Totals), Failure> {
    let threads = threads(config, context);
    let batch_rows = usize::try_from(config.batch_size).unwrap_or(usize::MAX);
    let (work, todo) = sync_channel::<(Batch, Reply)>(threads);
    let (order, replies) = sync_channel(2 * threads);
    let todo = &Mutex::new(todo);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        scope.spawn(move || read_all(files, options, batch_rows, &work, &order));
        for _ in 0..threads {
            scope.spawn(move || {
                // The lock is held while waiting, not while encoding.
                let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok((batch, reply)) = next() {
                    // A writer that has failed no longer waits for it.
                    let _ = reply.send(encode_batch(reader, encoder, files, batch));
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
    work: &SyncSender<(Batch, Reply)>,
    order: &SyncSender<Receiver<Result<Done, Error>>>,
) {
    let limits = Limits { rows: batch_rows, ..Limits::default() };
    let read = pipe_records::read(files, options, limits, |batch| {
        let (reply, result) = sync_channel(1);
        order.send(result).is_ok() && work.send((batch, reply)).is_ok()
    });
    if let Err(error) = read {
        let (reply, result) = sync_channel(1);
        let _ = reply.send(Err(error.into()));
        let _ = order.send(result);
    }
}

fn encode_batch(reader: &RowReader, encoder: &Encoder<'_>, files: &[DataFile], batch: Batch) -> Result<Done, Error> {
    let (file, read_bytes) = (batch.file, batch.read_bytes);
    let (mut rows, mut shapes) = (Vec::new(), Shapes::default());
    let mut fatal = None;
    batch.records(&mut |number, record| {
        if fatal.is_some() {
            return;
        }
        let row = record.map_err(BadRow::from).and_then(|record| reader.read(record)).map_err(Trouble::Row);
        let encoded = match row.and_then(|(shape, row)| Ok((shape, encoder.encode(row)?))) {
            Ok((shape, encoded)) => {
                shapes.add(file, shape);
                Ok(encoded)
            }
            Err(Trouble::Row(bad)) => Err(bad),
            Err(Trouble::Missing(missing)) => {
                fatal = Some(Error::Model { place: Place { file, number }.name(files), missing });
                return;
            }
            Err(Trouble::Fatal(error)) => {
                fatal = Some(error);
                return;
            }
        };
        rows.push((Place { file, number }, encoded));
    });
    fatal.map_or(Ok(Done { rows, shapes, read_bytes }), Err)
}

/// What is read and what is not, in a sentence.
fn describe(found: &Found) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for file in &found.files {
        *counts.entry(file.format.name()).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(format, files)| format!("{files} as {format}")).collect();
    let files = if found.files.len() == 1 { "file" } else { "files" };
    let mut aside = found.left_aside.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if found.left_aside.len() > 5 {
        aside.push_str(", ...");
    }
    let aside = if aside.is_empty() { aside } else { format!("; leaves aside {aside}") };
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
    let total_bytes = files.iter().map(|file| file.bytes).sum();
    let mut read_bytes = 0;
    for reply in replies {
        // Without an answer its thread has panicked, and leaving the scope says so.
        let Ok(done) = reply.recv() else { break };
        let done = done?;
        for (place, row) in done.rows {
            tally.rows += 1;
            match row {
                Ok(encoded) => {
                    tally.truncated += u64::from(encoded.truncated);
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
