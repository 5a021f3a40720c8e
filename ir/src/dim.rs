//! Dimensions: known numbers, or integer expressions over named symbols such as `N` or `H/2`.
//!
//! An expression is kept in a normal form, a polynomial with integer coefficients over *atoms*, where an atom is a symbol
//! or a floor division, maximum or minimum that does not simplify. Two dimensions are equal when their normal forms are, which is sound
//! (equal forms are equal numbers) and complete for the linear expressions that convolutional networks make.
//!
//! Symbols stand for non-negative integers that the user fixes later (`--dim N=1`). Division is floor division; `ceil_div`
//! is written with it. `floor((p + c)/k)` moves every multiple of `k` out of the numerator, so that
//! `floor((H - 1)/2) + 1` and `floor((H + 1)/2)` are the same value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A number. Shapes hold only non-negative ones; negative numbers occur in between, in shape arithmetic.
    Known(i64),
    /// An expression that contains at least one symbol.
    Sym(Arc<Poly>),
}

/// A polynomial over atoms: the normal form of a symbolic dimension. Made by arithmetic on [`Dim`] only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Poly {
    terms: BTreeMap<Vec<Atom>, i64>, // a sorted product of atoms -> its coefficient, never 0; the empty product is the constant
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Symbol(Arc<str>),
    FloorDiv(Box<Dim>, Box<Dim>),
    Max(Box<Dim>, Box<Dim>),
    Min(Box<Dim>, Box<Dim>),
    /// A product that is not multiplied out: see [`PRODUCT_LIMIT`].
    Product(Box<Dim>, Box<Dim>),
}

/// Factors in all terms of a product up to which it is multiplied out. Networks need a handful; products of sums grow
/// exponentially with their number, so that a few nodes of a hostile model could fill the memory.
const PRODUCT_LIMIT: usize = 1 << 10;

impl Dim {
    /// The symbol `name`.
    pub fn symbol(name: &str) -> Dim {
        Dim::from_atom(Atom::Symbol(name.into()))
    }

    /// The number, if it is known.
    pub fn known(&self) -> Option<i64> {
        match self {
            Dim::Known(n) => Some(*n),
            Dim::Sym(_) => None,
        }
    }

    /// Whether the form shows that this is not negative, whatever the symbols stand for. `N - 1` is not shown to be.
    pub fn is_never_negative(&self) -> bool {
        match self {
            Dim::Known(n) => *n >= 0,
            Dim::Sym(p) => p.terms.iter().all(|(m, c)| *c >= 0 && m.iter().all(Atom::is_never_negative)),
        }
    }

    /// The number as a size, if it is known and not negative.
    pub fn size(&self) -> Option<usize> {
        self.known().and_then(|n| usize::try_from(n).ok())
    }

    fn from_atom(a: Atom) -> Dim {
        Dim::Sym(Arc::new(Poly { terms: BTreeMap::from([(vec![a], 1)]) }))
    }

    fn poly(&self) -> Poly {
        match self {
            Dim::Known(0) => Poly::default(),
            Dim::Known(n) => Poly { terms: BTreeMap::from([(vec![], *n)]) },
            Dim::Sym(p) => (**p).clone(),
        }
    }

    fn from_poly(mut p: Poly) -> Dim {
        p.terms.retain(|_, c| *c != 0);
        match p.terms.len() {
            0 => Dim::Known(0),
            1 if p.terms.contains_key(&vec![]) => Dim::Known(p.terms[&vec![]]),
            _ => Dim::Sym(Arc::new(p)),
        }
    }

    /// `self + other`; saturates, as all arithmetic here: a dimension near the limit of i64 is an error wherever it is used.
    pub fn add(&self, other: &Dim) -> Dim {
        if let (Dim::Known(a), Dim::Known(b)) = (self, other) {
            return Dim::Known(a.saturating_add(*b));
        }
        let mut p = self.poly();
        for (m, c) in other.poly().terms {
            let e = p.terms.entry(m).or_insert(0);
            *e = e.saturating_add(c);
        }
        Dim::from_poly(p)
    }

