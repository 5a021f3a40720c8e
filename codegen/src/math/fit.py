"""Prints coefficients.rs: near-minimax polynomials for the functions of this folder. Needs mpmath.

    python fit.py > coefficients.rs

Each polynomial interpolates its function at the Chebyshev nodes of the interval, in 110 digits, which is within a small factor
of the minimax error (Trefethen, Approximation Theory and Approximation Practice, 2013, chapter 16); it is then expanded
around `center` and rounded once to the working precision. The largest relative error of the exact polynomial stands in
each comment; the rounding of the evaluation comes on top and is what the tests measure.
"""
import struct

from mpmath import mp, mpf, cos, pi, exp, log, erf, erfc, sqrt, sin, tan, asin, atan, polyval, floor

mp.dps = 110


def interpolate(f, lo, hi, degree, center=mpf(0)):
    """Coefficients, constant first, in (x - center)."""
    n = degree + 1
    half, mid = (hi - lo) / 2, (hi + lo) / 2
    nodes = [mid + half * cos(pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    table = [f(x) for x in nodes]
    for level in range(1, n):  # Newton's divided differences
        for i in range(n - 1, level - 1, -1):
            table[i] = (table[i] - table[i - 1]) / (nodes[i] - nodes[i - level])
    coefficients = [mpf(0)] * n
    for i in range(n - 1, -1, -1):  # Horner on (x - node), as polynomials in (x - center)
        shift = nodes[i] - center
        coefficients = [a - shift * b for a, b in zip([mpf(0)] + coefficients[:-1], coefficients)]
        coefficients[0] += table[i]
    return coefficients


def error(f, coefficients, lo, hi, center):
    worst = mpf(0)
    for i in range(201):
        x = lo + (hi - lo) * i / 200
        y = f(x)
        worst = max(worst, abs((polyval(coefficients[::-1], x - center) - y) / y))
    return worst


def show(name, doc, f, lo, hi, degree, kind, center=mpf(0), minus=0):
    lo, hi, center = mpf(lo), mpf(hi), mpf(center)
    coefficients = interpolate(f, lo, hi, degree, center)
    bound = mp.nstr(error(f, coefficients, lo, hi, center), 2)
    print(f"\n/// {doc} Relative error {bound}.")
    print("#[rustfmt::skip]")
    print(f"pub(super) const {name}: [f64; {degree + 1}] = [")
    coefficients[0] -= minus
    for c in coefficients:
        c = float(c) if kind == "f64" else struct.unpack("f", struct.pack("f", float(c)))[0]
        print(f"    {c!r},")
    print("];")


def series(f, limit):
    """f with its removable singularity at 0 filled in by a value near it."""
    return lambda x: f(x) if abs(x) >= mpf(limit) else f(mpf(limit))


def through_root(f):
    """g(z) = f(sqrt z) / sqrt z: odd functions as x * g(x * x)."""
    return series(lambda z: f(sqrt(z)) / sqrt(z), "1e-40")


print("//! Polynomial coefficients, constant first. Written by `fit.py`, which says how; do not edit.")
for kind, (n_exp, n_log, n_erf, n_tail) in {"f32": (4, 3, 5, 8), "f64": (10, 7, 11, 23)}.items():
    K = kind.upper()
    quarter = log(2) / 2 * mpf("1.0001")
    show(f"EXP_{K}", "(e^r - 1 - r) / r^2 on |r| <= ln(2)/2.", series(lambda r: (exp(r) - 1 - r) / r**2, "1e-25"), -quarter, quarter, n_exp, kind)
    z = (3 - 2 * sqrt(2)) ** 2 * mpf("1.0001")
    show(f"LOG_{K}", "(log((1+s)/(1-s)) / s - 2) / s^2 in z = s^2, for numbers within sqrt(2) of 1.",
         series(lambda z: (log((1 + sqrt(z)) / (1 - sqrt(z))) / sqrt(z) - 2) / z, "1e-25"), 0, z, n_log, kind)
    show(f"ERF_{K}", "erf(x)/x - 1 in x^2 on |x| <= 0.9 (the error is that of erf).", through_root(erf), 0, mpf("0.81"), n_erf, kind, minus=1)
    edge, center = (mpf("4.0"), mpf("2.4")) if kind == "f32" else (mpf("6.0"), mpf("3.4"))
    show(f"ERFC_{K}", f"-log(erfc(t)) in t - {center} on 0.89 <= t <= {edge}.", lambda t: -log(erfc(t)), mpf("0.89"), edge, n_tail, kind, center)

quarter = (pi / 4) ** 2 * mpf("1.001")
show("SIN", "(sin(r)/r - 1) / r^2 in r^2 on |r| <= pi/4.", series(lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z, "1e-25"), 0, quarter, 6, "f64")
show("COS", "(cos(r) - 1 + r^2/2) / r^4 in r^2 on |r| <= pi/4.", series(lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2, "1e-25"), 0, quarter, 6, "f64")
show("ASIN", "(asin(x)/x - 1) / x^2 in x^2 on |x| <= 1/2.", series(lambda z: (asin(sqrt(z)) / sqrt(z) - 1) / z, "1e-25"), 0, mpf("0.2501"), 14, "f64")
show("ATAN", "(atan(x)/x - 1) / x^2 in x^2 on |x| <= tan(pi/8).", series(lambda z: (atan(sqrt(z)) / sqrt(z) - 1) / z, "1e-25"), 0, tan(pi / 8) ** 2 * mpf("1.001"), 12, "f64")

# 2/pi in pieces of 24 bits, for the reduction of huge arguments.
words, rest = [], 2 / pi
for _ in range(10):
    rest *= 2**24
    words.append(int(floor(rest)))
    rest -= floor(rest)
print("\n/// 2/pi = sum of `TWO_OVER_PI[i] * 2^(-24 (i + 1))`.")
print(f"pub(super) const TWO_OVER_PI: [u32; 10] = {words};")
rest, parts = pi / 2, []
for _ in range(3):
    parts.append(float(rest))
    rest -= mpf(parts[-1])
print("\n/// pi/2 as a sum of three numbers, each the nearest to what is left.")
print("#[rustfmt::skip]")
print(f"pub(super) const HALF_PI: [f64; 3] = [std::f64::consts::FRAC_PI_2, {parts[1]!r}, {parts[2]!r}];")
