//! Batches: samples in an epoch's order, prepared by threads while the step computes.
//!
//! ```text
//! worker 0: batch 0, 2, 4, ..  ──bounded channel──┐
//! worker 1: batch 1, 3, 5, ..  ──bounded channel──┴─> taken in turn: 0, 1, 2, 3, ..
//! ```
//!
//! Each worker makes whole batches, and the consumer takes from the workers in turn: the order is fixed and no batch waits
//! for a place in a queue of another. What a batch holds depends on seed, epoch and samples alone, not on threads.
//!
//! The last batch of an epoch is smaller where the count is no multiple; it is a batch like the others.

use crate::augment::Augment;
use crate::data::balance::{Sampling, sample};
use crate::data::{DataError, Dataset, Targets};
use crate::seeds;
use nncc_ir::Tensor;
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches that each worker has ready beyond the one in use.
const READY: usize = 2;

/// The inputs and targets of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// f32 `[N, dims..]`.
    pub inputs: Tensor,
    /// Classes: i64 `[N]`. Numbers or mixed classes: f32 `[N, ..]`.
    pub targets: Tensor,
    /// The samples, by number.
    pub samples: Vec<usize>,
    /// Whether classes are mixed: the targets are shares of each class.
    pub mixed: bool,
}

impl Batch {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

/// The last thing done to a value: `(x - mean) * scale`, one number for all channels (the first axis of a sample) or one
/// each.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalise {
    /// Subtracted.
    pub mean: Vec<f32>,
    /// Then multiplied.
    pub scale: Vec<f32>,
}

impl Default for Normalise {
    fn default() -> Normalise {
        Normalise { mean: vec![0.0], scale: vec![1.0] }
    }
}

impl Normalise {
    fn check(&self, channels: usize) -> Result<(), String> {
        for (what, v) in [("mean", &self.mean), ("scale", &self.scale)] {
            if v.len() != 1 && v.len() != channels {
                return Err(format!("the {what} has {} numbers for {channels} channels", v.len()));
            }
        }
        Ok(())
    }

    fn apply(&self, sample: &mut [f32], channels: usize) {
        let pick = |v: &[f32], c: usize| v[if v.len() == 1 { 0 } else { c }];
        for (c, plane) in sample.chunks_exact_mut((sample.len() / channels).max(1)).enumerate() {
            let (mean, scale) = (pick(&self.mean, c), pick(&self.scale, c));
            plane.iter_mut().for_each(|x| *x = (*x - mean) * scale);
        }
    }
}

/// How samples become batches.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Samples of a batch, at least 1.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// How often each sample is in an epoch.
    pub sampling: Sampling,
    /// What is done to samples on the fly.
    pub augment: Option<Augment>,
    /// What is done to values last.
    pub normalise: Normalise,
    /// Of all randomness.
    pub seed: u64,
    /// Threads that prepare batches, at least 1.
    pub threads: usize,
}

impl Default for Loading {
    fn default() -> Loading {
        Loading {
            batch_size: 32,
            shuffle: false,
            sampling: Sampling::All,
            augment: None,
            normalise: Normalise::default(),
            seed: 0,
            threads: 1,
        }
    }
}

/// Some samples of a data set, in batches.
pub struct Loader<'a> {
    data: &'a dyn Dataset,
    samples: Vec<usize>,
    how: Loading,
    epoch_len: usize,
}

/// A sample of an epoch: its number, and how often it came before in this epoch (over-sampling repeats samples, and each
/// time its augmentation is another).
type Draw = (usize, u32);

impl<'a> Loader<'a> {
    /// A loader of these samples. An error if what is to be done to them does not fit.
    pub fn new(data: &'a dyn Dataset, samples: Vec<usize>, how: Loading) -> Result<Loader<'a>, DataError> {
        let fail = |reason: String| Err(DataError::new("data", reason));
        if how.batch_size == 0 || how.threads == 0 {
            return fail("a batch of 0 samples or 0 threads to load it".into());
        }
        if samples.iter().any(|&i| i >= data.len()) || u32::try_from(data.len()).is_err() {
            return fail(format!("sample numbers beyond the {} samples", data.len()));
        }
        let channels = data.dims().first().copied().unwrap_or(1);
        if let Err(reason) = how.normalise.check(channels) {
            return fail(reason);
        }
        if let Some(augment) = &how.augment {
            augment.check(data).map_err(|reason| DataError::new("data", reason))?;
        }
        let epoch_len = sample(data.targets(), &samples, how.sampling, how.seed, 0).len();
        Ok(Loader { data, samples, how, epoch_len })
    }

    /// The data set.
    pub fn data(&self) -> &'a dyn Dataset {
        self.data
    }

    /// The samples that an epoch draws from.
    pub fn samples(&self) -> &[usize] {
        &self.samples
    }

    /// How they become batches.
    pub fn how(&self) -> &Loading {
        &self.how
    }

