//! The schedule of a direct convolution or matrix product: what may differ without changing what is computed.
//!
//! The template chooses one by its own formulas; a tuning table may name another. Sums are taken in the order of the channels
//! within a pass, and passes are added up, so that another number of channels a pass rounds elsewhere, and nothing more.
//!
//! As text, for plans and tuning files: `48x14 pass 8 rows 7 panels-first`: a tile of 48 channels by 14 pixels, 8 blocks of input
//! channels a pass, 7 rows a task, tasks that go over panels inside of rows.

use super::tile::Tile;
use crate::tunable;
use nncc_ir::BLOCK;
use std::fmt;
use std::str::FromStr;

/// How a layer is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Schedule {
    /// The register tile.
    pub tile: Tile,
    /// Full blocks of input channels of one pass.
    pub pass_blocks: usize,
    /// Rows of one task.
    pub rows: usize,
    /// Do tasks go over panels first?
    pub panels_inner: bool,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schedule { tile, pass_blocks, rows, panels_inner } = self;
        let order = if *panels_inner { "panels-first" } else { "rows-first" };
        write!(f, "{}x{} pass {pass_blocks} rows {rows} {order}", tile.panels * BLOCK, tile.pixels)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let error = || format!("`{text}` is no schedule such as `48x14 pass 8 rows 7 panels-first`");
        let number = |word: &str| tunable::count(word).ok_or_else(error);
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[tile, "pass", pass, "rows", rows, order] = &words[..] else { return Err(error()) };
        let (channels, pixels) = tile.split_once('x').ok_or_else(error)?;
        let channels = number(channels)?;
        if !channels.is_multiple_of(BLOCK) {
            return Err(error());
        }
        let panels_inner = match order {
            "panels-first" => true,
            "rows-first" => false,
            _ => return Err(error()),
        };
        let tile = Tile { panels: channels / BLOCK, pixels: number(pixels)? };
        Ok(Schedule { tile, pass_blocks: number(pass)?, rows: number(rows)?, panels_inner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_written_and_read() {
        let schedule = Schedule { tile: Tile { panels: 3, pixels: 14 }, pass_blocks: 8, rows: 7, panels_inner: true };
        for s in [schedule, Schedule { panels_inner: false, pass_blocks: 1, ..schedule }] {
            assert_eq!(s.to_string().parse(), Ok(s));
        }
        assert_eq!(schedule.to_string(), "48x14 pass 8 rows 7 panels-first");
        for bad in
            ["", "48x14", "40x14 pass 8 rows 7 rows-first", "48x0 pass 8 rows 7 rows-first", "48x14 pass 8 rows 7 no"]
        {
            let e = bad.parse::<Schedule>().unwrap_err();
            assert_eq!(e, format!("`{bad}` is no schedule such as `48x14 pass 8 rows 7 panels-first`"));
        }
    }
}
