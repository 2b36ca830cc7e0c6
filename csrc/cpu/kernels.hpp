// The inner loops, compiled once per instruction set. They see nothing but contiguous stretches of
// memory; what is strided, split into tasks or summed up over them is the business of the callers.
//
// Plain types without member functions: an inline function used by two instruction sets would be
// linked once, perhaps with instructions that the machine at hand does not have.
#pragma once

#include <cstdint>

#include "../run.hpp"

namespace adacache {

constexpr int kMaxTerms = 4;

enum class Sums { kNone, kL1, kL2, kCosine };

// p = x_out - x_in, or slot + (x_out - x_in); slot = p.
struct Update {
  Run slot, x_out;
  Run x_in;  // no data: p = x_out
  bool accumulate;
  Sums sums;  // of p and of c = sum_i coefficient[i] * term[i]
  int terms;
  Run term[kMaxTerms];  // the last one may be the slot
  float coefficient[kMaxTerms];
  Run earlier;     // the slot of an earlier frame, for the sum of changes; no data: none
  bool with_size;  // whether sum|p| is wanted
};

constexpr int kBlock = 32;   // what the kernels work on at a time
constexpr int kGroup = 128;  // whose terms are added in float32 before they get to float64
constexpr int kLanes = 16;

// A sum in parts, each over its own places of every block: its order, and so its bits, are the same
// whatever the width of the registers. The eight terms of a lane in a group are added in float32,
// everything else in float64. A term goes through at most four additions in float32: with the
// rounding of the result, less than 2^-21 of the sum of |terms| is lost. That took bfloat16 with
// frame strides from 5.2 to 3.7 ns a vector (AVX-512, in the cache) against two terms in float32.
// The kernels add to what is there. A run that is not the last one of a sum has whole groups, or
// the bits depend on where it was cut.
struct Lanes {
  double part[kLanes];
};

struct UpdateSums {
  Lanes first, second, third;  // of the distance
  Lanes size;                  // sum|p|
  Lanes change;                // sum|p - earlier|
};

// x += sum_i coefficient[i] * (residual[i] * scale[i])
struct Add {
  Run x;
  int terms;
  Run residual[kMaxTerms];
  float coefficient[kMaxTerms];
  float scale[kMaxTerms];  // 1: none
};

struct Kernels {
  const char* name;
  void (*update)(const Update& update, std::int64_t count, UpdateSums* sums);
  void (*add)(const Add& add, std::int64_t count);
  void (*change)(Run a, Run b, std::int64_t count, Lanes* sum);  // sum|a - b|

  // For rows that are stored in eight bits; `p` and `c` are float, with room for whole blocks.
  // p = x_out - x_in; returns the bits of max|p|, above those of infinity if there is a NaN.
  std::uint32_t (*residual)(Run x_out, Run x_in, std::int64_t count, float* p);
  // slot = round(p * factor), in int8 or float8
  void (*narrow)(const float* p, float factor, Run slot, std::int64_t count);
  // c = (first ? 0 : c) + coefficient * (term * scale)
  void (*add_term)(Run term, float scale, float coefficient, bool first, std::int64_t count,
                   float* c);
};

extern const Kernels kBaselineKernels;
#ifdef ADACACHE_X86_KERNELS
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace adacache
