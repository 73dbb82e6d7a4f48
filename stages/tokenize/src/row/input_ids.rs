//! Ready `input_ids`, and `labels` where the row has them.

use serde_json::Value;

use super::{BadRow, Fields, Reason, Row};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["input_ids", "labels"]
    }

    fn described(&self) -> &'static str {
        "`input_ids`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        row.has("input_ids")
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        let input_ids: Vec<u32> = integers(&row.filled_list("input_ids")?, "input_ids")?;
        let labels = row.optional_list("labels")?;
        let labels: Option<Vec<i32>> = labels.map(|labels| integers(&labels, "labels")).transpose()?;
        if let Some(labels) = &labels
            && labels.len() != input_ids.len()
        {
            let (labels, ids) = (labels.len(), input_ids.len());
            return Err(Reason::BadIds.because(format!("the row has {ids} `input_ids` and {labels} `labels`")));
        }
        Ok(Row::Ids { input_ids, labels })
    }
}

fn integers<T: TryFrom<i64>>(values: &[Value], field: &str) -> Result<Vec<T>, BadRow> {
    let integer = |(index, value): (usize, &Value)| {
        value.as_i64().and_then(|id| T::try_from(id).ok()).ok_or_else(|| {
            Reason::BadIds.because(format!("item {} of `{field}` is {value}, which is no token id", index + 1))
        })
    };
    values.iter().enumerate().map(integer).collect()
}
