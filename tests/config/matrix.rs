//! A stage for each combination of listed values.

use pipe::{config::Pipeline, runs::resolved_yaml};

use super::{lines, parse, parse_with};

const LANGUAGES: &str = "
params: { lengths: [128, 384] }
stages:
  model: { kind: download, with: { source: file://model } }
  corpus:
    kind: download
    matrix: { language: [zh, en] }
    with: { source: 'file://data/${matrix.language}.jsonl' }
  all: { kind: tokenize, inputs: { model: model, data: corpus } }
  tokens:
    kind: tokenize
    matrix: { language: [zh, en], max_length: '${lengths}' }
    inputs: { model: model, data: 'corpus[language=${matrix.language}]' }
    with: { max_length: '${matrix.max_length}' }
  short: { kind: filter, inputs: { samples: 'tokens[language=zh,max_length=128]' } }
";

fn names(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.stages.keys().map(|name| name.as_str()).collect()
}

fn taken(pipeline: &Pipeline, stage: &str, port: &str) -> Vec<String> {
    pipeline.stages[stage].inputs[port].iter().map(|input| input.stage.to_string()).collect()
}

#[test]
fn every_combination_is_a_stage_of_its_own_in_the_order_of_counting() {
    let pipeline = parse(LANGUAGES).unwrap();
    assert_eq!(
        names(&pipeline),
        [
            "model",
            "corpus@language=zh",
            "corpus@language=en",
            "all",
            "tokens@language=zh,max_length=128",
            "tokens@language=zh,max_length=384",
            "tokens@language=en,max_length=128",
            "tokens@language=en,max_length=384",
            "short",
        ]
    );
    assert_eq!(pipeline.stages["tokens@language=en,max_length=128"].config["max_length"], 128);
    assert_eq!(pipeline.stages["corpus@language=zh"].user_files[0].path.to_str(), Some("data/zh.jsonl"));
}

#[test]
fn a_reference_takes_all_stages_of_a_matrix_or_those_with_some_values() {
    let pipeline = parse(LANGUAGES).unwrap();
    assert_eq!(taken(&pipeline, "all", "data"), ["corpus@language=zh", "corpus@language=en"]);
    assert_eq!(taken(&pipeline, "tokens@language=en,max_length=384", "data"), ["corpus@language=en"]);
    assert_eq!(taken(&pipeline, "short", "samples"), ["tokens@language=zh,max_length=128"]);
    let stages: Vec<_> = pipeline.named("corpus").iter().map(|name| name.as_str()).collect();
    assert_eq!(stages, ["corpus@language=zh", "corpus@language=en"]);
    assert_eq!(pipeline.named("model").len(), 1);
    assert!(pipeline.named("nothing").is_empty());
}

#[test]
fn an_axis_can_be_set_from_the_command_line() {
    let set = |value: &str| parse_with(LANGUAGES, &[("stages.tokens.matrix.max_length", value)]);
    assert_eq!(names(&set("[128]").unwrap()).len(), 7);
    assert_eq!(
        lines(&set("[64]").err().unwrap()),
        ["15:45: no stage of the matrix of `tokens` has language=zh,max_length=128 | there are \
          [language=zh,max_length=64], [language=en,max_length=64]"]
    );
}

#[test]
fn combinations_are_left_out_and_added() {
    let text = "
stages:
  corpus:
    kind: download
    matrix:
      language: [zh, en]
      part: [1, 2]
      exclude: [{ language: en, part: 2 }]
      include: [{ language: de, part: 1 }]
    with: { source: 'file://data/${matrix.language}-${matrix.part}' }
";
    assert_eq!(
        names(&parse(text).unwrap()),
        [
            "corpus@language=zh,part=1",
            "corpus@language=zh,part=2",
            "corpus@language=en,part=1",
            "corpus@language=de,part=1"
        ]
    );
}

#[test]
fn values_that_make_no_file_name_are_replaced_and_stay_apart() {
    let text = "
stages:
  corpus:
    kind: download
    matrix: { path: ['../a', '/_a', 数据, { name: both, at: x }, [1]] }
    with: { source: 'file://x' }
";
    let pipeline = parse(text).unwrap();
    let names = names(&pipeline);
    assert!(names[0].starts_with("corpus@path=.._a-") && names[1].starts_with("corpus@path=__a-"), "{names:?}");
    assert_eq!(names[2..], ["corpus@path=数据", "corpus@path=both", "corpus@path=4"]);
    assert!(names.iter().all(|name| !name.contains('/')));
}

#[test]
fn the_resolved_pipeline_needs_no_matrix_and_means_the_same() {
    let pipeline = parse(LANGUAGES).unwrap();
    let again = parse(&resolved_yaml(&pipeline)).unwrap();
    assert_eq!(names(&again), names(&pipeline));
    for (name, spec) in &pipeline.stages {
        assert_eq!(again.stages[name].config, spec.config, "{name}");
    }
    assert_eq!(taken(&again, "all", "data"), taken(&pipeline, "all", "data"));
    assert_eq!(again.named("corpus").len(), 2);
}

const ABLATION: &str = "
params: { seed: 1 }
stages:
  train:
    kind: command
    matrix: { rate: [1, 2], r: [8] }
    with: { run: 'echo ${matrix.rate} > out.txt', outputs: out.txt }
  table: { kind: command, inputs: { all: train, one: 'train[rate=1,r=8]' }, with: { run: ls all > x, outputs: x } }
";

#[test]
fn a_matrix_is_a_folder_to_a_command_however_many_stages_it_makes() {
    let inputs = |rates: &str| -> Vec<String> {
        let pipeline = parse_with(ABLATION, &[("stages.train.matrix.rate", rates)]).unwrap();
        pipeline.stages["table"].inputs.keys().cloned().collect()
    };
    assert_eq!(inputs("[1, 2]"), ["all/rate=1,r=8", "all/rate=2,r=8", "one"]);
    assert_eq!(inputs("[1]"), ["all/rate=1,r=8", "one"]);
    let chosen = parse(&ABLATION.replace("all: train", "all: 'train[rate=2]'")).unwrap();
    let inputs: Vec<&String> = chosen.stages["table"].inputs.keys().collect();
    assert_eq!(inputs, ["all/rate=2,r=8", "one"]);
}

#[test]
fn a_value_that_is_asked_for_like_a_param_is_pointed_to() {
    let problems = lines(&parse(&ABLATION.replace("${matrix.rate}", "${rate}")).err().unwrap());
    assert!(
        problems[0].ends_with("undefined param `rate` | the value of the axis is `${matrix.rate}`"),
        "{problems:?}"
    );
}
