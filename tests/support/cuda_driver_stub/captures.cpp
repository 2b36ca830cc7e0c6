// The contexts of threads, and the captures of streams: the forbidden calls, and the captures that
// they break.
#include <algorithm>
#include <memory>
#include <vector>

#include "graphs.hpp"
#include "streams.hpp"

namespace fakecuda {
namespace {

struct Thread {
  std::vector<Context*> contexts;
  int mode = cu::kGlobal;
  std::uint64_t number = 0;
};

Thread& thread() {
  static std::uint64_t threads = 0;
  thread_local Thread own;
  if (own.number == 0) own.number = ++threads;
  return own;
}

Result begin(cu::Stream handle, int mode, Graph* given, std::vector<Node*> needs) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (stream->legacy || stream->capture) return cu::kCaptureUnsupported;
  Graph* graph = given != nullptr ? given : make_graph();
  stream->capture =
      std::make_shared<Capture>(Capture{mode, thread().number, graph, given != nullptr});
  stream->began_capture = true;
  stream->last = std::move(needs);
  return cu::kSuccess;
}

// Ends the capture of every stream that takes part.
void leave(const std::shared_ptr<Capture>& capture) {
  each_stream([&](Stream& stream) {
    if (stream.capture != capture) return;
    stream.capture.reset();
    stream.began_capture = false;
    stream.last.clear();
  });
}

}  // namespace

Context* current() { return thread().contexts.empty() ? nullptr : thread().contexts.back(); }

long pushed_contexts() { return static_cast<long>(thread().contexts.size()); }

Result break_capture(Capture& capture, const std::string& function, Result code) {
  capture.invalid = true;
  misuse(function + " broke a capture");
  return code;
}

Capture* implicit_capture(const Stream& stream) {
  if (!stream.legacy) return nullptr;
  Capture* found = nullptr;
  each_stream([&](const Stream& other) {
    if (other.capture && other.blocking && other.context == stream.context)
      found = other.capture.get();
  });
  return found;
}

Result unsafe_call(const char* function) {
  const Thread& own = thread();
  Result result = cu::kSuccess;
  if (own.mode == cu::kRelaxed) return result;
  each_stream([&](const Stream& stream) {
    if (!stream.capture || stream.capture->mode == cu::kRelaxed) return;
    const bool is_own = stream.capture->thread == own.number;
    const bool everywhere = own.mode == cu::kGlobal && stream.capture->mode == cu::kGlobal;
    if (is_own || everywhere)
      result = break_capture(*stream.capture, function, cu::kCaptureUnsupported);
  });
  return result;
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API int cuCtxPushCurrent_v2(cu::Context context) {
  FAKECUDA_ENTER(cuCtxPushCurrent);
  thread().contexts.push_back(static_cast<Context*>(context));
  return cu::kSuccess;
}

FAKECUDA_API int cuCtxPopCurrent_v2(cu::Context* context) {
  FAKECUDA_ENTER(cuCtxPopCurrent);
  if (current() == nullptr) return cu::kInvalidContext;
  *context = current();
  thread().contexts.pop_back();
  return cu::kSuccess;
}

FAKECUDA_API int cuThreadExchangeStreamCaptureMode(int* mode) {
  FAKECUDA_ENTER(cuThreadExchangeStreamCaptureMode);
  if (*mode < cu::kGlobal || *mode > cu::kRelaxed) return cu::kInvalidValue;
  std::swap(*mode, thread().mode);
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamBeginCapture_v2(cu::Stream handle, int mode) {
  FAKECUDA_ENTER(cuStreamBeginCapture);
  return begin(handle, mode, nullptr, {});
}

FAKECUDA_API int cuStreamBeginCaptureToGraph(cu::Stream handle, void* graph_handle,
                                             void* const* needs, const void* edges,
                                             std::size_t count, int mode) {
  FAKECUDA_ENTER(cuStreamBeginCaptureToGraph);
  Graph* graph = find_graph(graph_handle);
  std::vector<Node*> nodes;
  if (graph == nullptr || edges != nullptr || !find_nodes(*graph, needs, count, nodes))
    return cu::kInvalidValue;
  return begin(handle, mode, graph, nodes);
}

FAKECUDA_API int cuStreamEndCapture(cu::Stream handle, void** graph) {
  FAKECUDA_ENTER(cuStreamEndCapture);
  Stream* stream = find_stream(handle);
  *graph = nullptr;
  if (stream == nullptr) return cu::kInvalidHandle;
  if (!stream->capture || !stream->began_capture) return cu::kCaptureUnmatched;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture->mode != cu::kRelaxed && capture->thread != thread().number)
    return cu::kCaptureWrongThread;
  leave(capture);
  if (!capture->invalid) *graph = capture->graph;
  if (capture->invalid && !capture->graph_is_given) destroy_graph(capture->graph);
  return capture->invalid ? cu::kCaptureInvalidated : cu::kSuccess;
}

FAKECUDA_API int cuStreamIsCapturing(cu::Stream handle, int* status) {
  FAKECUDA_ENTER(cuStreamIsCapturing);
  const Stream* stream = find_stream(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (implicit_capture(*stream) != nullptr) return cu::kCaptureImplicit;
  *status = !stream->capture ? cu::kNotCapturing : stream->capture->invalid ? 2 : 1;
  return cu::kSuccess;
}
