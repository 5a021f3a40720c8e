//! Operators that are not supported, grouped by the reason: with the supported ones, all that ONNX has. (`If` with a constant condition is inlined by the importer.)

/// (reason, operators)
pub(super) const REASONS: &[(&str, &[&str])] = &[
    ("control flow at run time is not supported", &["Loop", "Scan", "SequenceMap"]),
    ("recurrent operators are not supported", &["LSTM", "GRU", "RNN"]),
    (
        "the shape of its result depends on its operands' numbers",
        &["Unique", "NonMaxSuppression", "ImageDecoder", "TfIdfVectorizer"],
    ),
    (
        "sequences and optional values are not supported",
        &[
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SplitToSequence",
        ],
    ),
    ("strings are not supported", &["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"]),
    (
        "random numbers are not supported",
        &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"],
    ),
    (
        "quantized operators are not supported",
        &[
            "ConvInteger",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "MatMulInteger",
            "QLinearConv",
            "QLinearMatMul",
            "QuantizeLinear",
        ],
    ),
    (
        "not supported yet",
        &[
            "BitCast",
            "Col2Im",
            "DFT",
            "DeformConv",
            "Det",
            "GridSample",
            "LinearAttention",
            "MaxRoiPool",
            "MaxUnpool",
            "MelWeightMatrix",
            "RoiAlign",
            "STFT",
        ],
    ),
];
