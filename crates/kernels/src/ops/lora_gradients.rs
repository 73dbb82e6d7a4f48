//! The gradients of the adapters of one group.
//!
//! # Source
//! Hu et al., arXiv:2106.09685.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, TchError, Tensor};

use super::{
    Adapter, AdapterColumns, Dropout, Layout,
    check::Check,
    lora::SOURCE,
    lora_operands::{MOST_ADAPTERS, check_group, dropout_words, join, keep},
};
use crate::{Error, element::master, launch::Launch};

/// Channels of a block: `STRIP` in lora.cu.
const STRIP: i64 = 32;

/// An adapter and where its gradients go.
#[derive(Debug, Clone, Copy)]
pub struct AdapterGradients<'a> {
    /// The adapter.
    pub adapter: Adapter<'a>,
    /// The first row of its part in the group's weight: the first column in `dy`.
    pub first_row: i64,
    /// `[R, I]`, master type, contiguous.
    pub grad_a: &'a Tensor,
    /// `[O, R]`, master type, contiguous.
    pub grad_b: &'a Tensor,
}

/// Adds to the gradients of the adapters of a group: `dy^T u` to that of B, where `u` are the adapter's columns of `x`, and
/// `factor * du^T drop(x)` to that of A, where `du` are its columns of `dx`.
///
/// # Shapes
/// `dy [T, O of all parts]`, rows may lie apart; `x` and `dx` `[T, columns]`, contiguous; all of the type of the
/// computation.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn lora_gradients(
    dy_TO: &Tensor,
    x_TC: &Tensor,
    dx_TC: &Tensor,
    layout: &Layout,
    adapters: &[AdapterGradients<'_>],
    dropout: Option<&Dropout>,
) -> Result<(), Error> {
    let (check, kind) = (Check { kernel: "lora_gradients", device: x_TC.device() }, x_TC.kind());
    let tokens = x_TC.size().first().copied().unwrap_or(0);
    let outputs = dy_TO.size().get(1).copied().unwrap_or(0);
    let dy_stride = check.rows("dy", dy_TO, kind, [tokens, outputs])?;
    check.tensor("x", x_TC, kind, &[tokens, layout.columns])?;
    check.tensor("dx", dx_TC, kind, &[tokens, layout.columns])?;
    check_group(check, layout, adapters.iter().map(|gradients| &gradients.adapter), dropout, (kind, tokens))?;
    for AdapterGradients { adapter, first_row, grad_a, grad_b } in adapters {
        check.tensor("the gradient of A", grad_a, master(kind), &adapter.a_RI.size())?;
        check.tensor("the gradient of B", grad_b, master(kind), &adapter.b_OR.size())?;
        let rows = adapter.b_OR.size()[0];
        check.require(*first_row >= 0 && first_row + rows <= outputs, || {
            format!("{rows} rows from {first_row} are not within the {outputs} of dy")
        })?;
    }
    if adapters.is_empty() || tokens == 0 {
        return Ok(());
    }
    if !x_TC.device().is_cuda() {
        return Ok(reference(dy_TO, x_TC, dx_TC, layout, adapters, dropout)?);
    }
    let size = kind.elt_size_in_bytes() as u64;
    let column = |tensor: &Tensor, column: i64| tensor.data_ptr() as u64 + column as u64 * size;
    let mut tasks = Tasks { list: Vec::with_capacity(2 * MOST_ADAPTERS) };
    for (gradients, AdapterColumns { column: first, rank, .. }) in adapters.iter().zip(layout.adapters.iter().copied())
    {
        tasks.push(Task {
            values: (column(dy_TO, gradients.first_row), dy_stride),
            inner: (column(x_TC, first), layout.columns),
            gradient: gradients.grad_b,
            shape: (gradients.adapter.b_OR.size()[0], rank),
            by_channel: true,
            ..Task::default_of(gradients)
        });
        tasks.push(Task {
            values: (x_TC.data_ptr() as u64, layout.columns),
            inner: (column(dx_TC, first), layout.columns),
            shape: (layout.width, rank),
            factor: gradients.adapter.factor as f32,
            drops: dropout.is_some(),
            ..Task::default_of(gradients)
        });
    }
    tasks.run((kind, tokens), dropout, x_TC.device())
}

/// `struct Task` of lora.cu.
#[derive(Debug, Clone, Copy)]
struct Task<'a> {
    /// Address and distance of rows.
    values: (u64, i64),
    inner: (u64, i64),
    gradient: &'a Tensor,
    /// Channels and rank.
    shape: (i64, i64),
    factor: f32,
    module: u32,
    drops: bool,
    by_channel: bool,
}

