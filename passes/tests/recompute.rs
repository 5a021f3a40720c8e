//! Recomputing: what it makes of a graph, that it changes no bit, and that it keeps to what it was asked for.

use nncc_ir::arbitrary::{Limits, Mix, case};
use nncc_ir::autodiff::backpropagate;
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::ops::reshape::Identity;
use nncc_ir::{Constant, DType, Graph, Tensor, ValueId, parse, random, verify};
use nncc_passes::recompute::{Recompute, plan};
use nncc_passes::{Options, PassCx, PassError, optimize};

fn graph(text: &str) -> Graph {
    parse::graph(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn context() -> PassCx {
    PassCx::new(Options { verify: true, ..Options::default() })
}

/// Four layers forward, and what a backward pass reads again, last first.
const LAYERS: &str = "graph layers(%x: f32[64,64]) {
  %a = exp %x
  %s = softmax %a, axis=1
  %b = exp %s
  %t = softmax %b, axis=0
  %c = exp %t
  %u = softmax %c, axis=1
  %p = mul %u, %c
  %q = softmax %p, axis=0
  %r = mul %q, %b
  %v = softmax %r, axis=0
  %y = mul %v, %a
  return %y
}";

#[test]
fn the_cheapest_values_are_made_again_in_front_of_their_late_readers() {
    let g = graph(LAYERS);
    let (plain, none) = plan(&mut g.clone(), Recompute::None, &mut context()).unwrap();
    assert_eq!(none, None);
    let mut less = g.clone();
    let (planned, trade) = plan(&mut less, Recompute::Bytes(plain.arena_bytes / 4 * 3), &mut context()).unwrap();
    let trade = trade.expect("it was asked for");
    assert!(planned.arena_bytes <= plain.arena_bytes / 4 * 3, "{}", planned.to_text(&less));
    assert!(trade.after < trade.before && trade.work > 0.0);
    // %a = exp %x needs nothing kept: x is the caller's
    assert_eq!(trade.again.first().map(|(name, bytes)| (&name[..], *bytes)), Some(("a", 64 * 64 * 4)), "{less}");
    let first = trade.to_text();
    assert!(first.starts_with("recomputed: ") && first.contains("more work") && first.contains("16384  %a"), "{first}");
    let x = [random::tensor(DType::F32, &[64, 64], 1)];
    let run = |g: &Graph| evaluate(g, &x, Precision::Native).unwrap();
    assert_eq!(run(&g), run(&less));
}

#[test]
fn what_cannot_be_had_is_an_error_that_says_what_can() {
    let e = plan(&mut graph(LAYERS), Recompute::Bytes(1000), &mut context()).unwrap_err();
    let PassError::TooLarge { least, limit: 1000 } = e else { panic!("{e}") };
    let (planned, _) = plan(&mut graph(LAYERS), Recompute::Bytes(least), &mut context()).unwrap();
    assert_eq!(planned.arena_bytes, least);
}

#[test]
fn auto_adds_at_most_a_tenth() {
    let (_, trade) = plan(&mut graph(LAYERS), Recompute::Auto, &mut context()).unwrap();
    let trade = trade.expect("it was asked for");
    assert!(trade.work <= 0.1 && !trade.again.is_empty(), "{trade:?}");
}

#[test]
fn words() {
    let of = |text: &str| text.parse::<Recompute>();
    assert_eq!((of("none"), of("auto")), (Ok(Recompute::None), Ok(Recompute::Auto)));
    assert_eq!((of("4096"), of("3k")), (Ok(Recompute::Bytes(4096)), Ok(Recompute::Bytes(3 << 10))));
    assert_eq!((of("20M"), of("1G")), (Ok(Recompute::Bytes(20 << 20)), Ok(Recompute::Bytes(1 << 30))));
    for wrong in ["", "some", "-1", "1.5G", "M", "3Q", "99999999999G", "12é"] {
        assert_eq!(of(wrong), Err("none, auto or a number of bytes is expected".into()), "{wrong}");
    }
}

/// The graph with the gradients of its float inputs as further outputs: forward values that are read late.
fn differentiated(mut g: Graph) -> Option<Graph> {
    let float = |g: &Graph, v: &ValueId| g.ty(*v).dtype.is_float();
    let outputs: Vec<ValueId> = g.outputs().iter().map(|(_, v)| *v).filter(|v| float(&g, v)).collect();
    let inputs = g.inputs().iter().map(|&node| ValueId { node, out: 0 });
    let inputs: Vec<ValueId> = inputs.filter(|v| float(&g, v)).collect();
    let seeds: Vec<(ValueId, ValueId)> = (7..)
        .zip(outputs)
        .map(|(seed, v)| {
            let weights = random::tensor(g.ty(v).dtype, &g.ty(v).dims().unwrap_or_default(), seed);
            (v, g.add_constant("", Constant::from_tensor(&weights)))
        })
        .collect();
    let gradients = backpropagate(&mut g, &seeds, &inputs).ok()?;
    for (i, d) in gradients.into_iter().flatten().enumerate() {
        let copy = g.add1(Identity {}, &[d], Default::default(), "").ok()?;
        g.add_output(&format!("gradient {i}"), copy);
    }
    Some(g)
}

/// Random graphs with their gradients: the same bits however much is computed again. The plan is checked where it is made.
#[test]
fn no_bit_changes() {
    let same = |a: &[Tensor], b: &[Tensor]| a.iter().zip(b).all(|(a, b)| a.to_bytes() == b.to_bytes());
    let (mut tried, mut traded) = (0, 0);
    for seed in 0..1000 {
        let mut rng = random::Rng::new(seed);
        let choices: Vec<u8> = (0..160).map(|_| rng.bits() as u8).collect();
        let c = case(&choices, &Limits { nodes: 14, elems: 2048, mix: Mix::Continuous });
        let Some(mut g) = differentiated(c.graph) else { continue };
        optimize(&mut g, &mut context()).unwrap();
        let Ok(before) = evaluate(&g, &c.inputs, Precision::Native) else { continue };
        let (plain, _) = plan(&mut g.clone(), Recompute::None, &mut context()).unwrap();
        for share in [15, 12, 8] {
            let mut less = g.clone();
            let limit = plain.arena_bytes / 16 * share;
            match plan(&mut less, Recompute::Bytes(limit), &mut context()) {
                Ok((planned, trade)) => {
                    assert!(planned.arena_bytes <= limit);
                    traded += usize::from(trade.is_some_and(|t| !t.again.is_empty()));
                }
                Err(PassError::TooLarge { least, .. }) => assert!(least > limit),
                Err(e) => panic!("seed {seed}: {e}\n{g}"),
            }
            verify::verify(&less).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{less}"));
            let after = evaluate(&less, &c.inputs, Precision::Native).unwrap();
            assert!(same(&before, &after), "seed {seed}\n{g}\n{less}");
            tried += 1;
        }
    }
    assert!(tried > 300 && traded > 30, "{traded} of {tried}");
}
