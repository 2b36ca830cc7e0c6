// The inner loops, compiled once for each instruction set. They work on contiguous runs of memory.
// The callers handle strides, split the work into tasks, and add up the sums of the tasks.
//
// The types are plain, without member functions. The linker would keep one copy of an inline
// function of two instruction sets, perhaps with instructions that this machine does not have.
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
  bool with_size;  // whether to sum up |p|
};

constexpr int kBlock = 32;   // elements that the kernels work on at once
constexpr int kGroup = 128;  // elements whose terms are added in float32 before float64
constexpr int kLanes = 16;

// A sum in lanes, each of its own elements of every block. Its order, and so its bits, do not
// depend on the width of the registers. The eight terms of a lane in a group are added in float32,
// all else in float64. A term takes part in at most four float32 additions: with the rounding of
// the result, the error is less than 2^-21 of the sum of |terms|. Compared with two terms in
// float32, this took bfloat16 with frame strides from 5.2 to 3.7 ns a vector (AVX-512, in the
// cache). The kernels add to the lanes. All runs of a sum but the last need whole groups; otherwise
// the bits would depend on the cuts.
struct Lanes {
  double part[kLanes];
};

struct UpdateSums {
  Lanes first, second, third;  // of the distance
  Lanes size;                  // sum|p|
  Lanes change;                // sum|p - earlier|
};

// out = x + sum_i coefficient[i] * (residual[i] * scale[i])
struct Add {
  Run out, x;  // of one dtype; the same memory, or apart
  int terms;
  Run residual[kMaxTerms];
  float coefficient[kMaxTerms];
  float scale[kMaxTerms];  // 1: none
};

struct ScaledRun {  // its values are scale * data
  Run run;
  float scale;  // 1: none
};

// An Update of one whole row in which a tensor has eight bits. A slot of eight bits gets a scale:
//   m = max(max|p|, 2^-100), slot_scale = m / L, slot = round(p * (L / m)), p = slot * slot_scale
// with L, the largest number of its format. The `next` of a run is the next row.
struct RowUpdate {
  Run slot, x_out;
  Run x_in;           // no data: p = x_out
  float* slot_scale;  // written; null if the slot has more bits
  Sums sums;
  int terms;
  ScaledRun term[kMaxTerms];  // the last one may be the slot
  float coefficient[kMaxTerms];
  ScaledRun earlier;
  bool with_size;
  float* p;  // memory for the row and another kBlock elements
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
