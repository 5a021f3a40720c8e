//! What the caller decides about an import, and how it meets what the model declares: symbolic dimensions, shapes of inputs,
//! inputs that are constants.

use crate::model::DimDef;
use crate::problem::Problem;
use nncc_ir::{Dim, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// Decisions of the caller. The default leaves everything as the model says.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Numbers for symbolic dimensions, by name: `N` = 1. A dimension that the model leaves without a name is called after
    /// its input and axis, `image.2`.
    pub dims: BTreeMap<String, i64>,
    /// Inputs that are constants from now on: they are no inputs of the graph any more.
    pub fixed: BTreeMap<String, Tensor>,
    /// Shapes for inputs whose shape the model does not declare or declares with symbols.
    pub shapes: BTreeMap<String, Vec<Dim>>,
    /// For training: Dropouts of the model, in whatever mode, and RReLUs stay in the graph, each with a stream of its own (they
    /// draw nothing until they get a seed: see [`nncc_ir::ops::dropout`]); batch normalizations that were exported in training mode
    /// take their inference form; and nothing that is computed of a weight is folded, so that every weight is a constant of
    /// its initializer's name.
    pub training: bool,
}

/// Operators in a declared dimension (`2*N+1`) up to which it is read as an expression. Files have one or two; the limit keeps
/// products of sums, which grow exponentially when multiplied out, from a hostile file.
const EXPRESSION_OPERATORS: usize = 6;

/// Symbols of one import with the numbers known for them.
pub(crate) struct Symbols {
    bound: BTreeMap<String, i64>,
    met: BTreeSet<String>,
}

impl Symbols {
    pub(crate) fn new(options: &ImportOptions) -> Result<Symbols, Problem> {
        match options.dims.iter().find(|(_, n)| **n < 0) {
            Some((name, n)) => Err(Problem::options(format!("the dimension {name} cannot be {n}"))),
            None => Ok(Symbols { bound: options.dims.clone(), met: BTreeSet::new() }),
        }
    }

    /// The dimension that axis `axis` of `input` declares, with what is known put in.
    pub(crate) fn dim(&mut self, input: &str, axis: usize, declared: &DimDef) -> Dim {
        let expression = match declared {
            DimDef::Known(n) => return Dim::Known(*n),
            DimDef::Named(text) if self.bound.contains_key(text) => {
                self.met.insert(text.clone());
                return Dim::Known(self.bound[text]);
            }
            DimDef::Named(text) if text.contains(|c: char| c.is_alphanumeric()) => expression(text),
            // Some exporters call every open dimension "?".
            DimDef::Named(_) | DimDef::Unnamed => Dim::symbol(&symbol_name(&format!("{input}.{axis}"))),
        };
        self.met.extend(expression.symbols().iter().map(|s| s.to_string()));
        expression.substitute(&|s| self.bound.get(s).map(|&n| Dim::Known(n)))
    }

    /// Learns the symbols of `declared` from the dimensions that a caller gives for `input`.
    pub(crate) fn learn(&mut self, input: &str, declared: &[DimDef], given: &[Dim]) -> Result<(), Problem> {
        let show = |dims: &[Dim]| format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(","));
        let own: Vec<Dim> = declared.iter().enumerate().map(|(i, d)| self.dim(input, i, d)).collect();
        let differ = || {
            Problem::options(format!("the given shape {} does not fit the declared {}", show(given), show(&own)))
                .at(format!("input \"{input}\""))
        };
        if own.len() != given.len() {
            return Err(differ());
        }
        for (own, given) in own.iter().zip(given) {
            match (own, given) {
                (Dim::Known(a), Dim::Known(b)) if a != b => return Err(differ()),
                (Dim::Sym(_), Dim::Known(n)) => {
                    // Only a bare symbol says what its number is; an expression stays for the user to bind.
                    if let [symbol] = &own.symbols()[..]
                        && *own == Dim::symbol(symbol)
                        && *self.bound.entry(symbol.to_string()).or_insert(*n) != *n
                    {
                        return Err(differ());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Names that the caller bound and no input has.
    pub(crate) fn unused<'o>(&self, options: &'o ImportOptions) -> Vec<&'o str> {
        options.dims.keys().filter(|name| !self.met.contains(*name)).map(String::as_str).collect()
    }

    /// Names that occur in the model's inputs.
    pub(crate) fn met(&self) -> &BTreeSet<String> {
        &self.met
    }
}

/// A declared name as an expression (exporters write `2*N` and `H//2`), or as a symbol if it is none.
fn expression(text: &str) -> Dim {
    let text = text.replace("//", "/");
    let operators = text.chars().filter(|c| "+-*/".contains(*c)).count();
    if operators <= EXPRESSION_OPERATORS
        && text.len() <= 256
        && let Ok(dim) = nncc_ir::parse::dim(&text)
        && dim.known().is_none()
    {
        return dim;
    }
    Dim::symbol(&symbol_name(&text))
}

/// `text` with everything that a symbol cannot hold replaced by `_`.
fn symbol_name(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.:".contains(c) { c } else { '_' };
    let name: String = text.chars().map(allowed).collect();
    let plain = name.starts_with(|c: char| !c.is_ascii_digit()) && name != "max" && name != "min";
    if plain { name } else { format!("_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(pairs: &[(&str, i64)]) -> Symbols {
        let dims = pairs.iter().map(|(k, v)| (k.to_string(), *v)).collect();
        Symbols::new(&ImportOptions { dims, ..ImportOptions::default() }).unwrap()
    }

    #[test]
    fn names_expressions_and_nothing() {
        let mut s = symbols(&[("H", 7), ("two words", 3)]);
        let named = |t: &str| DimDef::Named(t.into());
        for (declared, text) in [
            (named("N"), "N"),
            (named("H"), "7"),
            (named("(H+1)//2"), "4"),
            (named("2*N"), "2*N"),
            (named("two words"), "3"),
            (named("other words"), "other_words"),
            (named("1x"), "_1x"),
            (DimDef::Unnamed, "image.2"),
            (named("?"), "image.2"),
            (DimDef::Known(5), "5"),
        ] {
            assert_eq!(s.dim("image", 2, &declared).to_string(), text, "{declared:?}");
        }
        let hostile = vec!["(a+b)"; 40].join("*");
        assert_eq!(s.dim("image", 0, &named(&hostile)).symbols().len(), 1);
    }

    #[test]
    fn given_shapes_bind_symbols() {
        let mut s = symbols(&[]);
        let declared = [DimDef::Named("N".into()), DimDef::Known(3)];
        s.learn("x", &declared, &[Dim::Known(8), Dim::Known(3)]).unwrap();
        assert_eq!(s.dim("y", 0, &DimDef::Named("N".into())), Dim::Known(8));
        let e = s.learn("x", &declared, &[Dim::Known(9), Dim::Known(3)]).unwrap_err();
        assert_eq!(e.message, "the given shape [9,3] does not fit the declared [8,3]");
    }
}
