//! Files that are larger than 32 bits count.

use std::fs::{self, File};

use pipe_testkit::Project;

const BYTES: u64 = 5 << 30;

/// The file takes no space on the disk: all of it is a hole.
#[test]
fn a_file_of_five_gibibytes_goes_in_and_comes_out() {
    // In memory its pages would be.
    let project = Project::new(
        env!("CARGO_BIN_EXE_fake-pipe"),
        "
name: large
stages:
  large: { kind: wild, with: { text: large, trick: sparse, megabytes: 5120 } }
  word: { kind: first_word, inputs: { text: large } }
",
    )
    .unwrap();
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(project.text(&ran, "word", "out").unwrap(), "large", "it was laid out for the next stage");
    let shards = fs::read_dir(project.home().join("objects")).unwrap();
    let objects = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().map(Result::unwrap));
    let large: Vec<_> = objects.filter(|object| object.metadata().unwrap().len() == BYTES).collect();
    assert_eq!(large.len(), 1);
    assert_eq!(project.run(&[]).unwrap().hits(), ["large", "word"]);

    // And as a file of the user's.
    let path = project.folder().join("corpus");
    File::create(&path).unwrap().set_len(BYTES).unwrap();
    let taken = "name: large\nstages:\n  taken: { kind: measure_file, with: { path: corpus } }\n";
    project.write("pipeline.yaml", taken).unwrap();
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(project.text(&ran, "taken", "out").unwrap(), BYTES.to_string());
    assert_eq!(project.run(&[]).unwrap().hits(), ["taken"]);
    // A byte at its end counts.
    std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(&path).unwrap(), b"x", BYTES - 1)
        .unwrap();
    assert_eq!(project.run(&[]).unwrap().started(), ["taken"]);
}
