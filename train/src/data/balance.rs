//! Unbalanced classes: weights for the loss, another sampling of each epoch, or more samples.
//!
//! Class weights are scikit-learn's `balanced`: `samples / (classes * count)`, so that their mean over the samples is 1.

use super::{DataError, Dataset, InMemory, Targets, Values};
use crate::seeds;
use serde::{Deserialize, Serialize};

/// How an epoch takes its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Each sample once.
    #[default]
    All,
    /// As many of each class as the largest has: all, and then again some at random.
    Over,
    /// As many of each class as the smallest has, others each epoch.
    Under,
}

/// The balanced weight of each class; 0 for a class without a sample.
pub fn class_weights(counts: &[usize]) -> Vec<f32> {
    let present = counts.iter().filter(|&&n| n > 0).count();
    let all: usize = counts.iter().sum();
    let weight = |&n: &usize| if n == 0 { 0.0 } else { (all as f64 / (present as f64 * n as f64)) as f32 };
    counts.iter().map(weight).collect()
}

/// The samples of an epoch, class by class; `samples` as they are where nothing is to be balanced.
pub fn sample(targets: &Targets, samples: &[usize], sampling: Sampling, seed: u64, epoch: u32) -> Vec<usize> {
    let Targets::Classes { of, names } = targets else { return samples.to_vec() };
    if sampling == Sampling::All {
        return samples.to_vec();
    }
    let mut members = vec![Vec::new(); names.len()];
    for &i in samples {
        members[of[i] as usize].push(i);
    }
    members.retain(|m: &Vec<usize>| !m.is_empty());
    let sizes = members.iter().map(Vec::len);
    let size = if sampling == Sampling::Over { sizes.max() } else { sizes.min() }.unwrap_or(0);
    let mut out = Vec::with_capacity(size * members.len());
    for (class, mut members) in members.into_iter().enumerate() {
        seeds::stream(seed, seeds::SAMPLING, epoch, class as u32).shuffle(&mut members);
        // In rounds, so that no sample is taken twice more often than another.
        out.extend(members.iter().cycle().take(size));
    }
    out
}

/// SMOTE for feature vectors: fills each class up to the size of the largest with points on the lines between a sample
/// and one of its `k` nearest of the same class. `samples` are used; the result has them, and then what was made.
///
/// ```text
/// new = a + u (b - a),   a a sample of the class in turn, b one of its k nearest, u uniform in [0, 1)
/// ```
///
/// Distances are Euclidean, so features should be on one scale. An error if the data have no classes or a class that is to
/// grow has a single sample. Source: Chawla, Bowyer, Hall, Kegelmeyer, "SMOTE", JAIR 16, 2002.
pub fn smote(data: &dyn Dataset, samples: &[usize], k: usize, seed: u64) -> Result<InMemory, DataError> {
    let Targets::Classes { of, names } = data.targets() else {
        return Err(DataError::new("SMOTE", "the data have no classes"));
    };
    let width: usize = data.dims().iter().product();
    let mut inputs = vec![0.0; samples.len() * width];
    for (row, &i) in inputs.chunks_exact_mut(width.max(1)).zip(samples) {
        data.read(i, row)?;
    }
    let mut labels: Vec<u32> = samples.iter().map(|&i| of[i]).collect();
    let largest = data.targets().counts(samples).and_then(|c| c.into_iter().max()).unwrap_or(0);
    for (class, name) in names.iter().enumerate() {
        let members: Vec<usize> = (0..samples.len()).filter(|&i| labels[i] as usize == class).collect();
        if members.is_empty() || members.len() == largest {
            continue;
        }
        if members.len() == 1 {
            let reason = format!("class \"{name}\" has a single sample: there is no neighbour to go towards");
            return Err(DataError::new("SMOTE", reason));
        }
        let row = |i: usize| &inputs[i * width..][..width];
        let neighbours: Vec<Vec<usize>> = members.iter().map(|&a| nearest(a, &members, k.max(1), &row)).collect();
        let mut made = Vec::with_capacity((largest - members.len()) * width);
        for new in 0..largest - members.len() {
            let mut stream = seeds::stream(seed, seeds::SMOTE, class as u32, new as u32);
            let (a, near) = (members[new % members.len()], &neighbours[new % members.len()]);
            let b = near[stream.below(near.len() as u32) as usize];
            let u = stream.uniform() as f32;
            made.extend(row(a).iter().zip(row(b)).map(|(&a, &b)| a + u * (b - a)));
        }
        inputs.extend(made);
        labels.resize(inputs.len() / width, class as u32);
    }
    let targets = Targets::Classes { of: labels, names: names.clone() };
    InMemory::new("SMOTE", data.dims().to_vec(), Values::F32(inputs), targets)
}

