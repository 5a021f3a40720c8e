//! Einstein summation: products of operands, summed over the labels that the result does not have.
//!
//! ```text
//! ij,jk->ik       matrix product            ii->i   diagonal             ij,jk      implicit result: the labels that occur
//! ...ij,...jk     with broadcast batches    ij->    sum of everything               once, in alphabetical order, after `...`
//! ```
//!
//! A label has one size everywhere; as in numpy, an axis of size 1 broadcasts against it. `...` stands for the remaining
//! axes of its operand, which broadcast aligned at the right. Source: ONNX Einsum-12, which refers to numpy.einsum.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{one_dtype, output_dims};
use crate::tensor::{indices, strides_of};
use crate::{DType, Dim, GradientCx, GradientError, Shape, Tensor, TensorType, ValueId, operator_attrs, type_err};

operator_attrs! {
    /// `xs: T[..].. -> T[..]`, any number type; floating-point sums are in f64, integers wrap.
    pub struct Einsum {
        /// Labels of the operands' axes, and of the result's: see the [module](self).
        pub equation: String,
    }
}

/// An equation, resolved for operands of known rank: what each axis is a loop over.
#[derive(Clone, Debug, PartialEq)]
pub struct Loops {
    /// The size of each loop.
    pub sizes: Shape,
    /// For each operand, the loop of each axis. An axis of size 1 under a longer loop broadcasts.
    pub operands: Vec<Vec<usize>>,
    /// The loop of each axis of the result; all other loops are summed.
    pub output: Vec<usize>,
}

/// One term of an equation: labels before and behind `...`, or all of them before if there is none.
struct Term {
    before: Vec<u8>,
    behind: Option<Vec<u8>>,
}

impl Term {
    fn parse(text: &str) -> Result<Term, TypeError> {
        let labels = |t: &str| -> Result<Vec<u8>, TypeError> {
            match t.chars().find(|c| !c.is_ascii_alphabetic()) {
                Some(c) => type_err!("`{c}` is not a label in the term `{text}`"),
                None => Ok(t.bytes().collect()),
            }
        };
        Ok(match text.split_once("...") {
            Some((before, behind)) => Term { before: labels(before)?, behind: Some(labels(behind)?) },
            None => Term { before: labels(text)?, behind: None },
        })
    }

    fn labels(&self) -> impl Iterator<Item = u8> {
        self.before.iter().chain(self.behind.iter().flatten()).copied()
    }
}

impl Einsum {
    /// The loops of the equation over operands of these shapes.
    pub fn loops(&self, shapes: &[&[Dim]]) -> Result<Loops, TypeError> {
        let equation: String = self.equation.chars().filter(|c| *c != ' ').collect();
        let (inputs, output) = match equation.split_once("->") {
            Some((inputs, output)) => (inputs, Some(Term::parse(output)?)),
            None => (equation.as_str(), None),
        };
        let terms = inputs.split(',').map(Term::parse).collect::<Result<Vec<_>, _>>()?;
        if terms.len() != shapes.len() {
            return type_err!("`{}` is for {} operands, {} are given", self.equation, terms.len(), shapes.len());
        }
        let mut spread = Vec::new(); // axes that each `...` stands for
        for (term, shape) in terms.iter().zip(shapes) {
            let named = term.labels().count();
            match shape.len().checked_sub(named) {
                Some(rest) if rest == 0 || term.behind.is_some() => spread.push(rest),
                _ => {
                    return type_err!(
                        "a term of `{}` has {named} labels for a shape of rank {}",
                        self.equation,
                        shape.len()
                    );
                }
            }
        }
        let wide = spread.iter().copied().max().unwrap_or(0);
        // Loops: the axes under `...` first, then the labels in alphabetical order.
        let mut labels: Vec<u8> = terms.iter().flat_map(Term::labels).collect();
        labels.sort_unstable();
        let once: Vec<u8> = labels.iter().copied().filter(|l| labels.iter().filter(|m| *m == l).count() == 1).collect();
        labels.dedup();
        let loop_of = |l: u8| labels.iter().position(|m| *m == l).map(|i| wide + i);
        let resolve = |term: &Term, rest: usize| -> Result<Vec<usize>, TypeError> {
            let named =
                |l: &u8| loop_of(*l).ok_or_else(|| TypeError(format!("no operand has the label `{}`", *l as char)));
            let before = term.before.iter().map(named);
            let behind = term.behind.iter().flatten().map(named);
            before.chain((wide - rest..wide).map(Ok)).chain(behind).collect()
        };
        let operands = terms.iter().zip(&spread).map(|(t, r)| resolve(t, *r)).collect::<Result<Vec<_>, _>>()?;
        let output = match &output {
            None => (0..wide).chain(once.iter().filter_map(|l| loop_of(*l))).collect(),
            Some(t) if t.behind.is_none() && wide > 0 => return type_err!("the result has no `...` for {wide} axes"),
            Some(t) => resolve(t, if t.behind.is_some() { wide } else { 0 })?,
        };
        if (1..output.len()).any(|i| output[..i].contains(&output[i])) {
            return type_err!("a label occurs twice in the result of `{}`", self.equation);
        }
        let mut sizes = vec![Dim::Known(1); wide + labels.len()];
        for (axes, shape) in operands.iter().zip(shapes) {
            for (&l, d) in axes.iter().zip(*shape) {
                sizes[l] = match (&sizes[l], d) {
                    (Dim::Known(1), _) => d.clone(),
                    (_, Dim::Known(1)) => continue,
                    (Dim::Known(a), Dim::Known(b)) if a != b => {
                        return type_err!("sizes {a} and {b} of one label differ in `{}`", self.equation);
                    }
                    (Dim::Sym(_), Dim::Known(_)) => d.clone(),
                    _ => continue,
                };
            }
        }
        Ok(Loops { sizes, operands, output })
    }
}

