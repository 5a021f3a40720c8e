//! Losses, optimizers and the whole step against what PyTorch computes (`training_pytorch.txt`, made by
//! `tools/training_cases.py`), and properties of the step that no peer is needed for.
//!
//! Both sides compute in f64. Constants of the step are f32, so that numbers agree to their rounding and not to more.

use nncc_ir::differentiate;
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{Constant, DType, Graph, NamePattern, Tensor, TensorType, parse, verify};
use nncc_passes::training::{
    Clip, Group, Loss, Optimizer, StateKind, TrainingError, TrainingGraph, TrainingOptions, evaluation_of_states,
    inference, training_step,
};
use std::collections::BTreeMap;

/// Rounding of the constants, f32, through six steps.
const TOLERANCE: f64 = 2e-6;

/// A case of the file: its kind, its name and its lines of numbers.
struct Case {
    kind: String,
    name: String,
    lines: BTreeMap<String, Vec<f64>>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("training_pytorch.txt").lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if ["loss", "optimizer", "model"].contains(&word) {
            cases.push(Case { kind: word.into(), name: rest.into(), lines: BTreeMap::new() });
        } else {
            let numbers = rest.split(' ').map(|n| n.parse().unwrap()).collect();
            cases.last_mut().unwrap().lines.insert(word.into(), numbers);
        }
    }
    cases
}

fn close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= TOLERANCE * scale, "{what}: {got:?}\nPyTorch: {expected:?}");
    }
}

fn loss_named(name: &str) -> (Loss, &'static [usize]) {
    let w = || Some(vec![1.0, 0.5, 2.0, 0.25]);
    let cross = |label_smoothing, weights, ignore_index| Loss::CrossEntropy { label_smoothing, weights, ignore_index };
    let spread = |label_smoothing, weights| Loss::CrossEntropyOfProbabilities { label_smoothing, weights };
    let loss = match name {
        "cross_entropy" => Loss::CROSS_ENTROPY,
        "cross_entropy_smoothed" => cross(0.125, None, None),
        "cross_entropy_weighted" | "cross_entropy_pixels" => cross(0.0, w(), None),
        "cross_entropy_ignored" => cross(0.0, None, Some(1)),
        "cross_entropy_all" => cross(0.125, w(), Some(1)),
        "cross_entropy_ignored_smoothed" => cross(0.125, None, Some(-100)),
        "cross_entropy_probabilities" => spread(0.125, w()),
        "cross_entropy_probabilities_plain" => spread(0.0, None),
        "focal" => Loss::Focal { gamma: 2.0 },
        "hinge" => Loss::Hinge { margin: 1.0 },
        "hinge_wide" => Loss::Hinge { margin: 2.5 },
        "bce" => Loss::BinaryCrossEntropy { positive_weights: None },
        "bce_positive" => Loss::BinaryCrossEntropy { positive_weights: w() },
        "mse" => Loss::Mse,
        "l1" => Loss::L1,
        "huber" => Loss::Huber { delta: 0.75 },
        "smooth_l1" => Loss::SmoothL1 { beta: 0.75 },
        other => panic!("no loss is called {other}"),
    };
    (loss, if name == "cross_entropy_pixels" { &[2, 4, 3, 2] } else { &[5, 4] })
}

