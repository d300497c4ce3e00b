// Our ops in ONNX's operators: one `emit` an op. A network's inference may use these ops; any other
// is refused by name.
#pragma once

#include "experiments/export/onnx_graph.h"
#include "runtime/ops/all.h"

namespace voxlab {

// Appends the nodes of one step. s.inputs are values that have been made; every output that has an
// ONNX form gets its name.
void emit(const Reshape::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Permute::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Split::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Slice::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Broadcast::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Contiguous::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Cast::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Concat::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Pad::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Gather::Attrs& a, OnnxGraph& g, const TraceStep& s);

void emit(const Unary::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Binary::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Reduce::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Softmax::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const LogSoftmax::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const L2Normalise::Attrs& a, OnnxGraph& g, const TraceStep& s);

void emit(const Conv::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const ConvTranspose::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Matmul::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Linear::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const GroupNorm::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const LayerNorm::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const BatchNormInference::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const Resize::Attrs& a, OnnxGraph& g, const TraceStep& s);
void emit(const AvgPool::Attrs& a, OnnxGraph& g, const TraceStep& s);

// Those above.
using ExportedOps =
    OpList<Reshape, Permute, Split, Slice, Broadcast, Contiguous, Cast, Concat, Pad, Gather, Unary,
           Binary, Reduce, Softmax, LogSoftmax, L2Normalise, Conv, ConvTranspose, Matmul, Linear,
           GroupNorm, LayerNorm, BatchNormInference, Resize, AvgPool>;

// The whole trace. Error naming op and layer when an op is none of ExportedOps.
OnnxModel onnx_model(const Trace& trace, OnnxOptions options);

}  // namespace voxlab
