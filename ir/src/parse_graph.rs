//! The parser of a graph's text form: see [`crate::print`] for the form.
//!
//! Operators are added through [`Graph::add`], so that a graph that was read is well-typed. Additional forms that the
//! printer never writes: a constant `seed(7)`, random elements from [`crate::random`], for graphs written by hand; comments
//! from `;` to the end of a line (of which `from "a", "b"` behind a node is its origin); empty lines. `opaque(0x..)` reads
//! as `seed(0x..)`: the elements of a large constant are not in the text, so that such a graph can be read, verified and
//! compiled, but does not compute the same.

use crate::attr::split_top;
use crate::graph::{Graph, Operands, Origin, ValueId};
use crate::ops::elementwise::{Binary, Compare, Unary};
use crate::{Constant, DType, Layout, Op, Tensor, TensorType, random};
use rustc_hash::FxHashMap;

/// The most elements that `seed(..)` and `opaque(..)` make: 256 MiB of f32.
const MAX_SEEDED: usize = 1 << 26;

/// Why a text is not a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong in it.
    pub message: String,
}

/// The graph of a text.
pub fn graph(text: &str) -> Result<Graph, ParseError> {
    let mut reader = Reader::default();
    for (i, line) in text.lines().enumerate() {
        reader.line(line).map_err(|message| ParseError { line: i + 1, message })?;
    }
    let end = ParseError { line: text.lines().count().max(1), message: "the graph does not end with `}`".into() };
    if reader.state == State::Closed { Ok(reader.graph) } else { Err(end) }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Start,
    Body,
    Returned,
    Closed,
}

