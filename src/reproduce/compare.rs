//! Stage by stage: what was recorded, what came out now, and why they differ.

use std::collections::BTreeMap;

use pipe_stage::Digest;

use super::{OutputReport, Report, StageReport, StageVerdict, Verdict, figures, files};
use crate::{
    bundle::{BundleError, ExperimentStage, Unpacked},
    cache::{Home, Records, Store},
    config::Pipeline,
    runs::{RunRecord, StageRun},
};

/// What is compared.
#[derive(Clone, Copy)]
pub struct Compared<'a> {
    /// The bundle.
    pub bundle: &'a Unpacked,
    /// Its pipeline, as it was run now.
    pub pipeline: &'a Pipeline,
    /// The home that it was run in.
    pub home: &'a Home,
    /// The run of now, [completed](crate::runs::Runs::complete).
    pub run: &'a RunRecord,
}

/// Compares a run with the one that a bundle tells of.
///
/// # Errors
/// If a list of files in the bundle is none, or a file cannot be read.
pub fn compare(compared: &Compared<'_>, tolerance: f64) -> Result<Report, BundleError> {
    let experiment = compared.bundle.experiment();
    let mut stages: Vec<StageReport> = Vec::with_capacity(experiment.stages.len());
    // What each stage came to, for those that take from it.
    let mut known: BTreeMap<&str, StageVerdict> = BTreeMap::new();
    for (name, recorded) in &experiment.stages {
        let report = compared.stage(name, recorded, &known, tolerance)?;
        known.insert(name, report.verdict);
        stages.push(report);
    }
    let has = |verdict| stages.iter().any(|stage| stage.verdict == verdict);
    let verdict = if has(StageVerdict::Differs) || has(StageVerdict::Follows) {
        Verdict::Differs
    } else if has(StageVerdict::NotMade) {
        Verdict::Unfinished
    } else if has(StageVerdict::WithinTolerance) {
        Verdict::WithinTolerance
    } else {
        Verdict::Equal
    };
    let first = stages.iter().find(|stage| stage.verdict == StageVerdict::Differs);
    let first_difference = first.map(|stage| stage.stage.clone());
    Ok(Report { verdict, tolerance, first_difference, stages })
}