#[test]
fn losses_and_their_gradients_are_pytorchs() {
    let mut seen = 0;
    for case in cases().iter().filter(|c| c.kind == "loss") {
        let (loss, dims) = loss_named(&case.name);
        let mut g = Graph::new("loss");
        let x = g.add_input("x", TensorType::fixed(DType::F32, dims));
        let target = loss.target(g.ty(x)).unwrap();
        let t = g.add_input("t", target.clone());
        let value = loss.build(&mut g, x, t).unwrap();
        let gradient = differentiate(&mut g, value, &[x]).unwrap()[0].unwrap();
        g.add_output("value", value);
        g.add_output("gradient", gradient);
        verify::verify(&g).unwrap();
        let tensor = |dtype, dims: &[usize], name: &str| Tensor::from_f64(dtype, dims, &case.lines[name]);
        let inputs = [tensor(DType::F32, dims, "x"), tensor(target.dtype, &target.dims().unwrap(), "t")];
        let results = evaluate(&g, &inputs, Precision::F64).unwrap();
        close(&results[0].to_f64(), &case.lines["value"], &format!("{}: value", case.name));
        close(&results[1].to_f64(), &case.lines["gradient"], &format!("{}: gradient", case.name));
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[test]
fn losses_refuse_what_does_not_fit() {
    let refuse =
        |loss: Loss, dims: &[usize]| loss.target(&TensorType::fixed(DType::F32, dims)).unwrap_err().to_string();
    assert_eq!(
        refuse(Loss::CROSS_ENTROPY, &[3]),
        "the loss does not fit: it needs a prediction [batch, classes, ..], and the prediction is f32[3]"
    );
    let weighted = Loss::CrossEntropy { label_smoothing: 0.0, weights: Some(vec![1.0; 3]), ignore_index: None };
    assert_eq!(
        refuse(weighted, &[2, 4]),
        "the loss does not fit: there are 3 class weights, and the prediction is f32[2,4]"
    );
    let positive = Loss::BinaryCrossEntropy { positive_weights: Some(vec![1.0; 3]) };
    assert!(refuse(positive, &[2, 4]).contains("3 positive weights"));
    let integers = Loss::Mse.target(&TensorType::fixed(DType::I64, &[2])).unwrap_err().to_string();
    assert!(integers.contains("numbers of type f32 or f64"), "{integers}");
}

// ---- optimizers ---------------------------------------------------------------------------------------------------------

const DIMS: [(&str, &[usize]); 4] =
    [("fc1.weight", &[5, 4]), ("fc1.bias", &[5]), ("fc2.weight", &[3, 5]), ("fc2.bias", &[3])];

/// The model of `training_cases.py` with its weights, for batches of so many samples.
fn model(start: &Case, batch: usize) -> Graph {
    let mut g = Graph::new("model");
    let mut v = g.add_input("x", TensorType::fixed(DType::F32, &[batch, 4]));
    for (layer, name) in [(0, "fc1"), (2, "fc2")] {
        let [w, b] = [layer, layer + 1].map(|i| {
            let (name, dims) = DIMS[i];
            g.add_constant(name, Constant::from_tensor(&Tensor::from_f64(DType::F32, dims, &start.lines[name])))
        });
        let gemm = nncc_ir::ops::matmul::Gemm { trans_a: false, trans_b: true, alpha: 1.0, beta: 1.0 };
        v = g.add1(gemm, &[v, w, b], nncc_ir::Origin::named(name), name).unwrap();
        if layer == 0 {
            let tanh = nncc_ir::ops::elementwise::Unary { function: nncc_ir::pointwise::UnaryFn::Tanh };
            v = g.add1(tanh, &[v], nncc_ir::Origin::named("tanh"), "tanh").unwrap();
        }
    }
    g.add_output("logits", v);
    g
}

/// A step's graph with its states, run by the reference evaluator.
struct Session {
    graph: TrainingGraph,
    states: Vec<Tensor>,
    precision: Precision,
    step: i64,
}

impl Session {
    fn new(graph: TrainingGraph, precision: Precision) -> Session {
        verify::verify(&graph.step).unwrap();
        let states = graph.states.iter().map(|s| s.initial.to_tensor()).collect();
        Session { graph, states, precision, step: 0 }
    }

    /// One step; the loss before it.
    fn step(&mut self, data: &[Tensor], rate: f64) -> f64 {
        self.share_of_step(data, rate, 1.0)
    }

    /// A step whose gradients are `share` of those of the update, behind gather steps with the rest.
    fn share_of_step(&mut self, data: &[Tensor], rate: f64, share: f64) -> f64 {
        let outputs = evaluate(&self.graph.step, &self.inputs(data, rate, share), self.precision).unwrap();
        self.step += 1;
        let next: Vec<(usize, usize)> = self.graph.states.iter().map(|s| s.output).enumerate().collect();
        self.take(&next, &outputs);
        outputs[self.graph.loss].to_f64()[0]
    }

    /// A step that only adds to the gradients.
    fn gather(&mut self, data: &[Tensor], share: f64) -> f64 {
        let gather = self.graph.gather.clone().expect("the step accumulates");
        verify::verify(&gather.graph).unwrap();
        let inputs = self.inputs(data, 0.0, share);
        let states = self.states.len() - gather.reads;
        let outputs = evaluate(&gather.graph, &inputs[..inputs.len() - states], self.precision).unwrap();
        self.take(&gather.writes, &outputs);
        outputs[self.graph.loss].to_f64()[0]
    }

    fn inputs(&self, data: &[Tensor], rate: f64, share: f64) -> Vec<Tensor> {
        let scalar = |x: f64| Tensor::f32(&[], vec![x as f32]);
        let clock = Tensor::i64(&[2], vec![7, self.step]);
        let share = self.graph.gather.as_ref().map(|_| scalar(share));
        let between = share.into_iter().chain([scalar(rate), clock]);
        data.iter().cloned().chain(between).chain(self.states.iter().cloned()).collect()
    }

    /// The next values of states, each from its output.
    fn take(&mut self, next: &[(usize, usize)], outputs: &[Tensor]) {
        for &(i, output) in next {
            let (state, value) = (&self.graph.states[i], &mut self.states[i]);
            // States are f32 between steps whatever the precision, as a compiled step keeps them.
            let new = &outputs[output];
            assert_eq!(new.dims(), value.dims(), "{}", state.name);
            *value = Tensor::from_f64(DType::F32, new.dims(), &new.to_f64());
        }
    }

    /// What the model `forward`, whose step this is, gives with the states as they are.
    fn evaluate(&self, forward: &Graph, options: &TrainingOptions, data: &[Tensor]) -> (Tensor, f64) {
        let evaluation = evaluation_of_states(forward, options).unwrap();
        verify::verify(&evaluation.graph).unwrap();
        let states = self.graph.states.iter().zip(&self.states).filter(|(s, _)| s.is_of_model());
        let inputs: Vec<Tensor> = data.iter().cloned().chain(states.map(|(_, t)| t.clone())).collect();
        let outputs = evaluate(&evaluation.graph, &inputs, self.precision).unwrap();
        (outputs[0].clone(), outputs[evaluation.loss].to_f64()[0])
    }

    fn state(&self, name: &str) -> Vec<f64> {
        let at = self.graph.states.iter().position(|s| s.name == name);
        self.states[at.unwrap_or_else(|| panic!("no state is called {name}"))].to_f64()
    }
}

/// The optimizer of a case, its learning rate and what is special.
fn options_named(name: &str) -> (TrainingOptions, f64) {
    let named = |name: &str| Optimizer::named(name).unwrap();
    let betas = (0.9, 0.999);
    let (optimizer, rate, weight_decay) = match name {
        "sgd" | "clip_norm" | "clip_value" | "average" | "penalties" => (named("sgd"), 0.5, 0.0),
        "sgd_decay" => (named("sgd"), 0.5, 0.125),
        "momentum" => (named("momentum"), 0.5, 0.0),
        "momentum_dampened" => (Optimizer::Sgd { momentum: 0.9, dampening: 0.5, nesterov: false }, 0.5, 0.0),
        "nesterov" => (named("nesterov"), 0.5, 0.125),
        "adagrad" => (named("adagrad"), 0.25, 0.0),
        "adagrad_decay" => {
            (Optimizer::Adagrad { lr_decay: 0.5, initial_accumulator_value: 0.125, eps: 1e-10 }, 0.25, 0.125)
        }
        "rmsprop" => (named("rmsprop"), 0.0625, 0.0),
        "rmsprop_centered" => {
            (Optimizer::RmsProp { alpha: 0.75, eps: 1e-8, momentum: 0.5, centered: true }, 0.0625, 0.0)
        }
        "adadelta" => (named("adadelta"), 1.0, 0.125),
        "adam" => (named("adam"), 0.125, 0.125),
        "adam_amsgrad" => (Optimizer::Adam { betas: (0.5, 0.75), eps: 1e-8, amsgrad: true }, 0.125, 0.0),
        "adamw" => (Optimizer::AdamW { betas, eps: 1e-8, amsgrad: false }, 0.125, 0.125),
        "groups" => (named("adamw"), 0.125, 0.125),
        "adamax" => (named("adamax"), 0.125, 0.0),
        "nadam" => (named("nadam"), 0.125, 0.125),
        "lbfgs" => (Optimizer::Lbfgs { history_size: 3 }, 0.5, 0.0),
        other => panic!("no optimizer is called {other}"),
    };
    let mut options = TrainingOptions { weight_decay, ..TrainingOptions::new(Loss::CROSS_ENTROPY, optimizer) };
    match name {
        "clip_norm" => options.clip = Clip { norm: Some(0.25), value: None },
        "clip_value" => options.clip = Clip { norm: None, value: Some(0.03125) },
        "average" => options.average = Some(0.75),
        "penalties" => (options.l1, options.l2) = (0.0625, 0.03125),
        "groups" => {
            let plain = Group { pattern: NamePattern::default(), rate: 1.0, weight_decay: None, frozen: false };
            options.groups = vec![
                Group { pattern: NamePattern::new("fc1.bias"), frozen: true, ..plain.clone() },
                Group { pattern: NamePattern::new("fc1.*"), rate: 0.5, ..plain.clone() },
                Group { pattern: NamePattern::new("*.bias"), weight_decay: Some(0.0), ..plain },
            ];
        }
        _ => {}
    }
    (options, rate)
}

#[test]
fn optimizers_are_pytorchs_over_several_steps() {
    let cases = cases();
    let start = cases.iter().find(|c| c.kind == "model").unwrap();
    let x = &start.lines["x"];
    let target = Tensor::from_f64(DType::I64, &[6], &start.lines["t"]);
    let mut seen = 0;
    for case in cases.iter().filter(|c| c.kind == "optimizer") {
        let (options, rate) = options_named(&case.name);
        let graph = training_step(&model(start, 6), &options).unwrap();
        let mut session = Session::new(graph, Precision::F64);
        let mut losses = Vec::new();
        for k in 0..case.lines["losses"].len() {
            let x: Vec<f64> = x.iter().map(|x| x * (1.0 + k as f64 / 10.0)).collect();
            losses.push(session.step(&[Tensor::from_f64(DType::F32, &[6, 4], &x), target.clone()], rate));
        }
        close(&losses, &case.lines["losses"], &format!("{}: losses", case.name));
        for (name, expected) in case.lines.iter().filter(|(name, _)| *name != "losses") {
            if options.groups.first().is_some_and(|g| g.pattern.fits(name)) {
                assert_eq!(*expected, start.lines[name], "{name} is frozen");
                continue;
            }
            close(&session.state(name), expected, &format!("{}: {name}", case.name));
        }
        seen += 1;
    }
    assert_eq!(seen, 21);
}

/// Batches of two, one and three samples, each with its share, are the batch of six that PyTorch recorded: with clipping by
/// the norm of the sums and with moments that are kept from step to step.
#[test]
fn accumulated_gradients_are_those_of_one_batch() {
    let cases = cases();
    let start = cases.iter().find(|c| c.kind == "model").unwrap();
    for name in ["clip_norm", "adamw", "penalties", "average", "lbfgs"] {
        let case = cases.iter().find(|c| c.kind == "optimizer" && c.name == name).unwrap();
        let (options, rate) = options_named(name);
        let options = TrainingOptions { accumulate: true, ..options };
        // One graph for each size; the states are the same, which is what a session takes over.
        let mut sessions: Vec<Session> = [2, 1, 3]
            .map(|n| Session::new(training_step(&model(start, n), &options).unwrap(), Precision::F64))
            .into_iter()
            .collect();
        let mut losses = Vec::new();
        for k in 0..case.lines["losses"].len() {
            let (mut at, mut loss) = (0, 0.0);
            for s in 0..3 {
                let n = [2, 1, 3][s];
                let x: Vec<f64> =
                    start.lines["x"][4 * at..4 * (at + n)].iter().map(|x| x * (1.0 + k as f64 / 10.0)).collect();
                let data = [
                    Tensor::from_f64(DType::F32, &[n, 4], &x),
                    Tensor::from_f64(DType::I64, &[n], &start.lines["t"][at..at + n]),
                ];
                let share = n as f64 / 6.0;
                let session = &mut sessions[s];
                loss += share
                    * if s == 2 { session.share_of_step(&data, rate, share) } else { session.gather(&data, share) };
                let (states, step) = (session.states.clone(), session.step);
                let next = &mut sessions[(s + 1) % 3];
                (next.states, next.step) = (states, step);
                at += n;
            }
            losses.push(loss);
        }
        close(&losses, &case.lines["losses"], &format!("{name}: losses"));
        for (state, expected) in case.lines.iter().filter(|(state, _)| *state != "losses") {
            close(&sessions[0].state(state), expected, &format!("{name}: {state}"));
        }
    }
}

// ---- the step -----------------------------------------------------------------------------------------------------------

/// A convolution, a batch normalization, a dropout and a dense layer, as an importer gives them for training.
const CNN: &str = "graph cnn(%x: f32[8,1,6,6]) {
  @conv.weight: f32[4,1,3,3] = seed(3)
  @bn.weight: f32[4] = {1.0, 1.0, 1.0, 1.0}
  @bn.bias: f32[4] = {0.0, 0.0, 0.0, 0.0}
  @bn.running_mean: f32[4] = {0.0, 0.0, 0.0, 0.0}
  @bn.running_var: f32[4] = {1.0, 1.0, 1.0, 1.0}
  @random: i64[2] = {0, 0}
  @fc.weight: f32[2,64] = seed(4)
  @fc.bias: f32[2] = {0.0, 0.0}
  %c = conv %x, @conv.weight, strides=[1,1], dilations=[1,1], pads=[0,0,0,0], group=1
  %n = batch_norm %c, @bn.weight, @bn.bias, @bn.running_mean, @bn.running_var, epsilon=1e-5
  %r = relu %n
  %d = dropout %r, @random, ratio=0.25, whole_channels=false, stream=0
  %f = reshape %d, shape=[8,64]
  %y = gemm %f, @fc.weight, @fc.bias, trans_a=false, trans_b=true, alpha=1.0, beta=1.0
  return %y
}";

/// Pictures whose upper (class 0) or lower half (class 1) is brighter.
fn halves() -> [Tensor; 2] {
    let noise = nncc_ir::random::tensor(DType::F32, &[8, 1, 6, 6], 5).to_f64();
    let bright = |i: usize| (i / 18 % 2) == (i / 36 % 2);
    let x: Vec<f64> = noise.iter().enumerate().map(|(i, n)| n * 0.5 + f64::from(u8::from(bright(i)))).collect();
    [Tensor::from_f64(DType::F32, &[8, 1, 6, 6], &x), Tensor::i64(&[8], vec![0, 1, 0, 1, 0, 1, 0, 1])]
}

#[test]
fn a_small_network_learns() {
    for (name, rate) in [("nesterov", 0.05), ("adamw", 0.02)] {
        let g = parse::graph(CNN).unwrap();
        let options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named(name).unwrap());
        let mut session = Session::new(training_step(&g, &options).unwrap(), Precision::Native);
        let data = halves();
        let first = session.step(&data, rate);
        for _ in 0..40 {
            session.step(&data, rate);
        }
        let (logits, loss) = session.evaluate(&g, &options, &data);
        assert!(loss < 0.05 && loss < first / 5.0, "{name}: {first} becomes {loss}");
        let right = logits.to_f64().chunks(2).zip(data[1].to_i64()).all(|(y, t)| (y[1] > y[0]) == (t == 1));
        assert!(right, "{name}");
    }
}