#[derive(Default)]
struct Reader {
    graph: Graph,
    values: FxHashMap<String, ValueId>,
    state: State,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        // The header opens a brace that it does not close, so that `;` is looked for in brackets too.
        let end = if self.state == State::Start { find_quoted(line, ';') } else { find_top(line, ";") };
        let (code, comment) = match end {
            Some(at) => (line[..at].trim(), &line[at + 1..]),
            None => (line.trim(), ""),
        };
        if code.is_empty() {
            return Ok(());
        }
        match self.state {
            State::Start => self.header(code),
            State::Body if code == "return" => self.returned(""),
            State::Body => match code.strip_prefix("return ") {
                Some(outputs) => self.returned(outputs),
                None if code.starts_with('@') => self.constant(code),
                None => self.node(code, comment),
            },
            State::Returned if code == "}" => {
                self.state = State::Closed;
                Ok(())
            }
            State::Returned => Err(format!("`}}` is missing before `{code}`")),
            State::Closed => Err(format!("`{code}` behind the graph")),
        }
    }

    /// `graph NAME(%x: f32[1,8], ...) {`
    fn header(&mut self, code: &str) -> Result<(), String> {
        let shape = "a graph begins with `graph NAME(INPUTS) {`";
        let rest = code.strip_prefix("graph ").and_then(|c| c.strip_suffix('{')).ok_or(shape)?.trim_end();
        let open = find_quoted(rest, '(').ok_or(shape)?;
        let inputs = rest[open + 1..].strip_suffix(')').ok_or(shape)?;
        self.graph = Graph::new(&name(rest[..open].trim())?);
        for input in split_top(inputs, ',') {
            let (own, ty) = declared(input.trim(), '%')?;
            let (ty, layout) = type_and_layout(ty)?;
            let v = self.graph.add_input(&own, ty);
            self.graph.set_layout(v, layout);
            self.define(own, v)?;
        }
        self.state = State::Body;
        Ok(())
    }

    /// `@w: f32[2] = {1, 2}`
    fn constant(&mut self, code: &str) -> Result<(), String> {
        let at = find_top(code, " = ").ok_or("a constant is `@NAME: TYPE = ELEMENTS`")?;
        let (own, ty) = declared(code[..at].trim(), '@')?;
        let (ty, layout) = type_and_layout(ty)?;
        let c = elements(&ty, code[at + 3..].trim())?;
        let v = self.graph.add_constant(&own, c);
        self.graph.set_layout(v, layout);
        self.define(own, v)
    }

    /// `%a, %b: blocked = op %x, @w, _, attribute=value`
    fn node(&mut self, code: &str, comment: &str) -> Result<(), String> {
        let at = find_top(code, " = ").ok_or_else(|| format!("`{code}` is not `RESULTS = OPERATOR OPERANDS`"))?;
        let results = split_top(&code[..at], ',').into_iter().map(|r| {
            let r = r.trim();
            match find_top(r, ": ") {
                Some(colon) => Ok((sigil(&r[..colon], '%')?, layout(r[colon + 2..].trim())?)),
                None => Ok((sigil(r, '%')?, Layout::RowMajor)),
            }
        });
        let results: Vec<(String, Layout)> = results.collect::<Result<_, String>>()?;
        let code = code[at + 3..].trim();
        let (op, rest) = code.split_once(' ').unwrap_or((code, ""));
        let (mut operands, mut fields) = (Operands::new(), Vec::new());
        for part in split_top(rest, ',').into_iter().map(str::trim) {
            match part.as_bytes().first() {
                Some(b'%' | b'@') => operands.push(Some(self.value(part)?)),
                _ if part == "_" => operands.push(None),
                _ => fields.push(part.split_once('=').ok_or_else(|| format!("`{part}` is no operand or attribute"))?),
            }
        }
        let names: Vec<&str> = results.iter().map(|(n, _)| n.as_str()).collect();
        let n = self.graph.add(operator(op, &fields)?, &operands, origin(comment)?, &names);
        let n = n.map_err(|e| format!("{op}: {e}"))?;
        let outputs: Vec<ValueId> = self.graph.results(n).collect();
        if outputs.len() != results.len() {
            return Err(format!("{op} has {} results, {} are named", outputs.len(), results.len()));
        }
        for (v, (own, layout)) in outputs.into_iter().zip(results) {
            self.graph.set_layout(v, layout);
            self.define(own, v)?;
        }
        Ok(())
    }

    /// `%y, %z as name, %w over %x` of a return line.
    fn returned(&mut self, outputs: &str) -> Result<(), String> {
        for output in split_top(outputs, ',').into_iter().map(str::trim) {
            let (output, over) = match find_top(output, " over ") {
                Some(at) => (&output[..at], Some(output[at + 6..].trim())),
                None => (output, None),
            };
            if let Some(over) = over {
                let input = self.value(over)?.node;
                let input = self.graph.inputs().iter().position(|&n| n == input);
                let input = input.ok_or_else(|| format!("`{over}` is not an input"))?;
                self.graph.add_state(input, self.graph.outputs().len());
            }
            let (value, wanted) = match find_top(output, " as ") {
                Some(at) => (&output[..at], Some(name(output[at + 4..].trim())?)),
                None => (output, None),
            };
            let v = self.value(value.trim())?;
            let wanted = wanted.unwrap_or_else(|| self.graph.value(v).name.to_string());
            self.graph.add_output(&wanted, v);
        }
        self.state = State::Returned;
        Ok(())
    }

    fn define(&mut self, own: String, v: ValueId) -> Result<(), String> {
        match self.values.insert(own.clone(), v) {
            None => Ok(()),
            Some(_) => Err(format!("`{own}` is defined twice")),
        }
    }

    fn value(&self, text: &str) -> Result<ValueId, String> {
        let own = name(text.get(1..).unwrap_or_default())?;
        self.values.get(&own).copied().ok_or_else(|| format!("`{text}` is not defined above"))
    }
}

/// An operator from its name in a node's line.
fn operator(op: &str, fields: &[(&str, &str)]) -> Result<Op, String> {
    if fields.is_empty() {
        if let Ok(function) = op.parse() {
            return Ok(Unary { function }.into());
        }
        if let Ok(function) = op.parse() {
            return Ok(Binary { function }.into());
        }
        if let Ok(function) = op.parse() {
            return Ok(Compare { function }.into());
        }
    }
    Op::from_text(op, fields).map_err(|e| format!("{op}: {e}"))
}

/// `from "a", "b"` of a comment.
fn origin(comment: &str) -> Result<Origin, String> {
    let Some(at) = comment.find("from \"") else { return Ok(Origin::default()) };
    let names = split_top(&comment[at + 5..], ',').into_iter().map(|n| name(n.trim()));
    let parts: Vec<Origin> = names.map(|n| n.map(|n| Origin::named(&n))).collect::<Result<_, _>>()?;
    Ok(Origin::merged(&parts))
}

/// `%x: REST` as name and rest.
fn declared(text: &str, mark: char) -> Result<(String, &str), String> {
    let at = find_top(text, ": ").ok_or_else(|| format!("`{text}` is not `{mark}NAME: TYPE`"))?;
    Ok((sigil(&text[..at], mark)?, text[at + 2..].trim()))
}

/// The name behind `%` or `@`.
fn sigil(text: &str, mark: char) -> Result<String, String> {
    let rest = text.trim().strip_prefix(mark).ok_or_else(|| format!("`{text}` is not `{mark}NAME`"))?;
    name(rest)
}

