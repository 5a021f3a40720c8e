//! Architectures to train from nothing: each becomes an ONNX model, forward only, with initialised weights.
//!
//! | file | architectures |
//! |---|---|
//! | [`layers`] | the building blocks that they share, and the shapes that flow through them |
//! | `classic` | mlp, lenet5, alexnet, vgg16 |
//! | `resnet` | resnet18, resnet50, seresnet50; resnet20, resnet44, plain20, plain44 for 32x32 pictures |
//! | `googlenet`, `densenet`, `mobilenet`, `squeezenet` | googlenet, densenet121, mobilenet_v2, squeezenet |
//! | `spp` | spp: spatial-pyramid pooling |
//!
//! ```no_run
//! let options = nncc_zoo::Options { classes: 10, input: [3, 32, 32], seed: 1, init: vec![] };
//! nncc_zoo::build("resnet20", &options)?.write("resnet20.onnx".as_ref())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Layers, names of weights and their initial distributions are those of torchvision where it has the architecture (its
//! `state_dict` fits), so that parameter counts agree with the published ones. Batch normalizations and dropouts stay
//! nodes of the model. The result of each is the logits: the loss has the softmax in it.
//!
//! Invariants of absence: nothing here knows of the compiler.

#![forbid(unsafe_code)]

mod classic;
mod densenet;
mod googlenet;
pub mod layers;
mod mobilenet;
mod resnet;
mod spp;
mod squeezenet;

use layers::{Net, Tap};
use nncc_frontend::author::Author;
use nncc_ir::init::{InitError, InitRule};

/// What a network is built for.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How many classes it tells apart.
    pub classes: usize,
    /// Channels, height and width of its input.
    pub input: [usize; 3],
    /// The seed of its weights.
    pub seed: u64,
    /// How weights begin that are to begin otherwise than the architecture says; the first rule that fits counts.
    pub init: Vec<InitRule>,
}

/// Classes, channels, rows or columns at most.
const MOST: usize = 1 << 24;

/// Why a network cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZooError {
    /// No architecture of that name.
    #[error("no architecture is called `{0}`; there are {names}", names = names().collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// The input does not last to the end of the network.
    #[error("{arch} cannot take {input}: {layer} would see {height}x{width}, less than its {window}x{window} window")]
    Small {
        /// The architecture.
        arch: &'static str,
        /// The input, as `CxHxW`.
        input: String,
        /// The layer that has nothing left to see.
        layer: String,
        /// Rows that it would see, padding included.
        height: usize,
        /// Columns.
        width: usize,
        /// What it needs.
        window: usize,
    },
    /// No class, channel, row or column, or more than any network has.
    #[error("{what} is {given}, not between 1 and {MOST}")]
    Size {
        /// Of what.
        what: &'static str,
        /// How many are wanted.
        given: usize,
    },
    /// A rule that does not fit a weight of exactly its name.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A weight that could not be held in memory.
    #[error("{arch}: the weight `{weight}` would have more elements than an ONNX file can hold")]
    Large {
        /// The architecture.
        arch: &'static str,
        /// The weight.
        weight: String,
    },
}

/// An architecture: its name, one line about it, and how it is built.
pub struct Architecture {
    /// As `nncc new` spells it.
    pub name: &'static str,
    /// What it is, and its source.
    pub about: &'static str,
    forward: fn(&mut Net, Tap) -> Result<Tap, ZooError>,
}

const fn arch(
    name: &'static str,
    about: &'static str,
    forward: fn(&mut Net, Tap) -> Result<Tap, ZooError>,
) -> Architecture {
    Architecture { name, about, forward }
}

/// Every architecture.
pub const ARCHITECTURES: &[Architecture] = &[
    arch("mlp", "two hidden layers of 256 and 128 units", classic::mlp),
    arch("lenet5", "LeCun et al. 1998, with ReLU and max pooling", classic::lenet5),
    arch("alexnet", "Krizhevsky 2014 (one tower)", classic::alexnet),
    arch("vgg16", "Simonyan and Zisserman 2014, configuration D", classic::vgg16),
    arch("googlenet", "Szegedy et al. 2014, with batch normalization, without auxiliary heads", googlenet::googlenet),
    arch("resnet18", "He et al. 2015", resnet::resnet18),
    arch("resnet50", "He et al. 2015, stride in the 3x3 convolution", resnet::resnet50),
    arch("seresnet50", "Hu et al. 2017: squeeze and excitation", resnet::seresnet50),
    arch("densenet121", "Huang et al. 2016", densenet::densenet121),
    arch("mobilenet_v2", "Sandler et al. 2018", mobilenet::mobilenet_v2),
    arch("squeezenet", "Iandola et al. 2016, version 1.1", squeezenet::squeezenet),
    arch("resnet20", "He et al. 2015 for small pictures, shortcuts without weights", resnet::resnet20),
    arch("resnet44", "the same, 44 layers", resnet::resnet44),
    arch("plain20", "resnet20 without shortcuts", resnet::plain20),
    arch("plain44", "resnet44 without shortcuts", resnet::plain44),
    arch("spp", "four convolutions and spatial-pyramid pooling, He et al. 2014", spp::spp),
];

/// The names of all architectures.
pub fn names() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|a| a.name)
}

/// Builds an architecture.
pub fn build(name: &str, options: &Options) -> Result<Author, ZooError> {
    let arch = ARCHITECTURES.iter().find(|a| a.name == name).ok_or_else(|| ZooError::Unknown(name.to_string()))?;
    let [channels, height, width] = options.input;
    let sizes = [("classes", options.classes), ("channels", channels), ("height", height), ("width", width)];
    for (what, given) in sizes {
        if !(1..=MOST).contains(&given) {
            return Err(ZooError::Size { what, given });
        }
    }
    let (mut net, input) = Net::new(arch.name, options);
    let logits = (arch.forward)(&mut net, input)?;
    Ok(net.finish(&logits))
}
