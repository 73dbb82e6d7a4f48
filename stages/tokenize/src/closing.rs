//! What is said once all rows are through: why the samples cannot be used, or what is likely not what was meant.

use pipe_samples::Totals;
use pipe_stage::{Context, Failure};

use crate::{Config, Error, SpecialTokensInText, tally::Tally};

/// Refuses samples that nobody can train on.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn refuse(config: &Config, tally: &Tally, totals: &Totals) -> Result<(), Failure> {
    let too_long = tally.too_long_told(config.max_length);
    if totals.rows == 0 {
        return Err(Error::NoSamples { rows: tally.rows, bad: format!("{too_long}{}", tally.describe()) }.into());
    }
    if totals.trained_tokens == 0 {
        return Err(Error::NothingTrained { rows: totals.rows }.into());
    }
    if let Some(cut) = tally.never_ends() {
        let hint = if cut {
            "raise `max_length`, or set `on_too_long: drop` or `truncation_side: left`"
        } else {
            "give the input `model` a chat template that closes turns with a special token, such as <|im_end|>"
        };
        return Err(Failure::from(Error::NeverEnds).hint(hint));
    }
    Ok(())
}

/// Warns of what is likely not what was meant.
pub(crate) fn warn(config: &Config, tally: &Tally, context: &Context) {
    if tally.bad_rows() > 0 {
        context.warn(format!("left out {} of {} rows{}", tally.bad_rows(), tally.rows, tally.describe()));
    }
    if tally.too_long > 0 {
        context.warn(format!("left out rows by `on_too_long`{}", tally.too_long_told(config.max_length)));
    }
    if tally.untrained > 0 {
        context.warn(format!(
            "{} samples have nothing left that the loss counts, because of `max_length`: raise it, or set \
             `on_too_long: drop` or `truncation_side: left`",
            tally.untrained
        ));
    }
    if let Some(field) = tally.never_drawn() {
        context.warn(format!("`{field}` is set, and no row is of a kind that draws one"));
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
}
