//! Reads the text form that [`super::print`] writes.
//!
//! Values get their numbers from their names, and every result's written type must be what the typing rules give, so that
//! a kernel which parses is well typed. Comments run from `;` to the end of the line. Parsing what was printed gives an
//! equal kernel when that was canonical ([`super::canonical`]).

use super::print::{access_name, binary_name, convert_name, float_cc_name, int_cc_name, unary_name};
use super::typing::result_types;
use super::*;

/// Where and why the text is not a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What was found and what was expected.
    pub what: String,
}

/// Reads one kernel.
///
/// # Errors
/// Text that is not a well-typed kernel.
pub fn parse(text: &str) -> Result<Kernel, ParseError> {
    let tokens = tokenize(text)?;
    let mut p = Parser { tokens, pos: 0, types: Vec::new() };
    p.kernel().map_err(|what| ParseError { line: p.line(), what })
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, keyword or number: letters, digits, `_`, `.`, and `-` or `+` inside a number.
    Word(String),
    /// `%n`.
    Value(u32),
    /// `"..."`.
    Text(String),
    /// Anything else; `..` is one token.
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 13] = ["..", "(", ")", "{", "}", "[", "]", ",", "=", ":", "*", "+", "-"];

fn tokenize(text: &str) -> Result<Vec<(usize, Token)>, ParseError> {
    let mut tokens = Vec::new();
    let mut last = 1;
    for (i, line) in text.lines().enumerate() {
        let number = i + 1;
        last = number;
        let mut rest = line;
        let error = |what: String| ParseError { line: number, what };
        loop {
            rest = rest.trim_start();
            let Some(c) = rest.chars().next() else { break };
            if c == ';' {
                break;
            }
            let token = if let Some(tail) = rest.strip_prefix('"') {
                let end = closing_quote(tail).ok_or_else(|| error("a string that does not end".into()))?;
                rest = &tail[end + 1..];
                Token::Text(unescape(&tail[..end]))
            } else if let Some(tail) = rest.strip_prefix('%') {
                let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
                rest = &tail[end..];
                Token::Value(tail[..end].parse().map_err(|_| error("`%` without a number".into()))?)
            } else if c.is_ascii_alphanumeric() || c == '_' || (c == '-' && is_number(&rest[1..])) {
                let end = word_end(rest);
                let word = &rest[..end];
                rest = &rest[end..];
                Token::Word(word.into())
            } else {
                let sign = SIGNS.into_iter().find(|s| rest.starts_with(s));
                let sign = sign.ok_or_else(|| error(format!("unexpected {c:?}")))?;
                rest = &rest[sign.len()..];
                Token::Sign(sign)
            };
            tokens.push((number, token));
        }
    }
    tokens.push((last, Token::End));
    Ok(tokens)
}

/// The position of the quote that ends a string, past escaped ones.
fn closing_quote(s: &str) -> Option<usize> {
    let mut escaped = false;
    s.char_indices().find_map(|(i, c)| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(i)
    })
}

