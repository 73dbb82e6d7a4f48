//! Where a value that is not finite comes from.

use tch::{Device, Kind, Tensor};

use crate::{Model, PackedBatch, decoder::Place, error::Result};

impl Model {
    /// Runs a pass again, after its loss or gradient was NaN or infinite, and says where that first shows: the layer,
    /// forward or backward, and the rows of the samples. Overwrites the gradients.
    pub fn diagnose(&mut self, batch: &PackedBatch, label_count: u64, update: u64) -> String {
        match self.search(batch, label_count, update) {
            Ok(finding) => finding,
            Err(error) => format!("looking for its origin failed: {error}"),
        }
    }

    fn search(&mut self, batch: &PackedBatch, label_count: u64, update: u64) -> Result<String> {
        for parameter in self.parameters() {
            if !is_finite(&parameter.value()?)? {
                return Ok(format!("the weights of {} are not finite", parameter.name));
            }
        }
        self.zero_grad()?;
        let mut finding = None;
        let mut look = |place, tensor: &Tensor| {
            // What lies behind the first one only follows from it.
            if finding.is_none() && !is_finite(tensor)? {
                finding = Some(describe(place, tensor, batch)?);
            }
            Ok(())
        };
        self.observed(batch, label_count, update, Some(&mut look))?;
        if let Some(finding) = finding {
            return Ok(finding);
        }
        for parameter in self.parameters() {
            if !is_finite(&parameter.grad()?)? {
                return Ok(format!(
                    "the gradient of {} is not finite, and the gradients of all layers are",
                    parameter.name
                ));
            }
        }
        Ok("a second run of the pass gave finite values".to_owned())
    }
}

fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

/// "the output of layer 3 is not finite, in samples 12, 40".
fn describe(place: Place, tensor: &Tensor, batch: &PackedBatch) -> Result<String> {
    let what = match place {
        Place::Embedding => "the embedding".to_owned(),
        Place::Layer(number) => format!("the output of layer {number} (model.layers.{number})"),
        Place::Loss => "the loss, behind the last norm and the head,".to_owned(),
        Place::HeadGradient => "the gradient that comes back from the head".to_owned(),
        Place::LayerGradient(number) => {
            format!("the gradient that comes back from layer {number} (model.layers.{number})")
        }
    };
    let finite = tensor.f_isfinite()?.f_view([tensor.size()[0], -1])?.f_all_dim(1, false)?.f_to_device(Device::Cpu)?;
    let mut wrong = vec![0_u8; finite.numel()];
    finite.f_logical_not()?.f_to_kind(Kind::Uint8)?.f_copy_data_u8(&mut wrong, finite.numel())?;
    let row_of = |index: usize| match place {
        Place::Loss => usize::try_from(batch.label_rows[index]).unwrap_or(0),
        _ => index,
    };
    let rows: Vec<usize> = (0..wrong.len()).filter(|index| wrong[*index] != 0).map(row_of).collect();
    let samples: Vec<String> = batch
        .spans
        .iter()
        .filter(|span| rows.iter().any(|row| (span.start..span.start + span.length).contains(row)))
        .map(|span| span.row.to_string())
        .collect();
    let (plural, list) = (if samples.len() == 1 { "" } else { "s" }, samples.join(", "));
    Ok(format!("{what} is not finite, in sample{plural} {list}"))
}
