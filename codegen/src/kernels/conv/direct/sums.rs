//! The products of a tile: blocks of channels, taps, channels; the innermost loops of the template.

use super::super::tile::Splat;
use super::super::{Segment, Source, Weights};
use super::rows::TileAt;
use super::task::{Group, Pass};
use super::{Direct, F32_BYTES};
use crate::kernels::window::{Run, TapGroup, along};
use crate::kir::{Builder, Elem, IntCc, Type, Value};
use nncc_ir::BLOCK;
use std::ops::Range;

impl Direct<'_> {
    /// Adds all products of the pass to the sums, by the code of the run that the tile belongs to.
    pub(super) fn run(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        pass: &Pass,
        at: &TileAt<'_>,
        runs: &[Run],
        sums: &[Value],
    ) -> Vec<Value> {
        let (run, others) = match runs {
            [] => return sums.to_vec(),
            [only] => return self.sums(b, group, pass, at, only, sums),
            [run, others @ ..] => (run, others),
        };
        let end = (run.start - at.runs[0].start) / run.width + run.count;
        let end = b.i64(end as i64);
        let here = b.icmp(IntCc::LtS, at.index, end);
        b.if_(here, |b| self.sums(b, group, pass, at, run, sums), |b| self.run(b, group, pass, at, others, sums))
    }

    /// Adds all products of the pass to the sums.
    pub(super) fn sums(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        pass: &Pass,
        at: &TileAt<'_>,
        run: &Run,
        sums: &[Value],
    ) -> Vec<Value> {
        let mut sums = sums.to_vec();
        for segment in &self.segments {
            let is_edge = segment.channels < BLOCK;
            sums = match pass.place {
                _ if !is_edge => b.loop_(pass.from, pass.to, 1, &sums, |b, block, sums| {
                    self.block(b, group, at, run, segment, block, sums)
                }),
                None => self.block(b, group, at, run, segment, pass.blocks, &sums),
                Some((_, is_last)) => {
                    b.if_(is_last, |b| self.block(b, group, at, run, segment, pass.blocks, &sums), |_| sums.clone())
                }
            };
        }
        sums
    }

    /// One block of input channels.
    #[expect(clippy::too_many_arguments, reason = "the middle of a nest of seven loops")]
    pub(super) fn block(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        at: &TileAt<'_>,
        run: &Run,
        segment: &Segment,
        block: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let [depth, height, width] = &self.conv.axes;
        let bytes = |elems: usize| elems * 4;
        let x = b.ptr(group.x.at(0).idx(block, bytes(segment.block_pitch)));
        let x = b.ptr(x.at(0).idx(at.input, bytes(segment.pixel_pitch)));
        if self.asks_for_input() {
            let pixel = width.stride * segment.pixel_pitch;
            for px in run.width..2 * run.width {
                b.prefetch(x.at(bytes(px * pixel) as i64));
            }
        }
        // Weights of all blocks before have 16 channels.
        let w: Vec<Value> = group
            .w
            .iter()
            .map(|&(base, width)| along(b, base, block, bytes(BLOCK * self.conv.taps() * self.weight_pitch(width))))
            .collect();
        let widths: Vec<usize> = group.w.iter().map(|&(_, width)| width).collect();
        let advance = |b: &mut Builder, w: &[Value], tap: Value, taps: usize| -> Vec<Value> {
            let step = |width: usize| bytes(taps * segment.channels * self.weight_pitch(width));
            w.iter().zip(&widths).map(|(&w, &width)| along(b, w, tap, step(width))).collect()
        };
        let [(d0, d1), (h0, h1)] = at.bounds;
        b.loop_(d0, d1, 1, sums, |b, kd, sums| {
            let plane = depth.dilation * height.inputs * width.inputs * segment.pixel_pitch;
            let x = b.ptr(x.at(0).idx(kd, bytes(plane)));
            let w = advance(b, &w, kd, height.taps * width.taps);
            b.loop_(h0, h1, 1, sums, |b, kh, sums| {
                let x = b.ptr(x.at(0).idx(kh, bytes(height.dilation * width.inputs * segment.pixel_pitch)));
                let w = advance(b, &w, kh, width.taps);
                let mut sums = sums.to_vec();
                let full = !at.inner || run.is_whole(width.taps);
                for taps in &run.taps {
                    sums = self.taps(b, group, segment, (at.pixels, full), taps, x, &w, sums);
                }
                sums
            })
        })
    }

    /// Neighbouring taps of the width that reach the same pixels.
    #[expect(clippy::too_many_arguments, reason = "the innermost level of a nest of seven loops")]
    pub(super) fn taps(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        segment: &Segment,
        (tile, full): (usize, bool),
        taps: &TapGroup,
        x: Value,
        w: &[Value],
        sums: Vec<Value>,
    ) -> Vec<Value> {
        let step = self.conv.axes[2].dilation * segment.pixel_pitch * 4;
        let pixels = taps.pixels.clone();
        let one = |b: &mut Builder, tap: Value, sums: &[Value]| {
            let x = b.ptr(x.at(0).idx(tap, step));
            let each = |(&w, &(_, width)): (&Value, &(Value, usize))| {
                b.ptr(w.at(0).idx(tap, segment.channels * self.weight_pitch(width) * 4))
            };
            let w: Vec<Value> = w.iter().zip(&group.w).map(each).collect();
            self.channels(b, group, segment, (tile, full), &pixels, x, w, sums.to_vec())
        };
        if full && self.taps_unrolled(taps, segment.channels, pixels.len()) || taps.taps.len() == 1 {
            let mut sums = sums;
            for tap in taps.taps.clone() {
                let tap = b.i64(tap as i64);
                sums = one(b, tap, &sums);
            }
            return sums;
        }
        b.loop_(taps.taps.start, taps.taps.end, 1, &sums, |b, tap, sums| one(b, tap, sums))
    }

    /// The channels of one block at one tap: the innermost loop.
    #[expect(clippy::too_many_arguments, reason = "the innermost level of a nest of seven loops")]
    pub(super) fn channels(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        segment: &Segment,
        (tile, full): (usize, bool),
        pixels: &Range<usize>,
        x: Value,
        w: Vec<Value>,
        sums: Vec<Value>,
    ) -> Vec<Value> {
        // At the border of a row one step is enough: what the loop costs hides behind the multiply-adds of a wide core.
        let unroll = match full {
            true => self.channel_unroll(segment.channels, pixels.len()),
            false => self.channel_unit(segment.channels),
        };
        let pitch = segment.channel_pitch * 4;
        let inner = Inner { group, segment, tile, pixels };
        if unroll == segment.channels {
            let zero = b.i64(0);
            return self.steps(b, &inner, unroll, (x, zero), &w, sums);
        }
        // The index counts bytes of x; the weights' pointers go along, for their step is no scale of an addressing mode.
        let mut carried = sums;
        let sum_count = carried.len();
        carried.extend(&w);
        let last = b.loop_(0, segment.channels * pitch, (unroll * pitch) as i64, &carried, |b, at, carried| {
            let (sums, w) = carried.split_at(sum_count);
            let mut next = self.steps(b, &inner, unroll, (x, at), w, sums.to_vec());
            for (&w, &(_, width)) in w.iter().zip(&group.w) {
                next.push(b.ptr(w.at((unroll * self.weight_pitch(width) * 4) as i64)));
            }
            next
        });
        last[..sum_count].to_vec()
    }

    /// `count` channels, one behind the other.
    pub(super) fn steps(
        &self,
        b: &mut Builder,
        inner: &Inner<'_>,
        count: usize,
        x: (Value, Value),
        w: &[Value],
        mut sums: Vec<Value>,
    ) -> Vec<Value> {
        let segment = inner.segment;
        let vectors = &inner.group.vectors;
        let pixel = self.conv.axes[2].stride * segment.pixel_pitch * 4;
        let input =
            |px: usize, channel: usize| x.0.at((px * pixel + channel * segment.channel_pitch * 4) as i64).idx(x.1, 1);
        // AVX's addresses take a distance in passing; for the others one addition a panel serves the whole stretch.
        let panels: Vec<Option<Value>> = match self.target.lanes(Elem::F32) {
            4 => inner.group.distances.iter().map(|d| d.map(|d| b.ptr(w[0].at(0).idx(d, 1)))).collect(),
            _ => vec![None; inner.group.distances.len()],
        };
        let weight = |b: &mut Builder, v: usize, channel: usize| {
            let lanes = &vectors[v];
            let at = w[lanes.class].at(lanes.weight + (channel * self.weight_pitch(lanes.width)) as i64 * F32_BYTES);
            let at = match (panels[lanes.panel], inner.group.distances[lanes.panel]) {
                (Some(panel), _) => panel.at(at.disp),
                (None, Some(distance)) => at.idx(distance, 1),
                (None, None) => at,
            };
            match self.conv.weights {
                Weights::Panels => b.load(lanes.ty, at),
                Weights::Rows { .. } => b.load_part(lanes.ty, at, lanes.count),
            }
        };
        let quad = Type::of(Elem::F32, 4);
        let hold_inputs = inner.pixels.len() <= vectors.len();
        let mut quads: Vec<Value> = Vec::new();
        for channel in 0..count {
            // The last quad of an edge block may hold padding lanes: loaded, never used. Rows of a matrix and single pixels of
            // planes, whose channels are neighbours too, have none.
            let by_lane = self.splat == Splat::Lane;
            if by_lane && channel % 4 == 0 {
                let there = if self.conv.source == Source::Blocked { 4 } else { 4.min(count - channel) };
                quads = inner.pixels.clone().map(|px| b.load_part(quad, input(px, channel), there)).collect();
            }
            let splat = |b: &mut Builder, px: usize, ty: Type| {
                if by_lane {
                    let lane = b.extract(quads[px - inner.pixels.start], channel % 4);
                    b.splat(ty, lane)
                } else {
                    b.load_splat(ty, input(px, channel))
                }
            };
            if hold_inputs {
                // Vectors of different widths (a full panel and an edge one) need splats of their own.
                let mut held: Vec<(Type, Vec<Value>)> = Vec::new();
                for (v, lanes) in vectors.iter().enumerate() {
                    if held.iter().all(|(ty, _)| *ty != lanes.ty) {
                        held.push((lanes.ty, inner.pixels.clone().map(|px| splat(b, px, lanes.ty)).collect()));
                    }
                    let w = weight(b, v, channel);
                    let xs = held.iter().find(|(ty, _)| *ty == lanes.ty).map_or(&[][..], |(_, xs)| xs);
                    for (px, &x) in inner.pixels.clone().zip(xs) {
                        let sum = &mut sums[v * inner.tile + px];
                        *sum = b.mul_add(w, x, *sum);
                    }
                }
            } else {
                let ws: Vec<Value> = (0..vectors.len()).map(|v| weight(b, v, channel)).collect();
                for px in inner.pixels.clone() {
                    let mut held: Vec<(Type, Value)> = Vec::new();
                    for (v, lanes) in vectors.iter().enumerate() {
                        let x = match held.iter().find(|(ty, _)| *ty == lanes.ty) {
                            Some(&(_, x)) => x,
                            None => {
                                let x = splat(b, px, lanes.ty);
                                held.push((lanes.ty, x));
                                x
                            }
                        };
                        let sum = &mut sums[v * inner.tile + px];
                        *sum = b.mul_add(ws[v], x, *sum);
                    }
                }
            }
        }
        sums
    }
}

pub(super) struct Inner<'i> {
    pub group: &'i Group<'i>,
    pub segment: &'i Segment,
    pub tile: usize,
    pub pixels: &'i Range<usize>,
}
