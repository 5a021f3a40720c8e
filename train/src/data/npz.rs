//! NumPy archives: `x` holds the inputs `[N, ..]`, `y` the targets.
//!
//! Integers in `y` of one axis (or `[N, 1]`) are classes, anything else is numbers. Under [`Options::regression`] integers
//! are numbers too.

use super::memory::{classes, values};
use super::{DataError, InMemory, Options, Targets};
use crate::arrays;
use nncc_ir::Tensor;
use std::path::Path;

/// Reads an archive.
pub fn read(path: &Path, options: &Options) -> Result<InMemory, DataError> {
    let mut arrays = arrays::read_npz(path).map_err(|e| DataError::file(path, e.reason()))?;
    let mut take = |name: &str| {
        let at = arrays.iter().position(|(n, _)| n == name);
        at.map(|i| arrays.swap_remove(i).1).ok_or_else(|| {
            let names = arrays.iter().map(|(n, _)| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            DataError::file(path, format!("no array `{name}`; its arrays are: {names}"))
        })
    };
    let (x, y) = (take("x")?, take("y")?);
    let shape = |t: &Tensor| t.dims().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match (x.dims().split_first(), y.dims().first()) {
        (Some((n, rest)), Some(m)) if n == m => {
            let origin = path.display().to_string();
            // A single number a sample is still an axis of one.
            let dims = if rest.is_empty() { vec![1] } else { rest.to_vec() };
            let targets = targets(&y, options, &origin)?;
            InMemory::new(origin, dims, values(x), targets)
        }
        _ => {
            let (x, y) = (shape(&x), shape(&y));
            Err(DataError::file(path, format!("`x` is [{x}] and `y` is [{y}]: their first axes are not one length")))
        }
    }
}

fn targets(y: &Tensor, options: &Options, origin: &str) -> Result<Targets, DataError> {
    let single = matches!(y.dims(), [_] | [_, 1]);
    if !y.dtype().is_float() && single && !options.regression {
        return classes(&y.to_i64(), options.classes, &format!("{origin}, `y`"));
    }
    let values = y.to_f64().into_iter().map(|v| v as f32).collect();
    Ok(Targets::Values { dims: y.dims()[1..].to_vec(), values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;
    use crate::data::{Dataset, check_classes};
    use nncc_ir::DType;

    fn read_of(folder: &Folder, arrays: &[(&str, &Tensor)], options: &Options) -> Result<InMemory, String> {
        let path = folder.path().join("d.npz");
        arrays::write_npz(&path, arrays.iter().copied()).unwrap();
        read(&path, options).map_err(|e| folder.strip(e))
    }

    #[test]
    fn integers_are_classes_and_floats_are_numbers() {
        let folder = Folder::new("npz");
        let x = Tensor::from_i64(DType::U8, &[3, 2, 2], &(0..12).collect::<Vec<_>>());
        let y = Tensor::from_i64(DType::I32, &[3], &[0, 2, 1]);
        let d = read_of(&folder, &[("x", &x), ("y", &y)], &Options::default()).unwrap();
        assert_eq!((d.len(), d.dims(), d.white(), d.targets().classes()), (3, &[2, 2][..], 255.0, Some(3)));
        assert!(check_classes(&d, &[0, 1, 2], "d").is_ok());
        let regression = Options { regression: true, ..Options::default() };
        let d = read_of(&folder, &[("x", &x), ("y", &y)], &regression).unwrap();
        assert_eq!(*d.targets(), Targets::Values { dims: vec![], values: vec![0.0, 2.0, 1.0] });
        let y = Tensor::f32(&[3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let d = read_of(&folder, &[("x", &x), ("y", &y)], &Options::default()).unwrap();
        assert!(matches!(d.targets(), Targets::Values { dims, .. } if *dims == [2]));
    }

    #[test]
    fn archives_that_do_not_fit_are_refused() {
        let folder = Folder::new("npz-bad");
        let x = Tensor::f32(&[3, 2], vec![0.0; 6]);
        let y = Tensor::i64(&[2], vec![0, 1]);
        let fail = |arrays: &[(&str, &Tensor)]| read_of(&folder, arrays, &Options::default()).unwrap_err();
        assert_eq!(fail(&[("x", &x), ("labels", &y)]), "d.npz: no array `y`; its arrays are: `labels`");
        let axes = "d.npz: `x` is [3,2] and `y` is [2]: their first axes are not one length";
        assert_eq!(fail(&[("x", &x), ("y", &y)]), axes);
        let y = Tensor::i64(&[3], vec![0, 1, -4]);
        assert!(fail(&[("x", &x), ("y", &y)]).starts_with("d.npz, `y`, sample 2: label -4 is out of range"));
        let path = folder.write("cut.npz", b"PK\x03\x04 nonsense");
        assert!(folder.strip(read(&path, &Options::default()).unwrap_err()).starts_with("cut.npz: "));
    }
}