impl<'a> Task<'a> {
    fn default_of(gradients: &AdapterGradients<'a>) -> Self {
        Self {
            values: (0, 0),
            inner: (0, 0),
            gradient: gradients.grad_a,
            shape: (0, 0),
            factor: 1.0,
            module: gradients.adapter.module,
            drops: false,
            by_channel: false,
        }
    }

    fn words(&self) -> [u64; 7] {
        [
            self.values.0,
            self.inner.0,
            self.gradient.data_ptr() as u64,
            join(self.values.1 as u32, self.inner.1 as u32),
            join(self.shape.0 as u32, self.shape.1 as u32),
            join(self.factor.to_bits(), self.module),
            join(u32::from(self.drops), u32::from(self.by_channel)),
        ]
    }

    /// Whether four channels at once can be read.
    fn quads_fit(&self) -> bool {
        self.values.0.is_multiple_of(8) && self.values.1 % 4 == 0 && self.shape.0 % 4 == 0
    }
}

/// The matrices of one call.
#[derive(Debug)]
struct Tasks<'a> {
    list: Vec<Task<'a>>,
}

impl<'a> Tasks<'a> {
    fn push(&mut self, task: Task<'a>) {
        self.list.push(task);
    }

    fn run(&self, (kind, tokens): (Kind, i64), dropout: Option<&Dropout>, device: tch::Device) -> Result<(), Error> {
        let most = self.list.iter().map(|task| task.shape.1).max().unwrap_or(0);
        let by_tensor_cores = kind != Kind::Float && self.list.iter().all(Task::quads_fit);
        let (function, ranks, threads) = match by_tensor_cores {
            false => ("lora_gradients_plain", 8, 256),
            true if most <= 8 => ("lora_gradients_1", 8, 512),
            true if most <= 16 => ("lora_gradients_2", 16, 512),
            true => ("lora_gradients_4", 32, 512),
        };
        let strips: i64 = self.list.iter().map(|task| (task.shape.0 + STRIP - 1) / STRIP).sum();
        let groups = (most + ranks - 1) / ranks;
        let mut words: Vec<u64> = self.list.iter().flat_map(Task::words).collect();
        words.resize(14 * MOST_ADAPTERS, 0);
        words.extend(dropout_words(dropout));
        words.push(self.list.len() as u64);
        Launch::new(&SOURCE, function, kind, device)?.structure(&words).long(tokens).run(
            [strips as u32, groups as u32, 1],
            threads,
            0,
        )
    }
}

