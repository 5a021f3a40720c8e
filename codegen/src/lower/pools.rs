//! Constants and kernels of a program, each once: equal content is found again, whatever asked for it.
//!
//! Bytes are hashed whole. Packed weights are compared by what they are made from (recipe and source constants) without making
//! them; the hash of a source samples its bytes, and equality is decided by comparing all of them, so that a collision, also
//! one that a model file was made for, costs time and never gives the wrong weights.

use crate::kir::Kernel;
use crate::pack::Packed;
use crate::program::{Const, ConstData, ConstId, ConstSource, KernelId, MAX_ALIGN, ProgramKernel};
use crate::target::Level;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The growing tables of a program.
#[derive(Default)]
pub struct Pools {
    consts: Vec<Const>,
    bytes: FxHashMap<u64, Vec<ConstId>>,
    packed: FxHashMap<u64, Vec<(ConstId, Arc<Packed>)>>,
    kernels: Vec<ProgramKernel>,
    by_content: FxHashMap<u64, Vec<KernelId>>,
    names: FxHashSet<String>,
    expanded: usize,
}

fn hash(content: impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    content.hash(&mut hasher);
    hasher.finish()
}

impl Pools {
    /// A constant of these bytes.
    pub fn bytes(&mut self, bytes: Vec<u8>) -> ConstId {
        let same = self.bytes.entry(hash(&bytes)).or_default();
        for &id in same.iter() {
            if matches!(&self.consts[id.0 as usize].data, ConstData::Bytes(old) if **old == *bytes) {
                return id;
            }
        }
        let id = ConstId(self.consts.len() as u32);
        same.push(id);
        self.consts.push(Const { data: bytes.into(), align: MAX_ALIGN });
        id
    }

    /// A constant that is made from weights when it is written.
    pub fn packed(&mut self, packed: Packed) -> ConstId {
        let same = self.packed.entry(packed.sample_hash()).or_default();
        if let Some((id, _)) = same.iter().find(|(_, old)| **old == packed) {
            return *id;
        }
        if packed.expands() {
            self.expanded = self.expanded.saturating_add(packed.len());
        }
        let (id, packed) = (ConstId(self.consts.len() as u32), Arc::new(packed));
        same.push((id, packed.clone()));
        self.consts.push(Const { data: packed.into_data(), align: MAX_ALIGN });
        id
    }

    /// Bytes of constants that the model gives as one repeated element: what the library may be larger for than the model's file.
    pub fn expanded(&self) -> usize {
        self.expanded
    }

    /// The size of a constant in bytes.
    pub fn const_len(&self, id: ConstId) -> usize {
        self.consts[id.0 as usize].data.len()
    }

    /// The bytes of a constant that are at hand: those of a packed one are made when the program is written.
    pub fn const_bytes(&self, id: ConstId) -> Option<&[u8]> {
        match &self.consts[id.0 as usize].data {
            ConstData::Bytes(bytes) => Some(bytes),
            ConstData::Splat { .. } | ConstData::Deferred(_) => None,
        }
    }

    /// A kernel that is there.
    pub fn kernel_ir(&self, id: KernelId) -> &Kernel {
        &self.kernels[id.0 as usize].ir
    }

    /// A kernel of a level. The name is made unique in the program.
    pub fn kernel(&mut self, level: Level, mut kernel: Kernel) -> KernelId {
        let same = self.by_content.entry(hash((level, &kernel.args, &kernel.body, &kernel.types))).or_default();
        for &id in same.iter() {
            let old = &self.kernels[id.0 as usize];
            let k = &old.ir;
            if old.level == level && k.args == kernel.args && k.types == kernel.types && k.body == kernel.body {
                return id;
            }
        }
        let id = KernelId(self.kernels.len() as u32);
        same.push(id);
        let base = kernel.name.clone();
        for n in 2.. {
            if self.names.insert(kernel.name.clone()) {
                break;
            }
            kernel.name = format!("{base}_{n}");
        }
        self.kernels.push(ProgramKernel { level, ir: kernel });
        id
    }

    /// The constants and kernels, for the program.
    pub fn into_parts(self) -> (Vec<Const>, Vec<ProgramKernel>) {
        (self.consts, self.kernels)
    }
}
