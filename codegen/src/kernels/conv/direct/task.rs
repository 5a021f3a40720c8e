//! One task: a group of panels for some rows of an image, pass by pass over the input channels.

use super::super::Operands;
use super::super::{Sink, Weights, panel_widths};
use super::shape::Shape;
use super::{Direct, F32_BYTES, PanelGroup};
use crate::kernels::bands::Band;
use crate::kernels::window::{along, div_rem_by};
use crate::kir::{Builder, Elem, IntCc, Type, Value};
use nncc_ir::BLOCK;

impl Direct<'_> {
    /// Finds image, groups and rows of a task.
    pub(super) fn task(&self, b: &mut Builder, operands: &Operands, shape: &Shape, task: Value) {
        // Which order is better depends on the number of images, so it is no part of the code.
        let (rest, first) = div_rem_by(b, task, shape.radices[0]);
        let (rest, second) = div_rem_by(b, rest, shape.radices[1]);
        let (outer, third) = div_rem_by(b, rest, shape.radices[2]);
        let of_blocks = b.mul(outer, shape.radices[1]);
        let of_blocks = b.add(of_blocks, second);
        let zero = b.i64(0);
        let panels_inner = b.icmp(IntCc::Ne, shape.panels_inner, zero);
        let mut either = |panels: Value, rows: Value| b.select(panels_inner, panels, rows);
        let (image, group, chunk) = (either(outer, of_blocks), either(first, third), either(second, first));
        let (conv_group, panel_group) =
            if self.conv.groups == 1 { (b.i64(0), group) } else { div_rem_by(b, group, shape.panel_groups) };
        let kinds = self.kinds();
        let lo = b.mul(chunk, shape.rows);
        let hi = b.add(lo, shape.rows);
        let rows = b.i64(self.row_count() as i64);
        let hi = b.min_s(hi, rows);
        let band = Band::of_whole(b, image, [lo, hi]);
        let y = self.first_output(b, shape, &band, [conv_group, panel_group]);
        let at = TaskAt { band, conv_group, panel_group, y };
        match &kinds[..] {
            [only] => self.panels(b, operands, shape, only, &at),
            [full, rest] => {
                // The last group is the one that differs.
                let bound = b.add_imm(shape.panel_groups, -1);
                let is_full = b.icmp(IntCc::LtS, panel_group, bound);
                b.branch(
                    is_full,
                    |b| self.panels(b, operands, shape, full, &at),
                    |b| self.panels(b, operands, shape, rest, &at),
                );
            }
            _ => {}
        }
    }

    /// Bytes from the output's base to the first pixel of a group of panels.
    pub(super) fn first_output(
        &self,
        b: &mut Builder,
        shape: &Shape,
        band: &Band,
        [group, panels]: [Value; 2],
    ) -> Value {
        let y = b.mul(band.images[1], shape.output_image);
        let y = b.mul_imm(y, F32_BYTES);
        let first_panel = self.first_panel(b, shape, group, panels);
        let panel_offset = b.mul_imm(first_panel, self.output_panel() as i64 * F32_BYTES);
        b.add(y, panel_offset)
    }

    /// The number of the first panel of a group of panels, counted over all groups of channels.
    pub(super) fn first_panel(&self, b: &mut Builder, shape: &Shape, conv_group: Value, panel_group: Value) -> Value {
        let panel = b.mul_imm(panel_group, self.tile.panels as i64);
        let before = b.mul(conv_group, shape.panels);
        b.add(before, panel)
    }

    /// All rows of a task for one group of panels.
    pub(super) fn panels(&self, b: &mut Builder, operands: &Operands, shape: &Shape, kind: &PanelGroup, at: &TaskAt) {
        let panel_of_all = self.first_panel(b, shape, at.conv_group, at.panel_group);
        let input_image = b.mul(at.band.images[0], shape.input_image);
        let input_group = b.mul(at.conv_group, shape.input_group);
        let input = b.add(input_image, input_group);
        let x = b.ptr(operands.x.at(0).idx(input, 4));
        let bias = operands.bias.map(|bias| b.ptr(bias.at(0).idx(panel_of_all, BLOCK * 4)));
        let channel = b.mul_imm(panel_of_all, BLOCK as i64);
        let vectors = self.vectors(kind);
        let PanelWeights { pointers, distances } =
            self.panel_weights(b, operands.w, shape, kind, [panel_of_all, at.band.image]);
        let looks_ahead = self.looks_ahead() && kind.widths.iter().all(|&width| width == BLOCK);
        let group = Group {
            operands,
            vectors,
            x,
            w: pointers,
            distances,
            y: at.y,
            bias,
            channel,
            band: at.band,
            kind,
            ahead: looks_ahead.then_some(shape.ahead),
        };
        let next_group = b.mul_imm(shape.next_rows, kind.widths.len() as i64);
        let [lo, hi] = at.band.rows;
        if !self.partial_sums() {
            let pass =
                Pass { from: b.i64(0), to: shape.blocks, blocks: shape.blocks, place: None, next_weights: next_group };
            b.for_(lo, hi, 1, |b, row| self.row(b, &group, &pass, row));
            return;
        }
        b.for_(0, shape.passes, 1, |b, index| {
            let from = b.mul(index, shape.pass_blocks);
            let to = b.add(from, shape.pass_blocks);
            let to = b.min_s(to, shape.blocks);
            let zero = b.i64(0);
            let last = b.add_imm(shape.passes, -1);
            let (is_first, is_last) = (b.icmp(IntCc::Eq, index, zero), b.icmp(IntCc::Eq, index, last));
            let behind = b.mul_imm(to, (BLOCK * self.conv.taps()) as i64);
            let next_weights = b.select(is_last, next_group, behind);
            let pass = Pass { from, to, blocks: shape.blocks, place: Some((is_first, is_last)), next_weights };
            b.for_(lo, hi, 1, |b, row| self.row(b, &group, &pass, row));
        });
    }

    /// The weights of a tile's panels. The full panels share a pointer, each with a distance of its own, so that a loop advances
    /// one pointer for all; an edge panel, of other rows, has its own.
    pub(super) fn panel_weights(
        &self,
        b: &mut Builder,
        w: Value,
        shape: &Shape,
        kind: &PanelGroup,
        [first, image]: [Value; 2],
    ) -> PanelWeights {
        let base = match self.conv.weights {
            Weights::Panels => w,
            Weights::Rows { image: pitch } => along(b, w, image, pitch * 4),
        };
        // Each panel begins at a multiple of 64 bytes: a row of 16 numbers for each input channel and tap.
        let rows = |b: &mut Builder, panels: Value| match self.conv.weights {
            Weights::Panels => b.mul(panels, shape.weight_rows),
            Weights::Rows { .. } => panels,
        };
        let full = kind.widths.iter().filter(|&&width| width == BLOCK).count();
        let mut pointers = Vec::with_capacity(2);
        for (panel, &width) in kind.widths.iter().enumerate().filter(|&(panel, _)| panel == 0 || panel == full) {
            let number = b.add_imm(first, panel as i64);
            let at = rows(b, number);
            pointers.push((b.ptr(base.at(0).idx(at, BLOCK * 4)), width));
        }
        let distances = (0..kind.widths.len()).map(|panel| {
            (panel > 0 && panel < full).then(|| {
                let panels = b.i64(panel as i64);
                let distance = rows(b, panels);
                b.mul_imm(distance, (BLOCK * 4) as i64)
            })
        });
        let distances = distances.collect();
        PanelWeights { pointers, distances }
    }

    /// Elements of the weights from one input channel to the next, in a panel of this width.
    pub(super) fn weight_pitch(&self, width: usize) -> usize {
        match self.conv.weights {
            Weights::Panels => width,
            Weights::Rows { .. } => self.conv.outputs,
        }
    }

    /// Elements of the output from one panel to the next.
    pub(super) fn output_panel(&self) -> usize {
        match self.conv.sink {
            Sink::Blocked => BLOCK * self.conv.output_plane(),
            Sink::Matrix => BLOCK,
        }
    }

    /// Elements of the output from one pixel to the next, in a panel of this width.
    pub(super) fn output_pitch(&self, width: usize) -> usize {
        match self.conv.sink {
            Sink::Blocked => width,
            Sink::Matrix => self.conv.outputs,
        }
    }

    /// The vectors of a tile of these panels. Of a matrix, those without a column are left out.
    pub(super) fn vectors(&self, kind: &PanelGroup) -> Vec<Lanes> {
        let mut vectors = Vec::new();
        let edge = self.conv.outputs - self.conv.outputs / BLOCK * BLOCK;
        let is_last = kind.first * self.tile.panels + kind.widths.len() == panel_widths(self.conv.outputs).len();
        for (panel, &width) in kind.widths.iter().enumerate() {
            let lanes = self.target.lanes(Elem::F32).min(width);
            let whole = self.conv.sink == Sink::Blocked || edge == 0 || !is_last || panel + 1 < kind.widths.len();
            let columns = if whole { width } else { edge };
            for i in 0..columns.div_ceil(lanes) {
                vectors.push(Lanes {
                    ty: Type::of(Elem::F32, lanes),
                    count: lanes.min(columns - i * lanes),
                    panel,
                    class: usize::from(width != BLOCK && kind.widths[0] == BLOCK),
                    width,
                    weight: (i * lanes * 4) as i64,
                    output: ((panel * self.output_panel() + i * lanes) * 4) as i64,
                    channel: (panel * BLOCK + i * lanes) as i64,
                });
            }
        }
        vectors
    }
}

