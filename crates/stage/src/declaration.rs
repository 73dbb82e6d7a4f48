//! Kinds with their types erased: what the registry lists and the engine works with.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    Context, Failure, Kind, MemoryQuery, MemoryReport, Output, Port, Problems, Program, Reference, Stage, UserFile,
    Validate,
};

/// A [`Kind`], erased.
#[derive(Clone, Copy)]
pub struct Declaration {
    /// [`Kind::KIND`]
    pub kind: &'static str,
    /// [`Kind::VERSION`]
    pub version: u32,
    /// [`Kind::SUMMARY`]
    pub summary: &'static str,
    /// [`Kind::PROGRAM`]
    pub program: Program,
    /// [`Kind::INPUTS`]
    pub inputs: &'static [Port],
    /// [`Kind::OUTPUTS`]
    pub outputs: &'static [&'static str],
    /// [`Kind::OPEN_INPUTS`]
    pub open_inputs: bool,
    /// [`Kind::OPEN_OUTPUTS`]
    pub open_outputs: bool,
    /// [`Kind::SURROUNDINGS`]
    pub surroundings: &'static [&'static str],
    parse: fn(&pipe_yaml::Node) -> Result<ParsedConfig, Vec<pipe_yaml::Problem>>,
    schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    memory: fn(&Value, &MemoryQuery) -> Option<Result<MemoryReport, String>>,
    model: fn(&Value) -> Option<Map<String, Value>>,
}

/// [`Validate::validate`] of a configuration whose type is erased.
type Validator = dyn Fn(&BTreeSet<String>, &mut Problems);

/// A configuration that has met its type: defaults are filled in, every field is there.
pub struct ParsedConfig {
    /// The resolved configuration, fields in the order of the declaration.
    pub value: serde_json::Value,
    /// [`Kind::user_files`]
    pub user_files: Vec<UserFile>,
    /// [`Kind::references`]
    pub references: Vec<Reference>,
    /// [`Kind::outputs`]
    pub outputs: Vec<Output>,
    /// [`Kind::environment`]
    pub environment: Vec<String>,
    /// [`Kind::command`]
    pub command: Option<String>,
    validate: Box<Validator>,
}

impl ParsedConfig {
    /// Runs the kind's [`Validate`].
    pub fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        (self.validate)(inputs, problems);
    }
}

impl Declaration {
    /// The declaration of a kind.
    pub const fn of<K: Kind>() -> Self {
        Self {
            kind: K::KIND,
            version: K::VERSION,
            summary: K::SUMMARY,
            program: K::PROGRAM,
            inputs: K::INPUTS,
            outputs: K::OUTPUTS,
            open_inputs: K::OPEN_INPUTS,
            open_outputs: K::OPEN_OUTPUTS,
            surroundings: K::SURROUNDINGS,
            parse: |node| {
                let config: K::Config = pipe_yaml::deserialize(node)?;
                let value = serde_json::to_value(&config).map_err(|error| {
                    vec![pipe_yaml::Problem { span: Some(node.span), message: error.to_string(), help: None }]
                })?;
                Ok(ParsedConfig {
                    value,
                    user_files: K::user_files(&config),
                    references: K::references(&config),
                    outputs: K::outputs(&config),
                    environment: K::environment(&config),
                    command: K::command(&config),
                    validate: Box::new(move |inputs, problems| config.validate(inputs, problems)),
                })
            },
            schema: |generator| generator.subschema_for::<K::Config>(),
            memory: |config, query| match serde_json::from_value(config.clone()) {
                Ok(config) => K::memory(&config, query),
                Err(error) => Some(Err(error.to_string())),
            },
            model: |config| K::model(&serde_json::from_value(config.clone()).ok()?),
        }
    }

    /// Reads the fields of `with:`.
    ///
    /// # Errors
    /// Every problem of type or name that the node has, each with its place.
    pub fn parse(&self, node: &pipe_yaml::Node) -> Result<ParsedConfig, Vec<pipe_yaml::Problem>> {
        (self.parse)(node)
    }

    /// The JSON Schema of `with:`.
    pub fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        (self.schema)(generator)
    }

    /// [`Kind::memory`] of a resolved configuration.
    ///
    /// # Errors
    /// What is not known yet.
    pub fn memory(&self, config: &Value, query: &MemoryQuery) -> Option<Result<MemoryReport, String>> {
        (self.memory)(config, query)
    }

    /// [`Kind::model`] of a resolved configuration.
    pub fn model(&self, config: &Value) -> Option<Map<String, Value>> {
        (self.model)(config)
    }
}

/// A [`Stage`], erased.
#[derive(Debug, Clone, Copy)]
pub struct Runner {
    /// [`Kind::KIND`]
    pub kind: &'static str,
    run: fn(&Context) -> Result<(), Failure>,
    resolve: fn(&serde_json::Value, &Reference) -> Result<String, Failure>,
}

impl Runner {
    /// The runner of a kind.
    pub const fn of<S: Stage>() -> Self {
        Self {
            kind: S::KIND,
            run: |context| {
                let config: S::Config = serde_json::from_value(context.job().config.clone())?;
                S::run(&config, context)
            },
            resolve: |config, reference| S::resolve(&serde_json::from_value(config.clone())?, reference),
        }
    }

    /// Does the work.
    ///
    /// # Errors
    /// The stage's failure.
    pub fn run(&self, context: &Context) -> Result<(), Failure> {
        (self.run)(context)
    }

    /// Finds what a reference in a resolved configuration stands for.
    ///
    /// # Errors
    /// The stage's failure.
    pub fn resolve(&self, config: &serde_json::Value, reference: &Reference) -> Result<String, Failure> {
        (self.resolve)(config, reference)
    }
}
