//! Prompt templates: text around a prompt, written as Python's `str.format` reads it.

/// The name of the one placeholder.
const PROMPT: &str = "prompt";

/// A text with places for a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptTemplate {
    /// The texts between which the prompt stands; two at least.
    around: Vec<String>,
}

/// Why a text is no prompt template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptTemplateError {
    /// Nothing would be left of the row.
    #[error("has no {{prompt}}, so it would leave out what the row asks")]
    NoPrompt,
    /// There is only one placeholder.
    #[error("has {{{name}}}, and only {{prompt}} stands for something")]
    Unknown {
        /// What stands between the braces.
        name: String,
    },
    /// A brace alone.
    #[error("has a `{brace}` that belongs to no {{prompt}}")]
    Brace {
        /// The brace.
        brace: char,
    },
}

impl PromptTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self, PromptTemplateError> {
        let mut around = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let tail = &rest[at..];
            if tail.starts_with("{{") || tail.starts_with("}}") {
                literal.push_str(&tail[..1]);
                rest = &tail[2..];
                continue;
            }
            let Some(inside) = tail.strip_prefix('{') else { return Err(PromptTemplateError::Brace { brace: '}' }) };
            let Some((name, behind)) = inside.split_once('}').filter(|(name, _)| !name.contains('{')) else {
                return Err(PromptTemplateError::Brace { brace: '{' });
            };
            if name != PROMPT {
                return Err(PromptTemplateError::Unknown { name: name.to_owned() });
            }
            around.push(std::mem::take(&mut literal));
            rest = behind;
        }
        literal.push_str(rest);
        if around.is_empty() {
            return Err(PromptTemplateError::NoPrompt);
        }
        around.push(literal);
        Ok(Self { around })
    }

    /// The text with a prompt in its places.
    pub(crate) fn apply(&self, prompt: &str) -> String {
        self.around.join(prompt)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_stands_in_its_places() {
        let applied = |template: &str| PromptTemplate::parse(template).unwrap().apply("{a} }}");
        assert_eq!(applied("{prompt}"), "{a} }}");
        assert_eq!(applied("Q: {prompt}\nA:"), "Q: {a} }}\nA:");
        assert_eq!(applied("{prompt}{prompt}"), "{a} }}{a} }}");
        assert_eq!(applied("中{{prompt}} {{{prompt}}}文"), "中{prompt} {{a} }}}文");
    }

    #[test]
    fn what_is_no_template_is_said() {
        let error = |template: &str| PromptTemplate::parse(template).unwrap_err().to_string();
        assert_eq!(error("Q:"), "has no {prompt}, so it would leave out what the row asks");
        assert_eq!(error("{{prompt}}"), "has no {prompt}, so it would leave out what the row asks");
        assert_eq!(error("{prompt} {input}"), "has {input}, and only {prompt} stands for something");
        assert_eq!(error("{prompt} {}"), "has {}, and only {prompt} stands for something");
        assert_eq!(error("{prompt} {"), "has a `{` that belongs to no {prompt}");
        assert_eq!(error("{a{prompt}"), "has a `{` that belongs to no {prompt}");
        assert_eq!(error("{prompt} }"), "has a `}` that belongs to no {prompt}");
    }
}
