//! The text form of a graph, as it is dumped, diffed and read back by [`crate::parse::graph`].
//!
//! ```text
//! graph depthwise(%x: f32[N,8,5,5]) {
//!   @w: f32[8,1,3,3] = opaque(0x9d0f62c5a7b1e033)
//!   %c = conv %x, @w, strides=[1,1], dilations=[1,1], pads=[1,1,1,1], group=8          ; from "conv_0"
//!   %s, %i = top_k %c, axis=1, k=3, largest=true, sorted=true
//!   %y: blocked = relayout %s, layout=blocked
//!   return %y as probabilities, %i                  ; `%y over %x`: the next value of the input x
//! }
//! ```
//!
//! One line a node, in topological order, constants (`@`) first. Operands are positional, `_` where an optional one is
//! absent, then attributes, all of them. Elementwise functions print by the function's name (`exp %x`, `add %a, %b`). A
//! layout other than row-major stands behind the result's name. Names of other characters than letters, digits and
//! `_.:/-` are quoted.
//!
//! Constants: `{1, 2}` gives all elements in row-major order, `splat(0.5)` one for all, and `opaque(..)` stands for more
//! elements than [`Options::constants`]: a digest of their bytes, so that a change shows. Everything else of a graph is in
//! its text: two graphs of equal text are equal up to such constants.

use crate::graph::{Graph, NodeId, ValueId};
use crate::{Constant, DType, Layout, Op};
use rustc_hash::FxHashMap;
use std::fmt::{self, Write};

/// How a graph is printed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether each line ends with the types of its results, as a comment.
    pub types: bool,
    /// Constants of up to this many elements are printed in full.
    pub constants: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { types: false, constants: 16 }
    }
}

impl Options {
    /// Everything, so that reading the text gives the same graph again.
    pub fn exact() -> Options {
        Options { types: false, constants: usize::MAX }
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&graph(self, &Options::default()))
    }
}

/// The text of a graph.
pub fn graph(g: &Graph, options: &Options) -> String {
    annotated(g, options, &FxHashMap::default())
}

/// The text of a graph with notes under the lines of the nodes that they concern.
pub fn annotated(g: &Graph, options: &Options, notes: &FxHashMap<NodeId, Vec<String>>) -> String {
    let mut out = String::new();
    let input = |n: &NodeId| match g.contains(*n).then(|| g.node(*n).outputs().first()).flatten() {
        Some(v) if v.layout == Layout::RowMajor => format!("%{}: {}", name(&v.name), v.ty),
        Some(v) => format!("%{}: {} {}", name(&v.name), v.ty, v.layout),
        None => "%?".to_string(),
    };
    let inputs: Vec<String> = g.inputs().iter().map(input).collect();
    let _ = writeln!(out, "graph {}({}) {{", name(&g.name), inputs.join(", "));
    let note = |out: &mut String, n: NodeId| {
        for text in notes.get(&n).into_iter().flatten() {
            let _ = writeln!(out, "  ; ^ {text}");
        }
    };
    for n in g.inputs() {
        note(&mut out, *n);
    }
    let order = g.topological_order().unwrap_or_else(|| g.node_ids().collect());
    let (constants, nodes): (Vec<NodeId>, Vec<NodeId>) =
        order.into_iter().filter(|n| !g.inputs().contains(n)).partition(|n| matches!(g.op(*n), Op::Constant(_)));
    for n in constants.into_iter().chain(nodes) {
        let _ = writeln!(out, "  {}", node(g, n, options));
        note(&mut out, n);
    }
    let output = |(i, (wanted, v)): (usize, &(std::sync::Arc<str>, ValueId))| {
        let value = match value_name(g, *v) {
            Some(own) if *own == **wanted => operand(g, Some(*v)),
            _ => format!("{} as {}", operand(g, Some(*v)), name(wanted)),
        };
        let of = g.states().iter().find(|state| state.1 == i).and_then(|state| g.inputs().get(state.0));
        match of {
            Some(&node) => format!("{value} over {}", operand(g, Some(ValueId { node, out: 0 }))),
            None => value,
        }
    };
    let outputs: Vec<String> = g.outputs().iter().enumerate().map(output).collect();
    let _ = writeln!(out, "  return{}{}\n}}", if outputs.is_empty() { "" } else { " " }, outputs.join(", "));
    out
}

