//! Names and folders of all kinds: kept as they are, or refused with a word.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path};

use pipe_testkit::{Project, Ran};

use crate::project;

const COPY: &str = "name: copy\nstages:\n  copy: { kind: copy_file, with: { path: data } }\n";

/// The files below `folder`, with their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn read(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                read(&entry.path(), &format!("{name}/"), files);
            } else {
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    read(folder, "", &mut found);
    found
}

/// The error of the only stage that failed, with its causes.
fn failure(ran: &Ran) -> String {
    let failed: Vec<_> = ran.events_of("stage_failed").collect();
    assert_eq!(failed.len(), 1, "{ran:?}");
    failed[0]["failure"]["chain"].to_string()
}

fn with_data(names: &[&str]) -> Project {
    let project = project(COPY);
    for name in names {
        let path = project.folder().join("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("in {name:?}")).unwrap();
    }
    project
}

#[test]
fn names_in_any_script_with_spaces_newlines_and_emoji_come_back_as_they_were() {
    let names = [
        "数据/训练 集.jsonl",
        "with space/and more ",
        "🦀🔥",
        "line\nbreak",
        "tab\t\\back\"quote'",
        "-dash",
        "a\u{301}",
    ];
    let project = with_data(&names);
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    let copy = project.checkout(&ran, "copy", "out").unwrap();
    assert_eq!(files(&copy), files(&project.folder().join("data")));
    assert_eq!(project.run(&[]).unwrap().hits(), ["copy"]);
}

#[test]
fn pipelines_files_and_folders_may_have_chinese_names() {
    let project = project(
        "
name: 微调
stages:
  data: { kind: copy_file, with: { path: 语料/对话.jsonl } }
  word: { kind: first_word, inputs: { text: data } }
",
    );
    fs::create_dir(project.folder().join("语料")).unwrap();
    project.write("语料/对话.jsonl", "你好 世界").unwrap();
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(project.text(&ran, "word", "out").unwrap(), "你好");
}

#[test]
fn a_folder_of_twenty_thousand_files_is_kept_found_again_and_given_out() {
    let project = project(COPY);
    for folder in 0..20 {
        let folder = project.folder().join(format!("data/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..1000 {
            fs::write(folder.join(file.to_string()), format!("{} {file}", folder.display())).unwrap();
        }
    }
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(project.run(&[]).unwrap().hits(), ["copy"]);
    let copy = project.checkout(&ran, "copy", "out").unwrap();
    assert!(files(&copy) == files(&project.folder().join("data")), "all files with their bytes");
    project.write("data/7/777", "changed").unwrap();
    let changed = project.run(&[]).unwrap();
    assert_eq!(changed.started(), ["copy"]);
    assert!(changed.events_of("stage_started").next().unwrap()["reasons"].to_string().contains("data"));
}

#[test]
fn a_link_that_leads_back_is_named_before_anything_runs() {
    let project = with_data(&["deep/file"]);
    let data = project.folder().join("data");
    symlink("..", data.join("deep/up")).unwrap();
    let ran = project.run(&[]).unwrap();
    let said = format!("the link `{}` leads back to a folder that it lies in", data.join("deep/up").display());
    assert_eq!((ran.code(), ran.started().len()), (2, 0), "{ran:?}");
    assert!(ran.errors.contains(&said), "{}", ran.errors);

    fs::remove_file(data.join("deep/up")).unwrap();
    symlink("self", data.join("self")).unwrap();
    let ran = project.run(&[]).unwrap();
    let said = format!("cannot read `{}`: Too many levels of symbolic links", data.join("self").display());
    assert_eq!((ran.code(), ran.started().len()), (2, 0), "{ran:?}");
    assert!(ran.errors.contains(&said), "{}", ran.errors);
}

#[test]
fn a_stage_may_write_neither_links_nor_odd_files() {
    for (trick, said) in [
        ("link", "the output file `link` is a symbolic link: a stage must write files, or copy them"),
        ("link_loop", "the output file `deep/up` is a symbolic link: a stage must write files, or copy them"),
        ("pipe", "the output file `pipe` is neither a file nor a folder"),
        ("odd_name", "has a name that cannot be stored"),
    ] {
        let text = format!("name: odd\nstages:\n  odd: {{ kind: wild, with: {{ text: odd, trick: {trick} }} }}\n");
        let ran = project(&text).run(&[]).unwrap();
        assert_eq!(ran.code(), 1, "{trick}: {ran:?}");
        assert!(failure(&ran).contains(said), "{trick}: {}", failure(&ran));
    }
}