/// What a task is.
pub(super) struct TaskAt {
    pub band: Band,
    pub conv_group: Value,
    pub panel_group: Value,
    /// Bytes from the output's base to the first pixel of the group of panels.
    pub y: Value,
}

/// One vector of output channels of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub ty: Type,
    /// Lanes that exist in memory.
    pub count: usize,
    /// Which panel of the tile.
    pub panel: usize,
    /// Which weight pointer.
    pub class: usize,
    /// Channels of its panel.
    pub width: usize,
    /// Bytes from the panel's weights.
    pub weight: i64,
    /// Bytes from the output's panel base.
    pub output: i64,
    /// Channels from the first of the group.
    pub channel: i64,
}

/// What is the same for all rows of a task.
pub(super) struct Group<'k> {
    pub operands: &'k Operands,
    pub vectors: Vec<Lanes>,
    pub x: Value,
    /// Weight pointers, one for each panel width, and that width.
    pub w: Vec<(Value, usize)>,
    /// Bytes from the pointer to the weights of each panel, but for the pointer's own.
    pub distances: Vec<Option<Value>>,
    /// Bytes from the output's base.
    pub y: Value,
    pub bias: Option<Value>,
    pub channel: Value,
    pub band: Band,
    pub kind: &'k PanelGroup,
    /// Rows of weights of a panel that each tile asks for, if it does.
    pub ahead: Option<Value>,
}

/// Where the weights of a tile's panels lie: as in [`Group`].
pub(super) struct PanelWeights {
    pub pointers: Vec<(Value, usize)>,
    pub distances: Vec<Option<Value>>,
}

/// Which channel blocks are summed now.
pub(super) struct Pass {
    pub from: Value,
    pub to: Value,
    /// All full blocks; the edge block comes behind them, in the last pass.
    pub blocks: Value,
    /// Where there are several passes: is it the first, is it the last?
    pub place: Option<(Value, Value)>,
    /// The row of the first panel's weights where those begin that are needed behind this pass.
    pub next_weights: Value,
}
