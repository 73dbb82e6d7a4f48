//! How many stages run at once, in which order they begin, and what each is given.

use std::{collections::BTreeSet, thread, time::Instant};

use pipe_testkit::{Gate, Project};

use crate::{gated, project};

/// A project whose stages have these names, and more fields, and stand at gates.
fn at_gates(stages: &[(&str, &str)]) -> (Project, Vec<Gate>) {
    let project = project("name: gates\nstages: {}\n");
    let gates: Vec<Gate> = stages.iter().map(|(name, _)| project.gate(&format!("gate-{name}")).unwrap()).collect();
    let lines = stages.iter().zip(&gates).map(|((name, more), gate)| gated(name, gate, more));
    project.write("pipeline.yaml", &format!("name: gates\nstages:\n{}", lines.collect::<String>())).unwrap();
    (project, gates)
}

#[test]
fn as_many_stages_run_at_once_as_there_are_cpus_and_no_more() {
    let (project, gates) = at_gates(&[("a", ""), ("b", ""), ("c", "")]);
    let running = project.start(&["--resources", "cpus=2"]).unwrap();
    // Neither goes on before both are there.
    let arrived: Vec<_> = gates[..2].iter().map(|gate| gate.wait_for_worker().unwrap()).collect();
    assert!(!gates[2].has_worker().unwrap());
    arrived.into_iter().for_each(|worker| worker.open().unwrap());
    gates[2].wait_for_worker().unwrap().open().unwrap();
    assert_eq!(running.finish().unwrap().code(), 0);
}

#[test]
fn jobs_bound_stages_that_do_not_say_how_many_cpus_they_use() {
    let (project, gates) = at_gates(&[("a", ""), ("b", ""), ("c", "")]);
    let running = project.start(&["--resources", "cpus=1", "--jobs", "3"]).unwrap();
    let arrived: Vec<_> = gates.iter().map(|gate| gate.wait_for_worker().unwrap()).collect();
    arrived.into_iter().for_each(|worker| worker.open().unwrap());
    assert_eq!(running.finish().unwrap().code(), 0);

    let (project, gates) = at_gates(&[("a", ""), ("b", ""), ("c", "")]);
    let running = project.start(&["--resources", "cpus=8", "--jobs", "1"]).unwrap();
    for (gate, next) in gates.iter().zip(gates.iter().skip(1).map(Some).chain([None])) {
        let worker = gate.wait_for_worker().unwrap();
        assert!(next.is_none_or(|next| !next.has_worker().unwrap()));
        worker.open().unwrap();
    }
    assert_eq!(running.finish().unwrap().code(), 0);
}

#[test]
fn stages_that_say_what_they_need_run_at_once_only_if_there_is_enough() {
    let wants = |cpus: usize, memory: &str| format!(", resources: {{ cpus: {cpus}, memory: {memory} }}");
    let wants = [wants(2, "1GB"), wants(1, "3GB"), wants(1, "1GB"), wants(2, "1GB")];
    let (project, gates) = at_gates(&[("a", &wants[0]), ("b", &wants[1]), ("c", &wants[2]), ("d", &wants[3])]);
    let running = project.start(&["--resources", "cpus=4,memory=4GB"]).unwrap();
    let [a, b] = [&gates[0], &gates[1]].map(|gate| gate.wait_for_worker().unwrap());
    // All memory is taken, and a CPU is left.
    assert!(!gates[2].has_worker().unwrap() && !gates[3].has_worker().unwrap());
    b.open().unwrap();
    let c = gates[2].wait_for_worker().unwrap();
    // There is memory, but only one CPU.
    assert!(!gates[3].has_worker().unwrap());
    a.open().unwrap();
    gates[3].wait_for_worker().unwrap().open().unwrap();
    c.open().unwrap();
    assert_eq!(running.finish().unwrap().code(), 0);
}

