//! Names in Chinese: of pipelines, params, stages, outputs, inputs, axes and values, everywhere where names go.

use serde_json::Value;

use super::{Project, actions};

const PIPELINE: &str = "
name: 中文流水线
params: { 行数: 3 }
stages:
  语料:
    kind: command
    with:
      run: 'seq ${行数} > 全部.txt; head -n 1 全部.txt > 评测.txt'
      outputs: { 训练集: 全部.txt, 评测集: 评测.txt }
  变体:
    kind: command
    matrix: { 学习率: [1e-4, 高], r: [8] }
    inputs: { 数据: 语料.训练集 }
    with: { run: 'echo ${matrix.学习率} > 结果; cat 数据 >> 结果', outputs: 结果 }
  汇总:
    kind: command
    inputs: { 所有: 变体, 一: '变体[学习率=高]', 评: 语料.评测集 }
    with: { run: cat 一/* 评 > 汇总.txt, outputs: 汇总.txt }
";

fn project() -> Project {
    let project = Project::new();
    std::fs::write(project.path("流水线.yaml"), PIPELINE).unwrap();
    let ran = project.run(&["run", "流水线.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // Columns are as wide as a terminal shows them.
    assert!(ran.stderr.contains("> 语料                  command: never run"), "{}", ran.stderr);
    assert!(ran.stderr.contains("> 变体@学习率=1e-4,r=8  command: never run"), "{}", ran.stderr);
    project
}

#[test]
fn a_pipeline_may_be_all_chinese() {
    let project = project();
    let again = project.run(&["run", "流水线.yaml"]);
    assert!(again.stderr.starts_with("up to date: 4 stages"), "{}", again.stderr);

    let plan = ["plan", "流水线.yaml", "--format", "json", "--set", "行数=4", "--only", "变体@学习率=高,r=8"];
    assert_eq!(actions(&project.run(&plan)), [("变体@学习率=高,r=8".to_owned(), "hit".to_owned())]);
    let plan = project.run(&["plan", "流水线.yaml", "变体", "--set", "行数=4"]);
    assert!(plan.stdout.contains("run   语料                  `run` changed from"), "{}", plan.stdout);
    assert!(plan.stdout.contains("run?  变体@学习率=高,r=8    `语料` runs first"), "{}", plan.stdout);

    let explained = project.run(&["explain", "流水线.yaml", "汇总"]);
    assert!(explained.stdout.contains("语料.评测集"), "{}", explained.stdout);
    assert_eq!(project.run(&["log", "变体@学习率=1e-4,r=8"]).code, 0);
    for (output, place, text) in
        [("语料.训练集", "训练集", "1\n2\n3\n"), ("变体@学习率=高,r=8", "结果", "高\n1\n2\n3\n")]
    {
        let got = project.run(&["get", output, place]);
        assert_eq!(got.code, 0, "{}", got.stderr);
        assert_eq!(std::fs::read_to_string(project.path(place)).unwrap(), text);
    }
    let misspelt = project.run(&["plan", "流水线.yaml", "汇点"]);
    assert!(misspelt.code == 2 && misspelt.stderr.contains("has no stage `汇点`"), "{}", misspelt.stderr);
}

#[test]
fn chinese_names_go_into_graphs_runs_and_bundles() {
    let project = project();
    let dag = |format: &str| project.run(&["dag", "流水线.yaml", "--format", format]).stdout;
    assert!(dag("text").contains("语料                  command\n"), "{}", dag("text"));
    // Mermaid has its ids from the numbers of the characters, and shows the names.
    assert!(dag("mermaid").contains("    s__8bed__6599_[\"语料<br/><i>command</i>\"]"), "{}", dag("mermaid"));
    assert!(dag("dot").contains("    \"语料\" -> \"汇总\" [label=\"评\"];"), "{}", dag("dot"));

    let shown = project.run(&["runs", "show", "--format", "json"]).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["stages"]["汇总"]["outcome"], "ran");
    assert_eq!(project.run(&["cache", "verify"]).code, 0);
    let shared = project.run(&["share", "last", "-o", "包.pipe"]);
    assert_eq!(shared.code, 0, "{}", shared.stderr);
    let reproduced = project.run(&["reproduce", "包.pipe", "--allow-commands"]);
    assert_eq!(reproduced.code, 0, "{}{}", reproduced.stdout, reproduced.stderr);
    assert!(reproduced.stdout.contains("same      汇总 "), "{}", reproduced.stdout);
}

#[test]
fn what_only_looks_the_same_is_refused() {
    let project = Project::new();
    let text = "stages:\n  cafe\u{301}: { kind: command, with: { run: 'true > a', outputs: a } }\n";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    let checked = project.run(&["check", "p.yaml"]);
    assert_eq!(checked.code, 2);
    assert!(checked.stderr.contains("write `café`"), "{}", checked.stderr);
}

#[test]
fn quotes_in_the_name_of_an_input_break_no_graph() {
    let project = Project::new();
    let text = "name: q\nstages:\n  a: { kind: command, with: { run: 'echo > x', outputs: x } }\n  \
                b: { kind: command, inputs: { 'a \"b\"': a }, with: { run: 'echo > x', outputs: x } }\n";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    let dag = |format: &str| project.run(&["dag", "p.yaml", "--format", format]).stdout;
    assert!(dag("mermaid").contains("|\"a #quot;b#quot;\"|"), "{}", dag("mermaid"));
    assert!(dag("dot").contains("[label=\"a \\\"b\\\"\"]"), "{}", dag("dot"));
}
