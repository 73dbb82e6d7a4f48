//! Which of the stages that can begin should: the one behind which the longest way to the end lies.

/// How long a stage is taken to need when nothing at all is known, in seconds.
const GUESS_SECONDS: f64 = 1.0;

/// How long each stage is likely to take, in seconds: `known` of it, what it says of itself (`said`), or the median of
/// what is known of the others.
pub(super) fn estimates(known: &[Option<f64>], said: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = known.iter().flatten().copied().filter(|seconds| seconds.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(GUESS_SECONDS);
    let seconds = |index: usize| known[index].filter(|seconds| seconds.is_finite()).or_else(|| said(index));
    (0..known.len()).map(|index| seconds(index).unwrap_or(median)).collect()
}

/// The turn of each stage, from 0: the longest way to the end first, of equal ones the first in the list. Each stage
/// stands before its `takers`, and needs `seconds`.
pub(super) fn turns<'a>(seconds: &[f64], takers: impl Fn(usize) -> &'a [usize]) -> Vec<usize> {
    let mut remaining = seconds.to_vec();
    for index in (0..seconds.len()).rev() {
        remaining[index] += takers(index).iter().map(|&taker| remaining[taker]).fold(0.0, f64::max);
    }
    let mut order: Vec<usize> = (0..seconds.len()).collect();
    // A stable sort: equal ones stay in the order of the list.
    order.sort_by(|&a, &b| remaining[b].total_cmp(&remaining[a]));
    let mut turns = vec![0; order.len()];
    for (turn, index) in order.into_iter().enumerate() {
        turns[index] = turn;
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 -> 2 -> 4, 1 -> 3.
    const TAKERS: [&[usize]; 5] = [&[2], &[3], &[4], &[], &[]];

    #[test]
    fn the_longest_way_goes_first_and_then_the_order_of_the_file() {
        assert_eq!(turns(&[1.0; 5], |index| TAKERS[index]), [0, 1, 2, 3, 4]);
        assert_eq!(turns(&[1.0, 1.0, 1.0, 60.0, 1.0], |index| TAKERS[index]), [2, 0, 3, 1, 4]);
        assert_eq!(turns(&[0.0; 5], |index| TAKERS[index]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_is_not_known_is_taken_from_the_stage_itself_then_from_the_others() {
        let known = [Some(4.0), None, Some(2.0), None, Some(f64::NAN), Some(9.0)];
        let said = |index: usize| (index == 1).then_some(3600.0);
        assert_eq!(estimates(&known, said), [4.0, 3600.0, 2.0, 4.0, 4.0, 9.0]);
        assert_eq!(estimates(&[None], |_| None), [GUESS_SECONDS]);
    }
}
