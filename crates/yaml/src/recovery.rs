//! Reading with every problem at once. serde stops at the first failure, so a failed value is replaced by a stand-in (a
//! hole) and the whole is tried again, until an attempt comes through: then every problem is known.

use std::{cell::RefCell, collections::HashSet, ptr};

use serde::de::DeserializeOwned;

use crate::{
    Node, Problem, Value,
    deserialize::Reader,
    fault::{Cause, Fault, Place},
};

/// Nobody reads more than this at once, and every one costs an attempt.
const MAX_PROBLEMS: usize = 100;

pub(crate) fn with_recovery<T: DeserializeOwned>(root: &Node) -> Result<T, Vec<Problem>> {
    let session = Session::default();
    for _ in 0..MAX_PROBLEMS {
        match T::deserialize(Reader::new(root, &session)) {
            Ok(value) => {
                let problems = session.problems.into_inner();
                return if problems.is_empty() { Ok(value) } else { Err(problems) };
            }
            Err(fault) => {
                if !session.recover(fault) {
                    break;
                }
            }
        }
    }
    Err(session.problems.into_inner())
}

/// What is known of a document after some attempts.
#[derive(Default)]
pub(crate) struct Session {
    problems: RefCell<Vec<Problem>>,
    /// Nodes that a hole stands in for, by address: the tree does not move during a session.
    holes: RefCell<HashSet<*const Node>>,
    /// Fields of mappings that a hole is added for.
    missing: RefCell<HashSet<(*const Node, &'static str)>>,
}

impl Session {
    /// Notes what went wrong, so that the next attempt passes it. Says whether there is any use in one.
    fn recover(&self, fault: Fault) -> bool {
        let (node, span) = match fault.place {
            Place::Node(node, span) => (node, Some(span)),
            // A type that takes no stand-in. Something was reported before, or there was no hole.
            Place::Hole => return false,
            Place::Unknown => (ptr::null(), None),
        };
        self.report(Problem { span, message: fault.message, help: fault.help });
        match fault.cause {
            _ if span.is_none() => false,
            Cause::Missing(field) => self.missing.borrow_mut().insert((node, field)),
            Cause::Type | Cause::Custom => self.holes.borrow_mut().insert(node),
        }
    }

    /// Attempts repeat what they have in common.
    pub(crate) fn report(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(crate) fn is_hole(&self, node: &Node) -> bool {
        self.holes.borrow().contains(&ptr::from_ref(node))
    }

    pub(crate) fn is_missing(&self, node: &Node, field: &'static str) -> bool {
        self.missing.borrow().contains(&(ptr::from_ref(node), field))
    }

    /// Whether anything at or below `node` is a stand-in.
    pub(crate) fn has_holes(&self, node: &Node) -> bool {
        let here = self.is_hole(node) || self.missing.borrow().iter().any(|(owner, _)| ptr::eq(*owner, node));
        here || match &node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.iter().any(|item| self.has_holes(item)),
            Value::Mapping(entries) => entries.iter().any(|(_, value)| self.has_holes(value)),
        }
    }
}
