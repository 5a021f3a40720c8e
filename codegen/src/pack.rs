//! Packed weights: the layouts in which kernels read constants, and how each is made from a model's tensors.
//!
//! There is one copy of each packed weight for all CPU levels and shape sets. A [`Packed`] holds handles to its sources and is
//! written once, straight into the library: until then it costs nothing, and a splat stays one number.

use crate::program::{ConstData, ConstSource};
use nncc_ir::Constant;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A constant of the program that is made from constants of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    recipe: Recipe,
    sources: Vec<Constant>,
}

/// How packed bytes are made from their sources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// As it is: row-major.
    Raw,
}

impl Packed {
    /// A constant as it is, row-major.
    pub fn raw(source: Constant) -> Packed {
        Packed { recipe: Recipe::Raw, sources: vec![source] }
    }

    /// Equal for equal contents; reads only a part of the sources.
    pub fn sample_hash(&self) -> u64 {
        const SAMPLES: usize = 64;
        let mut hasher = FxHasher::default();
        self.recipe.hash(&mut hasher);
        for source in &self.sources {
            (source.dtype(), source.dims()).hash(&mut hasher);
            match source.splat_value() {
                Some(value) => value.to_bytes().hash(&mut hasher),
                None => {
                    let bytes = source.bytes().unwrap_or_default();
                    bytes.iter().step_by(bytes.len() / SAMPLES + 1).for_each(|b| b.hash(&mut hasher));
                }
            }
        }
        hasher.finish()
    }

    /// The constant's data for the program. A raw splat stays a splat.
    pub fn into_data(self: Arc<Self>) -> ConstData {
        match (&self.recipe, self.sources[0].splat_value()) {
            (Recipe::Raw, Some(value)) => {
                ConstData::Splat { pattern: value.to_bytes().into(), count: self.sources[0].elems() }
            }
            _ => ConstData::Deferred(self),
        }
    }
}

impl ConstSource for Packed {
    fn len(&self) -> usize {
        match &self.recipe {
            Recipe::Raw => self.sources[0].elems() * self.sources[0].dtype().bytes(),
        }
    }

    fn write(&self, out: &mut [u8]) {
        match &self.recipe {
            Recipe::Raw => write_raw(&self.sources[0], out),
        }
    }
}

fn write_raw(source: &Constant, out: &mut [u8]) {
    match (source.bytes(), source.splat_value()) {
        (Some(bytes), _) => out.copy_from_slice(bytes),
        (None, Some(value)) => {
            let pattern = value.to_bytes();
            out.chunks_exact_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(&pattern));
        }
        (None, None) => {}
    }
}
