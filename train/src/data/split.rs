//! Splits: which samples are learnt from and which are held out.
//!
//! Stratified: each class is divided in the same share, so that a rare class is in both parts. A split is a function of
//! the seed and the targets alone.

use super::Targets;
use crate::seeds;

/// Two disjoint lists of samples, each in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// To learn from.
    pub train: Vec<usize>,
    /// Held out.
    pub held_out: Vec<usize>,
}

/// The samples by class, each class in random order. Numbers are one class.
fn strata(targets: &Targets, samples: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut strata = match targets {
        Targets::Classes { of, names } => {
            let mut by_class = vec![Vec::new(); names.len()];
            for (i, &class) in of.iter().enumerate() {
                by_class[class as usize].push(i);
            }
            by_class
        }
        Targets::Values { .. } => vec![(0..samples).collect()],
    };
    for (class, members) in strata.iter_mut().enumerate() {
        seeds::stream(seed, seeds::SPLIT, 0, class as u32).shuffle(members);
    }
    strata
}

/// Holds out `share` of each class, rounded to the nearest count; a class of at least two samples keeps one on either
/// side when `0 < share < 1`.
pub fn stratified(targets: &Targets, samples: usize, share: f64, seed: u64) -> Split {
    let mut split = Split { train: Vec::new(), held_out: Vec::new() };
    for members in strata(targets, samples, seed) {
        let n = members.len();
        let wanted = (n as f64 * share.clamp(0.0, 1.0)).round() as usize;
        let inside = share > 0.0 && share < 1.0 && n >= 2;
        let count = if inside { wanted.clamp(1, n - 1) } else { wanted };
        split.held_out.extend(&members[..count]);
        split.train.extend(&members[count..]);
    }
    split.train.sort_unstable();
    split.held_out.sort_unstable();
    split
}

/// [`stratified`] of some of the samples alone.
pub fn divided(targets: &Targets, samples: &[usize], share: f64, seed: u64) -> Split {
    let own = match targets {
        Targets::Classes { of, names } => {
            Targets::Classes { of: samples.iter().map(|&i| of[i]).collect(), names: names.clone() }
        }
        Targets::Values { .. } => Targets::Values { dims: Vec::new(), values: vec![0.0; samples.len()] },
    };
    let split = stratified(&own, samples.len(), share, seed);
    let numbers = |places: Vec<usize>| places.into_iter().map(|i| samples[i]).collect();
    Split { train: numbers(split.train), held_out: numbers(split.held_out) }
}

/// `k` splits whose held-out parts are disjoint and together are all samples, each class dealt out evenly. The parts'
/// sizes differ by at most one for each class and overall: dealing goes on where the class before stopped.
pub fn k_fold(targets: &Targets, samples: usize, k: usize, seed: u64) -> Vec<Split> {
    let mut parts = vec![Vec::new(); k];
    for (dealt, i) in strata(targets, samples, seed).into_iter().flatten().enumerate() {
        if k > 0 {
            parts[dealt % k].push(i);
        }
    }
    parts.iter_mut().for_each(|part| part.sort_unstable());
    let fold = |f: usize| {
        let mut train: Vec<usize> =
            parts.iter().enumerate().filter(|&(g, _)| g != f).flat_map(|(_, part)| part.iter().copied()).collect();
        train.sort_unstable();
        Split { train, held_out: parts[f].clone() }
    };
    (0..k).map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classes(of: Vec<u32>) -> Targets {
        Targets::Classes { of, names: (0..5).map(|c| c.to_string()).collect() }
    }

    proptest! {
        #[test]
        fn a_split_is_a_partition_of_each_class(of in prop::collection::vec(0u32..5, 0..60), share in 0.0..=1.0, seed: u64) {
            let (targets, n) = (classes(of), 60);
            let Targets::Classes { of, .. } = &targets else { unreachable!() };
            let n = of.len().min(n);
            let split = stratified(&targets, n, share, seed);
            let mut all = [&split.train[..], &split.held_out[..]].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
            prop_assert_eq!(&split, &stratified(&targets, n, share, seed));
            let whole = targets.counts(&(0..n).collect::<Vec<_>>()).unwrap();
            let held = targets.counts(&split.held_out).unwrap();
            for (n, held) in whole.into_iter().zip(held) {
                let bound = if n > 1 { 1.0 } else { 0.5 };
                prop_assert!((held as f64 - n as f64 * share).abs() <= bound);
                prop_assert!(n < 2 || share == 0.0 || share == 1.0 || (1..n).contains(&held));
            }
        }

        #[test]
        fn folds_cover_all_samples_once(of in prop::collection::vec(0u32..5, 0..60), k in 1usize..7, seed: u64) {
            let n = of.len();
            let targets = classes(of);
            let folds = k_fold(&targets, n, k, seed);
            let mut all: Vec<usize> = folds.iter().flat_map(|f| f.held_out.clone()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
            let sizes: Vec<usize> = folds.iter().map(|f| f.held_out.len()).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            for class in 0..5 {
                let counts = folds.iter().map(|f| targets.counts(&f.held_out).unwrap()[class]);
                prop_assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
            }
            for f in &folds {
                prop_assert_eq!(f.train.len() + f.held_out.len(), n);
                prop_assert!(f.train.iter().all(|i| !f.held_out.contains(i)));
            }
        }
    }

    #[test]
    fn a_part_of_the_samples_is_divided_by_class() {
        let targets = classes((0..100).map(|i| i % 5).collect());
        let samples: Vec<usize> = (10..90).collect();
        let split = divided(&targets, &samples, 0.25, 1);
        assert_eq!(targets.counts(&split.held_out).unwrap(), [4; 5]);
        let mut both = [split.train, split.held_out].concat();
        both.sort_unstable();
        assert_eq!(both, samples);
    }

    #[test]
    fn numbers_are_split_too_and_seeds_matter() {
        let targets = Targets::Values { dims: vec![], values: vec![0.0; 100] };
        let split = stratified(&targets, 100, 0.2, 1);
        assert_eq!((split.train.len(), split.held_out.len()), (80, 20));
        assert_ne!(split, stratified(&targets, 100, 0.2, 2));
        assert_eq!(k_fold(&targets, 100, 0, 1), []);
    }
}
