//! Every architecture imports, its parameters are as many as the published ones, and small inputs are refused by name.

use nncc_frontend::{ImportOptions, Model};
use nncc_ir::{Graph, Op};
use nncc_zoo::{Options, ZooError, build, names};

fn import(name: &str, options: &Options) -> Graph {
    let bytes = build(name, options).unwrap().to_bytes(name).unwrap();
    let mut import = ImportOptions::default();
    import.dims.insert("N".into(), 2);
    Model::from_bytes(&bytes, name, None).unwrap().import(&import).unwrap().graph
}

/// Elements of the constants that training changes: not the running statistics, nor what shapes and bounds are made of.
fn parameters(g: &Graph) -> usize {
    let counts = |n| match g.op(n) {
        Op::Constant(c) => {
            let name = &g.node(n).outputs()[0].name;
            let counted = name.ends_with(".weight") || name.ends_with(".bias");
            if counted { c.elems() } else { 0 }
        }
        _ => 0,
    };
    g.node_ids().map(counts).sum()
}

fn options(classes: usize, input: [usize; 3]) -> Options {
    Options { classes, input, seed: 1, init: Vec::new() }
}

/// torchvision's counts, and timm's of seresnet50; for small pictures those of He et al. with shortcuts without weights
/// (0.27 and 0.66 million), exact by the layers' sizes.
#[test]
fn parameter_counts_are_the_published_ones() {
    let image = |name, count| (name, options(1000, [3, 224, 224]), count);
    let small = |name, count| (name, options(10, [3, 32, 32]), count);
    let cases = [
        ("lenet5", options(10, [1, 28, 28]), 61_706),
        ("mlp", options(10, [1, 28, 28]), 235_146),
        image("alexnet", 61_100_840),
        image("googlenet", 6_624_904),
        image("resnet18", 11_689_512),
        image("resnet50", 25_557_032),
        image("seresnet50", 28_088_024),
        image("densenet121", 7_978_856),
        image("mobilenet_v2", 3_504_872),
        image("squeezenet", 1_235_496),
        small("resnet20", 269_722),
        small("plain20", 269_722),
        small("resnet44", 658_586),
        small("plain44", 658_586),
        small("spp", 268_074),
    ];
    for (name, options, count) in cases {
        assert_eq!(parameters(&import(name, &options)), count, "{name}");
    }
}

/// VGG-16 apart: half a gigabyte of weights for its published 138 357 544 parameters. With pictures of 32x32 its first
/// dense layer sees 1x1 instead of 7x7: 4096 * 512 * 48 weights less.
#[test]
fn vgg16_has_its_parameters() {
    let g = import("vgg16", &options(1000, [3, 32, 32]));
    assert_eq!(parameters(&g) + 4096 * 512 * 48, 138_357_544);
}

#[test]
fn every_architecture_takes_odd_sizes() {
    for name in names().filter(|n| !["alexnet", "vgg16"].contains(n)) {
        let side = if name == "lenet5" || name == "mlp" { 29 } else { 75 };
        let g = import(name, &options(3, [2, side, side + 6]));
        let (_, logits) = &g.outputs()[0];
        assert_eq!(g.ty(*logits).dims(), Some(vec![2, 3]), "{name}");
    }
}

/// The digits of scikit-learn, 8x8: two pools leave 2x2.
#[test]
fn a_pyramid_leaves_out_what_is_finer_than_the_plane() {
    for (side, features) in [(4, 1), (8, 1 + 4), (16, 1 + 4 + 16), (32, 1 + 4 + 16)] {
        let g = import("spp", &options(10, [1, side, side]));
        let convolutions = 9 * (32 + 32 * 64 + 64 * 128 + 128 * 128) + 2 * (32 + 64 + 128 + 128);
        assert_eq!(parameters(&g), convolutions + (128 * features + 1) * 10, "{side}x{side}");
    }
}

#[test]
fn equal_seeds_give_equal_files() {
    let bytes = |seed| build("lenet5", &Options { seed, ..options(10, [1, 28, 28]) }).unwrap().to_bytes("").unwrap();
    assert_eq!(bytes(3), bytes(3));
    assert_ne!(bytes(3), bytes(4));
}

#[test]
fn rules_change_how_weights_begin() {
    let init = vec!["*.weight=constant:0.5".parse().unwrap()];
    let g = import("lenet5", &Options { init, ..options(10, [1, 28, 28]) });
    let values = |name: &str| {
        let found = g.node_ids().find(|&n| &*g.node(n).outputs()[0].name == name).unwrap();
        let Op::Constant(c) = g.op(found) else { panic!("{name} is no constant") };
        c.to_tensor().to_f64()
    };
    assert!(values("conv2.weight").iter().all(|&x| x == 0.5));
    assert!(values("conv2.bias").iter().any(|&x| x != 0.5));
}

#[test]
fn what_cannot_be_built_is_named() {
    let error = |name, o: &Options| build(name, o).err().unwrap().to_string();
    assert_eq!(
        error("alexnet", &options(10, [3, 32, 32])),
        "alexnet cannot take 3x32x32: features.12 would see 1x1, less than its 3x3 window"
    );
    assert!(
        error("lenet", &options(10, [1, 28, 28])).starts_with("no architecture is called `lenet`; there are mlp, len")
    );
    assert_eq!(error("mlp", &options(0, [1, 28, 28])), "classes is 0, not between 1 and 16777216");
    assert_eq!(
        error("mlp", &options(1, [3, usize::MAX, 1])),
        format!("height is {}, not between 1 and 16777216", usize::MAX)
    );
    let large = build("mlp", &options(10, [1 << 24, 1, 1])).err();
    assert_eq!(large, Some(ZooError::Large { arch: "mlp", weight: "fc1.weight".into() }));
}
