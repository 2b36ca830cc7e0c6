// The inner loops, compiled once per instruction set. They see nothing but contiguous stretches of
// memory; what is strided, split into tasks or summed up over them is the business of the callers.
//
// Plain types without member functions: an inline function used by two instruction sets would be
// linked once, perhaps with instructions that the machine at hand does not have.
#pragma once

#include <cstdint>

#include "../contiguous_run.hpp"

namespace adacache {

constexpr int kMaxTerms = 4;

enum class Sums { kNone, kL1, kL2, kCosine };

// p = x_out - x_in; slot = p.
struct Update {
  Run slot, x_out;
  Run x_in;   // no data: p = x_out
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

struct ScaledRun {  // The values are scale * data.
  Run run;
  float scale;  // 1: none
};

// As Update, of one whole row, where something has eight bits. A slot of eight bits gets a scale:
//   m = max(max|p|, 2^-100), slot_scale = m / L, slot = round(p * (L / m)), p = slot * slot_scale
// with L the largest number of its format. `next`, of a run, is the same place in what comes next.
struct RowUpdate {
  Run slot, x_out;
  Run x_in;           // no data: p = x_out
  float* slot_scale;  // written; null: the slot does not have eight bits
  Sums sums;
  int terms;
  ScaledRun term[kMaxTerms];  // the last one may be the slot
  float coefficient[kMaxTerms];
  ScaledRun earlier;
  bool with_size;
  float* p;  // memory for the row and kBlock elements more
};

struct Kernels {
  const char* name;
  void (*update)(const Update& update, std::int64_t count, UpdateSums* sums);
  void (*add)(const Add& add, std::int64_t count);
  void (*change)(Run a, Run b, std::int64_t count, Lanes* sum);  // sum|a - b|
  void (*update_row)(const RowUpdate& update, std::int64_t count, UpdateSums* sums);
  void (*change_of_rows)(ScaledRun a, ScaledRun b, std::int64_t count, Lanes* sum);
};

extern const Kernels kBaselineKernels;
#ifdef ADACACHE_X86_KERNELS
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace adacache
