//! What the templates with register tiles have in common: vectors that are held for a pixel, times scalars of the other operand
//! that are broadcast; and how many of both the registers allow.

use crate::kernels::conv::tile::Splat;
use crate::kir::{Addr, Builder, Elem, Type, Value};
use crate::target::{Level, Target};

/// Accumulators of each of `vectors` vectors that are held: what is left beside them by one register for a broadcast, one that
/// Cranelift keeps, one for a product that is not fused.
pub(super) fn accumulators(target: &Target, vectors: usize) -> usize {
    let cranelift = matches!(target.level, Level::X86V1 | Level::Aarch64);
    (target.vector_regs - vectors - 1 - usize::from(cranelift) - usize::from(!target.fma)) / vectors
}

/// Scalars of a tile with so many accumulators a vector, at most `most`; quads or pairs where lanes are taken.
pub(super) fn scalars(splat: Splat, accumulators: usize, most: usize) -> usize {
    match splat {
        Splat::Load => accumulators.clamp(1, most),
        Splat::Lane if accumulators >= 4 => 4,
        Splat::Lane => 2,
    }
}

/// Adds the products of one pixel: vector `v` times scalar `i` to the sum that `place(v, i)` names. Scalars come in runs of
/// `run` neighbours, which are read by fours where lanes are taken.
pub(super) fn add_products(
    b: &mut Builder,
    splat: Splat,
    held: &[Value],
    (scalars, run): (&[Addr], usize),
    sums: &mut [Value],
    place: impl Fn(usize, usize) -> usize,
) {
    let quad_type = Type::of(Elem::F32, 4);
    let mut quad = None;
    for (i, &at) in scalars.iter().enumerate() {
        let of_run = i % run;
        if splat == Splat::Lane && of_run.is_multiple_of(4) {
            quad = Some(b.load_part(quad_type, at, 4.min(run - of_run)));
        }
        // Blocks of different widths need vectors of their own.
        let mut inputs: Vec<(Type, Value)> = Vec::with_capacity(2);
        for (v, &vector) in held.iter().enumerate() {
            let ty = b.ty(vector);
            let known = inputs.iter().find(|(of, _)| *of == ty).map(|(_, input)| *input);
            let input = known.unwrap_or_else(|| match quad {
                Some(quad) => {
                    let lane = b.extract(quad, of_run % 4);
                    b.splat(ty, lane)
                }
                None => b.load_splat(ty, at),
            });
            if known.is_none() {
                inputs.push((ty, input));
            }
            let sum = &mut sums[place(v, i)];
            *sum = b.mul_add(vector, input, *sum);
        }
    }
}