    /// `self - other`.
    pub fn sub(&self, other: &Dim) -> Dim {
        self.add(&other.mul(&Dim::Known(-1)))
    }

    /// `self * other`.
    pub fn mul(&self, other: &Dim) -> Dim {
        if let (Dim::Known(a), Dim::Known(b)) = (self, other) {
            return Dim::Known(a.saturating_mul(*b));
        }
        let (a, b) = (self.poly(), other.poly());
        let factors = |p: &Poly| p.terms.keys().map(|m| m.len() + 1).sum::<usize>();
        if factors(&a).saturating_mul(factors(&b)) > PRODUCT_LIMIT {
            let (a, b) = if self <= other { (self, other) } else { (other, self) };
            return Dim::from_atom(Atom::Product(Box::new(a.clone()), Box::new(b.clone())));
        }
        let mut p = Poly::default();
        for (m1, c1) in &a.terms {
            for (m2, c2) in &b.terms {
                let mut m: Vec<Atom> = m1.iter().chain(m2).cloned().collect();
                m.sort();
                let e = p.terms.entry(m).or_insert(0);
                *e = e.saturating_add(c1.saturating_mul(*c2));
            }
        }
        Dim::from_poly(p)
    }

    /// `floor(self / other)`, or `None` for a division by the known number 0.
    pub fn floor_div(&self, other: &Dim) -> Option<Dim> {
        let Dim::Known(k) = *other else {
            return Some(if self == other { Dim::Known(1) } else { self.symbolic_quotient(other) });
        };
        if k == 0 {
            return None;
        }
        if let Dim::Known(n) = *self {
            let (q, r) = (n.checked_div(k)?, n.checked_rem(k)?);
            return Some(Dim::Known(if r != 0 && (r < 0) != (k < 0) { q - 1 } else { q }));
        }
        if k == 1 {
            return Some(self.clone());
        }
        if k < 0 {
            return self.mul(&Dim::Known(-1)).floor_div(&Dim::Known(k.checked_neg()?));
        }
        // Multiples of k leave the numerator: floor((k*a + b)/k) = a + floor(b/k) for every integer a.
        let (mut whole, mut rest) = (Poly::default(), Poly::default());
        for (m, c) in self.poly().terms {
            let (q, r) = if m.is_empty() || c % k == 0 { (c.div_euclid(k), c.rem_euclid(k)) } else { (0, c) };
            whole.terms.insert(m.clone(), q);
            rest.terms.insert(m, r);
        }
        let (whole, rest) = (Dim::from_poly(whole), Dim::from_poly(rest));
        let quotient = match rest {
            Dim::Known(n) => Dim::Known(n.div_euclid(k)),
            rest => Dim::from_atom(Atom::FloorDiv(Box::new(rest), Box::new(Dim::Known(k)))),
        };
        Some(whole.add(&quotient))
    }

    /// A quotient by a symbolic divisor: exact when the divisor is one term that divides every term, else an atom.
    fn symbolic_quotient(&self, other: &Dim) -> Dim {
        let (p, d) = (self.poly(), other.poly());
        if let (1, Some((dm, dc))) = (d.terms.len(), d.terms.iter().next()) {
            let mut out = Poly::default();
            let exact = p.terms.iter().all(|(m, c)| {
                let mut m = m.clone();
                let divides =
                    c % dc == 0 && dm.iter().all(|a| m.iter().position(|x| x == a).map(|i| m.remove(i)).is_some());
                out.terms.insert(m, c / dc);
                divides
            });
            if exact {
                return Dim::from_poly(out);
            }
        }
        Dim::from_atom(Atom::FloorDiv(Box::new(self.clone()), Box::new(other.clone())))
    }

