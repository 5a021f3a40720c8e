//! A minimum cut of a flow network, by Dinic's algorithm (Dinic 1970): shortest augmenting paths, level by level.
//!
//! Paths are searched without recursion, for a chain of operators may be as long as the network. Networks here are chains
//! with few side paths and few levels; a bound on the number of levels keeps a hostile graph from taking long. Stopped
//! early, the flow is not the largest and the cut not the smallest, but still a cut.

use std::collections::VecDeque;

/// A capacity that no cut ever contains.
pub const INFINITE: u64 = u64::MAX / 4;

/// Rounds of the algorithm; each makes the shortest augmenting path longer.
const MAX_LEVELS: usize = 400;

struct Edge {
    to: usize,
    left: u64, // residual capacity
}

/// A directed network with capacities.
pub struct Network {
    edges: Vec<Edge>, // edge 2i and its reverse 2i + 1
    of: Vec<Vec<usize>>,
}

impl Network {
    /// A network of `n` vertices without edges.
    pub fn new(n: usize) -> Network {
        Network { edges: Vec::new(), of: vec![Vec::new(); n] }
    }

    /// Adds a vertex.
    pub fn vertex(&mut self) -> usize {
        self.of.push(Vec::new());
        self.of.len() - 1
    }

    /// Adds an edge.
    pub fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        if capacity == 0 || from == to {
            return;
        }
        self.of[from].push(self.edges.len());
        self.edges.push(Edge { to, left: capacity });
        self.of[to].push(self.edges.len());
        self.edges.push(Edge { to: from, left: 0 });
    }

    /// The side of the source in a minimum cut: vertices that are on no side by necessity go to the sink.
    pub fn source_side(&mut self, source: usize, sink: usize) -> Vec<bool> {
        for _ in 0..MAX_LEVELS {
            let levels = self.levels(source);
            if levels[sink] == usize::MAX {
                break;
            }
            self.augment(source, sink, &levels);
        }
        self.levels(source).iter().map(|l| *l != usize::MAX).collect()
    }

    /// Distance from the source along edges with capacity left.
    fn levels(&self, source: usize) -> Vec<usize> {
        let mut level = vec![usize::MAX; self.of.len()];
        level[source] = 0;
        let mut queue = VecDeque::from([source]);
        while let Some(v) = queue.pop_front() {
            for &e in &self.of[v] {
                let Edge { to, left } = self.edges[e];
                if left > 0 && level[to] == usize::MAX {
                    level[to] = level[v] + 1;
                    queue.push_back(to);
                }
            }
        }
        level
    }

    /// Augments along paths that rise by one level a step until there is none.
    fn augment(&mut self, source: usize, sink: usize, level: &[usize]) {
        let mut next = vec![0usize; self.of.len()]; // edges before it lead nowhere
        let mut path: Vec<usize> = Vec::new();
        let mut v = source;
        loop {
            if v == sink {
                let least = path.iter().map(|&e| self.edges[e].left).min().unwrap_or(0);
                for &e in &path {
                    self.edges[e].left -= least;
                    self.edges[e ^ 1].left += least;
                }
                // Go on from the first edge that is full now.
                let full = path.iter().position(|&e| self.edges[e].left == 0).unwrap_or(0);
                path.truncate(full);
                v = path.last().map_or(source, |&e| self.edges[e].to);
                continue;
            }
            let forward = self.of[v][next[v]..].iter().position(|&e| {
                let edge = &self.edges[e];
                edge.left > 0 && level[edge.to] == level[v] + 1
            });
            match forward {
                Some(skip) => {
                    next[v] += skip;
                    let e = self.of[v][next[v]];
                    path.push(e);
                    v = self.edges[e].to;
                }
                None => {
                    next[v] = self.of[v].len();
                    let Some(e) = path.pop() else { return };
                    v = self.edges[e ^ 1].to;
                    next[v] += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_where_it_is_cheapest() {
        // 0 -(9)-> 1 -(2)-> 2 -(9)-> 3, and 1 -(1)-> 3
        let mut net = Network::new(4);
        for (a, b, c) in [(0, 1, 9), (1, 2, 2), (2, 3, 9), (1, 3, 1)] {
            net.edge(a, b, c);
        }
        assert_eq!(net.source_side(0, 3), [true, true, false, false]);
    }

    #[test]
    fn long_chains_need_no_stack() {
        let n = 100_000;
        let mut net = Network::new(n);
        for i in 1..n {
            net.edge(i - 1, i, if i == 777 { 1 } else { 5 });
        }
        let side = net.source_side(0, n - 1);
        assert_eq!(side.iter().filter(|s| **s).count(), 777);
    }

    /// Against trying all cuts of small random networks.
    #[test]
    fn no_cut_is_smaller() {
        let mut seed = 1u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let n = 6;
            let edges: Vec<(usize, usize, u64)> =
                (0..14).map(|_| (random(n) as usize, random(n) as usize, random(9))).collect();
            let capacity = |side: &dyn Fn(usize) -> bool| -> u64 {
                edges.iter().filter(|(a, b, _)| side(*a) && !side(*b)).map(|e| e.2).sum()
            };
            let least = (0..1u32 << 4).map(|m| capacity(&|v| v == 0 || (v < 5 && m >> (v - 1) & 1 == 1))).min();
            let mut net = Network::new(n as usize);
            for &(a, b, c) in &edges {
                net.edge(a, b, c);
            }
            let side = net.source_side(0, 5);
            assert_eq!(Some(capacity(&|v| side[v])), least);
        }
    }
}
