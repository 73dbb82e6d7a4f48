//! Cuts what is computed together into passes that fit the memory.

/// Cuts samples of `tokens` tokens each, in order, into passes of at most `most` tokens; a longer sample is a pass of its
/// own.
pub fn passes<S>(
    samples: impl IntoIterator<Item = S>,
    tokens: impl Fn(&S) -> u64,
    most: u64,
) -> impl Iterator<Item = Vec<S>> {
    let mut samples = samples.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = samples.next()?;
        let mut total = tokens(&first);
        let mut pass = vec![first];
        while let Some(sample) = samples.next_if(|sample| total.saturating_add(tokens(sample)) <= most) {
            total += tokens(&sample);
            pass.push(sample);
        }
        Some(pass)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_as_long_as_it_may_be() {
        let cut = |lengths: &[u64], most| passes(lengths.to_vec(), |length| *length, most).collect::<Vec<_>>();
        assert_eq!(cut(&[3, 4, 3, 9, 1, 10], 10), [vec![3, 4, 3], vec![9, 1], vec![10]]);
        assert_eq!(cut(&[12, 1, 2], 10), [vec![12], vec![1, 2]]);
        assert_eq!(cut(&[], 10), Vec::<Vec<u64>>::new());
    }
}
