//! What reaches a command of the environment, and what of that is in the key.

use super::Project;

/// Every file below a folder.
fn files(folder: std::path::PathBuf) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(path) } else { vec![path] }).collect()
}

#[test]
fn only_what_is_declared_and_a_documented_few_reach_a_command() {
    let project = Project::new(
        r#"
stages:
  a:
    kind: command
    resources: { cpus: 2 }
    with:
      run: env | sort | grep -v -e '^_=' -e '^PWD=' -e '^SHLVL=' -e '^OLDPWD=' > env.txt
      env: [TOKEN, NOT_SET, { MODE: fast }]
      outputs: env.txt
"#,
    );
    let run = || {
        let mut command = project.command(&["run", "p.yaml"]);
        command.env("TOKEN", "very-secret").env("OTHER", "1").env("LANG", "de_DE.UTF-8").env("LD_LIBRARY_PATH", "/l");
        command.env("PATH", "/usr/bin:/bin").env("HOME", "/h").env_remove("CUDA_VISIBLE_DEVICES");
        command.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID").output().unwrap()
    };
    let output = run();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = project.text("a", "env.txt");
    let scratch = project.path("home/scratch").display().to_string();
    let found: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("CUDA_VISIBLE_DEVICES="))
        .map(|line| {
            if line.contains(&scratch) || line.starts_with("PIPE_RESUME=") {
                line.split_once('=').unwrap().0
            } else {
                line
            }
        })
        .collect();
    assert_eq!(
        found,
        [
            "CUBLAS_WORKSPACE_CONFIG=:4096:8",
            "CUDA_DEVICE_ORDER=PCI_BUS_ID",
            "HOME=/h",
            "LANG=C.UTF-8",
            "LC_ALL=C.UTF-8",
            "LD_LIBRARY_PATH=/l",
            "MKL_NUM_THREADS=2",
            "MODE=fast",
            "NUMEXPR_NUM_THREADS=2",
            "OMP_NUM_THREADS=2",
            "OPENBLAS_NUM_THREADS=2",
            "PATH=/usr/bin:/bin",
            "PIPE_METRICS",
            "PIPE_RESUME",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONHASHSEED=0",
            "PYTHONUNBUFFERED=1",
            "RAYON_NUM_THREADS=2",
            "TMPDIR",
            "TOKEN=very-secret",
            "TZ=UTC",
        ]
    );

    // The artifact is the one place where this command wrote it.
    let secret =
        |path: &std::path::PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains("very-secret");
    let holding: Vec<_> = files(project.path("home")).into_iter().filter(secret).collect();
    assert!(holding.iter().all(|path| path.starts_with(project.path("home/objects"))), "{holding:?}");
    assert!(String::from_utf8(run().stderr).unwrap().starts_with("up to date"));
}

#[test]
fn another_value_of_a_declared_variable_runs_the_stage_and_is_not_shown() {
    let project =
        Project::new("stages: { a: { kind: command, with: { run: 'echo $MODEL > a', env: [MODEL], outputs: a } } }");
    let plan = |value: &str| {
        let output = project.command(&["plan", "p.yaml"]).env("MODEL", value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let ran = project.command(&["run", "p.yaml"]).env("MODEL", "small").output().unwrap();
    assert!(ran.status.success());
    assert_eq!(project.text("a", "a"), "small\n");
    let (same, other) = (plan("small"), plan("large"));
    assert!(!same.contains("MODEL"), "{same}");
    assert!(other.contains("the environment variable `MODEL` changed") && !other.contains("large"), "{other}");
}
