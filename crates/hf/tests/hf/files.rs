//! The small files beside the weights.

use std::{fs, os::unix::fs::PermissionsExt};

use pipe_hf::{copy_side_files, copy_tokenizer_files};

#[test]
fn tokenizer_and_licence_are_copied_and_nothing_else() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "chat_template.jinja", "LICENSE", "model.safetensors", "config.json", "notes.txt"] {
        let path = from.path().join(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    }
    assert_eq!(copy_tokenizer_files(from.path(), to.path()).unwrap(), ["tokenizer.json", "chat_template.jinja"]);
    let copied = copy_side_files(from.path(), to.path()).unwrap();
    assert_eq!(copied, ["tokenizer.json", "chat_template.jinja", "LICENSE"]);
    let mut names: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["LICENSE", "chat_template.jinja", "tokenizer.json"]);
    assert_eq!(fs::read_to_string(to.path().join("LICENSE")).unwrap(), "LICENSE");
}