    /// `ceil(self / k)` for a known `k > 0`.
    pub fn ceil_div(&self, k: i64) -> Option<Dim> {
        self.add(&Dim::Known(k - 1)).floor_div(&Dim::Known(k))
    }

    /// `max(self, other)`.
    pub fn max_of(&self, other: &Dim) -> Dim {
        self.extremum(other, i64::max, Atom::Max)
    }

    /// `min(self, other)`.
    pub fn min_of(&self, other: &Dim) -> Dim {
        self.extremum(other, i64::min, Atom::Min)
    }

    fn extremum(&self, other: &Dim, pick: fn(i64, i64) -> i64, atom: fn(Box<Dim>, Box<Dim>) -> Atom) -> Dim {
        if self == other {
            return self.clone();
        }
        if let (Dim::Known(a), Dim::Known(b)) = (self, other) {
            return Dim::Known(pick(*a, *b));
        }
        if let Dim::Known(d) = self.sub(other) {
            // The difference is known although the terms are not.
            return if pick(d, 0) == d { self.clone() } else { other.clone() };
        }
        let (a, b) = if self <= other { (self, other) } else { (other, self) };
        Dim::from_atom(atom(Box::new(a.clone()), Box::new(b.clone())))
    }

    /// The value after replacing symbols by what `bind` says; symbols it does not know stay.
    pub fn substitute(&self, bind: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let Dim::Sym(p) = self else { return self.clone() };
        let mut sum = Dim::Known(0);
        for (m, c) in &p.terms {
            let mut prod = Dim::Known(*c);
            for a in m {
                prod = prod.mul(&a.substitute(bind));
            }
            sum = sum.add(&prod);
        }
        sum
    }

    /// How many numbers and symbols the expression is made of, at all depths; stops counting at `limit`.
    pub fn terms(&self, limit: usize) -> usize {
        let Dim::Sym(p) = self else { return 1 };
        let mut n = 0;
        for m in p.terms.keys() {
            n += 1;
            for a in m {
                n += match a {
                    _ if n >= limit => return limit,
                    Atom::Symbol(_) => 1,
                    Atom::FloorDiv(x, y) | Atom::Max(x, y) | Atom::Min(x, y) | Atom::Product(x, y) => {
                        x.terms(limit - n) + y.terms(limit - n)
                    }
                };
            }
        }
        n.min(limit)
    }

    /// The names of the symbols that occur, each once, in order.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        let mut out = Vec::new();
        self.collect_symbols(&mut out);
        out.sort();
        out.dedup();
        out
    }

    fn collect_symbols(&self, out: &mut Vec<Arc<str>>) {
        let Dim::Sym(p) = self else { return };
        for a in p.terms.keys().flatten() {
            match a {
                Atom::Symbol(s) => out.push(s.clone()),
                Atom::FloorDiv(x, y) | Atom::Max(x, y) | Atom::Min(x, y) | Atom::Product(x, y) => {
                    x.collect_symbols(out);
                    y.collect_symbols(out);
                }
            }
        }
    }
}

impl Atom {
    fn is_never_negative(&self) -> bool {
        match self {
            Atom::Symbol(_) => true,
            Atom::FloorDiv(x, y) => x.is_never_negative() && y.is_never_negative(),
            Atom::Max(x, y) => x.is_never_negative() || y.is_never_negative(),
            Atom::Min(x, y) | Atom::Product(x, y) => x.is_never_negative() && y.is_never_negative(),
        }
    }