/// Undoes `{:?}` for the escapes that names need; an unknown one stays as written.
fn unescape(s: &str) -> String {
    let mut out = String::new();
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some('u') => {
                let code: String = chars.by_ref().skip(1).take_while(|&c| c != '}').collect();
                out.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn is_number(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_digit()) || s.starts_with("inf")
}

/// The length of a word: names may hold dots (`icmp.eq`), numbers a fraction and a signed exponent, but not `..`.
fn word_end(s: &str) -> usize {
    let bytes = s.as_bytes();
    let number = is_number(s.strip_prefix('-').unwrap_or(s)) && !s.starts_with("0x");
    let mut end = 1;
    while end < bytes.len() {
        let dot = bytes[end] == b'.' && bytes.get(end + 1) != Some(&b'.');
        let exponent = number && matches!(bytes[end], b'-' | b'+') && bytes[end - 1] == b'e';
        if !(bytes[end].is_ascii_alphanumeric() || bytes[end] == b'_' || dot || exponent) {
            break;
        }
        end += 1;
    }
    end
}

type Parsed<T> = Result<T, String>;

struct Parser {
    tokens: Vec<(usize, Token)>,
    pos: usize,
    /// The types of the values seen; gaps stay `Ptr`.
    types: Vec<Option<Type>>,
}

impl Parser {
    /// The line of the token just read.
    fn line(&self) -> usize {
        self.tokens[self.pos.saturating_sub(1).min(self.tokens.len() - 1)].0
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.pos].1
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.pos].1.clone();
        self.pos = (self.pos + 1).min(self.tokens.len() - 1);
        token
    }

    fn accept(&mut self, sign: &'static str) -> bool {
        let found = matches!(self.peek(), Token::Sign(s) if *s == sign);
        if found {
            self.next();
        }
        found
    }

    fn sign(&mut self, sign: &'static str) -> Parsed<()> {
        match self.next() {
            Token::Sign(s) if s == sign => Ok(()),
            other => Err(format!("expected `{sign}`, found {other:?}")),
        }
    }

    fn word(&mut self) -> Parsed<String> {
        match self.next() {
            Token::Word(w) => Ok(w),
            other => Err(format!("expected a word, found {other:?}")),
        }
    }

    fn keyword(&mut self, keyword: &str) -> Parsed<()> {
        match self.word()? {
            w if w == keyword => Ok(()),
            w => Err(format!("expected `{keyword}`, found `{w}`")),
        }
    }

    fn int(&mut self) -> Parsed<i64> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("expected an integer, found `{word}`"))
    }

    fn small(&mut self) -> Parsed<u8> {
        let i = self.int()?;
        u8::try_from(i).map_err(|_| format!("{i} is not a lane"))
    }

    /// A value that is used: it must have been defined.
    fn operand(&mut self) -> Parsed<Value> {
        match self.next() {
            Token::Value(n) if self.types.get(n as usize).is_some_and(Option::is_some) => Ok(Value(n)),
            Token::Value(n) => Err(format!("%{n} is used before it is defined")),
            other => Err(format!("expected a value, found {other:?}")),
        }
    }

    fn name(&mut self) -> Parsed<Value> {
        match self.next() {
            Token::Value(n) if n < 1 << 24 => Ok(Value(n)),
            other => Err(format!("expected a value, found {other:?}")),
        }
    }

    fn define(&mut self, v: Value, ty: Type) -> Parsed<()> {
        if self.types.len() <= v.index() {
            self.types.resize(v.index() + 1, None);
        }
        match self.types[v.index()].replace(ty) {
            None => Ok(()),
            Some(_) => Err(format!("{v} is defined twice")),
        }
    }

    fn ty(&mut self) -> Parsed<Type> {
        let word = self.word()?;
        let elem = |s: &str| Elem::ALL.into_iter().find(|e| e.to_string() == s);
        let lanes = |s: &str| s.parse::<u8>().ok();
        let ty = match (word.as_str(), word.split_once('x')) {
            ("ptr", _) => Some(Type::Ptr),
            (w, None) if w.starts_with("mask") => lanes(&w[4..]).map(Type::Mask),
            (w, None) => elem(w).map(Type::Scalar),
            (_, Some((e, n))) => elem(e).and_then(|e| Some(Type::Vector(e, lanes(n)?))),
        };
        ty.filter(|t| t.is_valid()).ok_or_else(|| format!("expected a type, found `{word}`"))
    }

    fn kernel(&mut self) -> Parsed<Kernel> {
        self.keyword("kernel")?;
        let name = self.word()?;
        let mut args = Vec::new();
        self.sign("(")?;
        while !self.accept(")") {
            if !args.is_empty() {
                self.sign(",")?;
            }
            let v = self.name()?;
            if v.index() != args.len() {
                return Err(format!("operand {v}, expected %{}", args.len()));
            }
            self.sign("=")?;
            let word = self.word()?;
            let access = [Access::Read, Access::Write, Access::ReadWrite]
                .into_iter()
                .find(|&a| access_name(a) == word)
                .ok_or_else(|| format!("expected read, write or read_write, found `{word}`"))?;
            let name = match self.next() {
                Token::Text(name) => name,
                other => return Err(format!("expected the operand's name, found {other:?}")),
            };
            self.keyword("align")?;
            let align = self.int()?;
            let align = u32::try_from(align).map_err(|_| format!("alignment {align}"))?;
            args.push(ArgDecl { name, access, align });
        }
        self.types = vec![Some(Type::Ptr); args.len() + 1];
        self.types.extend([Some(I64), Some(I64)]);
        let body = self.block()?;
        match self.next() {
            Token::End => {}
            other => return Err(format!("expected the end, found {other:?}")),
        }
        let types = self.types.iter().map(|t| t.unwrap_or(Type::Ptr)).collect();
        Ok(Kernel { name, args, body, types })
    }

    fn block(&mut self) -> Parsed<Block> {
        self.sign("{")?;
        let mut block = Block::default();
        while !self.accept("}") {
            if matches!(self.peek(), Token::Word(w) if w == "yield") {
                self.next();
                block.yields.push(self.operand()?);
                while self.accept(",") {
                    block.yields.push(self.operand()?);
                }
                self.sign("}")?;
                break;
            }
            block.insts.push(self.inst()?);
        }
        Ok(block)
    }

    fn inst(&mut self) -> Parsed<Inst> {
        let mut results: SmallVec<[Value; 1]> = SmallVec::new();
        let mut written = Vec::new();
        if matches!(self.peek(), Token::Value(_)) {
            loop {
                results.push(self.name()?);
                self.sign(":")?;
                written.push(self.ty()?);
                if !self.accept(",") {
                    break;
                }
            }
            self.sign("=")?;
        }
        let op = self.op(written.first().copied())?;
        let types = result_types(&op, |v| self.types[v.index()].expect("operands are defined")).map_err(|e| e.0)?;
        if types.as_slice() != written {
            return Err(format!("the results are written as {written:?}, expected {types:?}"));
        }
        for (&r, ty) in results.iter().zip(types) {
            self.define(r, ty)?;
        }
        Ok(Inst { results, op })
    }

    fn op(&mut self, result: Option<Type>) -> Parsed<Op> {
        let word = self.word()?;
        let typed = || result.ok_or_else(|| format!("`{word}` without a result"));
        let binary = |s: &str| BinaryOp::ALL.into_iter().find(|&op| binary_name(op) == s);
        let unknown = || format!("unknown instruction `{word}`");
        if let Some(op) = binary(&word) {
            let (a, b) = self.pair()?;
            return Ok(Op::Binary(op, a, b));
        }
        if let Some(op) = UnaryOp::ALL.into_iter().find(|&op| unary_name(op) == word) {
            return Ok(Op::Unary(op, self.operand()?));
        }
        if let Some(op) = ConvertOp::ALL.into_iter().find(|&op| convert_name(op) == word) {
            return Ok(Op::Convert { op, to: typed()?, value: self.operand()? });
        }
        if let Some((head, tail)) = word.split_once('.') {
            return match head {
                "icmp" => {
                    let cc = IntCc::ALL.into_iter().find(|&c| int_cc_name(c) == tail).ok_or_else(unknown)?;
                    self.pair().map(|(a, b)| Op::ICmp(cc, a, b))
                }
                "fcmp" => {
                    let cc = FloatCc::ALL.into_iter().find(|&c| float_cc_name(c) == tail).ok_or_else(unknown)?;
                    self.pair().map(|(a, b)| Op::FCmp(cc, a, b))
                }
                "reduce" => Ok(Op::Reduce(binary(tail).ok_or_else(unknown)?, self.operand()?)),
                _ => Err(unknown()),
            };
        }
        Ok(match word.as_str() {
            "const" => self.constant(typed()?)?,
            "splat" => Op::Splat { ty: typed()?, value: self.operand()? },
            "mul_add" => {
                let (a, b) = self.pair()?;
                Op::MulAdd(a, b, self.then_operand()?)
            }
            "select" => {
                let (mask, a) = self.pair()?;
                Op::Select { mask, a, b: self.then_operand()? }
            }
            "mask_to_int" => Op::MaskToInt(self.operand()?),
            "any" => Op::Any(self.operand()?),
            "all" => Op::All(self.operand()?),
            "load" => Op::Load { ty: typed()?, addr: self.addr()? },
            "load_part" => Op::LoadPart { ty: typed()?, addr: self.addr()?, count: self.then_small()? },
            "load_splat" => Op::LoadSplat { ty: typed()?, addr: self.addr()? },
            "store" => Op::Store { addr: self.addr()?, value: self.then_operand()? },
            "store_part" => {
                Op::StorePart { addr: self.addr()?, value: self.then_operand()?, count: self.then_small()? }
            }
            "ptr" => Op::PtrAdd(self.addr()?),
            "prefetch" => Op::Prefetch(self.addr()?),
            "extract" => Op::ExtractLane { value: self.operand()?, lane: self.then_small()? },
            "insert" => Op::InsertLane { into: self.operand()?, lane: self.then_small()?, value: self.then_operand()? },
            "shuffle" => {
                let (a, b) = self.pair()?;
                self.sign(",")?;
                self.sign("[")?;
                let mut lanes = vec![self.small()?];
                while self.accept(",") {
                    lanes.push(self.small()?);
                }
                self.sign("]")?;
                Op::Shuffle { a, b, lanes }
            }
            "loop" => self.loop_()?,
            "if" => {
                let cond = self.operand()?;
                let then = self.block()?;
                self.keyword("else")?;
                Op::If(Box::new(If { cond, then, otherwise: self.block()? }))
            }
            _ => return Err(unknown()),
        })
    }

    fn loop_(&mut self) -> Parsed<Op> {
        let iv = self.name()?;
        self.sign("=")?;
        let lo = self.operand()?;
        self.sign("..")?;
        let hi = self.operand()?;
        self.keyword("step")?;
        let step = self.int()?;
        let mut carried = Vec::new();
        while self.accept(",") {
            let param = self.name()?;
            self.sign("=")?;
            carried.push(Carried { param, init: self.operand()? });
        }
        self.define(iv, I64)?;
        for c in &carried {
            let ty = self.types[c.init.index()].expect("operands are defined");
            self.define(c.param, ty)?;
        }
        let body = self.block()?;
        Ok(Op::Loop(Box::new(Loop { iv, lo, hi, step, carried, body })))
    }

    fn pair(&mut self) -> Parsed<(Value, Value)> {
        Ok((self.operand()?, self.then_operand()?))
    }

    fn then_operand(&mut self) -> Parsed<Value> {
        self.sign(",")?;
        self.operand()
    }

    fn then_small(&mut self) -> Parsed<u8> {
        self.sign(",")?;
        self.small()
    }

    fn addr(&mut self) -> Parsed<Addr> {
        let mut addr = Addr::from(self.operand()?);
        if self.accept("-") {
            addr.disp = self.int()?.wrapping_neg();
            return Ok(addr);
        }
        while self.accept("+") {
            if matches!(self.peek(), Token::Value(_)) && addr.index.is_none() {
                let index = self.operand()?;
                self.sign("*")?;
                addr.index = Some((index, self.int()?));
                if self.accept("-") {
                    addr.disp = self.int()?.wrapping_neg();
                }
            } else {
                addr.disp = self.int()?;
            }
        }
        Ok(addr)
    }

    fn constant(&mut self, ty: Type) -> Parsed<Op> {
        if ty == Type::Ptr {
            return Err("a constant pointer".into());
        }
        let mut lanes = Vec::new();
        if self.accept("[") {
            lanes.push(self.lane(ty)?);
            while self.accept(",") {
                lanes.push(self.lane(ty)?);
            }
            self.sign("]")?;
        } else {
            lanes = vec![self.lane(ty)?; ty.lanes()];
        }
        Ok(match (ty.lanes(), lanes.len()) {
            (1, 1) => Op::Const { ty, bits: lanes[0] },
            _ => Op::VecConst { ty, lanes },
        })
    }

    fn lane(&mut self, ty: Type) -> Parsed<u64> {
        let word = self.word()?;
        let bad = || format!("`{word}` is not a constant of {ty}");
        match ty.elem() {
            None => word.parse::<bool>().map(u64::from).map_err(|_| bad()),
            Some(e) if e.is_float() => match word.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).map_err(|_| bad()),
                None if e == Elem::F32 => word.parse::<f32>().map(|x| u64::from(x.to_bits())).map_err(|_| bad()),
                None => word.parse::<f64>().map(f64::to_bits).map_err(|_| bad()),
            },
            Some(e) => word.parse::<i64>().map(|i| i as u64 & e.bit_mask()).map_err(|_| bad()),
        }
    }
}
