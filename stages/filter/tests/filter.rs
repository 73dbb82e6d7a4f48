//! The stage as the engine runs it: samples in, fewer samples and figures out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{fs, path::Path};

use pipe_samples::{FILE_NAME, Sample, Samples, Writer};
use pipe_stage::Failure;
use pipe_trial::Trial;
use serde_json::{Value, json};
use stage_filter::Filter;

/// Runs the stage; gives what is left and the figures.
fn run(samples: &[Sample], config: Value) -> Result<(Vec<Sample>, Value), Failure> {
    run_with(samples, config, None, None).map(|(left, figures, _)| (left, figures))
}

/// The same with a tokenizer and a number of threads; also gives the bytes of the output.
fn run_with(
    samples: &[Sample],
    config: Value,
    model: Option<&Path>,
    cpus: Option<usize>,
) -> Result<(Vec<Sample>, Value, Vec<u8>), Failure> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    fs::create_dir_all(&input).unwrap();
    let mut writer = Writer::create(&input).unwrap();
    for sample in samples {
        writer.write(sample.view()).unwrap();
    }
    writer.finish().unwrap();
    let mut trial = Trial::new(folder.path()).input("samples", &input).cpus(cpus);
    if let Some(model) = model {
        trial = trial.input("model", model);
    }
    let ran = trial.run::<Filter>(config).done()?;
    let left = Samples::load(&ran.output()).unwrap();
    let owned = left.iter().map(|s| Sample { input_ids: s.input_ids.to_vec(), labels: s.labels.to_vec() });
    Ok((owned.collect(), ran.figures(), fs::read(ran.output().join(FILE_NAME)).unwrap()))
}

/// A sample of `length` ids from `first` on, all of them labels.
fn sample(length: u32, first: u32) -> Sample {
    let input_ids: Vec<u32> = (first..first + length).collect();
    Sample { labels: input_ids.iter().map(|id| *id as i32).collect(), input_ids }
}

fn unlabelled(length: u32) -> Sample {
    let mut sample = sample(length, 9);
    // The first label does not count: nothing predicts it.
    sample.labels[1..].fill(pipe_samples::IGNORED);
    sample
}

#[test]
fn the_limits_belong_to_the_range() {
    let samples = [sample(31, 0), sample(32, 0), sample(40, 0), sample(41, 0)];
    let (left, _) = run(&samples, json!({})).unwrap();
    assert_eq!(left, samples[1..]);
    let (left, figures) = run(&samples, json!({ "min_length": 32, "max_length": 40 })).unwrap();
    assert_eq!(left, samples[1..3]);
    let expected = json!({
        "rows": 4, "rows_kept": 2, "dropped_too_short": 1, "dropped_too_long": 1, "dropped_unlabelled": 0,
        "dropped_duplicate": 0, "share_dropped": 0.5, "rows_truncated": 0, "share_truncated": 0.0, "tokens_truncated": 0,
        "tokens_kept": 72, "tokens_dropped": 72, "tokens_trained": 70,
    });
    assert_eq!(figures, expected);
    let (left, _) = run(&samples, json!({ "min_length": 0 })).unwrap();
    assert_eq!(left, samples);
}

#[test]
fn samples_without_labels_may_go() {
    let samples = [unlabelled(5), sample(5, 0)];
    let (left, _) = run(&samples, json!({ "min_length": 1 })).unwrap();
    assert_eq!(left, samples);
    let (left, figures) = run(&samples, json!({ "min_length": 1, "drop_unlabelled": true })).unwrap();
    assert_eq!(left, samples[1..]);
    assert_eq!(figures["dropped_unlabelled"], 1);
}

