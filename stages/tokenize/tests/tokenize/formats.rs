//! The same rows in every format give the same samples.

use serde_json::json;

use crate::{encode, model, run_inputs};

fn lines() -> Vec<u8> {
    (0..40)
        .map(|index| format!("{}\n", json!({ "id": index, "text": format!("row \"{index}\", [x] {{y}}") })))
        .collect::<String>()
        .into()
}

#[test]
fn an_array_gives_what_its_lines_give() {
    let lines = lines();
    let rows = String::from_utf8(lines.clone()).unwrap().trim_end().replace('\n', ",\n");
    let expected = run_inputs(&model(), &[&[("a.jsonl", &lines)]], json!({}), false).ids();
    assert_eq!(expected.len(), 40);
    for text in [format!("[{rows}]\n"), format!("\u{feff} [\n{rows}\n]"), format!("{{\"data\": [{rows}], \"n\": 40}}")]
    {
        for config in [json!({}), json!({ "batch_size": 3, "num_proc": 4 })] {
            assert_eq!(run_inputs(&model(), &[&[("a.json", text.as_bytes())]], config, false).ids(), expected);
        }
    }
    let fixed = run_inputs(&model(), &[&[("a.txt", &lines)]], json!({ "format": "jsonl" }), false);
    assert_eq!(fixed.ids(), expected);
    let pretty =
        run_inputs(&model(), &[&[("a.json", b"{\n \"text\":\n \"one\"}\n{\"text\": \"two\"}")]], json!({}), false);
    assert_eq!(pretty.ids(), ["one", "two"].map(encode));
}

#[test]
fn elements_are_named_by_row() {
    let outcome = run_inputs(
        &model(),
        &[&[("a.json", b"[{\"text\": \"one\"},\n{\"text\": },\n {\"text\": \"two\"}]")]],
        json!({ "on_bad_row": "skip" }),
        false,
    );
    assert_eq!(outcome.ids(), ["one", "two"].map(encode));
    assert_eq!(outcome.figure("rows_bad_broken_json"), Some(&json!("1 (a.json row 2)")));
    let cut = run_inputs(&model(), &[&[("a.json", b"[{\"text\": \"one\"},")]], json!({}), false).error();
    assert!(cut.ends_with("behind row 1: the file ends before its array does; get it again"), "{cut}");
}

#[test]
fn a_table_gives_what_its_lines_give() {
    let csv =
        b"\xef\xbb\xbfid,text,note\r\n1,\"a \"\"b\"\",\nc\",\r\n2,two,x\r\n3,three\r\n4,\xff,x\r\n5,five,\"\"\r\n";
    let tsv = String::from_utf8_lossy(b"id\ttext\tnote\n1\t\"a \"\"b\"\",\nc\"\t\n2\ttwo\tx\n5\tfive\t").into_owned();
    let expected = ["a \"b\",\nc", "two", "five"].map(encode);
    let outcome = run_inputs(&model(), &[&[("a.csv", csv)]], json!({ "on_bad_row": "skip" }), false);
    assert_eq!(outcome.ids(), expected);
    assert_eq!(outcome.figure("rows_bad_wrong_cells"), Some(&json!("1 (a.csv:5)")));
    assert_eq!(outcome.figure("rows_bad_not_utf8"), Some(&json!("1 (a.csv:6)")));
    assert_eq!(run_inputs(&model(), &[&[("a.tsv", tsv.as_bytes())]], json!({}), false).ids(), expected);
}

#[test]
fn text_is_data_where_there_is_nothing_else() {
    let files: &[(&str, &[u8])] = &[("a.txt", b"one\r\n\r\ntwo\n"), ("README.md", b"about"), ("b.md", b"three")];
    let ids = |config| run_inputs(&model(), &[files], config, false).ids();
    assert_eq!(ids(json!({})), ["one\r\n\r\ntwo\n", "three"].map(encode));
    assert_eq!(ids(json!({ "text_document": "line" })), ["one", "two", "three"].map(encode));
    let beside: &[(&str, &[u8])] = &[("a.txt", b"one"), ("rows.jsonl", b"{\"text\": \"two\"}"), ("state.json", b"{}")];
    assert_eq!(run_inputs(&model(), &[beside], json!({}), false).ids(), ["two"].map(encode));
}

#[test]
fn other_encodings_and_damaged_files_are_errors() {
    let error = |name: &str, bytes: &[u8]| run_inputs(&model(), &[&[(name, bytes)]], json!({}), false).error();
    assert!(error("a.jsonl", b"\xff\xfe{\0\"\0").ends_with("is UTF-16; write it as UTF-8 (iconv -f UTF-16 -t UTF-8)"));
    assert!(error("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(error("a.jsonl", b"\x1f\x8b\x08\0\0\0\0\0").contains("ends too early"));
    assert!(error("a.parquet", b"PAR1 and no footer").contains("as Parquet"));
    assert!(error("a.arrow", b"ARROW1\0\0 and no footer").contains("as Arrow"));
    let cr = run_inputs(&model(), &[&[("a.jsonl", b"{\"text\": \"one\"}\r{\"text\": \"two\"}\r")]], json!({}), false);
    assert_eq!(cr.ids(), ["one", "two"].map(encode));
}