/// A plain or quoted name.
pub fn name(text: &str) -> Result<String, String> {
    if text.starts_with('"') {
        return unquoted(text);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-');
    if text.is_empty() || !text.chars().all(plain) { Err(format!("`{text}` is not a name")) } else { Ok(text.into()) }
}

/// The inverse of [`crate::print::quoted`].
pub fn unquoted(text: &str) -> Result<String, String> {
    let bad = || format!("`{text}` is not a quoted string");
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(bad)?;
    let mut parts = inner.split("\\u{");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (code, rest) = part.split_once('}').ok_or_else(bad)?;
        let c = u32::from_str_radix(code, 16).ok().and_then(char::from_u32).ok_or_else(bad)?;
        out.push(c);
        out.push_str(rest);
    }
    if inner.contains('"') { Err(bad()) } else { Ok(out) }
}

/// `f32[1,N,H/2]`.
pub fn tensor_type(text: &str) -> Result<TensorType, String> {
    let bad = || format!("`{text}` is not a type such as f32[1,3]");
    let (dtype, dims) = text.strip_suffix(']').and_then(|t| t.split_once('[')).ok_or_else(bad)?;
    let dims = split_top(dims, ',').into_iter().map(|d| crate::parse::dim(d.trim()));
    let ty = TensorType { dtype: dtype.parse()?, shape: dims.collect::<Result<_, _>>()? };
    crate::movement::check_shape(&ty.shape).map_err(|e| e.0)?;
    Ok(ty)
}

fn type_and_layout(text: &str) -> Result<(TensorType, Layout), String> {
    match text.rsplit_once(' ') {
        Some((ty, l)) if !l.ends_with(']') => Ok((tensor_type(ty.trim())?, layout(l)?)),
        _ => Ok((tensor_type(text)?, Layout::RowMajor)),
    }
}

fn layout(text: &str) -> Result<Layout, String> {
    let all = [Layout::RowMajor, Layout::Blocked];
    all.into_iter().find(|l| l.to_string() == text).ok_or_else(|| format!("unknown layout `{text}`"))
}

/// A constant of type `ty` from the text of its elements.
fn elements(ty: &TensorType, text: &str) -> Result<Constant, String> {
    let dims = ty.dims().ok_or_else(|| format!("a constant has known dimensions, not {ty}"))?;
    let call = |f: &str| text.strip_prefix(f)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(list) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        let mut bytes = Vec::new();
        for e in split_top(list, ',') {
            bytes.extend_from_slice(&element(ty.dtype, e.trim())?);
        }
        let t = Tensor::from_bytes(ty.dtype, &dims, &bytes);
        let t = t.ok_or_else(|| format!("{} elements do not fill {ty}", bytes.len() / ty.dtype.bytes()))?;
        return Ok(Constant::from_tensor(&t));
    }
    if let Some(e) = call("splat") {
        let one = Tensor::from_bytes(ty.dtype, &[], &element(ty.dtype, e)?);
        return one.and_then(|one| Constant::splat(&one, &dims)).ok_or_else(|| format!("`{e}` is not one element"));
    }
    if let Some(seed) = call("seed").or_else(|| call("opaque")) {
        let seed = match seed.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => seed.parse(),
        };
        let seed = seed.map_err(|e| format!("`{text}`: {e}"))?;
        return match ty.elems() {
            Some(n) if n <= MAX_SEEDED => Ok(Constant::from_tensor(&random::tensor(ty.dtype, &dims, seed))),
            _ => Err(format!("{ty} has more than {MAX_SEEDED} elements")),
        };
    }
    Err(format!("`{text}` is not {{ELEMENTS}}, splat(ELEMENT), seed(NUMBER) or opaque(NUMBER)"))
}

/// The little-endian bytes of one element.
fn element(dtype: DType, text: &str) -> Result<Vec<u8>, String> {
    let bad = |e: &dyn std::fmt::Display| format!("`{text}` is not an element of {dtype}: {e}");
    macro_rules! number {
        ($t:ty) => {
            text.parse::<$t>().map(|x| x.to_le_bytes().to_vec()).map_err(|e| bad(&e))
        };
    }
    if let Some(bits) = text.strip_prefix("nan(0x").and_then(|t| t.strip_suffix(')')).filter(|_| dtype.is_float()) {
        let bits = u64::from_str_radix(bits, 16).map_err(|e| bad(&e))?;
        return Ok(bits.to_le_bytes()[..dtype.bytes()].to_vec());
    }
    match dtype {
        DType::F32 => number!(f32),
        DType::F64 => number!(f64),
        DType::I8 => number!(i8),
        DType::I16 => number!(i16),
        DType::I32 => number!(i32),
        DType::I64 => number!(i64),
        DType::U8 => number!(u8),
        DType::U16 => number!(u16),
        DType::U32 => number!(u32),
        DType::U64 => number!(u64),
        DType::Bool => text.parse::<bool>().map(|b| vec![u8::from(b)]).map_err(|e| bad(&e)),
    }
}