/// The line of one node.
pub fn node(g: &Graph, n: NodeId, options: &Options) -> String {
    let node = g.node(n);
    if let (Op::Constant(c), [v]) = (&node.op, node.outputs()) {
        return format!("@{}: {}{} = {}", name(&v.name), c.ty(), layout(" ", v.layout), constant(c, options.constants));
    }
    let results: Vec<String> =
        node.outputs().iter().map(|v| format!("%{}{}", name(&v.name), layout(": ", v.layout))).collect();
    let (op, attributes) = match &node.op {
        Op::Unary(u) => (u.function.name(), Vec::new()),
        Op::Binary(b) => (b.function.name(), Vec::new()),
        Op::Compare(c) => (c.function.name(), Vec::new()),
        op => (op.name(), op.attributes()),
    };
    let operands = g.operands(n).into_iter().map(|v| operand(g, v));
    let parts: Vec<String> = operands.chain(attributes.iter().map(|(k, v)| format!("{k}={v}"))).collect();
    let mut line = format!("{} = {op}", results.join(", "));
    if !parts.is_empty() {
        let _ = write!(line, " {}", parts.join(", "));
    }
    let mut comment = String::new();
    if options.types {
        let types: Vec<String> = node.outputs().iter().map(|v| v.ty.to_string()).collect();
        let _ = write!(comment, " {}", types.join(", "));
    }
    if !node.origin.names().is_empty() {
        let names: Vec<String> = node.origin.names().iter().map(|n| quoted(n)).collect();
        let _ = write!(comment, " from {}", names.join(", "));
    }
    if !comment.is_empty() {
        let _ = write!(line, "{:1$} ;{comment}", "", 60usize.saturating_sub(line.chars().count()));
    }
    line
}

fn layout(before: &str, l: Layout) -> String {
    if l == Layout::RowMajor { String::new() } else { format!("{before}{l}") }
}

fn value_name(g: &Graph, v: ValueId) -> Option<&str> {
    g.contains(v.node).then(|| g.node(v.node).outputs().get(v.out as usize)).flatten().map(|v| &*v.name)
}

/// `%x`, `@w`, `_`; never fails, also on a broken graph.
fn operand(g: &Graph, v: Option<ValueId>) -> String {
    let Some(v) = v else { return "_".to_string() };
    match value_name(g, v) {
        Some(own) => format!("{}{}", if g.constant(v).is_some() { '@' } else { '%' }, name(own)),
        None => format!("%?{}.{}", v.node.index(), v.out),
    }
}

/// A name as it is, or quoted if it has odd characters.
pub fn name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-');
    // `_` alone is an absent operand.
    if !name.is_empty() && name != "_" && name.chars().all(plain) { name.to_string() } else { quoted(name) }
}

/// A string in quotes. Quotes, backslashes and control characters inside become `\u{..}`, so that the next quote always
/// ends the string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') || c.is_control() {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

fn constant(c: &Constant, limit: usize) -> String {
    let size = c.dtype().bytes();
    match (c.bytes(), c.splat_value()) {
        (None, Some(v)) => format!("splat({})", element(c.dtype(), &v.to_bytes())),
        (Some(bytes), _) if c.elems() <= limit => {
            let elems: Vec<String> = bytes.chunks(size).map(|b| element(c.dtype(), b)).collect();
            format!("{{{}}}", elems.join(", "))
        }
        (bytes, _) => format!("opaque(0x{:016x})", digest(bytes.unwrap_or_default())),
    }
}

/// One element, in the shortest text that reads back to the same bits. A NaN other than the usual one shows its bits.
fn element(dtype: DType, bytes: &[u8]) -> String {
    let mut raw = [0; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(raw);
    match dtype {
        DType::F32 => match f32::from_bits(bits as u32) {
            x if x.is_nan() && x.to_bits() != f32::NAN.to_bits() => format!("nan(0x{bits:x})"),
            x => format!("{x:?}"),
        },
        DType::F64 => match f64::from_bits(bits) {
            x if x.is_nan() && x.to_bits() != f64::NAN.to_bits() => format!("nan(0x{bits:x})"),
            x => format!("{x:?}"),
        },
        DType::Bool => (bits != 0).to_string(),
        t if t.is_signed_int() => {
            let unused = 64 - 8 * t.bytes() as u32;
            ((bits << unused) as i64 >> unused).to_string()
        }
        _ => bits.to_string(),
    }
}

/// A digest of bytes for telling contents apart in dumps; not cryptographic. FNV-1a over 8-byte words instead of bytes,
/// for speed on large weights.
pub fn digest(bytes: &[u8]) -> u64 {
    let step = |h: u64, word: u64| (h ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut h = words.iter().fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, |h, w| step(h, u64::from_le_bytes(*w)));
    for &b in rest {
        h = step(h, u64::from(b));
    }
    h ^ (h >> 29)
}