#[test]
fn the_first_of_equal_samples_stays() {
    // Labels make no difference; a prefix is another sample.
    let mut relabelled = sample(5, 0);
    relabelled.labels[2] = pipe_samples::IGNORED;
    let samples = [sample(5, 0), sample(4, 0), sample(5, 1), relabelled, sample(5, 0)];
    let (left, figures) = run(&samples, json!({ "min_length": 1, "dedup": true })).unwrap();
    assert_eq!(left, samples[..3]);
    assert_eq!(figures["dropped_duplicate"], 2);
    let (left, _) = run(&samples, json!({ "min_length": 1 })).unwrap();
    assert_eq!(left, samples);
}

#[test]
fn nothing_left_is_an_error_that_says_why() {
    let error = |samples: &[Sample], config| run(samples, config).map(|_| ()).unwrap_err().chain().join(": ");
    let samples = [sample(3, 0), sample(4, 0), sample(90, 0)];
    assert_eq!(
        error(&samples, json!({ "min_length": 8, "max_length": 80 })),
        "none of 3 samples is left: 2 shorter than min_length 8, 1 longer than max_length 80"
    );
    assert_eq!(
        error(&[unlabelled(50)], json!({ "drop_unlabelled": true })),
        "none of 1 samples is left: 1 with no token for the loss (drop_unlabelled)"
    );
    assert_eq!(error(&[], json!({})), "there is no sample to filter: the input is empty");
}

#[test]
fn the_configuration_is_checked() {
    let problems = |config: Value| -> Vec<String> {
        let found = pipe_trial::problems::<Filter>(config, &[]).into_iter();
        found.map(|(path, message, _)| format!("{path} {message}")).collect()
    };
    assert_eq!(problems(json!({ "min_length": 5, "max_length": 5 })), [""; 0]);
    assert_eq!(problems(json!({ "max_length": 31 })), ["max_length must be at least min_length, which is 32"]);
    assert_eq!(problems(json!({ "max_length": 0 })), ["max_length must be at least 1"]);
    assert_eq!(problems(json!({ "on_too_long": "truncate" })), ["on_too_long there is no max_length to truncate to"]);
    let pattern = json!({ "pattern": "(a", "min_share": 2 });
    assert_eq!(
        problems(json!({ "drop_patterns": [{ "pattern": "a" }, pattern] })),
        [
            "drop_patterns the text is needed, and there is no input `model`",
            "drop_patterns.1.pattern no regular expression: unclosed group",
            "drop_patterns.1.min_share must be from 0 to 1",
        ]
    );
    let near = json!({ "threshold": 0, "num_perm": 0, "ngram": 0 });
    assert_eq!(
        problems(json!({ "near_dedup": near })),
        [
            "near_dedup.threshold must be above 0, and at most 1",
            "near_dedup.num_perm must be from 1 to 4096",
            "near_dedup.ngram must be from 1 to 1000",
        ]
    );
}

#[test]
fn long_samples_may_lose_tokens_at_either_side() {
    let samples = [sample(40, 0), sample(50, 100), sample(41, 200)];
    let cut = |side: &str| json!({ "max_length": 40, "on_too_long": "truncate", "truncation_side": side });
    let (left, figures) = run(&samples, cut("right")).unwrap();
    assert_eq!(left, [sample(40, 0), sample(40, 100), sample(40, 200)]);
    assert_eq!((&figures["rows_truncated"], &figures["tokens_truncated"]), (&json!(2), &json!(11)));
    assert_eq!((&figures["share_truncated"], &figures["tokens_dropped"]), (&json!(0.6667), &json!(0)));
    assert_eq!(run(&samples, cut("left")).unwrap().0, [sample(40, 0), sample(40, 110), sample(40, 201)]);
    // What is left meets the other rules: here all that the loss counts was cut away.
    let mut answer_at_the_end = unlabelled(50);
    answer_at_the_end.labels[45] = 54;
    let mut config = cut("right");
    config["drop_unlabelled"] = json!(true);
    let (left, figures) = run(&[answer_at_the_end.clone(), sample(40, 0)], config.clone()).unwrap();
    assert_eq!((left.len(), &figures["dropped_unlabelled"], &figures["tokens_dropped"]), (1, &json!(1), &json!(50)));
    config["truncation_side"] = json!("left");
    assert_eq!(run(&[answer_at_the_end, sample(40, 0)], config).unwrap().0.len(), 2);
}

