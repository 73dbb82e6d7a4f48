//! What stands where in the folder that a command runs in: no two things may, and none may lie in another.

use std::{collections::BTreeMap, ops::Bound};

/// Inputs, scripts and outputs: path, what it is, and the field that names it.
#[derive(Debug, Default)]
pub(crate) struct Places<'a> {
    /// In the order in which they were added.
    added: Vec<(&'a str, &'static str, Option<String>)>,
}

impl<'a> Places<'a> {
    /// Adds a thing, `what` with its article. `at` is where the configuration names it.
    pub(crate) fn add(&mut self, path: &'a str, what: &'static str, at: Option<String>) {
        self.added.push((path, what, at));
    }

    /// What is wrong, each with the field to blame: the one that was added later.
    pub(crate) fn clashes(&self) -> Vec<(String, String)> {
        let mut clashes = Vec::new();
        let mut before: BTreeMap<&str, &'static str> = BTreeMap::new();
        for (path, what, at) in &self.added {
            let clash = match before.get(path) {
                Some(other) => Some(format!("{what} `{path}` stands where {other} `{path}` does")),
                None => {
                    let mut within = path.match_indices('/').map(|(end, _)| &path[..end]);
                    let outer = within.find_map(|outer| Some((outer, before.get(outer)?)));
                    let inner = || {
                        let begin = format!("{path}/");
                        let behind = before.range::<str, _>((Bound::Included(begin.as_str()), Bound::Unbounded)).next();
                        behind.filter(|(inner, _)| inner.starts_with(&begin)).map(|(inner, what)| (*inner, what))
                    };
                    match (outer, inner()) {
                        (Some((outer, other)), _) => Some(format!("{what} `{path}` lies in {other} `{outer}`")),
                        (None, Some((inner, other))) => Some(format!("{what} `{path}` holds {other} `{inner}`")),
                        (None, None) => None,
                    }
                }
            };
            if let (Some(clash), Some(at)) = (clash, at) {
                clashes.push((at.clone(), clash));
            }
            before.entry(path).or_insert(what);
        }
        clashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_in_each_other_clash_and_things_side_by_side_do_not() {
        let clashes = |things: &[&'static str]| {
            let mut places = Places::default();
            for (index, path) in things.iter().enumerate() {
                places.add(path, "the output", Some(index.to_string()));
            }
            places.clashes().into_iter().map(|(at, message)| format!("{at}: {message}")).collect::<Vec<_>>()
        };
        assert!(clashes(&["a", "a-b", "a.txt", "b/c", "b/d", "b-/x"]).is_empty());
        assert_eq!(clashes(&["a", "a"]), ["1: the output `a` stands where the output `a` does"]);
        assert_eq!(clashes(&["a", "a/b"]), ["1: the output `a/b` lies in the output `a`"]);
        assert_eq!(clashes(&["a/b/c", "a-", "a"]), ["2: the output `a` holds the output `a/b/c`"]);
    }
}
