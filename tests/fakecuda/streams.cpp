// Contexts of threads, streams, events, captures. No work is ever done here: a test says by
// fakecuda_work() that some was put on a stream, and it is running until something waits for it.
#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "fake.hpp"

namespace fakecuda {
namespace {

struct Stream;

// Work of a stream up to the ticket-th piece.
struct Point {
  Stream* stream = nullptr;
  long ticket = 0;
};

struct Stream {
  Context* context = nullptr;
  bool blocking = true;
  bool legacy = false;
  long asked = 0, done = 0;
  std::vector<Point> needs;  // what it has been told to wait for
  std::shared_ptr<Capture> capture;
  bool began_capture = false;
};

struct Event {
  Point point;
  std::shared_ptr<Capture> capture;  // it was recorded in this one
};

struct State {
  std::set<Stream*> streams;    // created and not destroyed
  std::set<Stream*> destroyed;  // events may point to them
  std::set<Event*> events;
  std::set<void*> graphs;
  std::vector<Stream*> legacy;
  std::uint64_t threads = 0;
};

State& state() {
  static State* const made = new State;
  return *made;
}

struct Thread {
  std::vector<Context*> contexts;
  int mode = cu::kGlobal;
  std::uint64_t number = 0;
};

Thread& thread() {
  thread_local Thread own;
  if (own.number == 0) own.number = ++state().threads;
  return own;
}

Stream* legacy_of(Context* context) {
  for (Stream* stream : state().legacy)
    if (stream->context == context) return stream;
  auto* made = new Stream;
  made->context = context;
  made->legacy = true;
  state().legacy.push_back(made);
  return made;
}

// Null for a handle that is none. 0 and 1 are the legacy stream of the current context.
Stream* find(cu::Stream handle) {
  if (reinterpret_cast<std::uintptr_t>(handle) <= 1)
    return current() == nullptr ? nullptr : legacy_of(current());
  auto* stream = static_cast<Stream*>(handle);
  if (state().streams.count(stream) != 0) return stream;
  misuse("use of a stream that is none");
  return nullptr;
}

Event* find_event(cu::Event handle) {
  auto* event = static_cast<Event*>(handle);
  if (state().events.count(event) != 0) return event;
  misuse("use of an event that is none");
  return nullptr;
}

void finish(const Point& point) {
  if (point.stream == nullptr || point.stream->done >= point.ticket) return;
  point.stream->done = point.ticket;
  std::vector<Point> needs;
  needs.swap(point.stream->needs);
  for (const Point& need : needs) finish(need);
}

template <typename Visit>
void each_stream(const Visit& visit) {
  for (Stream* stream : state().streams) visit(*stream);
  for (Stream* stream : state().legacy) visit(*stream);
}

Result break_capture(Capture& capture, const std::string& function, Result code) {
  capture.invalid = true;
  misuse(function + " broke a capture");
  return code;
}

// The capture of a blocking stream, which makes the legacy stream of its context unusable.
Capture* implicit_capture(const Stream& stream) {
  if (!stream.legacy) return nullptr;
  Capture* found = nullptr;
  each_stream([&](const Stream& other) {
    if (other.capture && other.blocking && other.context == stream.context)
      found = other.capture.get();
  });
  return found;
}

}  // namespace

Context* current() { return thread().contexts.empty() ? nullptr : thread().contexts.back(); }

bool all_done(int device) {
  bool done = true;
  each_stream([&](const Stream& stream) {
    done = done && (stream.context->device != device || stream.done == stream.asked);
  });
  return done;
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

long live_streams(const std::string& kind) {
  if (kind == "streams") return static_cast<long>(state().streams.size());
  if (kind == "events") return static_cast<long>(state().events.size());
  if (kind == "graphs") return static_cast<long>(state().graphs.size());
  if (kind == "current") return static_cast<long>(thread().contexts.size());
  return -1;
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

// A wait for the whole context takes in every stream that is being captured, whatever the mode.
FAKECUDA_API int cuCtxSynchronize() {
  FAKECUDA_ENTER(cuCtxSynchronize);
  Context* context = current();
  if (context == nullptr) return cu::kInvalidContext;
  Result result = cu::kSuccess;
  each_stream([&](const Stream& stream) {
    if (stream.context == context && stream.capture)
      result = break_capture(*stream.capture, "cuCtxSynchronize", cu::kCaptureUnsupported);
  });
  if (result != cu::kSuccess) return result;
  each_stream([&](Stream& stream) {
    if (stream.context == context) finish({&stream, stream.asked});
  });
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamCreate(cu::Stream* handle, unsigned flags) {
  FAKECUDA_ENTER(cuStreamCreate);
  if (current() == nullptr) return cu::kInvalidContext;
  auto* stream = new Stream;
  stream->context = current();
  stream->blocking = flags != cu::kNonBlocking;
  state().streams.insert(stream);
  *handle = stream;
  return cu::kSuccess;
}

// What it still has to do it does.
FAKECUDA_API int cuStreamDestroy_v2(cu::Stream handle) {
  FAKECUDA_ENTER(cuStreamDestroy);
  Stream* stream = find(handle);
  if (stream == nullptr || stream->legacy) return cu::kInvalidHandle;
  finish({stream, stream->asked});
  state().streams.erase(stream);
  state().destroyed.insert(stream);
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamSynchronize(cu::Stream handle) {
  FAKECUDA_ENTER(cuStreamSynchronize);
  Stream* stream = find(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (stream->capture)
    return break_capture(*stream->capture, "cuStreamSynchronize", cu::kCaptureUnsupported);
  if (const Result code = unsafe_call("cuStreamSynchronize")) return code;
  finish({stream, stream->asked});
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
  Stream* stream = find(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (stream->legacy || stream->capture) return cu::kCaptureUnsupported;
  stream->capture = std::make_shared<Capture>(Capture{mode, thread().number});
  stream->began_capture = true;
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamEndCapture(cu::Stream handle, void** graph) {
  FAKECUDA_ENTER(cuStreamEndCapture);
  Stream* stream = find(handle);
  *graph = nullptr;
  if (stream == nullptr) return cu::kInvalidHandle;
  if (!stream->capture || !stream->began_capture) return cu::kCaptureUnmatched;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture->mode != cu::kRelaxed && capture->thread != thread().number)
    return cu::kCaptureWrongThread;
  each_stream([&](Stream& other) {
    if (other.capture == capture) other.capture.reset();
  });
  stream->began_capture = false;
  if (capture->invalid) return cu::kCaptureInvalidated;
  *graph = new char;
  state().graphs.insert(*graph);
  return cu::kSuccess;
}

FAKECUDA_API int cuGraphDestroy(void* graph) {
  FAKECUDA_ENTER(cuGraphDestroy);
  if (state().graphs.erase(graph) == 0) return cu::kInvalidHandle;
  delete static_cast<char*>(graph);
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamIsCapturing(cu::Stream handle, int* status) {
  FAKECUDA_ENTER(cuStreamIsCapturing);
  const Stream* stream = find(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (implicit_capture(*stream) != nullptr) return cu::kCaptureImplicit;
  *status = !stream->capture ? cu::kNotCapturing : stream->capture->invalid ? 2 : 1;
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamWaitEvent(cu::Stream handle, cu::Event event_handle, unsigned) {
  FAKECUDA_ENTER(cuStreamWaitEvent);
  Stream* stream = find(handle);
  const Event* event = find_event(event_handle);
  if (stream == nullptr || event == nullptr) return cu::kInvalidHandle;
  if (Capture* capture = implicit_capture(*stream))
    return break_capture(*capture, "cuStreamWaitEvent", cu::kCaptureImplicit);
  if (stream->capture && !event->capture)
    return break_capture(*stream->capture, "cuStreamWaitEvent", cu::kCaptureIsolation);
  if (stream->capture && event->capture != stream->capture)
    return break_capture(*stream->capture, "cuStreamWaitEvent", cu::kCaptureMerge);
  if (event->capture) {
    stream->capture = event->capture;
    return cu::kSuccess;
  }
  stream->needs.push_back(event->point);
  ++stream->asked;
  return cu::kSuccess;
}

FAKECUDA_API int cuEventCreate(cu::Event* handle, unsigned) {
  FAKECUDA_ENTER(cuEventCreate);
  if (current() == nullptr) return cu::kInvalidContext;
  auto* event = new Event;
  state().events.insert(event);
  *handle = event;
  return cu::kSuccess;
}

FAKECUDA_API int cuEventDestroy_v2(cu::Event handle) {
  FAKECUDA_ENTER(cuEventDestroy);
  Event* event = find_event(handle);
  if (event == nullptr) return cu::kInvalidHandle;
  state().events.erase(event);
  delete event;
  return cu::kSuccess;
}

FAKECUDA_API int cuEventRecord(cu::Event handle, cu::Stream stream_handle) {
  FAKECUDA_ENTER(cuEventRecord);
  Event* event = find_event(handle);
  Stream* stream = find(stream_handle);
  if (event == nullptr || stream == nullptr) return cu::kInvalidHandle;
  if (Capture* capture = implicit_capture(*stream))
    return break_capture(*capture, "cuEventRecord", cu::kCaptureImplicit);
  event->capture = stream->capture;
  if (!stream->capture) event->point = {stream, stream->asked};
  return cu::kSuccess;
}

FAKECUDA_API int cuEventQuery(cu::Event handle) {
  FAKECUDA_ENTER(cuEventQuery);
  const Event* event = find_event(handle);
  if (event == nullptr) return cu::kInvalidHandle;
  if (event->capture) return break_capture(*event->capture, "cuEventQuery", cu::kCapturedEvent);
  if (const Result code = unsafe_call("cuEventQuery")) return code;
  const Point& point = event->point;
  return point.stream == nullptr || point.stream->done >= point.ticket ? cu::kSuccess
                                                                       : cu::kNotReady;
}

FAKECUDA_API int cuEventSynchronize(cu::Event handle) {
  FAKECUDA_ENTER(cuEventSynchronize);
  const Event* event = find_event(handle);
  if (event == nullptr) return cu::kInvalidHandle;
  if (event->capture)
    return break_capture(*event->capture, "cuEventSynchronize", cu::kCapturedEvent);
  if (const Result code = unsafe_call("cuEventSynchronize")) return code;
  finish(event->point);
  return cu::kSuccess;
}

// Work is put on a stream; 0: the legacy stream of device 0.
FAKECUDA_API void fakecuda_work(cu::Stream handle) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  Stream* stream = handle == nullptr ? legacy_of(&primary(0)) : find(handle);
  if (stream != nullptr && !stream->capture) ++stream->asked;
}

// Whether all that was put on the stream is done.
FAKECUDA_API int fakecuda_idle(cu::Stream handle) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  const Stream* stream = handle == nullptr ? legacy_of(&primary(0)) : find(handle);
  return stream == nullptr || stream->done == stream->asked;
}