fn tokenizer_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/tokenizer"))
}

/// Runs rules on texts; gives the numbers of those that are left, and the figures.
fn by_text(texts: &[&str], mut config: Value) -> (Vec<usize>, Value) {
    let tokenizer = pipe_text::Tokenizer::load(tokenizer_folder()).unwrap();
    config["min_length"] = json!(0);
    let samples: Vec<Sample> = texts
        .iter()
        .map(|text| {
            let input_ids = tokenizer.encode(text).unwrap();
            Sample { labels: input_ids.iter().map(|id| *id as i32).collect(), input_ids }
        })
        .collect();
    let (left, figures, _) = run_with(&samples, config, Some(tokenizer_folder()), None).unwrap();
    (left.iter().map(|kept| samples.iter().position(|sample| sample == kept).unwrap()).collect(), figures)
}

#[test]
fn rules_on_the_text() {
    let texts = [
        "see https://example.org",
        "中文和 English",
        "only English",
        "全是中文，没有别的",
        "<|im_start|>中文 abcd<|im_end|>",
    ];
    let (left, figures) = by_text(&texts, json!({ "drop_patterns": [{ "pattern": "https?://" }] }));
    assert_eq!((left, &figures["dropped_by drop_patterns.0 https?://"]), (vec![1, 2, 3, 4], &json!(1)));
    // 3 of 11 characters, 8 of 9, and, as special tokens are no text, 2 of 7.
    let chinese = |share: f64| json!({ "keep_patterns": [{ "pattern": r"\p{Han}", "min_share": share }] });
    assert_eq!(by_text(&texts, chinese(0.25)).0, [1, 3, 4]);
    assert_eq!(by_text(&texts, chinese(0.28)).0, [3, 4]);
    assert_eq!(by_text(&texts, chinese(0.29)).0, [3]);
    assert_eq!(by_text(&texts, json!({ "keep_patterns": [{ "pattern": r"\p{Han}", "max_share": 0.0 }] })).0, [0, 2]);
    // Every rule to keep must fit, none to drop; the first one that speaks counts.
    let both = json!({
        "keep_patterns": [{ "pattern": "[a-z]" }, { "pattern": "(?i)english" }],
        "drop_patterns": [{ "pattern": r"\p{Han}", "max_share": 0.1 }, { "pattern": "only" }],
    });
    let (left, figures) = by_text(&texts, both);
    assert_eq!(left, [1]);
    let count = |name: &str| figures[format!("dropped_by {name}")].as_u64().unwrap();
    let names =
        ["keep_patterns.0 [a-z]", "keep_patterns.1 (?i)english", r"drop_patterns.0 \p{Han}", "drop_patterns.1 only"];
    assert_eq!(names.map(count), [1, 2, 1, 0]);
    assert_eq!(figures["share_dropped"], 0.8);
    // Names of figures are short, and one line.
    let long = format!("it's \"{}\"\n", "\\d".repeat(30));
    let (_, figures) = by_text(&texts, json!({ "drop_patterns": [{ "pattern": long }, { "pattern": "a'\n\"" }] }));
    let names: Vec<&String> = figures.as_object().unwrap().keys().filter(|name| name.contains("patterns")).collect();
    let cut = format!("dropped_by drop_patterns.0 it's \"{}...", "\\d".repeat(17));
    assert_eq!(names, [&cut, "dropped_by drop_patterns.1 a' \""]);
}