/// What is measured and what infers have the mean slope; what learns draws, forward and backward from one stream.
#[test]
fn random_slopes_are_drawn_by_the_step_alone() {
    let g = parse::graph(&CNN.replace("relu %n", "rrelu %n, lower=0.125, upper=0.5, stream=1")).unwrap();
    let options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("nesterov").unwrap());
    let graph = training_step(&g, &options).unwrap();
    let named = |g: &Graph, name: &str| -> Vec<String> {
        g.node_ids().filter(|n| g.op(*n).name() == name).map(|n| format!("{:?}", g.op(n))).collect()
    };
    let drawn = named(&graph.step, "rrelu");
    assert!(drawn.len() == 2 && drawn[0] == drawn[1], "{drawn:?}");
    for g in [evaluation_of_states(&g, &options).unwrap().graph, inference(&g, &options).unwrap()] {
        assert_eq!(named(&g, "rrelu"), [""; 0]);
        assert_eq!(named(&g, "leaky_relu"), ["LeakyRelu(LeakyRelu { alpha: 0.3125 })"]);
    }
    let mut session = Session::new(graph, Precision::Native);
    let data = halves();
    let first = session.step(&data, 0.05);
    for _ in 0..40 {
        session.step(&data, 0.05);
    }
    let loss = session.evaluate(&g, &options, &data).1;
    assert!(loss < 0.05 && loss < first / 5.0, "{first} becomes {loss}");
}

