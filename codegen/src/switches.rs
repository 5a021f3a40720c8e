//! What can be left out of a build, to see what it is good for: `--disable NAME,..`.
//!
//! Each switch is one algorithm for which there is another way already, taken where the algorithm does not apply: a general
//! template, a pass that finds nothing to do. Nothing is written for a switch's sake. The list below is the one declaration:
//! the command's parsing and help, the table of docs/performance.md, the tests and `bench/algorithms.py` follow from it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::str::FromStr;

macro_rules! switches {
    ($($switch:ident $name:literal, $about:literal, passes: [$($left_out:ident),*];)*) => {
        /// An algorithm that can be left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Switch {
            $(#[doc = $about] $switch,)*
        }

        impl Switch {
            /// All of them.
            pub const ALL: &[Switch] = &[$(Switch::$switch),*];

            /// What the command calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Switch::$switch => $name,)*
                }
            }

            /// What is done otherwise without it.
            pub fn about(self) -> &'static str {
                match self {
                    $(Switch::$switch => $about,)*
                }
            }

            /// What the passes leave out for it.
            fn parts(self) -> &'static [nncc_passes::Part] {
                match self {
                    $(Switch::$switch => &[$(nncc_passes::Part::$left_out),*],)*
                }
            }
        }
    };
}

switches! {
    FirstLayer "first-layer", "the input is copied into channel blocks instead of read as it comes", passes: [PlanarInputs];
    Direct "direct", "convolutions without register tiles: one element at a time", passes: [];
    FlatPixels "flat-pixels", "1x1 convolutions row by row of the picture, not as a product over all pixels", passes: [];
    MatrixProducts "matrix-products", "matrix products without register tiles, packed or in place: one element at a time", passes: [];
    AskingAhead "asking-ahead", "weights and pixels are read when they are needed, not asked for before", passes: [];
    Depthwise "depthwise", "narrow groups one element at a time", passes: [];
    TransposedPhases "transposed-phases", "transposed convolutions one element at a time, with a test of each tap", passes: [];
    Winograd "winograd", "3x3 convolutions by the direct form, as with --winograd off", passes: [];
    PoolingInTiles "pooling-in-tiles", "poolings behind Winograd's convolutions as steps of their own", passes: [];
    Bands "bands", "layers one behind the other, as with --bands off", passes: [];
    Attention "attention", "attention as its matrix products and softmax", passes: [Attention];
    BatchNormFolding "batch-norm-folding", "batch normalizations as scales and shifts behind their convolutions", passes: [BatchNormFolding];
    Epilogues "epilogues", "what follows a convolution or product as steps of its own", passes: [Epilogues];
    Residuals "residuals", "sums with a whole tensor behind a convolution or product as steps of their own", passes: [Residuals];
    ElementwiseFusion "elementwise-fusion", "elementwise operators behind others than products each by itself", passes: [ElementwiseFusion];
    ConcatInPlace "concat-in-place", "concatenations copy all their operands", passes: [ConcatInPlace];
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(name: &str) -> Result<Switch, String> {
        let found = Switch::ALL.iter().find(|switch| switch.name() == name);
        found.copied().ok_or_else(|| format!("there is no algorithm `{name}` to leave out"))
    }
}

/// What is left out of a build; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabled(BTreeSet<Switch>);

impl Disabled {
    /// Is it left out?
    pub fn has(&self, switch: Switch) -> bool {
        self.0.contains(&switch)
    }

    /// What the passes leave out.
    pub fn parts(&self) -> Vec<nncc_passes::Part> {
        self.0.iter().flat_map(|switch| switch.parts()).copied().collect()
    }
}

impl FromIterator<Switch> for Disabled {
    fn from_iter<I: IntoIterator<Item = Switch>>(switches: I) -> Disabled {
        Disabled(switches.into_iter().collect())
    }
}

/// All switches as a table for the documentation.
pub fn table() -> String {
    let mut out = String::from("| name | without it |\n|---|---|\n");
    for switch in Switch::ALL {
        let _ = writeln!(out, "| `{}` | {} |", switch.name(), switch.about());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for &switch in Switch::ALL {
            assert_eq!(switch.name().parse(), Ok(switch));
        }
        assert_eq!("fast".parse::<Switch>(), Err("there is no algorithm `fast` to leave out".into()));
    }

    #[test]
    fn the_documentation_has_them_all() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md");
        let (begin, end) = ("<!-- switches: begin -->\n", "<!-- switches: end -->");
        let stored = std::fs::read_to_string(path).expect("docs/performance.md is there");
        let (before, rest) = stored.split_once(begin).expect("the table has a begin");
        let (_, after) = rest.split_once(end).expect("the table has an end");
        let fresh = format!("{before}{begin}{}{end}{after}", table());
        if std::env::var_os("NNCC_BLESS").is_some() {
            std::fs::write(path, &fresh).expect("docs/performance.md can be written");
            return;
        }
        assert!(stored == fresh, "docs/performance.md is stale: NNCC_BLESS=1 cargo test -p nncc-codegen switches");
    }
}