impl Loops {
    /// The loops that are summed over.
    pub fn summed(&self) -> Vec<usize> {
        (0..self.sizes.len()).filter(|l| !self.output.contains(l)).collect()
    }

    /// The elements that an operand of these dimensions moves by in each loop.
    pub fn strides(&self, operand: usize, dims: &[usize]) -> Vec<usize> {
        let mut out = vec![0; self.sizes.len()];
        for ((&l, &d), s) in self.operands[operand].iter().zip(dims).zip(strides_of(dims)) {
            out[l] += if d == 1 { 0 } else { s }; // a label that occurs twice walks the diagonal
        }
        out
    }
}

impl Operator for Einsum {
    const NAME: &'static str = "einsum";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let given: Vec<&TensorType> = inputs.iter().copied().flatten().collect();
        if given.len() != inputs.len() {
            return type_err!("an operand is missing");
        }
        let dtype = one_dtype(given.iter().copied())?;
        if dtype == DType::Bool {
            return type_err!("does not take bool");
        }
        let loops = self.loops(&given.iter().map(|t| &t.shape[..]).collect::<Vec<_>>())?;
        Ok(vec![TensorType { dtype, shape: loops.output.iter().map(|&l| loops.sizes[l].clone()).collect() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let given: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        let types: Vec<TensorType> = given.iter().map(|t| t.ty()).collect();
        let shapes: Vec<&[Dim]> = types.iter().map(|t| &t.shape[..]).collect();
        let loops = self.loops(&shapes).map_err(|e| EvalError(e.0))?;
        let strides: Vec<Vec<usize>> = given.iter().enumerate().map(|(i, t)| loops.strides(i, t.dims())).collect();
        // The last summed loop is the innermost; without one it is a loop of one turn.
        let mut summed = loops.summed();
        let last = summed.pop();
        let size = |l: &usize| loops.sizes[*l].size().unwrap_or(0);
        let turns = last.as_ref().map_or(1, size);
        let steps: Vec<usize> = strides.iter().map(|s| last.map_or(0, |l| s[l])).collect();
        let outer: Vec<usize> = summed.iter().map(size).collect();
        let offsets = |base: &[usize], ls: &[usize], index: &[usize]| -> Vec<usize> {
            let along = |s: &Vec<usize>| ls.iter().zip(index).map(|(&l, i)| s[l] * i).sum::<usize>();
            base.iter().zip(&strides).map(|(b, s)| b + along(s)).collect()
        };
        macro_rules! sums {
            ($to:ident, $zero:expr, $one:expr, $mul:expr, $add:expr) => {{
                let columns: Vec<_> = given.iter().map(|t| t.$to()).collect();
                let sum_at = |index: Vec<usize>| {
                    let base = offsets(&vec![0; given.len()], &loops.output, &index);
                    indices(&outer).fold($zero, |sum, index| {
                        let at = offsets(&base, &summed, &index);
                        (0..turns).fold(sum, |sum, turn| {
                            let factors = columns.iter().zip(at.iter().zip(&steps));
                            $add(sum, factors.fold($one, |p, (v, (at, step))| $mul(p, v[at + turn * step])))
                        })
                    })
                };
                indices(&dims).map(sum_at).collect::<Vec<_>>()
            }};
        }
        let dtype = given[0].dtype();
        Ok(vec![if dtype.is_float() {
            Tensor::from_f64(dtype, &dims, &sums!(to_f64, 0.0, 1.0, |a: f64, b: f64| a * b, |a: f64, b: f64| a + b))
        } else {
            Tensor::from_i64(dtype, &dims, &sums!(to_i64, 0, 1, i64::wrapping_mul, i64::wrapping_add))
        }])
    }

    fn macs(&self, inputs: &[Option<&TensorType>], _: &[TensorType]) -> Option<u64> {
        let given: Vec<&[Dim]> = inputs.iter().copied().flatten().map(|t| &t.shape[..]).collect();
        if given.len() < 2 {
            return Some(0);
        }
        let loops = self.loops(&given).ok()?;
        loops.sizes.iter().try_fold(1u64, |p, d| p.checked_mul(d.size()? as u64))
    }

    /// Again an Einstein sum: of dy and the other operands over the loops that this operand does not have. A loop that only this
    /// operand has repeats the result; an axis of size 1 under a longer loop sums it.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dy = cx.dy()?;
        let operands: Vec<ValueId> = (0..cx.operand_count()).filter_map(|i| cx.optional(i)).collect();
        let types: Vec<TensorType> = operands.iter().map(|v| cx.ty(*v).clone()).collect();
        let loops = self.loops(&types.iter().map(|t| &t.shape[..]).collect::<Vec<_>>())?;
        let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
        for k in 0..operands.len() {
            let own = &loops.operands[k];
            let is_diagonal = (1..own.len()).any(|i| own[..i].contains(&own[i]));
            if cx.wants(k) && (is_diagonal || loops.sizes.len() > letters.len()) {
                return Err(GradientError::Unsupported(Some("no label may occur twice in one operand")));
            }
            cx.give(k, |cx| {
                let others: Vec<usize> = (0..operands.len()).filter(|i| *i != k).collect();
                let dims = cx.dims(operands[k]);
                let given =
                    |l: usize| loops.output.contains(&l) || others.iter().any(|&i| loops.operands[i].contains(&l));
                let kept = |(l, d): &(&usize, &usize)| given(**l) && loops.sizes[**l] == Dim::from(**d);
                let result: Vec<usize> = own.iter().zip(&dims).filter(kept).map(|(l, _)| *l).collect();
                let text = |axes: &[usize]| axes.iter().map(|&l| letters[l]).collect::<String>();
                let terms: Vec<String> = std::iter::once(&loops.output)
                    .chain(others.iter().map(|&i| &loops.operands[i]))
                    .map(|axes| text(axes))
                    .collect();
                let equation = format!("{}->{}", terms.join(","), text(&result));
                let values: Vec<ValueId> = std::iter::once(dy).chain(others.iter().map(|&i| operands[i])).collect();
                let d = cx.add(Einsum { equation }, &values)?;
                let mut sizes = cx.dims(d).into_iter();
                let aligned: Vec<usize> =
                    own.iter().map(|l| if result.contains(l) { sizes.next().unwrap_or(1) } else { 1 }).collect();
                let d = cx.reshape(d, &aligned)?;
                cx.expand(d, &dims)
            })?;
        }
        Ok(())
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let shapes: Vec<&[Dim]> = cx.types.iter().map(|t| t.map(|t| &t.shape[..])).collect::<Option<_>>()?;
        let loops = self.loops(&shapes).ok()?;
        let mut sampled = (loops.operands.iter().zip(cx.axes)).filter_map(|(loops, axis)| loops.get((*axis)?).copied());
        let samples = sampled.next()?;
        if sampled.any(|other| other != samples) {
            return None;
        }
        let mut wanted = cx.axes.to_vec();
        for ((axes, shape), wanted) in loops.operands.iter().zip(&shapes).zip(&mut wanted) {
            let mut own = axes.iter().zip(*shape).enumerate().filter(|(_, (l, _))| **l == samples);
            match (own.next(), own.next(), &wanted) {
                (None, ..) | (Some((_, (_, Dim::Known(1)))), None, None) => {}
                (Some((axis, (_, d))), None, _) if *d == loops.sizes[samples] => *wanted = Some(axis),
                _ => return None, // a diagonal, or samples that broadcast
            }
        }
        let axis = loops.output.iter().position(|l| *l == samples)?;
        Some(Batched { operands: wanted, ..cx.on(axis) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(dims: &[usize]) -> Tensor {
        let n = dims.iter().product::<usize>() as i64;
        Tensor::i64(dims, (1..=n).collect())
    }

    fn eval(equation: &str, xs: &[&Tensor]) -> Tensor {
        let op = Einsum { equation: equation.into() };
        op.eval(&xs.iter().copied().map(Some).collect::<Vec<_>>()).unwrap().remove(0)
    }

    #[test]
    fn equations_by_hand() {
        let (a, b) = (ints(&[2, 3]), ints(&[3, 2]));
        let product = Tensor::i64(&[2, 2], vec![22, 28, 49, 64]);
        assert_eq!(eval("ij,jk->ik", &[&a, &b]), product);
        assert_eq!(eval(" ij , jk ", &[&a, &b]), product);
        assert_eq!(eval("ba,cb->ac", &[&b, &a]), Tensor::i64(&[2, 2], vec![22, 49, 28, 64]));
        assert_eq!(eval("ba", &[&a]), Tensor::i64(&[3, 2], vec![1, 4, 2, 5, 3, 6]));
        assert_eq!(eval("ij->", &[&a]), Tensor::i64(&[], vec![21]));
        assert_eq!(eval("ii->i", &[&ints(&[3, 3])]), Tensor::i64(&[3], vec![1, 5, 9]));
        assert_eq!(eval("ii", &[&ints(&[3, 3])]), Tensor::i64(&[], vec![15]));
        assert_eq!(eval("...ii->...i", &[&ints(&[2, 2, 2])]), Tensor::i64(&[2, 2], vec![1, 4, 5, 8]));
        assert_eq!(
            eval("i,j,k->ijk", &[&ints(&[2]), &ints(&[1]), &ints(&[2])]),
            Tensor::i64(&[2, 1, 2], vec![1, 2, 2, 4])
        );
        let y = eval("...ij,...jk->...ik", &[&ints(&[2, 1, 1, 2]), &ints(&[3, 2, 1])]);
        assert_eq!(y, Tensor::i64(&[2, 3, 1, 1], vec![5, 11, 17, 11, 25, 39]));
        assert_eq!(eval("i...->...", &[&a]), Tensor::i64(&[3], vec![5, 7, 9]));
        assert_eq!(eval("ij,j->i", &[&a, &Tensor::i64(&[1], vec![2])]), Tensor::i64(&[2], vec![12, 30]));
        assert_eq!(eval(",->", &[&ints(&[]), &ints(&[])]), Tensor::i64(&[], vec![1]));
    }

    #[test]
    fn malformed_equations_are_errors() {
        let x = TensorType::fixed(DType::F32, &[2, 3]);
        for bad in [
            "", "i", "ijk", "ij->k", "ij->ii", "i.j", "ij->i->j", "...ijk", "...->", "ij,jk", "i1", "ii", "......", "é",
        ] {
            assert!(Einsum { equation: bad.into() }.infer(&[Some(&x)]).is_err(), "{bad}");
        }
        assert!(Einsum { equation: "ij".into() }.infer(&[]).is_err());
        assert!(Einsum { equation: "ij".into() }.infer(&[None]).is_err());
    }

    #[test]
    fn symbols_stay() {
        let x = TensorType::new(DType::F32, [Dim::symbol("N"), Dim::Known(3)]);
        let y = Einsum { equation: "nc,cd".into() }.infer(&[Some(&x), Some(&TensorType::fixed(DType::F32, &[3, 4]))]);
        assert_eq!(y.unwrap()[0].to_string(), "f32[4,N]");
    }
}