#[test]
fn states_are_named_and_statistics_move() {
    let g = parse::graph(CNN).unwrap();
    let options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("momentum").unwrap());
    let graph = training_step(&g, &options).unwrap();
    let of = |kind| graph.states.iter().filter(|s| s.kind == kind).map(|s| s.name.as_str()).collect::<Vec<_>>();
    assert_eq!(of(StateKind::Parameter), ["conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias"]);
    assert_eq!(of(StateKind::Statistic), ["bn.running_mean", "bn.running_var"]);
    assert_eq!(of(StateKind::Moment).len(), 5);
    for s in &graph.states {
        let input = graph.step.inputs()[s.input];
        assert_eq!(&*graph.step.node(input).outputs()[0].name, s.name);
        assert_eq!(&*graph.step.outputs()[s.output].0, format!("next/{}", s.name));
    }
    // One step: 0.9 of the old statistics, 0.1 of those of the convolution's results, the variance unbiased.
    let mut session = Session::new(graph, Precision::F64);
    let data = halves();
    session.step(&data, 0.1);
    let mut inner = parse::graph(CNN).unwrap();
    let conv = inner.node_ids().find(|n| inner.op(*n).name() == "conv").unwrap();
    inner.add_output("c", inner.results(conv).next().unwrap());
    let c = evaluate(&inner, &data[..1], Precision::F64).unwrap().remove(1).to_f64();
    let channel = |i: usize| c.iter().enumerate().filter(move |(k, _)| k / 16 % 4 == i).map(|(_, x)| *x);
    for i in 0..4 {
        let n = channel(i).count() as f64;
        let mean = channel(i).sum::<f64>() / n;
        let var = channel(i).map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!((session.state("bn.running_mean")[i] - 0.1 * mean).abs() < 1e-6);
        assert!((session.state("bn.running_var")[i] - (0.9 + 0.1 * var)).abs() < 1e-6);
    }
}