#[test]
fn rules_may_look_at_the_trained_part_alone() {
    let tokenizer = pipe_text::Tokenizer::load(tokenizer_folder()).unwrap();
    // A question, an answer, a question, an answer: the loss counts the answers.
    let conversation = |parts: [&str; 4]| {
        let mut sample = Sample::default();
        for (index, part) in parts.into_iter().enumerate() {
            let ids = tokenizer.encode(part).unwrap();
            let label = |id: &u32| if index % 2 == 1 { *id as i32 } else { pipe_samples::IGNORED };
            sample.labels.extend(ids.iter().map(label));
            sample.input_ids.extend(ids);
        }
        sample
    };
    let samples = [
        conversation(["are you an AI?", "no", "what then?", "a dog"]),
        conversation(["what are you?", "an AI", "why?", "well"]),
        conversation(["hm", "I am an", "so?", "AI"]),
    ];
    let run = |config: Value| {
        let (left, figures, _) = run_with(&samples, config, Some(tokenizer_folder()), None).unwrap();
        (left.iter().map(|kept| samples.iter().position(|one| one == kept).unwrap()).collect::<Vec<_>>(), figures)
    };
    let drop = |part: &str| json!({ "min_length": 0, "drop_patterns": [{ "pattern": "an AI", "part": part }] });
    assert_eq!(run(drop("trained")).0, [0, 2], "two turns are two lines");
    assert_eq!(run(drop("all")).0, [2]);
    // `no` and `a dog` with a line end between them, of which three letters are vowels.
    let vowels = |most: f64| {
        let rule = json!({ "pattern": "[aeiou]", "part": "trained", "max_share": most });
        run(json!({ "min_length": 0, "keep_patterns": [{ "pattern": "dog" }, rule] }))
    };
    assert_eq!(vowels(3.0 / 8.0).0, [0]);
}

#[test]
fn rules_on_the_text_need_a_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({ "keep_patterns": [{ "pattern": "a" }] });
    let failure = run_with(&[sample(40, 0)], config, Some(folder.path()), None).map(|_| ()).unwrap_err();
    assert!(failure.chain()[0].contains("no tokenizer"), "{:?}", failure.chain());
    assert!(failure.hint_text().unwrap().contains("tokenize"));
}

#[test]
fn the_first_of_near_duplicates_stays() {
    let mut near = sample(60, 0);
    near.input_ids[58] = 9999;
    let samples = [sample(60, 0), sample(60, 500), near.clone(), sample(60, 0)];
    let (left, figures) = run(&samples, json!({ "near_dedup": {} })).unwrap();
    assert_eq!(left, samples[..2]);
    let names = ["dropped_near_duplicate", "near_duplicate_clusters", "near_duplicate_largest_cluster"];
    assert_eq!(names.map(|name| figures[name].as_u64().unwrap()), [2, 1, 3]);
    // 56 n-grams each, of which two differ: 54 of 58 are common.
    assert_eq!(figures["near_duplicate_places"], "row 2 like row 0 (0.93), row 3 like row 0 (1.00)");
    assert_eq!(
        run(&samples, json!({ "near_dedup": { "threshold": 0.95 } })).unwrap().0,
        [&samples[..2], &[near]].concat()
    );
    // Only kept samples count: the first one is too short to be kept.
    let (left, _) = run(&[sample(39, 0), sample(40, 0)], json!({ "min_length": 40, "near_dedup": {} })).unwrap();
    assert_eq!(left, [sample(40, 0)]);
}

#[test]
fn threads_do_not_change_a_byte() {
    // Several batches, with duplicates near and far.
    let samples: Vec<Sample> = (0..3000u32).map(|row| sample(20 + row % 47, row % 700 * 30)).collect();
    let config = json!({ "min_length": 25, "max_length": 60, "on_too_long": "truncate", "dedup": true,
        "near_dedup": { "threshold": 0.6 }, "drop_patterns": [{ "pattern": "q" }] });
    let run = |cpus| run_with(&samples, config.clone(), Some(tokenizer_folder()), Some(cpus)).unwrap();
    let (one, four) = (run(1), run(4));
    assert!(one.0.len() > 100 && one.1["dropped_near_duplicate"].as_u64().unwrap() > 10, "{}", one.1);
    assert!(one == four);
}
