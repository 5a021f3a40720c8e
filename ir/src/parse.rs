//! Parsers of the text form: dimensions and pointwise programs here, graphs and types in a file of their own.

use crate::pointwise::{Inst, Ref, Scalar};
use crate::{DType, Dim, Pointwise};

pub use crate::parse_graph::{ParseError, graph, name, tensor_type, unquoted};

/// A dimension: `3`, `N`, `H/2`, `2*H+1`, `(H+1)/2`, `max(A,B)`.
pub fn dim(text: &str) -> Result<Dim, String> {
    let mut p = DimParser { text: text.as_bytes(), at: 0, depth: 0 };
    let d = p.sum()?;
    if p.at != p.text.len() {
        return Err(format!("`{text}` is not a dimension: stopped at `{}`", &text[p.at..]));
    }
    Ok(d)
}

struct DimParser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl DimParser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, c: u8) -> bool {
        let hit = self.peek() == Some(c);
        self.at += usize::from(hit);
        hit
    }

    fn sum(&mut self) -> Result<Dim, String> {
        let mut d = if self.eat(b'-') { self.product()?.mul(&Dim::Known(-1)) } else { self.product()? };
        loop {
            if self.eat(b'+') {
                d = d.add(&self.product()?);
            } else if self.eat(b'-') {
                d = d.sub(&self.product()?);
            } else {
                return Ok(d);
            }
        }
    }

    fn product(&mut self) -> Result<Dim, String> {
        let mut d = self.factor()?;
        loop {
            if self.eat(b'*') {
                d = d.mul(&self.factor()?);
            } else if self.eat(b'/') {
                d = d.floor_div(&self.factor()?).ok_or("division by zero")?;
            } else {
                return Ok(d);
            }
        }
    }

    fn factor(&mut self) -> Result<Dim, String> {
        self.depth += 1;
        if self.depth > 64 {
            return Err("nested too deeply".into());
        }
        let d = self.factor_inner();
        self.depth -= 1;
        d
    }

    fn factor_inner(&mut self) -> Result<Dim, String> {
        if self.eat(b'(') {
            let d = self.sum()?;
            return if self.eat(b')') { Ok(d) } else { Err("`)` is missing".into()) };
        }
        self.peek();
        let start = self.at;
        while self.text.get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b':')) {
            self.at += 1;
        }
        let word = std::str::from_utf8(&self.text[start..self.at]).map_err(|e| e.to_string())?;
        if word.is_empty() {
            return Err("a number or a symbol is missing".into());
        }
        if word.as_bytes()[0].is_ascii_digit() {
            return word.parse().map(Dim::Known).map_err(|e| format!("`{word}`: {e}"));
        }
        if matches!(word, "max" | "min") && self.eat(b'(') {
            let a = self.sum()?;
            if !self.eat(b',') {
                return Err("`,` is missing".into());
            }
            let b = self.sum()?;
            if !self.eat(b')') {
                return Err("`)` is missing".into());
            }
            return Ok(if word == "max" { a.max_of(&b) } else { a.min_of(&b) });
        }
        Ok(Dim::symbol(word))
    }
}

/// A pointwise program, as its `Display` writes it: `{0:f32=in(0); 1:f32=exp(0) -> 1}`.
pub fn pointwise(text: &str) -> Result<Pointwise, String> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or("a program stands in braces")?;
    let (body, result) = inner.rsplit_once(" -> ").ok_or("a program ends with `-> RESULT`")?;
    let mut insts: Vec<(Inst, DType)> = Vec::new();
    let mut inputs: Vec<Option<DType>> = Vec::new();
    for (i, part) in body.split("; ").filter(|p| !p.is_empty()).enumerate() {
        let bad = || format!("`{part}` is not an instruction");
        let (head, rhs) = part.split_once('=').ok_or_else(bad)?;
        let (number, ty) = head.split_once(':').ok_or_else(bad)?;
        if number.parse() != Ok(i) {
            return Err(format!("instruction {i} is numbered `{number}`"));
        }
        let ty: DType = ty.parse()?;
        let (f, args) = rhs.strip_suffix(')').and_then(|r| r.split_once('(')).ok_or_else(bad)?;
        let refs = || -> Result<Vec<Ref>, String> {
            let parse = |a: &str| match a.parse::<u32>() {
                Ok(n) if (n as usize) < i => Ok(Ref(n)),
                _ => Err(format!("`{a}` in `{part}` is not an earlier instruction")),
            };
            args.split(',').map(parse).collect()
        };
        let inst = match f {
            "in" => {
                let n: usize = args.parse().map_err(|_| bad())?;
                if n > 4096 {
                    return Err(bad());
                }
                if inputs.len() <= n {
                    inputs.resize(n + 1, None);
                }
                inputs[n] = Some(ty);
                Inst::Input(n as u32)
            }
            "float" => Inst::Const(Scalar::Float(args.parse().map_err(|_| bad())?)),
            "int" => Inst::Const(Scalar::Int(args.parse().map_err(|_| bad())?)),
            "cast" => Inst::Cast(*refs()?.first().ok_or_else(bad)?),
            "select" => match refs()?[..] {
                [cond, then, otherwise] => Inst::Select { cond, then, otherwise },
                _ => return Err(bad()),
            },
            _ => match (&refs()?[..], f.parse(), f.parse(), f.parse()) {
                (&[a], Ok(k), _, _) => Inst::Unary(k, a),
                (&[a, b], _, Ok(k), _) => Inst::Binary(k, a, b),
                (&[a, b], _, _, Ok(k)) => Inst::Compare(k, a, b),
                _ => return Err(bad()),
            },
        };
        insts.push((inst, ty));
    }
    let types = inputs.into_iter().map(|t| t.ok_or("an operand is never read, so that its type is unknown"));
    let types: Vec<DType> = types.collect::<Result<_, _>>()?;
    match result.parse::<usize>() {
        Ok(r) if r < insts.len() => Ok(Pointwise::from_parts(insts, types, Ref(r as u32))),
        _ => Err(format!("`{result}` is not an instruction of the program")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pointwise::{BinaryFn, UnaryFn};

    #[test]
    fn dimensions_round_trip() {
        for text in ["3", "N", "H/2", "2*H+1", "(H+1)/2", "max(A,B)", "(A*B)/7-4", "4*((H+1)/2)"] {
            assert_eq!(dim(text).unwrap().to_string(), text);
        }
        assert!(dim("H/0").is_err() && dim("(H").is_err() && dim("").is_err());
    }

    #[test]
    fn programs_round_trip() {
        let silu = Pointwise::build(&[DType::F32], |p, x| {
            let s = p.unary(UnaryFn::Sigmoid, x[0]);
            p.binary(BinaryFn::Mul, x[0], s)
        });
        assert_eq!(pointwise(&silu.to_string()).unwrap(), silu);
        assert_eq!(silu.to_string(), "{0:f32=in(0); 1:f32=sigmoid(0); 2:f32=mul(0,1) -> 2}");
    }
}
