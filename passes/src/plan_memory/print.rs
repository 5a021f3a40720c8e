//! The plan as text: `--emit plan`.
//!
//! ```text
//! arena 1605632 bytes, lower bound 1605632 (1.000x)
//! step   place              bytes  live until  value
//!    3   arena 0           802816           7  %conv1 f32[1,64,56,56] blocked
//!    4   = (no code)                           ...
//! ```

use super::sharing::stored_bytes;
use super::{MemoryPlan, Place, is_given};
use nncc_ir::{Graph, ValueId};
use rustc_hash::FxHashMap;
use std::fmt::Write;

impl MemoryPlan {
    /// How far the arena is above the lower bound: 1.0 is optimal.
    pub fn ratio(&self) -> f64 {
        if self.bound_bytes == 0 { 1.0 } else { self.arena_bytes as f64 / self.bound_bytes as f64 }
    }

    /// The table of all values with their places.
    pub fn to_text(&self, g: &Graph) -> String {
        let mut last: FxHashMap<ValueId, usize> = FxHashMap::default();
        for (step, n) in self.order.iter().enumerate() {
            for v in g.operands(*n).into_iter().flatten() {
                last.insert(v, step);
            }
        }
        let (arena, bound) = (self.arena_bytes, self.bound_bytes);
        let mut out = format!("arena {arena} bytes, lower bound {bound} ({:.3}x)\n", self.ratio());
        let _ = writeln!(out, "{:>5}  {:<20} {:>12}  {:>10}  value", "step", "place", "bytes", "live until");
        for (step, &n) in self.order.iter().enumerate() {
            for v in g.results(n) {
                let value = g.value(v);
                let place = match self.place.get(&v) {
                    Some(Place::Constant) => continue,
                    Some(Place::Arena { offset }) => format!("arena {offset}"),
                    Some(Place::Input { index, offset }) => format!("input {index}+{offset}"),
                    Some(Place::Output { index, offset }) => format!("output {index}+{offset}"),
                    None => "nowhere".to_string(),
                };
                let until = match last.get(&v) {
                    _ if g.is_output(v) => "end".to_string(),
                    Some(last) => last.to_string(),
                    None => step.to_string(),
                };
                let bytes = stored_bytes(g, v).unwrap_or(0);
                let what = if is_given(g, n) { "" } else { g.op(n).name() };
                let code = if self.elided.contains(&n) { ", no code" } else { "" };
                let _ = writeln!(
                    out,
                    "{step:>5}  {place:<20} {bytes:>12}  {until:>10}  %{} {} {} {what}{code}",
                    value.name, value.ty, value.layout
                );
            }
        }
        out
    }
}