    fn substitute(&self, bind: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let both = |x: &Dim, y: &Dim| (x.substitute(bind), y.substitute(bind));
        match self {
            Atom::Symbol(s) => bind(s).unwrap_or_else(|| Dim::from_atom(self.clone())),
            Atom::FloorDiv(x, y) => {
                let (x, y) = both(x, y);
                x.floor_div(&y).unwrap_or_else(|| Dim::from_atom(Atom::FloorDiv(Box::new(x), Box::new(y))))
            }
            Atom::Max(x, y) => {
                let (x, y) = both(x, y);
                x.max_of(&y)
            }
            Atom::Min(x, y) => {
                let (x, y) = both(x, y);
                x.min_of(&y)
            }
            Atom::Product(x, y) => {
                let (x, y) = both(x, y);
                x.mul(&y)
            }
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Known(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Sym(p) => write!(f, "{p}"),
        }
    }
}

impl fmt::Display for Poly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Symbols first, the constant last, as people write it: `2*H + 1`.
        let ordered =
            self.terms.iter().filter(|(m, _)| !m.is_empty()).chain(self.terms.iter().filter(|(m, _)| m.is_empty()));
        for (i, (m, c)) in ordered.enumerate() {
            match (i, *c < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str("-")?,
                (_, false) => f.write_str("+")?,
            }
            let c = c.unsigned_abs();
            if m.is_empty() || c != 1 {
                write!(f, "{c}")?;
            }
            for (j, a) in m.iter().enumerate() {
                if j > 0 || c != 1 {
                    f.write_str("*")?;
                }
                // `2*(H/2)`: without brackets it would read as (2*H)/2.
                let follows = j > 0 || c != 1;
                match a {
                    Atom::FloorDiv(..) if follows => write!(f, "({a})")?,
                    _ => write!(f, "{a}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let factor = |d: &Dim| match d {
            Dim::Sym(p) if p.terms.len() > 1 || p.terms.iter().any(|(m, c)| *c != 1 || m.len() > 1) => format!("({d})"),
            _ => d.to_string(),
        };
        match self {
            Atom::Symbol(s) => f.write_str(s),
            Atom::FloorDiv(x, y) => write!(f, "{}/{}", factor(x), factor(y)),
            Atom::Max(x, y) => write!(f, "max({x},{y})"),
            Atom::Min(x, y) => write!(f, "min({x},{y})"),
            Atom::Product(x, y) => write!(f, "{}*{}", factor(x), factor(y)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(v: i64) -> Dim {
        Dim::Known(v)
    }

    #[test]
    fn convolution_arithmetic_has_one_form() {
        let h = Dim::symbol("H");
        let half = h.add(&n(2)).sub(&n(3)).floor_div(&n(2)).unwrap().add(&n(1));
        assert_eq!(half, h.add(&n(1)).floor_div(&n(2)).unwrap());
        assert_eq!(half.to_string(), "(H+1)/2");
        assert_eq!(h.floor_div(&n(2)).unwrap().to_string(), "H/2");
        assert_eq!(h.mul(&n(4)).floor_div(&n(2)).unwrap().to_string(), "2*H");
        assert_eq!(half.substitute(&|s| (s == "H").then_some(n(7))), n(4));
    }

    #[test]
    fn large_products_are_not_multiplied_out() {
        let sum = (0..8).fold(n(1), |sum, i| sum.add(&Dim::symbol(&format!("s{i}"))));
        let square = sum.mul(&sum);
        assert!(square.terms(1000) > 100, "the square of a sum of nine is multiplied out");
        let mut d = square.clone();
        for i in 1..4 {
            d = d.mul(&d);
            assert!(d.terms(10_000) <= (1 << i) * (square.terms(1000) + 2), "higher powers are kept as products");
        }
        assert_eq!(d.terms(100), 100);
        assert_eq!(d.substitute(&|_| Some(n(0))), n(1));
    }

    #[test]
    fn quotients_by_symbols_cancel() {
        let (a, b) = (Dim::symbol("A"), Dim::symbol("B"));
        assert_eq!(a.mul(&b).mul(&n(6)).floor_div(&b.mul(&n(3))).unwrap(), a.mul(&n(2)));
        assert_eq!(a.floor_div(&n(0)), None);
        assert_eq!(a.max_of(&a.add(&n(3))), a.add(&n(3)));
        assert_eq!(n(-7).floor_div(&n(2)), Some(n(-4)));
    }
}