    /// The number of batches in an epoch.
    pub fn batches(&self) -> usize {
        self.epoch_len.div_ceil(self.how.batch_size)
    }

    /// The number of samples in an epoch: with over- or under-sampling not that of the samples.
    pub fn epoch_len(&self) -> usize {
        self.epoch_len
    }

    /// The sizes of an epoch's batches that differ: the full one, and the last where it is smaller.
    pub fn batch_sizes(&self) -> Vec<usize> {
        let (n, size) = (self.epoch_len, self.how.batch_size);
        [(n >= size).then_some(size), Some(n % size).filter(|&rest| rest > 0)].into_iter().flatten().collect()
    }

    fn draws(&self, epoch: u32) -> Vec<Draw> {
        let mut order = sample(self.data.targets(), &self.samples, self.how.sampling, self.how.seed, epoch);
        if self.how.shuffle {
            seeds::stream(self.how.seed, seeds::SHUFFLE, epoch, 0).shuffle(&mut order);
        }
        if self.how.sampling != Sampling::Over {
            return order.into_iter().map(|i| (i, 0)).collect();
        }
        let mut seen = vec![0u32; self.data.len()];
        let occurrence = |i: usize| {
            seen[i] += 1;
            (i, seen[i] - 1)
        };
        order.into_iter().map(occurrence).collect()
    }

    /// Runs `consume` over the batches of an epoch from number `first` on, while threads prepare the next ones. The iterator
    /// ends after the first error.
    pub fn epoch<R>(
        &self,
        epoch: u32,
        first: usize,
        consume: impl FnOnce(&mut dyn Iterator<Item = Result<Batch, DataError>>) -> R,
    ) -> R {
        let draws = self.draws(epoch);
        let batches: Vec<&[Draw]> = draws.chunks(self.how.batch_size).collect();
        let workers = self.how.threads.min(batches.len()).max(1);
        std::thread::scope(|scope| {
            let channels = (0..workers).map(|worker| {
                let (send, receive) = sync_channel(READY);
                let mine = (first + worker..batches.len()).step_by(workers);
                let batches = &batches;
                scope.spawn(move || {
                    for number in mine {
                        let batch = self.batch(epoch, number as u32, batches[number]);
                        let failed = batch.is_err();
                        // The consumer has left if nobody receives: there is nothing more to do.
                        if send.send(batch).is_err() || failed {
                            return;
                        }
                    }
                });
                receive
            });
            let channels: Vec<Receiver<Result<Batch, DataError>>> = channels.collect();
            let mut failed = false;
            let mut taken = (0..batches.len().saturating_sub(first)).map_while(|turn| {
                let batch = (!failed).then(|| channels[turn % workers].recv().ok()).flatten();
                failed = matches!(batch, Some(Err(_)));
                batch
            });
            consume(&mut taken)
            // The receivers go out of scope here, before the scope waits for its threads.
        })
    }