/// Where `pattern` first occurs outside of brackets and quotes.
fn find_top(text: &str, pattern: &str) -> Option<usize> {
    let (mut depth, mut quoted) = (0i32, false);
    for (i, c) in text.char_indices() {
        if depth == 0 && !quoted && text[i..].starts_with(pattern) {
            return Some(i);
        }
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Where `c` first occurs outside of quotes.
fn find_quoted(text: &str, c: char) -> Option<usize> {
    let mut quoted = false;
    text.char_indices()
        .find(|(_, x)| {
            quoted ^= *x == '"';
            *x == c && !quoted
        })
        .map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::{self, Options};

    const SAMPLE: &str = r#"graph depthwise(%x: f32[N,8,5,5], %mask: bool[]) {
  @w: f32[2] = {1.0, -inf}
  @b: i8[3,1000] = splat(-7)
  @n: f32[2] = {NaN, nan(0x7fc00001)}
  @"odd name\u{22}": u64[1] = {18446744073709551615}
  %e = exp %x                                                  ; from "exp_0", "a \u{5c} b"
  %p = pad %e, _, before=[0,0,0,0], after=[0,0,0,1], mode=edge, value=0.0
  %t, %i = top_k %p, axis=1, k=3, largest=true, sorted=true
  %y: blocked = relayout %t, layout=blocked
  %s = add @w, @n
  return %y as probabilities, %i, %s, @"odd name\u{22}"
}
"#;

    #[test]
    fn a_text_reads_and_prints_the_same() {
        let g = graph(SAMPLE).unwrap();
        assert_eq!(print::graph(&g, &Options::exact()), SAMPLE);
        assert_eq!(g.to_string(), SAMPLE);
        let types = print::graph(&g, &Options { types: true, ..Options::default() });
        assert!(types.contains("; f32[N,3,5,6], i64[N,3,5,6]"), "{types}");
        assert_eq!(graph(&types).unwrap().to_string(), SAMPLE); // types are comments
    }

    #[test]
    fn large_constants_print_as_digests() {
        let state = "graph g(%w: f32[2]) {\n  %y = relu %w\n  return %y as w1 over %w\n}\n";
        let g = graph(state).unwrap();
        assert_eq!(g.states(), [(0, 0)]);
        assert_eq!(g.to_string(), state);
        let g = graph("graph g() {\n @w: f32[17] = seed(7)\n return @w\n}").unwrap();
        let text = g.to_string();
        assert!(text.contains("@w: f32[17] = opaque(0x"), "{text}");
        assert!(graph(&text).is_ok());
        let exact = graph(&print::graph(&g, &Options::exact())).unwrap();
        let w = |g: &Graph| g.constant(g.outputs()[0].1).unwrap().clone();
        assert_eq!(w(&exact), w(&g));
    }

    #[test]
    fn errors_name_the_line() {
        let error = |body: &str| graph(&format!("graph g(%x: f32[2]) {{\n{body}\n")).unwrap_err().to_string();
        assert_eq!(error("%y = exp %z"), "line 2: `%z` is not defined above");
        assert_eq!(error("%y = frob %x"), "line 2: frob: there is no operator `frob`");
        assert_eq!(error("%x = exp %x"), "line 2: `x` is defined twice");
        assert_eq!(error("%y = add %x"), "line 2: add: takes 2 operands, 1 are given");
        assert_eq!(error("%y, %z = exp %x"), "line 2: exp has 1 results, 2 are named");
        assert_eq!(error("@w: f32[3] = {1.0}"), "line 2: 1 elements do not fill f32[3]");
        assert_eq!(
            error("@w: u8[1] = {256}"),
            "line 2: `256` is not an element of u8: number too large to fit in target type"
        );
        assert_eq!(error("@w: f32[9999999999] = seed(1)"), "line 2: f32[9999999999] has more than 67108864 elements");
        assert_eq!(error("return %x"), "line 2: the graph does not end with `}`");
        assert_eq!(graph("").unwrap_err().to_string(), "line 1: the graph does not end with `}`");
    }
}