#[test]
fn a_stage_that_has_to_run_and_asks_for_more_than_there_is_is_refused_before_anything_begins() {
    let project = project(
        "
name: large
stages:
  small: { kind: write, with: { text: small } }
  large: { kind: concat, inputs: { parts: [small] }, resources: { gpus: 2 } }
",
    );
    let refused = project.run(&["--resources", "gpus=1"]).unwrap();
    assert_eq!((refused.code(), refused.events.len()), (3, 0), "{refused:?}");
    assert_eq!(
        refused.errors,
        "the stage `large` asks for 2 GPUs, and there is 1 GPU to use\n\
         lower `resources.gpus` of the stage, or say what there is: --resources gpus=2\n"
    );
    assert_eq!(project.run(&["--resources", "gpus=2"]).unwrap().code(), 0);
    assert_eq!(project.run(&["--resources", "gpus=0"]).unwrap().hits().len(), 2, "what is there needs no GPU");

    let change = ["--resources", "gpus=0", "--set", "stages.small.with.text=other"];
    let changed = project.run(&change).unwrap();
    assert_eq!((changed.code(), changed.started()), (3, vec!["small".to_owned()]), "it could have come out the same");
    let failed = changed.events_of("stage_failed").next().unwrap();
    assert_eq!(failed["failure"]["chain"][0], "the stage `large` asks for 2 GPUs, and there are 0 GPUs to use");
}

/// A stage that stands at a gate and then writes which GPUs it sees.
fn on_gpus(name: &str, gate: &Gate, gpus: usize) -> String {
    let folder = gate.folder().display();
    let with = format!("{{ variables: [CUDA_VISIBLE_DEVICES], label: {name}, gate: '{folder}' }}");
    format!("  {name}: {{ kind: surroundings, with: {with}, resources: {{ gpus: {gpus} }} }}\n")
}

#[test]
fn stages_that_run_at_once_see_different_gpus_of_those_that_were_inherited() {
    let project = project("name: gpus\nstages: {}\n");
    let gates = ["a", "b", "c"].map(|name| project.gate(name).unwrap());
    let stages = [on_gpus("a", &gates[0], 1), on_gpus("b", &gates[1], 1), on_gpus("c", &gates[2], 0)].concat();
    project.write("pipeline.yaml", &format!("name: gpus\nstages:\n{stages}")).unwrap();
    let inherited = [("CUDA_VISIBLE_DEVICES", "GPU-5f,3")];
    let running = project.start_in(&inherited, &["--resources", "cpus=8"]).unwrap();
    let arrived: Vec<_> = gates.iter().map(|gate| gate.wait_for_worker().unwrap()).collect();
    arrived.into_iter().for_each(|worker| worker.open().unwrap());
    let ran = running.finish().unwrap();
    let seen: BTreeSet<String> = ["a", "b"].iter().map(|stage| project.text(&ran, stage, "out").unwrap()).collect();
    assert_eq!(Vec::from_iter(seen), ["CUDA_VISIBLE_DEVICES=3", "CUDA_VISIBLE_DEVICES=GPU-5f"]);
    assert_eq!(project.text(&ran, "c", "out").unwrap(), "CUDA_VISIBLE_DEVICES=");
}

#[test]
fn stages_that_want_the_same_gpu_take_turns() {
    let (project, gates) = at_gates(&[("a", ", resources: { gpus: 1 }"), ("b", ", resources: { gpus: 1 }")]);
    let running = project.start(&["--jobs", "8", "--resources", "gpus=1"]).unwrap();
    let first = gates[0].wait_for_worker().unwrap();
    assert!(!gates[1].has_worker().unwrap());
    first.open().unwrap();
    gates[1].wait_for_worker().unwrap().open().unwrap();
    assert_eq!(running.finish().unwrap().code(), 0);
}

