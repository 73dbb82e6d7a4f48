//! What surrounds a model in training, against the libraries that it follows: `fixtures/training/README.md`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adapter;
mod checkpoint;
mod optimizer;
mod sampler;
mod schedule;

use std::path::PathBuf;

use pipe_nn::Parameter;
use tch::Tensor;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/training").join(name)
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// Parameters with values that differ everywhere.
fn parameters(shapes: &[(&str, &[i64])]) -> Vec<Parameter> {
    let parameter = |(number, (name, shape)): (usize, &(&str, &[i64]))| {
        let count: i64 = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|index| (index as f32 * 0.37 + number as f32).sin()).collect();
        let value = Tensor::from_slice(&values).view(*shape);
        Parameter::matrix((*name).to_owned(), value).unwrap()
    };
    shapes.iter().enumerate().map(parameter).collect()
}

fn values(parameter: &Parameter) -> Vec<f32> {
    Vec::try_from(parameter.value().unwrap().flatten(0, -1)).unwrap()
}
