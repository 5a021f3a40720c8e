//! Tensors for a model's inputs, from files: `.npy` as they are, pictures prepared for the input's shape.

use super::args::Inputs;
use nncc::{Error, Tensor, arrays};
use nncc_train::picture;
use std::collections::BTreeMap;
use std::path::Path;

/// An input as the model declares it: its name and what is known of its shape (`None` for a dimension that is open).
pub struct Declared {
    /// The name.
    pub name: String,
    /// The shape; `None` if the model does not declare even the rank.
    pub shape: Option<Vec<Option<usize>>>,
}

/// Reads every file that the command line names. Each must be for an input of the model.
pub fn read(args: &Inputs, declared: &[Declared]) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut out = BTreeMap::new();
    for (name, path) in &args.inputs {
        let Some(input) = declared.iter().find(|d| d.name == *name) else {
            let names: Vec<&str> = declared.iter().map(|d| d.name.as_str()).collect();
            return Err(Error::Input(format!(
                "the model has no input \"{name}\"; its inputs are: {}",
                names.join(", ")
            )));
        };
        let tensor = if is_array(path) {
            arrays::read_npy(path)?
        } else {
            let dims = input
                .shape
                .clone()
                .ok_or_else(|| Error::Input(format!("input \"{name}\" declares no shape for a picture")))?;
            picture::read(path, &dims, &args.preparation()).map_err(Error::Input)?
        };
        out.insert(name.clone(), tensor);
    }
    Ok(out)
}

/// Whether a file is an array by its name.
pub fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}
