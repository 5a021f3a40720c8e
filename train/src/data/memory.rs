//! A data set in memory: what archives and tables are read into.
//!
//! Bytes stay bytes (MNIST's 60 000 pictures are 47 MB, as f32 four times that) and are widened as they are read.
//! Numbers are checked once, here: a NaN or infinity among them is an error that names its sample.

use super::{DataError, Dataset, Targets};
use nncc_ir::{Data, Tensor};

/// The inputs, sample after sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Bytes: white is 255.
    U8(Vec<u8>),
    /// Numbers: white is 1.
    F32(Vec<f32>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::U8(v) => v.len(),
            Values::F32(v) => v.len(),
        }
    }
}

/// Samples in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    origin: String,
    dims: Vec<usize>,
    inputs: Values,
    targets: Targets,
    len: usize,
    /// What `place` calls a sample, and the number of the first.
    counted: (&'static str, Vec<u64>),
}

impl InMemory {
    /// A data set from its inputs (`dims` each, sample after sample) and targets; `origin` is the file in messages.
    /// An error if counts differ, a label is out of range or a number is not finite.
    pub fn new(
        origin: impl Into<String>,
        dims: Vec<usize>,
        inputs: Values,
        targets: Targets,
    ) -> Result<InMemory, DataError> {
        InMemory { origin: origin.into(), dims, inputs, targets, len: 0, counted: ("sample", Vec::new()) }.checked()
    }

    /// Names samples by rows of the file: `rows[i]` is the line of sample `i`.
    #[must_use]
    pub fn with_rows(mut self, rows: Vec<u64>) -> InMemory {
        self.counted = ("line", rows);
        self
    }

    fn checked(mut self) -> Result<InMemory, DataError> {
        let fail = |reason: String| Err(DataError::new(&self.origin, reason));
        let width: usize = self.dims.iter().product();
        if width == 0 {
            return fail(format!("a sample of dimensions {:?} has no value", self.dims));
        }
        let n = match &self.targets {
            Targets::Classes { of, .. } => of.len(),
            Targets::Values { dims, values } => {
                let each: usize = dims.iter().product();
                if each == 0 {
                    return fail(format!("a target of dimensions {dims:?} has no value"));
                }
                values.len() / each
            }
        };
        if n * width != self.inputs.len() {
            return fail(format!("{} inputs, but {n} targets", self.inputs.len() / width));
        }
        self.len = n;
        if let Targets::Classes { of, names } = &self.targets
            && let Some(i) = of.iter().position(|&c| c as usize >= names.len())
        {
            let reason = format!("label {} is out of range: there are {} classes", of[i], names.len());
            return Err(DataError::new(self.place(i), reason));
        }
        let unusable = |v: &[f32]| v.iter().position(|x| !x.is_finite());
        if let Values::F32(v) = &self.inputs
            && let Some(at) = unusable(v)
        {
            let reason = format!("value {} of the input is {}", at % width, v[at]);
            return Err(DataError::new(self.place(at / width), reason));
        }
        if let Targets::Values { dims, values } = &self.targets
            && let Some(at) = unusable(values)
        {
            let each: usize = dims.iter().product();
            return Err(DataError::new(self.place(at / each), format!("the target is {}", values[at])));
        }
        Ok(self)
    }

    /// The same samples under other dimensions: `[28, 28]` as `[1, 28, 28]`.
    pub fn with_dims(mut self, dims: &[usize]) -> Result<InMemory, DataError> {
        if dims.iter().product::<usize>() != self.dims.iter().product::<usize>() {
            let reason = format!("a sample has dimensions {:?}, the network's input {dims:?}", self.dims);
            return Err(DataError::new(self.origin, reason));
        }
        self.dims = dims.to_vec();
        Ok(self)
    }

    /// The same targets under the dimensions of the network's output: numbers `[]` as `[1]`. Classes have none.
    pub fn with_target_dims(mut self, dims: &[usize]) -> Result<InMemory, DataError> {
        if let Targets::Values { dims: own, .. } = &mut self.targets {
            if own.iter().product::<usize>() != dims.iter().product::<usize>() {
                let reason = format!("a target has dimensions {own:?}, the network's output {dims:?}");
                return Err(DataError::new(self.origin, reason));
            }
            *own = dims.to_vec();
        }
        Ok(self)
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.len
    }

    fn dims(&self) -> &[usize] {
        &self.dims
    }

    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn white(&self) -> f32 {
        match self.inputs {
            Values::U8(_) => 255.0,
            Values::F32(_) => 1.0,
        }
    }

    fn place(&self, sample: usize) -> String {
        let (word, rows) = &self.counted;
        format!("{}, {word} {}", self.origin, rows.get(sample).copied().unwrap_or(sample as u64))
    }