fn reference(
    dy_TO: &Tensor,
    x_TC: &Tensor,
    dx_TC: &Tensor,
    layout: &Layout,
    adapters: &[AdapterGradients<'_>],
    dropout: Option<&Dropout>,
) -> Result<(), TchError> {
    let sums = master(x_TC.kind());
    let wide = |tensor: &Tensor, first, count| tensor.f_narrow(1, first, count)?.f_to_kind(sums);
    let x_TI = wide(x_TC, 0, layout.width)?;
    for (gradients, columns) in adapters.iter().zip(&layout.adapters) {
        let adapter = &gradients.adapter;
        let dy_TO = wide(dy_TO, gradients.first_row, adapter.b_OR.size()[0])?;
        let dB_OR = dy_TO.f_tr()?.f_mm(&wide(x_TC, columns.column, columns.rank)?)?;
        let _ = gradients.grad_b.shallow_clone().f_add_(&dB_OR)?;
        let kept_TI = match dropout {
            Some(dropout) => x_TI.f_mul(&keep(dropout, adapter.module, layout.width, sums)?)?,
            None => x_TI.shallow_clone(),
        };
        let dA_RI = wide(dx_TC, columns.column, columns.rank)?.f_tr()?.f_mm(&kept_TI)?.f_mul_scalar_(adapter.factor)?;
        let _ = gradients.grad_a.shallow_clone().f_add_(&dA_RI)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::{
        super::{lora_down, lora_operands::sample::*},
        *,
    };
    use crate::testing::{assert_within, cuda, normal};

    /// Gradients of B and A of each adapter, on top of ones.
    fn gradients(sample: &Sample, dy: &Tensor, x: &Tensor, dx: &Tensor) -> Vec<Tensor> {
        let ones = |all: &[Tensor]| all.iter().map(Tensor::ones_like).collect::<Vec<_>>();
        let (grads_a, grads_b) = (ones(&sample.a), ones(&sample.b));
        let mut first_row = 8;
        let mut list = Vec::new();
        for (number, adapter) in sample.adapters().into_iter().enumerate() {
            list.push(AdapterGradients { adapter, first_row, grad_a: &grads_a[number], grad_b: &grads_b[number] });
            first_row += adapter.b_OR.size()[0];
        }
        lora_gradients(dy, x, dx, &sample.layout, &list, sample.dropout.as_ref()).unwrap();
        grads_b.into_iter().chain(grads_a).collect()
    }

    #[test]
    fn the_kernels_agree_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for ((tokens, width, ranks, bias), drops) in
                SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)])
            {
                for apart in [0, 3, 8] {
                    let sample = Sample::new(tokens, width, &ranks, bias, drops);
                    let there = sample.to(device, kind);
                    let dy = normal(&[tokens, 88 + apart], 1).to_kind(kind).narrow(1, 0, 88);
                    let [x, dx] = [2, 3].map(|seed| normal(&[tokens, sample.layout.columns], seed).to_kind(kind));
                    let expected = gradients(&sample, &dy, &x, &dx);
                    // A copy to the device would close the gaps between rows.
                    let whole = Tensor::zeros([tokens, 88 + apart], (kind, device));
                    whole.narrow(1, 0, 88).copy_(&dy);
                    let dy = whole.narrow(1, 0, 88);
                    let [x, dx] = [&x, &dx].map(|tensor| tensor.to_device(device));
                    let found = gradients(&there, &dy, &x, &dx);
                    let again = gradients(&there, &dy, &x, &dx);
                    for ((found, expected), again) in found.iter().zip(&expected).zip(&again) {
                        assert_within("gradient", found, expected, 5e-6);
                        assert!(found.equal(again), "two runs differ");
                    }
                }
            }
        }
    }

    /// Of the loss `sum(dy * (x + B u))` with `u = factor A(drop(x))`, by finite differences.
    #[test]
    fn the_reference_is_the_gradient() {
        let sample = Sample::new(6, 10, &[Some(2), None, Some(3)], true, true).to(Device::Cpu, Kind::Double);
        let layout = &sample.layout;
        let dy = normal(&[6, 88], 1).to_kind(Kind::Double);
        let x = normal(&[6, layout.columns], 2).to_kind(Kind::Double);
        let loss = || {
            lora_down(&x, layout, &sample.adapters(), sample.dropout.as_ref()).unwrap();
            let mut first_row = 8;
            let mut sum = 0.0;
            for (b, columns) in sample.b.iter().zip(&layout.adapters) {
                let y = x.narrow(1, columns.column, columns.rank).mm(&b.tr());
                sum += (y * dy.narrow(1, first_row, b.size()[0])).sum(Kind::Double).double_value(&[]);
                first_row += b.size()[0];
            }
            sum
        };
        let _ = loss();
        let dx = Tensor::zeros_like(&x);
        let mut first_row = 8;
        for (b, columns) in sample.b.iter().zip(&layout.adapters) {
            let inner = dy.narrow(1, first_row, b.size()[0]).mm(b);
            dx.narrow(1, columns.column, columns.rank).copy_(&inner);
            first_row += b.size()[0];
        }
        let found = gradients(&sample, &dy, &x, &dx);
        for (matrix, gradient) in sample.b.iter().chain(&sample.a).zip(&found) {
            let (values, gradient) = (matrix.view(-1), gradient.view(-1));
            for i in 0..values.size()[0] {
                let mut value = values.get(i);
                let _ = value.g_add_scalar_(1e-3);
                let above = loss();
                let _ = value.g_sub_scalar_(2e-3);
                let below = loss();
                let _ = value.g_add_scalar_(1e-3);
                let expected = (above - below) / 2e-3 + 1.0;
                assert!((gradient.double_value(&[i]) - expected).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn operands_are_checked() {
        let sample = Sample::new(2, 8, &[Some(2)], false, false);
        let message = |first_row, grad_a: &Tensor| {
            let (adapter, grad_b) = (sample.adapters()[0], &sample.b[0]);
            let list = [AdapterGradients { adapter, first_row, grad_a, grad_b }];
            let [dy, x] = [normal(&[2, 24], 1), normal(&[2, 16], 2)];
            lora_gradients(&dy, &x, &x, &sample.layout, &list, None).unwrap_err().to_string()
        };
        assert!(message(1, &sample.a[0]).contains("24 rows from 1 are not within the 24 of dy"));
        assert!(message(0, &sample.b[0]).contains("the gradient of A must be contiguous [2, 8]"));
    }
}