    fn batch(&self, epoch: u32, number: u32, draws: &[Draw]) -> Result<Batch, DataError> {
        let (dims, how) = (self.data.dims(), &self.how);
        let width: usize = dims.iter().product();
        let channels = dims.first().copied().unwrap_or(1);
        let samples: Vec<usize> = draws.iter().map(|&(i, _)| i).collect();
        let mut inputs = vec![0.0; draws.len() * width];
        for (row, &(i, occurrence)) in inputs.chunks_exact_mut(width).zip(draws) {
            self.data.read(i, row)?;
            if let Some(augment) = &how.augment {
                // The purpose leaves its upper bits to the occurrence.
                let mut stream = seeds::stream(how.seed, seeds::AUGMENT | occurrence << 8, epoch, i as u32);
                augment.apply(row, dims, self.data.white(), &mut stream);
            }
        }
        let mut targets = self.data.targets().gather(&samples);
        let mut mixed = false;
        if let (Some(alpha), Targets::Classes { names, .. }) =
            (how.augment.as_ref().and_then(|a| a.mix_up), self.data.targets())
        {
            let mut stream = seeds::stream(how.seed, seeds::MIX, epoch, number);
            targets = crate::augment::mix::mix_up(&mut inputs, &targets, names.len(), alpha, &mut stream);
            mixed = true;
        }
        inputs.chunks_exact_mut(width).for_each(|row| how.normalise.apply(row, channels));
        let all: Vec<usize> = std::iter::once(draws.len()).chain(dims.iter().copied()).collect();
        Ok(Batch { inputs: Tensor::f32(&all, inputs), targets, samples, mixed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Values};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn numbered(n: usize) -> InMemory {
        let names = vec!["even".to_string(), "odd".into()];
        let of = (0..n as u32).map(|i| i % 2).collect();
        let x = (0..n).flat_map(|i| [i as f32, -(i as f32)]).collect();
        InMemory::new("n", vec![2], Values::F32(x), Targets::Classes { of, names }).unwrap()
    }

    fn epoch(loader: &Loader<'_>, epoch: u32, first: usize) -> Vec<Batch> {
        loader.epoch(epoch, first, |batches| batches.map(Result::unwrap).collect())
    }

    #[test]
    fn batches_are_the_same_on_every_number_of_threads() {
        let data = numbered(23);
        let with = |threads, shuffle| {
            let how = Loading { batch_size: 5, shuffle, threads, seed: 9, ..Loading::default() };
            Loader::new(&data, (0..23).collect(), how).unwrap()
        };
        let one = epoch(&with(1, true), 3, 0);
        assert_eq!(one.iter().map(Batch::len).collect::<Vec<_>>(), [5, 5, 5, 5, 3]);
        for threads in [2, 3, 8] {
            assert_eq!(epoch(&with(threads, true), 3, 0), one);
            assert_eq!(epoch(&with(threads, true), 3, 2), one[2..], "resumed within the epoch");
        }
        assert_ne!(epoch(&with(2, true), 4, 0), one);
        let mut all: Vec<usize> = one.iter().flat_map(|b| b.samples.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..23).collect::<Vec<_>>());
        let plain = epoch(&with(2, false), 0, 4);
        assert_eq!(plain[0].samples, [20, 21, 22]);
        assert_eq!(plain[0].inputs, Tensor::f32(&[3, 2], vec![20., -20., 21., -21., 22., -22.]));
        assert_eq!(plain[0].targets, Tensor::i64(&[3], vec![0, 1, 0]));
        assert_eq!((with(1, true).batches(), with(1, true).batch_sizes()), (5, vec![5, 3]));
    }

    #[test]
    fn values_are_normalised_by_channel() {
        let data = numbered(3);
        let normalise = Normalise { mean: vec![1.0, 0.0], scale: vec![2.0, 10.0] };
        let how = Loading { batch_size: 3, normalise, ..Loading::default() };
        let batch = &epoch(&Loader::new(&data, vec![2], how).unwrap(), 0, 0)[0];
        assert_eq!(batch.inputs, Tensor::f32(&[1, 2], vec![2.0, -20.0]));
        let three = Normalise { mean: vec![0.0; 3], ..Normalise::default() };
        let how = Loading { normalise: three, ..Loading::default() };
        let message = Loader::new(&data, vec![0], how).err().unwrap().to_string();
        assert_eq!(message, "data: the mean has 3 numbers for 2 channels");
    }

    #[test]
    fn over_sampling_repeats_samples() {
        let data = numbered(9);
        let how = Loading { batch_size: 4, sampling: Sampling::Over, shuffle: true, ..Loading::default() };
        let loader = Loader::new(&data, vec![0, 2, 4, 6, 1], how).unwrap();
        assert_eq!((loader.epoch_len(), loader.batch_sizes()), (8, vec![4]));
        let samples: Vec<usize> = epoch(&loader, 0, 0).iter().flat_map(|b| b.samples.clone()).collect();
        assert_eq!(samples.iter().filter(|&&i| i == 1).count(), 4);
    }

    /// Counts what is read, and fails at one sample.
    struct Counted(InMemory, AtomicUsize, usize);

    impl Dataset for Counted {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn dims(&self) -> &[usize] {
            self.0.dims()
        }
        fn targets(&self) -> &Targets {
            self.0.targets()
        }
        fn white(&self) -> f32 {
            1.0
        }
        fn place(&self, sample: usize) -> String {
            self.0.place(sample)
        }
        fn read(&self, sample: usize, out: &mut [f32]) -> Result<(), DataError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            if sample == self.2 {
                return Err(DataError::new(self.place(sample), "broken"));
            }
            self.0.read(sample, out)
        }
    }

    #[test]
    fn an_error_ends_the_epoch_where_it_is() {
        let data = Counted(numbered(40), AtomicUsize::new(0), 13);
        for threads in [1, 2, 3] {
            let how = Loading { batch_size: 4, threads, ..Loading::default() };
            let loader = Loader::new(&data, (0..40).collect(), how).unwrap();
            let got: Vec<Result<Batch, DataError>> = loader.epoch(0, 0, |batches| batches.collect());
            assert_eq!(got.len(), 4);
            assert_eq!(got[3].as_ref().unwrap_err().to_string(), "n, sample 13: broken");
        }
    }

    /// Nothing is read far ahead, and a consumer that leaves early leaves no thread waiting.
    #[test]
    fn loading_is_bounded() {
        let data = Counted(numbered(1000), AtomicUsize::new(0), usize::MAX);
        let how = Loading { batch_size: 1, threads: 2, ..Loading::default() };
        let loader = Loader::new(&data, (0..1000).collect(), how).unwrap();
        loader.epoch(0, 0, |batches| {
            batches.next();
            std::thread::sleep(std::time::Duration::from_millis(20));
        });
        let read = data.1.load(Ordering::Relaxed);
        assert!(read <= 1 + 2 * (READY + 1) + 1, "{read} samples");
    }
}
