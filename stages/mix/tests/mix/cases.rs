//! What each field does, and what is said of it.

use super::*;

#[test]
fn without_a_word_every_row_comes_once_in_its_order() {
    let mixed = mix(&[("en", 60), ("zh", 20)], json!({})).unwrap();
    assert_eq!(of_source(&mixed, 0), (0..60).collect::<Vec<_>>());
    assert_eq!(of_source(&mixed, 1), (0..20).collect::<Vec<_>>());
    let in_first_half = mixed.rows[..40].iter().filter(|row| **row >= 10_000).count();
    assert!((5..=15).contains(&in_first_half), "{in_first_half} of 20 in the first half");
    // Rows 0..60 have 8 * 28 + 10 ids, rows 0..20 have 2 * 28 + 21.
    let expected = json!({
        "rows": 80, "tokens": 311, "tokens_trained": 231,
        "en.rows": 60, "en.rows_taken": 60, "en.rows_repeated": 0, "en.tokens": 234, "en.tokens_taken": 234,
        "en.token_share": 0.7524,
        "zh.rows": 20, "zh.rows_taken": 20, "zh.rows_repeated": 0, "zh.tokens": 77, "zh.tokens_taken": 77,
        "zh.token_share": 0.2476,
    });
    assert_eq!(mixed.figures, expected);
    assert_eq!(mixed.log, [""; 0]);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let weights = json!({ "a": { "weight": 2, "max_rows": 50 }, "b": { "weight": 1, "repeat": 0.7 } });
    let config = |seed: u64| json!({ "sources": weights, "stopping_strategy": "all_exhausted", "seed": seed });
    let bytes = |seed| mix(&[("a", 300), ("b", 200)], config(seed)).unwrap().bytes;
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn a_cap_chooses_rows_and_keeps_their_order() {
    let config = json!({ "sources": { "a": { "max_rows": 20 } } });
    let before = of_source(&mix(&[("a", 1000), ("b", 5)], config.clone()).unwrap(), 0);
    assert!(before.len() == 20 && before.is_sorted() && before[19] > 500, "{before:?}");
    let after = of_source(&mix(&[("a", 1050), ("b", 9)], config).unwrap(), 0);
    let kept = before.iter().filter(|row| after.contains(row)).count();
    assert!(kept >= 17, "{kept} of 20 stay when rows are added");
    let mixed = mix(&[("a", 5)], json!({ "sources": { "a": { "max_rows": 20 } } })).unwrap();
    assert_eq!(mixed.rows, [0, 1, 2, 3, 4]);
}

#[test]
fn repeats_may_be_fractions() {
    let repeated = |repeat: f64, rows| {
        let mixed = mix(&[("a", rows)], json!({ "sources": { "a": { "repeat": repeat } } })).unwrap();
        (mixed.rows, mixed.figures["a.rows_repeated"].as_u64().unwrap())
    };
    assert_eq!(repeated(2.0, 3), (vec![0, 1, 2, 0, 1, 2], 3));
    let (rows, again) = repeated(1.5, 10);
    assert_eq!((rows.len(), again, &rows[..10]), (15, 5, &(0..10).collect::<Vec<_>>()[..]));
    assert!(rows[10..].is_sorted());
    let (rows, again) = repeated(0.3, 100);
    assert!(rows.len() == 30 && again == 0 && rows.is_sorted() && rows[29] > 50, "{rows:?}");
    assert_eq!(repeated(0.01, 3).0.len(), 1, "never none");
    // The cap comes first.
    let both = json!({ "sources": { "a": { "max_rows": 4, "repeat": 2.5 } } });
    let mixed = mix(&[("a", 100)], both).unwrap();
    assert_eq!((&mixed.rows[..4], mixed.rows.len()), (&mixed.rows[4..8], 10));
    assert!(mixed.rows[8..].iter().all(|row| mixed.rows[..4].contains(row)));
}

#[test]
fn weights_stop_with_the_first_source_that_ends_and_say_so() {
    let config = json!({ "sources": { "a": { "weight": 0.9 }, "b": { "weight": 0.1 } } });
    let mixed = mix(&[("a", 900), ("b", 900)], config.clone()).unwrap();
    assert_eq!(of_source(&mixed, 0), (0..900).collect::<Vec<_>>());
    let others = of_source(&mixed, 1).len();
    assert!((65..=140).contains(&others), "{others}");
    let left = 900 - others;
    assert_eq!(
        mixed.log,
        [format!("first_exhausted: a source has ended, and {left} of 900 rows of `b` were not taken")]
    );

    let mut config = config;
    config["stopping_strategy"] = json!("all_exhausted");
    let mixed = mix(&[("a", 20), ("b", 20)], config.clone()).unwrap();
    assert_eq!(of_source(&mixed, 1), (0..20).collect::<Vec<_>>());
    let often = of_source(&mixed, 0);
    assert!(often.iter().enumerate().all(|(at, row)| *row == at as u32 % 20), "it begins again");
    assert_eq!(mixed.figures["a.rows_repeated"], often.len() - 20);
    assert_eq!(mixed.log, [""; 0]);

    config["stopping_strategy"] = json!("all_exhausted_without_replacement");
    assert_eq!(mix(&[("a", 20), ("b", 30)], config).unwrap().rows.len(), 50);
}

#[test]
fn a_list_is_one_source_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs = Vec::new();
    for (index, name) in ["zh/0", "zh/1", "zh/2", "zh/10", "en"].iter().enumerate() {
        let path = folder.path().join(index.to_string());
        write_source(&path, index as u32 * 100, if *name == "zh/1" { 0 } else { 3 });
        inputs.push((*name, path));
    }
    let config = json!({ "sources": { "zh": { "repeat": 2 } } });
    let mixed = run_on(inputs, &[], &config).unwrap();
    let zh: Vec<u32> = mixed.rows.iter().copied().filter(|row| *row < 400).collect();
    let once = [0, 1, 2, 200, 201, 202, 300, 301, 302];
    assert_eq!(zh, [once, once].concat());
    assert_eq!((&mixed.figures["zh.rows"], &mixed.figures["zh.rows_taken"]), (&json!(9), &json!(18)));
}