#[test]
fn frozen_layers_keep_their_statistics() {
    let g = parse::graph(CNN).unwrap();
    let mut options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("sgd").unwrap());
    let pattern = NamePattern::new("conv.*,bn.*");
    options.groups = vec![Group { pattern, rate: 1.0, weight_decay: None, frozen: true }];
    let graph = training_step(&g, &options).unwrap();
    assert_eq!(graph.states.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["fc.weight", "fc.bias"]);
    let ops: Vec<&str> = graph.step.node_ids().map(|n| graph.step.op(n).name()).collect();
    assert!(ops.contains(&"batch_norm") && !ops.contains(&"batch_norm_training"));
    let evaluation = evaluation_of_states(&g, &options).unwrap().graph;
    assert!(evaluation.node_ids().all(|n| evaluation.op(n).name() != "dropout"));
}

#[test]
fn a_softmax_in_front_of_its_loss_is_taken_away() {
    let with = |tail: &str| {
        let text =
            format!("graph m(%x: f32[4,3]) {{\n @w: f32[3,2] = seed(1)\n %a = matmul %x, @w\n {tail}\n return %y\n}}");
        training_step(
            &parse::graph(&text).unwrap(),
            &TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("sgd").unwrap()),
        )
        .unwrap()
    };
    let data = [nncc_ir::random::tensor(DType::F32, &[4, 3], 9), Tensor::i64(&[4], vec![0, 1, 1, 0])];
    let (plain, softmax) = (with("%y = identity %a"), with("%y = softmax %a, axis=1"));
    assert!(plain.notes.is_empty());
    assert_eq!(softmax.notes, ["the loss has the softmax of \"y\" inside: it is computed of that operator's operand"]);
    let losses = [plain, softmax].map(|g| Session::new(g, Precision::F64).step(&data, 0.1));
    assert!((losses[0] - losses[1]).abs() < 1e-12, "{losses:?}");
}