/// The `k` of `members` nearest to `a`, without itself; the lower number first where distances are equal.
fn nearest<'a>(a: usize, members: &[usize], k: usize, row: &impl Fn(usize) -> &'a [f32]) -> Vec<usize> {
    let distance = |b: usize| row(a).iter().zip(row(b)).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
    let mut others: Vec<(f64, usize)> = members.iter().filter(|&&b| b != a).map(|&b| (distance(b), b)).collect();
    others.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
    others.truncate(k);
    others.into_iter().map(|(_, b)| b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(of: &[u32]) -> Targets {
        Targets::Classes { of: of.to_vec(), names: vec!["a".into(), "b".into(), "c".into()] }
    }

    /// scikit-learn 1.x: `compute_class_weight("balanced", classes=[0, 1, 2], y=[0]*6 + [1]*3 + [2])`.
    #[test]
    fn weights_are_scikit_learns() {
        assert_eq!(class_weights(&[6, 3, 1]), [10.0 / 18.0, 10.0 / 9.0, 10.0 / 3.0]);
        assert_eq!(class_weights(&[2, 0]), [1.0, 0.0]);
    }

    #[test]
    fn sampling_makes_classes_equal() {
        let of = [0, 0, 0, 0, 0, 1, 1, 2];
        let (t, all) = (targets(&of), (0..8).collect::<Vec<_>>());
        let over = sample(&t, &all, Sampling::Over, 1, 0);
        assert_eq!(t.counts(&over), Some(vec![5, 5, 5]));
        // In rounds: two samples fill five places as 3 + 2, and all of the largest class are there.
        let times = |i: usize| over.iter().filter(|&&x| x == i).count();
        assert_eq!((0..5).map(times).collect::<Vec<_>>(), [1; 5]);
        assert_eq!((times(5).min(times(6)), times(5).max(times(6)), times(7)), (2, 3, 5));
        let under = |epoch| sample(&t, &all, Sampling::Under, 1, epoch);
        assert_eq!(t.counts(&under(0)), Some(vec![1, 1, 1]));
        assert!((1..20).any(|epoch| under(epoch) != under(0)), "each epoch takes others");
        assert_eq!(sample(&t, &[3, 1], Sampling::All, 1, 0), [3, 1]);
    }

    #[test]
    fn made_samples_lie_between_neighbours() {
        // Class b: two pairs far apart. With k = 1 a point lies between the two of a pair.
        let x = vec![
            0., 0., 0., 1., 0., 2., 0., 3., 0., 4., 0., 5., 0., 6., 0., 7., 10., 10., 11., 12., 50., 50., 51., 52.,
        ];
        let of = [[0; 8].as_slice(), &[1; 4]].concat();
        let names = vec!["a".into(), "b".into()];
        let data = InMemory::new("d", vec![2], Values::F32(x.clone()), Targets::Classes { of, names }).unwrap();
        let all: Vec<usize> = (0..12).collect();
        let grown = smote(&data, &all, 1, 3).unwrap();
        assert_eq!(grown.targets().counts(&(0..16).collect::<Vec<_>>()), Some(vec![8, 8]));
        let mut row = [0.0; 2];
        for i in 0..12 {
            grown.read(i, &mut row).unwrap();
            assert_eq!(row, x[2 * i..2 * i + 2]);
        }
        let mut sides = [0; 2];
        for i in 12..16 {
            grown.read(i, &mut row).unwrap();
            let corner = if row[0] < 30.0 { 10.0 } else { 50.0 };
            sides[usize::from(corner > 30.0)] += 1;
            let u = row[0] - corner;
            assert!((0.0..=1.0).contains(&u) && (row[1] - corner - 2.0 * u).abs() < 1e-4, "{row:?}");
        }
        assert_eq!(sides, [2, 2], "each sample in turn");
        let lonely = InMemory::new("d", vec![1], Values::F32(vec![0.0; 3]), targets(&[0, 0, 1])).unwrap();
        let message = smote(&lonely, &[0, 1, 2], 5, 1).unwrap_err().to_string();
        assert_eq!(message, "SMOTE: class \"b\" has a single sample: there is no neighbour to go towards");
    }
}
