//! The values of every parameter, whatever base and adapter are.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use pipe_merge::{Error, MergeInto, Merged};
use serde_json::json;

use crate::model::{Tensors, add_pair, pairs, write_adapter, write_model};

/// All parameters as the stream gives them.
fn all(merged: &Merged, threads: usize) -> BTreeMap<String, Vec<f32>> {
    let found: Mutex<BTreeMap<String, Vec<f32>>> = Mutex::default();
    merged
        .stream::<_, Error>(
            Some(threads),
            |_| Ok(()),
            |(), parameter, piece, values| {
                let mut found = found.lock().unwrap();
                let whole = found.entry(parameter.name.clone()).or_default();
                whole.resize(parameter.shape.iter().product(), f32::NAN);
                whole[piece.first()..][..piece.elements()].copy_from_slice(values);
                Ok(())
            },
        )
        .unwrap();
    found.into_inner().unwrap()
}

/// `W + s B A` in float64.
fn expected(base: &Tensors, adapter: &Tensors, scale: f64) -> BTreeMap<String, Vec<f64>> {
    let mut merged = BTreeMap::new();
    for (name, (shape, values)) in base {
        let module = name.strip_suffix(".weight").unwrap();
        let values = adapter.get(module).map_or(values, |(_, values)| values);
        let mut sum: Vec<f64> = values.iter().copied().map(f64::from).collect();
        if let (Some((_, a)), Some((_, b))) =
            (adapter.get(&format!("{module}.lora_A")), adapter.get(&format!("{module}.lora_B")))
        {
            for (index, value) in sum.iter_mut().enumerate() {
                let (row, column) = (index / shape[1], index % shape[1]);
                let product: f64 =
                    (0..3).map(|k| f64::from(b[row * 3 + k]) * f64::from(a[k * shape[1] + column])).sum();
                *value += scale * product;
            }
        }
        merged.insert(name.clone(), sum);
    }
    merged
}

fn compare(found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Vec<f64>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in expected {
        for (index, (found, expected)) in found[name].iter().zip(expected).enumerate() {
            // Rounded once.
            assert_eq!(*found, *expected as f32, "{name} {index}");
        }
    }
}

fn open(folder: &Path, into: Option<MergeInto>) -> Result<Merged, Error> {
    let original = folder.join("original");
    let original = original.exists().then_some(original.as_path());
    Merged::open(&folder.join("model"), original, Some(&folder.join("adapter")), into)
}

#[test]
fn a_plain_base_and_an_adapter_are_their_sum() {
    for (tied, settings, scale) in
        [(true, json!({}), 5.0 / 3.0_f64.sqrt()), (false, json!({ "use_rslora": false }), 5.0 / 3.0)]
    {
        let folder = tempfile::tempdir().unwrap();
        let base = write_model(&folder.path().join("model"), tied, false);
        write_adapter(&folder.path().join("adapter"), &pairs(), &settings);
        let merged = open(folder.path(), None).unwrap();
        assert_eq!((merged.config().tie_word_embeddings, merged.into_weights()), (tied, MergeInto::Original));
        let one = all(&merged, 1);
        compare(&one, &expected(&base, &pairs(), scale));
        assert!(all(&merged, 3) == one, "the threads change nothing");
    }
}

#[test]
fn an_nf4_base_is_what_it_stands_for_unless_the_original_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let stands_for = write_model(&folder.path().join("model"), true, true);
    let original = write_model(&folder.path().join("original"), true, false);
    assert!(stands_for != original);
    write_adapter(&folder.path().join("adapter"), &pairs(), &json!({}));
    let scale = 5.0 / 3.0_f64.sqrt();
    let merged = open(folder.path(), None).unwrap();
    assert_eq!(merged.into_weights(), MergeInto::Dequantized);
    compare(&all(&merged, 2), &expected(&stands_for, &pairs(), scale));
    let merged = open(folder.path(), Some(MergeInto::Original)).unwrap();
    compare(&all(&merged, 2), &expected(&original, &pairs(), scale));
}

#[test]
fn a_tied_model_stays_tied_with_equal_tables_and_comes_apart_with_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut base = write_model(&folder.path().join("model"), true, false);
    let mut random = fastrand::Rng::with_seed(3);
    let table = crate::model::draw(&mut random, 24 * 40);
    let other = crate::model::draw(&mut random, 24 * 40);
    let saved = |embedding: Option<&Vec<f32>>, head: Option<&Vec<f32>>| {
        let mut tensors = pairs();
        let tables = [("model.embed_tokens", embedding), ("lm_head", head)];
        tensors.extend(
            tables.into_iter().filter_map(|(name, table)| Some((name.to_owned(), (vec![24, 40], table?.clone())))),
        );
        tensors
    };
    let scale = 5.0 / 3.0_f64.sqrt();
    let opened = |tensors: &Tensors, ensure: bool| {
        write_adapter(&folder.path().join("adapter"), tensors, &json!({ "ensure_weight_tying": ensure }));
        open(folder.path(), None).unwrap()
    };
    let both = saved(Some(&table), Some(&table));
    let merged = opened(&both, true);
    assert!(merged.config().tie_word_embeddings);
    compare(&all(&merged, 2), &expected(&base, &both, scale));
    let merged = opened(&saved(None, Some(&table)), true);
    assert!(merged.config().tie_word_embeddings, "one name stands for both");
    compare(&all(&merged, 2), &expected(&base, &both, scale));

    // PEFT's two copies: the head of the result begins as the embedding of the base.
    base.insert("lm_head.weight".to_owned(), base["model.embed_tokens.weight"].clone());
    for tensors in [saved(Some(&table), Some(&other)), saved(Some(&table), None), saved(None, Some(&other))] {
        let merged = opened(&tensors, false);
        assert!(!merged.config().tie_word_embeddings);
        compare(&all(&merged, 2), &expected(&base, &tensors, scale));
    }
    let mut on_head = pairs();
    add_pair(&mut on_head, "lm_head", 24, 40, &mut random);
    let merged = opened(&on_head, false);
    assert!(!merged.config().tie_word_embeddings);
    compare(&all(&merged, 2), &expected(&base, &on_head, scale));
}

#[test]
fn pieces_are_whole_rows_and_whole_blocks() {
    for shape in [vec![151_936, 1024], vec![7, 40], vec![999, 1000], vec![5], vec![3, 1_000_000]] {
        let pieces = pipe_merge::piece_rows(&shape);
        let total: usize = pieces.iter().map(pipe_merge::Piece::elements).sum();
        assert_eq!(total, shape.iter().product::<usize>(), "{shape:?}");
        for piece in &pieces {
            assert!(piece.first().is_multiple_of(64), "{shape:?} {piece:?}");
        }
    }
}
