// Runs work that may wait for a device or a thread, while other Python threads run.
#pragma once

#include <Python.h>

#include <chrono>
#include <exception>
#include <thread>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

namespace adacache {

// Before Python 3.14, an exiting interpreter calls pthread_exit in a daemon thread that takes the
// GIL. That unwinds the stack, and the first destructor in the stack ends the process by
// std::terminate. So the thread hangs, as in Python 3.14; the process exits without it.
inline void take_gil(PyThreadState* state) {
#ifdef __GLIBCXX__
  try {
    PyEval_RestoreThread(state);
  } catch (abi::__forced_unwind&) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
#else
  PyEval_RestoreThread(state);
#endif
}

template <typename Work>
void without_gil(Work&& work) {
  std::exception_ptr error;
  PyThreadState* state = PyEval_SaveThread();
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  take_gil(state);
  if (error) std::rethrow_exception(error);
}

}  // namespace adacache