#[test]
fn two_runs_of_a_machine_hand_out_no_gpu_twice() {
    let machine = tempfile::tempdir().unwrap();
    let locks = machine.path().join("gpus");
    let machine = [("PIPE_GPU_LOCKS", locks.to_str().unwrap())];
    let projects = ["a", "b"].map(|name| {
        let project = project("name: gpus\nstages: {}\n");
        let gate = project.gate(name).unwrap();
        let idle = project.gate("idle").unwrap();
        let stages = on_gpus(name, &gate, 1) + &on_gpus("idle", &idle, 0);
        project.write("pipeline.yaml", &format!("name: {name}\nstages:\n{stages}")).unwrap();
        (project, gate, idle)
    });
    let start = |(project, _, _): &(Project, Gate, Gate)| {
        project.start_in(&machine, &["--resources", "gpus=2,cpus=4", "--keep-going"]).unwrap()
    };
    let see = |(project, _, _): &(Project, Gate, Gate), ran: &pipe_testkit::Ran, stage: &str| {
        project.text(ran, stage, "out").unwrap()
    };
    // There are two: they get one each.
    let running = [start(&projects[0]), start(&projects[1])];
    let workers: Vec<_> =
        projects.iter().flat_map(|(_, gate, idle)| [gate.wait_for_worker(), idle.wait_for_worker()]).collect();
    workers.into_iter().for_each(|worker| worker.unwrap().open().unwrap());
    let ran = running.map(|running| running.finish().unwrap());
    let mut seen = [see(&projects[0], &ran[0], "a"), see(&projects[1], &ran[1], "b")];
    seen.sort();
    assert_eq!(seen, ["CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"]);

    // There is one: the second waits and says for whom, and what needs none goes on.
    let one = ["--resources", "gpus=1,cpus=4", "--force-all"];
    let first = projects[0].0.start_in(&machine, &one).unwrap();
    let holder = projects[0].1.wait_for_worker().unwrap();
    let mut second = projects[1].0.start_in(&machine, &one).unwrap();
    let waiting = second.wait_for("stage_waiting_for_gpu").unwrap();
    assert_eq!((&waiting["stage"], &waiting["gpu"]), (&"b".into(), &"0".into()));
    let user = format!("process {}, which runs `a`", first.id());
    assert_eq!(waiting["user"], user);
    projects[1].2.wait_for_worker().unwrap().open().unwrap();
    second.wait_for("stage_finished").unwrap();
    assert!(!projects[1].1.has_worker().unwrap());
    // A killed run gives its GPU back, without a word and without a trace.
    first.signal(rustix::process::Signal::KILL).unwrap();
    drop(holder);
    projects[1].1.wait_for_worker().unwrap().open().unwrap();
    assert_eq!(second.finish().unwrap().code(), 0);
    first.finish_without_output().unwrap();
}

#[test]
fn threads_follow_the_cpus_of_a_stage() {
    let with = "{ variables: [OMP_NUM_THREADS, RAYON_NUM_THREADS, CUDA_VISIBLE_DEVICES] }";
    let stage = format!("{{ kind: surroundings, with: {with}, resources: {{ cpus: 3 }} }}");
    let project = project(&format!("name: threads\nstages:\n  a: {stage}\n"));
    let ran = project.run(&["--resources", "cpus=4"]).unwrap();
    let seen = project.text(&ran, "a", "out").unwrap();
    assert_eq!(seen, "OMP_NUM_THREADS=3 RAYON_NUM_THREADS=3 CUDA_VISIBLE_DEVICES=");
}

#[test]
fn two_stages_that_do_the_same_do_it_once() {
    let (project, gates) = at_gates(&[("a", ""), ("b", "")]);
    let text = std::fs::read_to_string(project.folder().join("pipeline.yaml")).unwrap();
    project.write("pipeline.yaml", &text.replace("text: b", "text: a")).unwrap();
    let mut running = project.start(&["--resources", "cpus=2"]).unwrap();
    let waiting = running.wait_for("stage_waiting").unwrap();
    let (first, second) = if waiting["stage"] == "b" { ("a", "b") } else { ("b", "a") };
    assert_eq!(waiting["holder"], format!("the stage `{first}`"));
    gates[usize::from(first == "b")].wait_for_worker().unwrap().open().unwrap();
    let ran = running.finish().unwrap();
    assert_eq!((ran.code(), ran.hits()), (0, vec![second.to_owned()]));
}

#[test]
fn the_stage_with_the_longest_way_behind_it_begins_first() {
    let project = project(
        "
name: ways
stages:
  short: { kind: write, with: { text: short } }
  first: { kind: write, with: { text: first } }
  second: { kind: concat, inputs: { parts: [first] } }
  slow: { kind: write, with: { text: slow }, resources: { time: 1h } }
",
    );
    let ran = project.run(&["--jobs", "1"]).unwrap();
    assert_eq!(ran.started(), ["slow", "first", "short", "second"]);
}

#[test]
fn what_took_long_the_last_time_begins_first() {
    let (project, gates) = at_gates(&[("a", ""), ("b", "")]);
    let clock = Instant::now();
    let mut running = project.start(&["--jobs", "2"]).unwrap();
    let b = gates[1].wait_for_worker().unwrap();
    gates[0].wait_for_worker().unwrap().open().unwrap();
    running.wait_for("stage_finished").unwrap();
    // Whenever `a` began, it took less than this; so long `b` is held from now on.
    thread::sleep(clock.elapsed());
    b.open().unwrap();
    assert_eq!(running.finish().unwrap().code(), 0);

    let again = project.start(&["--jobs", "1", "--force-all"]).unwrap();
    for gate in [&gates[1], &gates[0]] {
        gate.wait_for_worker().unwrap().open().unwrap();
    }
    assert_eq!(again.finish().unwrap().started(), ["b", "a"]);
}
