//! The table of supported ONNX operators, `docs/operators.md`, made from the lists that the importer dispatches by.

use crate::import::NEWEST_OPSET;
use crate::ops::FAMILIES;
use std::fmt::Write;

/// The whole file. A test compares it with the one that is checked in.
pub fn operators_table() -> String {
    let mut out = String::new();
    let count = FAMILIES.iter().flat_map(|(_, ops)| ops.iter()).filter(|op| op.domain.is_empty()).count();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "# Supported ONNX operators\n\n\
         Generated from `frontend/src/ops/` (`NNCC_BLESS=1 cargo test -p nncc-frontend table`): do not edit.\n\n\
         {count} operators of the default domain, in every version up to opset {NEWEST_OPSET}. A version is an opset in \
         which ONNX changed\nthe operator. Model-local functions are inlined, and so are the branches of an `If` whose \
         condition is constant.\n`Shape`, `Size`, `Range` and whatever else has only known operands are computed when \
         importing.\n\n\
         Element types: f32, f64, the integers of 8 to 64 bits and bool, as far as an operator's meaning reaches.\n\n\
         An index that is out of range when the library runs (Gather, Scatter and their kin) takes the nearest \
         element: no error,\nand no access outside of a tensor. The reference evaluator refuses it.\n"
    );
    for (family, ops) in FAMILIES {
        let _ = write!(out, "\n## {family}\n\n| operator | versions | limits |\n|---|---|---|\n");
        for op in *ops {
            let versions: Vec<String> = op.versions.iter().map(i64::to_string).collect();
            let _ = writeln!(out, "| {} | {} | {} |", op.name, versions.join(", "), op.limits);
        }
    }
    let _ = write!(out, "\n## Not supported\n\n");
    for (reason, names) in crate::ops::reasons() {
        let _ = writeln!(out, "- {reason}: {}", names.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_that_is_checked_in_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operators.md");
        let fresh = super::operators_table();
        if std::env::var_os("NNCC_BLESS").is_some() {
            std::fs::write(path, &fresh).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(stored == fresh, "docs/operators.md is stale: NNCC_BLESS=1 cargo test -p nncc-frontend table");
    }
}
