// Hadamard rotation (QuaRot, Ashkboos et al., 2024; SpinQuant's R1 and R2), offline: outliers spread over all channels.
#pragma once

#include "lowp/quant/rewrite.h"

namespace lowp::quant {

/// Rotates the residual stream, whose norms are folded into the matrices behind them first, and the values of each
/// attention head: exact in real numbers, so the model stays what it is but for rounding the new weights to their
/// dtype. A head that was tied to the embedding gets weights of its own. Throws Error(unsupported) for architectures
/// that it does not know or whose blocks normalise their outputs (Gemma 3), and for experts stored in one tensor.
Rewriting hadamard(const checkpoint::Checkpoint& checkpoint);

}  // namespace lowp::quant
