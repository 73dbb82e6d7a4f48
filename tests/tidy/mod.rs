//! Rules of the repository that no compiler checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the folders in `folder`.
fn folders(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap);
    entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Every Rust file of ours, relative to the root.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "crates", "stages"].map(PathBuf::from).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap().map(Result::unwrap) {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 100, "only {} Rust files found", files.len());
    files.sort();
    files
}

/// A line's code: without comments and string literals that stand on one line.
fn code(line: &str) -> String {
    let mut code = String::new();
    let (mut quoted, mut characters) = (false, line.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if !quoted => code.push(character),
            _ => {}
        }
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_').filter(|word| !word.is_empty())
}

/// The dependencies of a package of the workspace, as `cargo metadata` reads them from its manifest.
struct Package {
    /// Needed to build it, and not optional.
    always: BTreeSet<String>,
    optional: BTreeSet<String>,
    /// Needed by its tests or its build script.
    other: BTreeSet<String>,
}

impl Package {
    fn names(&self, dependency: &str) -> bool {
        [&self.always, &self.optional, &self.other].iter().any(|set| set.contains(dependency))
    }
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = |package: &Value| {
        let mut read = Package { always: BTreeSet::new(), optional: BTreeSet::new(), other: BTreeSet::new() };
        for dependency in package["dependencies"].as_array().unwrap() {
            let set = match (dependency["kind"].as_str(), dependency["optional"].as_bool().unwrap()) {
                (Some(_), _) => &mut read.other,
                (None, true) => &mut read.optional,
                (None, false) => &mut read.always,
            };
            set.insert(dependency["name"].as_str().unwrap().to_owned());
        }
        (package["name"].as_str().unwrap().to_owned(), read)
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn every_kind_has_a_folder_and_a_line_in_the_registry() {
    let kinds = folders("stages");
    for kind in &kinds {
        let name = format!("name = \"stage-{kind}\"");
        assert!(read(format!("stages/{kind}/Cargo.toml")).lines().any(|line| line == name), "{kind}: no {name}");
        assert!(!read(format!("stages/{kind}/README.md")).trim().is_empty(), "{kind}: an empty README.md");
        read(format!("stages/{kind}/src/lib.rs"));
    }
    let registry = read("src/registry.rs");
    let registered: Vec<String> = registry
        .lines()
        .filter_map(|line| line.split_once("stage_"))
        .map(|(_, rest)| rest.split("::").next().unwrap().to_owned())
        .collect();
    let once: BTreeSet<String> = registered.iter().cloned().collect();
    assert_eq!(registered.len(), once.len(), "a kind stands twice in src/registry.rs");
    assert_eq!(once, kinds, "src/registry.rs and stages/ name different kinds");
    let declared: BTreeSet<String> = pipe::registry::KINDS.iter().map(|kind| kind.kind.to_owned()).collect();
    assert_eq!(declared, kinds, "a kind is called differently from its folder");
}

#[test]
fn a_stage_depends_on_no_other_stage_and_not_on_the_engine() {
    for (name, package) in packages().iter().filter(|(name, _)| name.starts_with("stage-")) {
        assert!(!package.names("pipe"), "{name} depends on pipe");
        let known = [&package.always, &package.optional, &package.other];
        let stages: Vec<_> = known.into_iter().flatten().filter(|other| other.starts_with("stage-")).collect();
        assert!(stages.is_empty(), "{name} depends on {stages:?}");
    }
}

#[test]
fn libtorch_is_needed_only_where_it_belongs() {
    let linked = ["pipe-kernels", "pipe-nn", "pipe-torch"];
    let behind_a_feature = ["stage-train", "stage-evaluate"];
    for (name, package) in packages() {
        for dependency in ["tch", "torch-sys", "pipe-nn", "pipe-kernels"] {
            let allowed = linked.contains(&name.as_str())
                || (behind_a_feature.contains(&name.as_str())
                    && !package.always.contains(dependency)
                    && !package.other.contains(dependency));
            assert!(allowed || !package.names(dependency), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn the_engine_links_no_libtorch() {
    let program = fs::read(env!("CARGO_BIN_EXE_pipe")).unwrap();
    let library = b"libtorch_cpu.so";
    assert!(!program.windows(library.len()).any(|bytes| bytes == library), "pipe is linked with libtorch");
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in rust_files() {
        let first = read(&path).lines().next().unwrap_or_default().to_owned();
        assert!(first.starts_with("//! "), "{} does not open with `//! `", path.display());
    }
}

#[test]
fn unsafe_code_is_only_in_the_kernels() {
    for path in rust_files().iter().filter(|path| !path.starts_with("crates/kernels")) {
        for (number, line) in read(path).lines().enumerate() {
            let found = words(&code(line)).any(|word| word == "unsafe");
            assert!(!found, "{}:{}: unsafe code outside crates/kernels", path.display(), number + 1);
        }
    }
}

#[test]
fn graph_and_plan_touch_neither_files_nor_processes() {
    for path in ["src/graph.rs", "src/plan.rs"] {
        for (number, line) in read(path).lines().enumerate() {
            let found =
                words(&code(line)).find(|word| ["fs", "process", "File", "Command"].contains(word)).map(str::to_owned);
            assert_eq!(found, None, "{path}:{}", number + 1);
        }
    }
}
