// Streams and events.
#include "streams.hpp"

#include <algorithm>
#include <set>
#include <vector>

#include "graphs.hpp"

namespace fakecuda {
namespace {

struct State {
  std::set<Stream*> streams;    // created and not destroyed
  std::set<Stream*> destroyed;  // points may name them
  std::set<Event*> events;
  std::vector<Stream*> legacy;
};

State& state() {
  static State* const made = new State;
  return *made;
}

Event* find_event(cu::Event handle) {
  auto* event = static_cast<Event*>(handle);
  if (state().events.count(event) != 0) return event;
  misuse("use of an event that is none");
  return nullptr;
}

void capture_wait(Stream& stream, const Event& event) {
  stream.capture = event.capture;
  for (Node* node : event.nodes)
    if (std::find(stream.last.begin(), stream.last.end(), node) == stream.last.end())
      stream.last.push_back(node);
}

}  // namespace

Stream* legacy_of(Context* context) {
  for (Stream* stream : state().legacy)
    if (stream->context == context) return stream;
  auto* made = new Stream;
  made->context = context;
  made->legacy = true;
  state().legacy.push_back(made);
  return made;
}

Stream* find_stream(cu::Stream handle) {
  if (reinterpret_cast<std::uintptr_t>(handle) <= 1)
    return current() == nullptr ? nullptr : legacy_of(current());
  auto* stream = static_cast<Stream*>(handle);
  if (state().streams.count(stream) != 0) return stream;
  misuse("use of a stream that is none");
  return nullptr;
}

void each_stream(const std::function<void(Stream&)>& visit) {
  for (Stream* stream : state().streams) visit(*stream);
  for (Stream* stream : state().legacy) visit(*stream);
}

bool all_done(int device) {
  bool done = true;
  each_stream([&](const Stream& stream) {
    done = done && (stream.context->device != device || stream.done == stream.asked);
  });
  return done;
}

long live_streams(const std::string& kind) {
  if (kind == "streams") return static_cast<long>(state().streams.size());
  if (kind == "events") return static_cast<long>(state().events.size());
  if (kind == "current") return pushed_contexts();
  return -1;
}

}  // namespace fakecuda

using namespace fakecuda;

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
  return host_waits(*context);
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

// The stream does its pending work first.
FAKECUDA_API int cuStreamDestroy_v2(cu::Stream handle) {
  FAKECUDA_ENTER(cuStreamDestroy);
  Stream* stream = find_stream(handle);
  if (stream == nullptr || stream->legacy) return cu::kInvalidHandle;
  finish({stream, stream->asked});
  state().streams.erase(stream);
  state().destroyed.insert(stream);
  return cu::kSuccess;
}

FAKECUDA_API int cuStreamSynchronize(cu::Stream handle) {
  FAKECUDA_ENTER(cuStreamSynchronize);
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (stream->capture)
    return break_capture(*stream->capture, "cuStreamSynchronize", cu::kCaptureUnsupported);
  if (const Result code = unsafe_call("cuStreamSynchronize")) return code;
  for (const Point& need : implied_needs(*stream)) finish(need);
  finish({stream, stream->asked});
  return host_waits(*stream->context);
}

FAKECUDA_API int cuStreamWaitEvent(cu::Stream handle, cu::Event event_handle, unsigned) {
  FAKECUDA_ENTER(cuStreamWaitEvent);
  Stream* stream = find_stream(handle);
  const Event* event = find_event(event_handle);
  if (stream == nullptr || event == nullptr) return cu::kInvalidHandle;
  if (Capture* capture = implicit_capture(*stream))
    return break_capture(*capture, "cuStreamWaitEvent", cu::kCaptureImplicit);
  if (stream->capture && !event->capture)
    return break_capture(*stream->capture, "cuStreamWaitEvent", cu::kCaptureIsolation);
  if (stream->capture && event->capture != stream->capture)
    return break_capture(*stream->capture, "cuStreamWaitEvent", cu::kCaptureMerge);
  if (event->capture)
    capture_wait(*stream, *event);
  else if (event->point.stream != nullptr)
    put(*stream, {{}, {event->point}});
  return cu::kSuccess;
}

FAKECUDA_API int cuLaunchHostFunc(cu::Stream handle, void (*function)(void*), void* data) {
  FAKECUDA_ENTER(cuLaunchHostFunc);
  if (function == nullptr) return cu::kInvalidValue;
  const Task task = [function, data] {
    function(data);
    return cu::kSuccess;
  };
  return submit("cuLaunchHostFunc", handle, Kind::kHost, task);
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
  Stream* stream = find_stream(stream_handle);
  if (event == nullptr || stream == nullptr) return cu::kInvalidHandle;
  if (Capture* capture = implicit_capture(*stream))
    return break_capture(*capture, "cuEventRecord", cu::kCaptureImplicit);
  event->capture = stream->capture;
  event->nodes = stream->last;
  if (stream->capture) return cu::kSuccess;
  put(*stream, {});
  event->point = {stream, stream->asked};
  return cu::kSuccess;
}

FAKECUDA_API int cuEventQuery(cu::Event handle) {
  FAKECUDA_ENTER(cuEventQuery);
  const Event* event = find_event(handle);
  if (event == nullptr) return cu::kInvalidHandle;
  if (event->capture) return break_capture(*event->capture, "cuEventQuery", cu::kCapturedEvent);
  if (const Result code = unsafe_call("cuEventQuery")) return code;
  if (event->point.stream == nullptr) return cu::kSuccess;
  if (!is_reached(event->point)) return cu::kNotReady;
  return event->point.stream->context->failure;
}

FAKECUDA_API int cuEventSynchronize(cu::Event handle) {
  FAKECUDA_ENTER(cuEventSynchronize);
  const Event* event = find_event(handle);
  if (event == nullptr) return cu::kInvalidHandle;
  if (event->capture)
    return break_capture(*event->capture, "cuEventSynchronize", cu::kCapturedEvent);
  if (const Result code = unsafe_call("cuEventSynchronize")) return code;
  if (event->point.stream == nullptr) return host_waits(primary(0));
  finish(event->point);
  return host_waits(*event->point.stream->context);
}

// Puts work on a stream that ends, at any pace, only when something waits for it. 0 is the legacy
// stream of device 0.
FAKECUDA_API void fakecuda_work(cu::Stream handle) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  Stream* stream = handle == nullptr ? legacy_of(&primary(0)) : find_stream(handle);
  if (stream != nullptr && !stream->capture) put(*stream, {{}, {}, true});
}

// Returns whether all work of the stream is done.
FAKECUDA_API int fakecuda_idle(cu::Stream handle) {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  const Stream* stream = handle == nullptr ? legacy_of(&primary(0)) : find_stream(handle);
  return stream == nullptr || stream->done == stream->asked;
}
