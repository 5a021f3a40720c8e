//! How each ONNX operator becomes graph IR: one file an operator family, named like the family's home in `nncc_ir::ops`.
//!
//! Each file has a list `OPS` of the operators it imports. The lists are the only place where an operator is entered:
//! dispatch and `docs/operators.md` follow from them. `versions` are the opsets in which ONNX changed the operator; an
//! import function handles all of them and asks [`NodeCx::version`] where they differ.

use crate::model::{Attr, NodeDef};
use crate::node::{Imported, NodeCx};
use rustc_hash::FxHashMap;
use std::sync::LazyLock;

mod activation;
mod attention;
mod control;
mod conv;
mod elementwise;
mod generate;
mod gradient;
mod index;
mod loss;
mod matmul;
mod norm;
mod pool;
mod reduce;
mod resize;
mod shape;
mod softmax;
mod training;
mod window;

/// One operator.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// "" for the default domain.
    pub(crate) domain: &'static str,
    /// The opset versions that changed the operator, ascending: all that ONNX has up to the newest known opset.
    pub(crate) versions: &'static [i64],
    pub(crate) import: fn(&mut NodeCx<'_>) -> Imported,
    /// What is left out, for the table: empty if nothing is.
    pub(crate) limits: &'static str,
    /// Its attributes that name values of the graph: the importer looks them up like operands ([`NodeCx::named`]).
    pub(crate) naming: &'static [&'static str],
}

impl Entry {
    const fn new(name: &'static str, versions: &'static [i64], import: fn(&mut NodeCx<'_>) -> Imported) -> Entry {
        Entry { name, domain: "", versions, import, limits: "", naming: &[] }
    }

    const fn of(self, domain: &'static str) -> Entry {
        Entry { domain, ..self }
    }

    const fn but(self, limits: &'static str) -> Entry {
        Entry { limits, ..self }
    }

    const fn naming(self, naming: &'static [&'static str]) -> Entry {
        Entry { naming, ..self }
    }
}

/// The families with their operators, in the order of the table.
pub(crate) const FAMILIES: &[(&str, &[Entry])] = &[
    ("Elementwise", elementwise::OPS),
    ("Activations", activation::OPS),
    ("Convolutions", conv::OPS),
    ("Pooling", pool::OPS),
    ("Normalizations", norm::OPS),
    ("Matrix products", matmul::OPS),
    ("Softmax", softmax::OPS),
    ("Reductions", reduce::OPS),
    ("Shapes and data movement", shape::OPS),
    ("Indexing", index::OPS),
    ("Resampling", resize::OPS),
    ("Attention", attention::OPS),
    ("Losses", loss::OPS),
    ("Constants and generators", generate::OPS),
    ("Gradients, of the domain `ai.onnx.preview.training`", gradient::OPS),
    ("Optimizers, of the domain `ai.onnx.preview.training`", training::OPS),
];

/// The operator of `domain` that is called `name`.
pub(crate) fn find(domain: &str, name: &str) -> Option<&'static Entry> {
    static BY_NAME: LazyLock<FxHashMap<&str, &Entry>> =
        LazyLock::new(|| FAMILIES.iter().flat_map(|(_, ops)| ops.iter()).map(|e| (e.name, e)).collect());
    BY_NAME.get(name).copied().filter(|e| e.domain == domain)
}

/// The values that attributes of a node name, in the order of its operator's list.
pub(crate) fn named_values(node: &NodeDef) -> Vec<(&'static str, Vec<&str>)> {
    let naming = find(&node.domain, &node.op).map_or(&[][..], |e| e.naming);
    fn text(t: &[u8]) -> &str {
        std::str::from_utf8(t).unwrap_or_default()
    }
    let of = |name: &str| match node.attributes.iter().find(|(n, _)| n == name) {
        Some((_, Attr::Text(t))) => vec![text(t)],
        Some((_, Attr::Texts(list))) => list.iter().map(|t| text(t)).collect(),
        _ => Vec::new(),
    };
    naming.iter().map(|name| (*name, of(name))).collect()
}

/// Why an operator of the default domain is not supported, where there is more to say than that it is not.
pub(crate) fn why_not(name: &str) -> Option<&'static str> {
    control::REASONS.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| *reason)
}

/// The operators that are known not to be supported, by reason.
pub(crate) fn reasons() -> &'static [(&'static str, &'static [&'static str])] {
    control::REASONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_entered_once() {
        let all = FAMILIES.iter().flat_map(|(_, ops)| ops.iter());
        let mut names: Vec<&str> = all.map(|e| e.name).collect();
        let entered = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), entered);
        assert!(names.iter().all(|n| why_not(n).is_none()), "a supported operator has a reason why it is not");
    }
}