impl Compared<'_> {
    fn stage(
        &self,
        name: &str,
        recorded: &ExperimentStage,
        known: &BTreeMap<&str, StageVerdict>,
        tolerance: f64,
    ) -> Result<StageReport, BundleError> {
        let mut report = StageReport {
            stage: name.to_owned(),
            kind: recorded.kind.clone(),
            verdict: StageVerdict::NotRecorded,
            outputs: BTreeMap::new(),
            figures: Vec::new(),
            notes: Vec::new(),
            error: Vec::new(),
        };
        if recorded.outputs.is_empty() {
            return Ok(report);
        }
        let now = self.run.stages.get(name);
        for (output, digest) in &recorded.outputs {
            let now = now.and_then(|now| now.outputs.get(output)).copied();
            report.outputs.insert(output.clone(), OutputReport { recorded: *digest, now, files: Vec::new() });
        }
        let Some(now) = now.filter(|now| !now.outputs.is_empty()) else {
            report.verdict = StageVerdict::NotMade;
            report.error = now.map(|now| now.error.clone()).unwrap_or_default();
            return Ok(report);
        };
        if now.outputs == recorded.outputs {
            report.verdict = StageVerdict::Same;
            return Ok(report);
        }
        report.figures = figures::compare(&recorded.figures, &now.figures);
        let inputs = self.inputs(now);
        let takes_the_same = inputs.as_ref().is_none_or(|inputs| *inputs == recorded.inputs);
        let other_device = self.other_device(name, recorded, now);
        let of_other_device =
            self.makers(name).any(|maker| known.get(maker) == Some(&StageVerdict::WithinTolerance)) && !takes_the_same;
        if let Some(devices) = &other_device {
            report.notes.push(devices.clone());
        }
        let within = report.figures.iter().all(|figure| figure.is_within(tolerance));
        report.verdict = match (other_device.is_some() || of_other_device, takes_the_same) {
            (true, _) if within => StageVerdict::WithinTolerance,
            (_, true) => StageVerdict::Differs,
            (_, false) if of_other_device => StageVerdict::Differs,
            (_, false) => StageVerdict::Follows,
        };
        if report.verdict == StageVerdict::Differs && other_device.is_none() {
            report.notes.extend(self.why(name, recorded, now, takes_the_same));
        }
        for output in report.outputs.values_mut() {
            if let Some(now) = output.now.filter(|now| *now != output.recorded) {
                output.files = self.files(&output.recorded, &now)?;
            }
        }
        Ok(report)
    }

    /// The artifacts that a stage took now.
    fn inputs(&self, now: &StageRun) -> Option<BTreeMap<String, Vec<Digest>>> {
        Some(Records::new(self.home).get(&now.key?)?.identity.inputs)
    }

    fn makers<'a>(&'a self, stage: &str) -> impl Iterator<Item = &'a str> {
        let inputs = self.pipeline.stages.get(stage).map(|spec| &spec.inputs);
        inputs.into_iter().flat_map(|inputs| inputs.values().flatten()).map(|input| input.stage.as_str())
    }

    /// That bytes cannot be compared, if a device of another kind computed them.
    fn other_device(&self, name: &str, recorded: &ExperimentStage, now: &StageRun) -> Option<String> {
        let spec = self.pipeline.stages.get(name)?;
        let now = crate::bundle::device(&now.environment, spec.resources.gpus, &self.run.machine);
        let recorded = recorded.environment.device.as_deref()?;
        let same = recorded == now || (recorded != "cpu" && now == "cuda") || (recorded == "cuda" && now != "cpu");
        (!same).then(|| {
            format!(
                "it was computed on {recorded} and now on {now}: their bytes cannot be compared, only their figures"
            )
        })
    }

    /// What may be behind a difference of a stage that took the same.
    fn why(&self, name: &str, recorded: &ExperimentStage, now: &StageRun, takes_the_same: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let version = self.pipeline.stages.get(name).map(|spec| spec.declaration.version);
        if let (Some(then), Some(version)) = (recorded.kind_version, version)
            && then != version
        {
            notes.push(format!(
                "version {then} of `{}` made the record, this pipe has version {version}",
                recorded.kind
            ));
        }
        if takes_the_same && notes.is_empty() && recorded.key.is_some() && recorded.key != now.key {
            notes.push("its configuration does not mean the same to this pipe: its key is another".to_owned());
        }
        if let Some(variables) = Some(&recorded.variables).filter(|variables| variables.values().any(|set| *set)) {
            let names: Vec<&str> = variables.iter().filter(|(_, set)| **set).map(|(name, _)| name.as_str()).collect();
            notes.push(format!("it reads {} of the environment, whose value a bundle does not hold", names.join(", ")));
        }
        if takes_the_same && recorded.key.is_some() && recorded.key == now.key {
            notes.push("its key is the same: with the same inputs and configuration it made other bytes".to_owned());
        }
        let (then, here) = (&self.bundle.experiment().machine, &self.run.machine);
        if (&then.cpu, &then.arch) != (&here.cpu, &here.arch) {
            let cpu = |cpu: &Option<String>| cpu.clone().unwrap_or_else(|| "an unknown CPU".to_owned());
            notes.push(format!("the record was made on {}, this is {}", cpu(&then.cpu), cpu(&here.cpu)));
        }
        notes
    }

    fn files(&self, recorded: &Digest, now: &Digest) -> Result<Vec<files::FileChange>, BundleError> {
        let Some(listed) = self.bundle.files(recorded)? else { return Ok(Vec::new()) };
        let store = Store::new(self.home);
        let Ok(here) = store.verify(now) else { return Ok(Vec::new()) };
        let mut changes = files::compare(&listed, &here);
        for change in &mut changes {
            if let (Some(then), Some(here)) = (&change.recorded, &change.now)
                && then.digest != here.digest
                && let Some(recorded) = self.bundle.object(&then.digest)
            {
                let detail = files::look_into(&change.path, &recorded, &store.object(&here.digest));
                change.detail = Some(detail.map_err(BundleError::Read)?);
            }
        }
        Ok(changes)
    }
}