    fn read(&self, sample: usize, out: &mut [f32]) -> Result<(), DataError> {
        let range = sample * out.len()..(sample + 1) * out.len();
        match &self.inputs {
            Values::U8(v) => {
                for (to, &from) in out.iter_mut().zip(&v[range]) {
                    *to = f32::from(from);
                }
            }
            Values::F32(v) => out.copy_from_slice(&v[range]),
        }
        Ok(())
    }
}

/// The elements of a tensor as inputs: bytes as they are, all else as f32. An f64 beyond f32's range becomes infinite,
/// which [`InMemory::new`] refuses.
pub fn values(t: Tensor) -> Values {
    match t.into_data() {
        Data::U8(v) => Values::U8(v),
        Data::F32(v) => Values::F32(v),
        other => {
            let n = other.len();
            Values::F32(Tensor::of(&[n], other).to_f64().into_iter().map(|x| x as f32).collect())
        }
    }
}

/// Targets of class numbers. Without a given count there are as many classes as the largest label tells. `origin` and the
/// sample's number are named where a label is negative or too large.
pub fn classes(labels: &[i64], count: Option<usize>, origin: &str) -> Result<Targets, DataError> {
    // Without a limit one label of 2^31, or a network's output of that length, would cost gigabytes of names.
    const MOST: i64 = 1 << 20;
    if let Some(n) = count.filter(|&n| n > MOST as usize) {
        return Err(DataError::new(origin, format!("the network has {n} outputs, and there may be {MOST} classes")));
    }
    let limit = count.map_or(MOST, |n| n as i64);
    if let Some(i) = labels.iter().position(|&c| c < 0 || c >= limit) {
        let place = format!("{origin}, sample {i}");
        return Err(DataError::new(place, format!("label {} is out of range: 0 to {}", labels[i], limit - 1)));
    }
    let n = count.unwrap_or_else(|| labels.iter().max().map_or(0, |&c| c as usize + 1));
    let names = (0..n).map(|c| c.to_string()).collect();
    Ok(Targets::Classes { of: labels.iter().map(|&c| c as u32).collect(), names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Targets {
        Targets::Values { dims: vec![], values: vec![0.0; n] }
    }

    #[test]
    fn samples_are_read_widened() {
        let d = InMemory::new("d", vec![2], Values::U8(vec![1, 2, 3, 255]), numbers(2)).unwrap();
        let mut out = [0.0; 2];
        d.read(1, &mut out).unwrap();
        assert_eq!((out, d.len(), d.white()), ([3.0, 255.0], 2, 255.0));
        assert_eq!(d.clone().with_dims(&[1, 2, 1]).unwrap().dims(), [1, 2, 1]);
        let refusal = "d: a sample has dimensions [2], the network's input [3]";
        assert_eq!(d.clone().with_dims(&[3]).unwrap_err().to_string(), refusal);
        assert_eq!(d.clone().with_target_dims(&[1]).unwrap().targets().gather(&[0]).dims(), [1, 1]);
        let refusal = "d: a target has dimensions [], the network's output [3]";
        assert_eq!(d.with_target_dims(&[3]).unwrap_err().to_string(), refusal);
    }

    #[test]
    fn what_cannot_be_learnt_from_is_named() {
        let make = |dims: &[usize], v: &[f32], t| InMemory::new("d.npz", dims.to_vec(), Values::F32(v.to_vec()), t);
        let fail = |dims: &[usize], v: &[f32], t| make(dims, v, t).unwrap_err().to_string();
        assert_eq!(fail(&[2], &[0.0; 6], numbers(2)), "d.npz: 3 inputs, but 2 targets");
        let nan = fail(&[2], &[0.0, 0.0, 0.0, f32::NAN], numbers(2));
        assert_eq!(nan, "d.npz, sample 1: value 1 of the input is NaN");
        let target = Targets::Values { dims: vec![1], values: vec![0.0, f32::INFINITY] };
        assert_eq!(fail(&[1], &[0.0; 2], target), "d.npz, sample 1: the target is inf");
        assert_eq!(fail(&[0], &[], numbers(0)), "d.npz: a sample of dimensions [0] has no value");
        let labels = |v: &[i64], n| classes(v, n, "y").unwrap_err().to_string();
        assert_eq!(labels(&[0, 3], Some(3)), "y, sample 1: label 3 is out of range: 0 to 2");
        assert_eq!(labels(&[-1], None), "y, sample 0: label -1 is out of range: 0 to 1048575");
        let many = "y: the network has 1099511627776 outputs, and there may be 1048576 classes";
        assert_eq!(labels(&[0], Some(1 << 40)), many);
        let class = Targets::Classes { of: vec![0, 7], names: vec!["a".into()] };
        let refusal = "d.npz, sample 1: label 7 is out of range: there are 1 classes";
        assert_eq!(fail(&[1], &[0.0; 2], class), refusal);
    }
}
