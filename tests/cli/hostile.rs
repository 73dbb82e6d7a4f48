//! A bundle that somebody forged: nothing of it is believed that is not checked.

use std::fs;

use super::share::{forge, made, reproduce, share};

#[test]
fn a_hostile_bundle_writes_nothing_and_reads_nothing_of_others() {
    let (project, _) = made();
    assert_eq!(share(&project, &["last", "-o", "x.pipe"]).code, 0);
    let sound = project.path("x.pipe");
    let refused = |name: &str, why: &str| {
        let ran = reproduce(&project, &[name, "--into", "out"]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{name}: {}", ran.stderr);
        assert!(!project.path("out").exists(), "{name} was unpacked");
    };
    let bytes = fs::read(&sound).unwrap();
    fs::write(project.path("cut.pipe"), &bytes[..bytes.len() / 2]).unwrap();
    refused("cut.pipe", "it is cut off");
    fs::write(project.path("long.pipe"), [&bytes[..], b"more"].concat()).unwrap();
    refused("long.pipe", "something stands behind its end");
    fs::write(project.path("other.pipe"), "no bundle").unwrap();
    refused("other.pipe", "it is not a bundle, or it is damaged");

    let forged = project.path("forged.pipe");
    let pipeline = |change: &dyn Fn(String) -> String| forge(&sound, &forged, "project/pipeline.yaml", change);
    for outside in ["/etc/hostname", "../x.pipe", "数据/../../x.pipe", "tokenizer/none"] {
        pipeline(&|text| text.replace("file://数据/a b.txt", &format!("file://{outside}")));
        refused("forged.pipe", "which is not in the bundle");
    }
    pipeline(&|text| format!("extends: /etc/passwd\n{text}"));
    refused("forged.pipe", "it has a field `extends`");
    pipeline(&|text| text.replace("kind: init_model", "kind: unheard_of"));
    refused("forged.pipe", "unknown kind `unheard_of`");
    pipeline(&|text| text.replace("  near:\n", "  nearer:\n"));
    refused("forged.pipe", "a stage `near` that its pipeline does not have");
    let experiment = |change: &dyn Fn(String) -> String| forge(&sound, &forged, "experiment.json", change);
    experiment(&|text| text.replacen("\"pipeline\"", "\"pipe\"", 1));
    refused("forged.pipe", "its `experiment.json` is not what pipe writes");
    experiment(&|text| text.replacen("\"near\": {", "\"../near\": {", 1));
    refused("forged.pipe", "is no name for a stage");
    for threads in ["0", "99999999"] {
        experiment(&|text| text.replacen("\"threads\": null", &format!("\"threads\": {threads}"), 1));
        refused("forged.pipe", "cannot have run with");
    }
    experiment(&|text| text.replacen("logs/near.log", "logs/none.log", 1));
    refused("forged.pipe", "it lacks `logs/none.log`");

    // Where a pipeline wants its outputs to be copied to is for its author's machine.
    pipeline(&|text| text.replace("  near:\n", "  near:\n    outputs: ../../escaped\n"));
    let ran = reproduce(&project, &["forged.pipe", "--into", "out"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!project.path("escaped").exists());

    let small = reproduce(&project, &["x.pipe", "--max-size", "1kB"]);
    assert!(small.code == 2 && small.stderr.contains("allow more with --max-size"), "{}", small.stderr);
}
