//! AdamW and clipping against PyTorch's.

use pipe_hf::Checkpoint;
use pipe_nn::{
    Parameter, Parameters,
    optimizer::{AdamW, AdamWOptions},
};
use serde::Deserialize;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Case {
    lr: f64,
    weight_decay: f64,
    betas: [f64; 2],
    eps: f64,
    max_grad_norm: f64,
    grad_norms_before_clip: Vec<f64>,
}

fn tensor(file: &Checkpoint, name: &str) -> Tensor {
    let shape: Vec<i64> = file.info(name).unwrap().shape.iter().map(|side| *side as i64).collect();
    Tensor::from_slice(&file.read_f32(name).unwrap()).view(&shape[..])
}

fn relative_difference(found: &Tensor, expected: &Tensor) -> f64 {
    f64::try_from((found - expected).norm() / expected.norm()).unwrap()
}

/// Six updates in each of three settings; each starts from the states of our own updates before.
#[test]
fn updates_are_those_of_torch() {
    let file = Checkpoint::open_file(&super::fixture("optim.safetensors")).unwrap();
    for (case, number) in super::json::<Vec<Case>>("optim.json").into_iter().zip(0..) {
        let [beta1, beta2] = case.betas;
        let options = AdamWOptions {
            beta1,
            beta2,
            epsilon: case.eps,
            weight_decay: case.weight_decay,
            max_grad_norm: case.max_grad_norm,
        };
        let list = (0..2)
            .map(|index| {
                let value = tensor(&file, &format!("c{number}.p{index}.s0"));
                Parameter::matrix(index.to_string(), value).unwrap()
            })
            .collect();
        let mut parameters = Parameters::new(list).unwrap();
        let mut optimizer = AdamW::new(options, &parameters).unwrap();
        for (step, expected_norm) in (1..).zip(case.grad_norms_before_clip) {
            for (parameter, index) in parameters.list_mut().iter_mut().zip(0..) {
                parameter.set_grad(&tensor(&file, &format!("c{number}.g{index}.s{step}"))).unwrap();
            }
            let squares = parameters.list().iter().map(|parameter| {
                f64::try_from(parameter.grad().unwrap().to_kind(Kind::Double).square().sum(None::<Kind>)).unwrap()
            });
            let whole = squares.sum::<f64>().sqrt();
            let norm = optimizer.update(&mut parameters, case.lr).unwrap().read().unwrap();
            for norm in [whole, norm] {
                assert!((norm / expected_norm - 1.0).abs() < 3e-7, "case {number} step {step}: norm {norm}");
            }
            for (parameter, index) in parameters.list().iter().zip(0..) {
                let expected = tensor(&file, &format!("c{number}.p{index}.s{step}"));
                let difference = relative_difference(&parameter.value().unwrap(), &expected);
                assert!(difference < 3e-7, "case {number} step {step} parameter {index}: off by {difference:.1e}");
            }
        }
        assert_eq!(optimizer.updates(), 6);
    }
}

#[test]
fn a_zero_limit_does_not_clip_and_a_long_gradient_is_cut() {
    let options =
        |max_grad_norm| AdamWOptions { beta1: 0.0, beta2: 0.0, epsilon: 1e9, weight_decay: 0.0, max_grad_norm };
    let moved = |max_grad_norm: f64| {
        let mut parameters = Parameters::new(super::parameters(&[("a", &[3, 4])])).unwrap();
        let before = parameters.list()[0].value().unwrap().copy();
        parameters.list_mut()[0].set_grad(&(before.ones_like() * 100.0)).unwrap();
        let mut optimizer = AdamW::new(options(max_grad_norm), &parameters).unwrap();
        // With this epsilon the step is the gradient times learning rate / epsilon.
        optimizer.update(&mut parameters, 1e9).unwrap();
        f64::try_from((before - parameters.list()[0].value().unwrap()).norm()).unwrap()
    };
    assert!((moved(0.0) - 100.0 * 12_f64.sqrt()).abs() < 1e-3);
    assert!((moved(2.0) - 2.0).abs() < 1e-5);
}