#[test]
fn what_cannot_be_trained_is_said() {
    let options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("sgd").unwrap());
    let refuse = |text: &str, options: &TrainingOptions| {
        training_step(&parse::graph(text).unwrap(), options).unwrap_err().to_string()
    };
    let nothing = "graph m(%x: f32[2,3]) {\n %y = relu %x\n return %y\n}";
    assert_eq!(
        refuse(nothing, &options),
        "the model has nothing to learn: no weight of it is a constant that an operator learns by"
    );
    let mut frozen = options.clone();
    frozen.groups = vec![Group { pattern: NamePattern::new("*"), rate: 1.0, weight_decay: None, frozen: true }];
    assert_eq!(refuse(CNN, &frozen), "the model has nothing to learn: every parameter is frozen");
    let one = "graph m(%x: f32[1,3]) {\n @s: f32[3] = seed(1)\n @v: f32[3] = {1.0, 1.0, 1.0}\n \
               %y = batch_norm %x, @s, @s, @v, @v, epsilon=1e-5\n return %y\n}";
    assert_eq!(
        refuse(one, &options),
        "node \"y\" normalises over one number a channel, which has no variance: use a larger batch"
    );
    // It can be measured: of picture, target, weight and statistic.
    let measured = evaluation_of_states(&parse::graph(one).unwrap(), &options).unwrap();
    assert_eq!((measured.graph.inputs().len(), measured.target, measured.loss), (4, 1, 1));
    let bad = TrainingOptions { average: Some(1.5), ..options.clone() };
    assert_eq!(refuse(CNN, &bad), "the moving average's share is 1.5, not in 0..=1");
    let dampened = Optimizer::Sgd { momentum: 0.9, dampening: 0.1, nesterov: true };
    let bad = TrainingOptions { optimizer: dampened, ..options };
    assert_eq!(
        training_step(&parse::graph(CNN).unwrap(), &bad).unwrap_err(),
        TrainingError::Option("Nesterov's method needs a momentum and no dampening".into())
    );
}

