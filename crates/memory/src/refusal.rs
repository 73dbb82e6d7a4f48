//! Why a run does not fit, and which settings would make it fit.

use std::fmt;

use crate::{BaseFormat, Compute, Plan, States, Workload};

/// A run that takes more than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("training takes {} of GPU memory with all that can wait on the host, and {} are there for it",
    gigabytes(.smallest.peak_bytes), gigabytes(*.budget_bytes))]
pub struct DoesNotFit {
    /// What the allocator may give out.
    pub budget_bytes: u64,
    /// The smallest plan of the settings as they are.
    pub smallest: Box<Plan>,
    /// Settings that save something, in the order in which one would rather change them.
    pub helps: Vec<Help>,
    /// Settings that together make it fit, the first that do in that order, and the plan with them.
    pub combination: Option<(Vec<Setting>, Box<Plan>)>,
}

/// A setting that would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Help {
    /// The setting.
    pub setting: Setting,
    /// What the peak falls by with it alone.
    pub saves_bytes: u64,
}

/// A change of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `gradient_checkpointing: true`
    GradientCheckpointing,
    /// `max_tokens_per_pass: N`
    MaxTokensPerPass(u64),
    /// `optim: adamw_8bit`
    EightBitStates,
    /// `bf16: true`
    Bfloat16,
    /// No `modules_to_save`.
    NoModulesToSave,
    /// A base that is quantized to NF4.
    QuantizedBase,
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GradientCheckpointing => formatter.write_str("`gradient_checkpointing: true`"),
            Self::MaxTokensPerPass(tokens) => write!(formatter, "`max_tokens_per_pass: {tokens}`"),
            Self::EightBitStates => formatter.write_str("`optim: adamw_8bit`"),
            Self::Bfloat16 => formatter.write_str("`bf16: true`"),
            Self::NoModulesToSave => formatter.write_str("no `lora.modules_to_save`"),
            Self::QuantizedBase => formatter.write_str("a base that a `quantize` stage made (NF4)"),
        }
    }
}

impl DoesNotFit {
    /// What to do, in one sentence, with what each setting saves alone.
    pub fn hint(&self) -> String {
        if self.helps.is_empty() {
            return "take a smaller model or a larger card".to_owned();
        }
        let help = |help: &Help| format!("{} saves {}", help.setting, gigabytes(help.saves_bytes));
        let helps = self.helps.iter().map(help).collect::<Vec<_>>().join(", ");
        match &self.combination {
            Some((settings, plan)) => {
                let together = settings.iter().map(Setting::to_string).collect::<Vec<_>>().join(" and ");
                format!("it fits with {together}: {}; alone, {helps}", gigabytes(plan.peak_bytes))
            }
            None => format!("alone, {helps}; all of it together does not fit either: take a smaller model"),
        }
    }
}

/// An amount in units of 10^9 bytes: `5.87 GB`.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

/// A workload under some settings, and whether every layer is computed again.
#[derive(Debug, Clone)]
struct Trial {
    workload: Workload,
    gradient_checkpointing: bool,
}

impl Trial {
    /// The same with one more setting; `None` if that is so already.
    fn with(&self, setting: Setting) -> Option<Self> {
        let mut trial = self.clone();
        let workload = &mut trial.workload;
        match setting {
            Setting::GradientCheckpointing => trial.gradient_checkpointing = true,
            Setting::MaxTokensPerPass(tokens) => workload.run = workload.run.with_tokens(tokens),
            Setting::EightBitStates => workload.states = States::EightBit,
            Setting::Bfloat16 if workload.compute == Compute::Float32 => workload.compute = Compute::Bfloat16,
            Setting::Bfloat16 => {}
            Setting::NoModulesToSave => workload.trained.modules_to_save.clear(),
            Setting::QuantizedBase if workload.base == BaseFormat::Dense => {
                workload.base = BaseFormat::Nf4 { double_quant: true }
            }
            Setting::QuantizedBase => {}
        }
        let changed = trial.gradient_checkpointing != self.gradient_checkpointing || trial.workload != self.workload;
        changed.then_some(trial)
    }

    fn smallest(&self) -> Plan {
        match Plan::fastest(&self.workload, 0, self.gradient_checkpointing) {
            Ok(plan) | Err(plan) => plan,
        }
    }
}

/// Tokens of a pass that are worth a try: halves of the largest, down to the longest sample.
fn tokens_to_try(workload: &Workload) -> Vec<u64> {
    let run = workload.run;
    let longest = run.evaluation.map_or(0, |pass| pass.longest).max(run.pass.longest).max(1);
    let most = run.evaluation.map_or(0, |pass| pass.tokens).max(run.pass.tokens);
    let mut tokens: Vec<u64> = (0..)
        .map(|power| 1_u64 << power)
        .take_while(|tokens| *tokens < most)
        .filter(|tokens| *tokens > longest)
        .collect();
    tokens.reverse();
    if longest < most {
        tokens.push(longest);
    }
    tokens
}

/// What would help `workload`, whose smallest plan does not fit.
pub(crate) fn explain(
    workload: &Workload,
    budget_bytes: u64,
    gradient_checkpointing: bool,
    smallest: Plan,
) -> DoesNotFit {
    let as_it_is = Trial { workload: workload.clone(), gradient_checkpointing };
    let tokens = tokens_to_try(workload);
    let settings = [
        Some(Setting::GradientCheckpointing),
        tokens.last().copied().map(Setting::MaxTokensPerPass),
        Some(Setting::EightBitStates),
        Some(Setting::Bfloat16),
        Some(Setting::NoModulesToSave),
        Some(Setting::QuantizedBase),
    ];
    let help = |setting: Setting| {
        let peak_bytes = as_it_is.with(setting)?.smallest().peak_bytes;
        let saves_bytes = smallest.peak_bytes.checked_sub(peak_bytes).filter(|bytes| *bytes > 0)?;
        Some(Help { setting, saves_bytes })
    };
    let helps: Vec<Help> = settings.into_iter().flatten().filter_map(help).collect();
    // As numbers, sets of settings come in the order in which one would rather change them: what stands later in the list
    // weighs more than all before it.
    let combination = (1..1_u32 << helps.len()).find_map(|set| {
        let chosen = helps.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, help)| help.setting);
        fit(&as_it_is, chosen.collect(), &tokens, budget_bytes)
    });
    DoesNotFit { budget_bytes, smallest: Box::new(smallest), helps, combination }
}

/// The settings and the plan with them, if it fits; with as many tokens a pass as do.
fn fit(
    as_it_is: &Trial,
    mut settings: Vec<Setting>,
    tokens: &[u64],
    budget_bytes: u64,
) -> Option<(Vec<Setting>, Box<Plan>)> {
    let plan = |settings: &[Setting]| {
        let apply = |trial: Trial, setting: &Setting| trial.with(*setting).unwrap_or(trial);
        let trial = settings.iter().fold(as_it_is.clone(), apply);
        Plan::fastest(&trial.workload, budget_bytes, trial.gradient_checkpointing).ok()
    };
    let at = settings.iter().position(|setting| matches!(setting, Setting::MaxTokensPerPass(_)));
    let Some(at) = at else {
        return plan(&settings).map(|plan| (settings, Box::new(plan)));
    };
    for tokens in tokens {
        settings[at] = Setting::MaxTokensPerPass(*tokens);
        if let Some(plan) = plan(&settings) {
            return Some((settings, Box::new(plan)));
        }
    }
    None
}