#[test]
fn other_inputs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rows.jsonl"), "{}").unwrap();
    let error = |inputs: Vec<(&str, PathBuf)>, files: &[&str]| {
        let failure = run_on(inputs, files, &json!({})).map(|_| ()).unwrap_err();
        (failure.chain().join(": "), failure.hint_text().unwrap_or_default().to_owned())
    };
    let (message, hint) = error(vec![("en", folder.path().join("rows.jsonl"))], &[]);
    assert_eq!(message, "the input `en` is a single file; mix takes samples folders");
    assert_eq!(hint, "name a stage that makes samples, such as tokenize");
    let (message, hint) = error(vec![("en", folder.path().to_owned())], &[]);
    assert!(
        message.starts_with("the input `en` cannot be mixed: ") && message.contains("no samples.parquet"),
        "{message}"
    );
    assert_eq!(hint, "name a stage that makes samples: tokenize, filter, split or mix");
    let (message, hint) = error(vec![], &["en"]);
    assert_eq!(message, "the input `en` is a file or folder of yours; mix takes samples folders");
    assert!(hint.contains("`download`"));
    write_source(&folder.path().join("empty"), 0, 0);
    let (message, hint) = error(vec![("en", folder.path().join("empty"))], &[]);
    assert_eq!(message, "the input `en` has no sample");
    assert!(hint.starts_with("leave it out"));
}

#[test]
fn the_configuration_is_checked() {
    assert_eq!(problems(&["a", "b"], json!({})), [""; 0]);
    assert_eq!(problems(&["zh/0", "zh/1"], json!({ "sources": { "zh": { "weight": 1 } } })), [""; 0]);
    let none =
        "sources: there is no input to mix (name stages that make samples: `inputs: { en: english, zh: chinese }`)";
    assert_eq!(problems(&[], json!({})), [none]);
    let config =
        json!({ "sources": { "a": { "weight": 0, "max_rows": 0, "repeat": 0 }, "b": { "weight": 1 }, "c": {} } });
    assert_eq!(
        problems(&["a", "b"], config),
        [
            "sources.a.weight: must be above 0 ()",
            "sources.a.max_rows: must be at least 1 ()",
            "sources.a.repeat: must be above 0, and at most 1000000 ()",
            "sources.c: no input is called `c` (the inputs are a, b)",
        ]
    );
    assert_eq!(
        problems(&["a", "b", "c"], json!({ "sources": { "a": { "weight": 1 } } })),
        ["sources: there are weights, but none for b, c (give a weight to every input or to none)"]
    );
}