/// One step of plain descent moves a parameter by its gradient, whose norm is what is watched.
#[test]
fn norms_of_gradients_are_watched() {
    let mut options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("sgd").unwrap());
    (options.watch, options.clip.value) = (true, Some(1e9));
    let graph = training_step(&parse::graph(CNN).unwrap(), &options).unwrap();
    assert_eq!(graph.watched, ["conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias"]);
    let (loss, first) = (graph.loss, graph.states[0].output);
    assert_eq!((&*graph.step.outputs()[loss + 1].0, first), ("gradient_norms", loss + 2));
    let mut session = Session::new(graph.clone(), Precision::F64);
    let before = session.states.clone();
    let rate = Tensor::f32(&[], vec![1.0]);
    let inputs: Vec<Tensor> =
        halves().into_iter().chain([rate, Tensor::i64(&[2], vec![7, 0])]).chain(before.iter().cloned()).collect();
    let norms = evaluate(&graph.step, &inputs, Precision::F64).unwrap()[loss + 1].to_f64();
    session.step(&halves(), 1.0);
    for (name, norm) in graph.watched.iter().zip(norms) {
        let i = graph.states.iter().position(|s| s.name == *name).unwrap();
        let moved = before[i].to_f64().into_iter().zip(session.state(name)).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        assert!((moved.sqrt() - norm).abs() < 1e-5 * norm.max(0.01), "{name}: {} for {norm}", moved.sqrt());
    }
}

/// Masks and what preprocesses the input are no weights, a bias behind a product is one.
#[test]
fn weights_are_told_from_other_constants() {
    let text = "graph m(%x: f32[2,3]) {\n @mean: f32[3] = {0.5, 0.4, 0.3}\n @w: f32[3,2] = seed(1)\n @b: f32[2] = seed(2)\n \
                @mask: f32[2] = {0.0, -1e9}\n @half: f32[] = {0.5}\n %c = sub %x, @mean\n %p = matmul %c, @w\n \
                %q = add %p, @b\n %h = mul %q, @half\n %y = add %h, @mask\n return %y\n}";
    let options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("sgd").unwrap());
    let graph = training_step(&parse::graph(text).unwrap(), &options).unwrap();
    assert_eq!(graph.states.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["w", "b"]);
}
