//! "Did you mean": the nearest of the names that would have been right.

/// The candidate nearest to `name`, if any is near enough to be what was meant.
pub fn nearest<'names>(name: &str, candidates: impl IntoIterator<Item = &'names str>) -> Option<&'names str> {
    let folded = fold(name);
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&folded, &fold(candidate)), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        // The first of equals, so that the order of the candidates decides.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        })
        .map(|(_, candidate)| candidate)
}

/// The help for an unknown name: the nearest known one, and what there is.
pub fn unknown_name_help<'names>(name: &str, known: impl IntoIterator<Item = &'names str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let expected = one_of(&known);
    match nearest(name, known.iter().copied()) {
        Some(meant) if (2..=LISTED).contains(&known.len()) => {
            Some(format!("did you mean `{meant}`? expected {expected}"))
        }
        Some(meant) => Some(format!("did you mean `{meant}`?")),
        None if known.is_empty() => None,
        None => Some(format!("expected {expected}")),
    }
}

/// `` `a` ``, `` one of `a`, `b` ``.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [only] => only.clone(),
        quoted => format!("one of {}", quoted.join(", ")),
    }
}

/// Names that are less alike than this were not mistyped.
const NEAR: f64 = 0.6;

/// How many names a suggestion may be followed by.
const LISTED: usize = 8;

/// Case, dashes and underscores are what people mix up first.
fn fold(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_wins_and_far_ones_do_not_count() {
        let names = ["learning_rate", "lr_scheduler_type", "seed"];
        assert_eq!(nearest("learning-rate", names), Some("learning_rate"));
        assert_eq!(nearest("leraning_rate", names), Some("learning_rate"));
        assert_eq!(nearest("LearningRate", names), Some("learning_rate"));
        assert_eq!(nearest("model", names), None);
    }

    #[test]
    fn help_lists_what_there_is() {
        let help = unknown_name_help("sed", ["seed", "rate"]);
        assert_eq!(help.as_deref(), Some("did you mean `seed`? expected one of `seed`, `rate`"));
        assert_eq!(unknown_name_help("sed", ["seed"]).as_deref(), Some("did you mean `seed`?"));
        assert_eq!(unknown_name_help("x", ["a1", "b1"]).as_deref(), Some("expected one of `a1`, `b1`"));
        assert_eq!(unknown_name_help("x", ["a1"]).as_deref(), Some("expected `a1`"));
        assert_eq!(unknown_name_help("x", []), None);
    }
}
