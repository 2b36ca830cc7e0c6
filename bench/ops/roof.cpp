// The fastest these bytes can be moved by a plain loop: the roof that bench/ops/run.py holds an op
// to.
//
// Each function reads and writes exactly the bytes of an op, in the same streams and in place where
// the op is in place, and does no arithmetic to speak of. `mask` is zero, which the compiler does
// not know: every stream is read, and the written tensor keeps values that the next provider can
// work with.

#include <cstddef>
#include <cstdint>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace {

using Word = std::uint64_t;

// One contiguous part of [0, count) per thread.
template <typename Body>
void split(std::size_t count, int threads, Body body) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; ++part) {
    body(count * part / threads, count * (part + 1) / threads);
  }
}

template <typename T>
void add_bytes(T* x, const std::int8_t* q, const std::uint32_t* scales, std::size_t rows,
               std::size_t columns, int threads, Word mask) {
  split(rows, threads, [=](std::size_t first, std::size_t last) {
    for (std::size_t row = first; row < last; ++row) {
      const T keep = static_cast<T>(scales[row] & mask);
      for (std::size_t i = row * columns; i < (row + 1) * columns; ++i) {
        x[i] ^= static_cast<T>(q[i] & static_cast<std::int8_t>(mask)) ^ keep;
      }
    }
  });
}

template <typename T>
void store_bytes(std::uint8_t* q, std::uint32_t* scales, const T* a, const T* b, std::size_t rows,
                 std::size_t columns, int threads, Word mask) {
  split(rows, threads, [=](std::size_t first, std::size_t last) {
    const T keep = static_cast<T>(mask);
    for (std::size_t row = first; row < last; ++row) {
      scales[row] ^= static_cast<std::uint32_t>(mask);
      for (std::size_t i = row * columns; i < (row + 1) * columns; ++i) {
        q[i] ^= static_cast<std::uint8_t>((a[i] ^ b[i]) & keep);
      }
    }
  });
}

}  // namespace

extern "C" {

// Reads x, a and, unless null, b and c; writes x.
void roof_update(Word* x, const Word* a, const Word* b, const Word* c, std::size_t words,
                 int threads, Word mask) {
  split(words, threads, [=](std::size_t first, std::size_t last) {
    if (c) {
      for (std::size_t i = first; i < last; ++i) x[i] ^= (a[i] ^ b[i] ^ c[i]) & mask;
    } else if (b) {
      for (std::size_t i = first; i < last; ++i) x[i] ^= (a[i] ^ b[i]) & mask;
    } else {
      for (std::size_t i = first; i < last; ++i) x[i] ^= a[i] & mask;
    }
  });
}

// Reads a and b; writes x, which is not read.
void roof_write(Word* x, const Word* a, const Word* b, std::size_t words, int threads, Word mask) {
  split(words, threads, [=](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) x[i] = a[i] ^ (b[i] & mask);
  });
}

// As roof_write, past the caches: an ordinary store first reads the line that it overwrites.
void roof_write_streaming(Word* x, const Word* a, const Word* b, std::size_t words, int threads,
                          Word mask) {
#ifdef __SSE2__
  split(words / 8, threads, [=](std::size_t first, std::size_t last) {
    const __m128i keep = _mm_set1_epi64x(static_cast<long long>(mask));
    for (std::size_t i = 8 * first; i < 8 * last; i += 2) {
      const __m128i left = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i));
      const __m128i right = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i));
      _mm_stream_si128(reinterpret_cast<__m128i*>(x + i),
                       _mm_xor_si128(left, _mm_and_si128(right, keep)));
    }
    _mm_sfence();
  });
  const std::size_t done = words / 8 * 8;
  roof_write(x + done, a + done, b + done, words - done, 1, mask);
#else
  roof_write(x, a, b, words, threads, mask);
#endif
}

// Reads x of `itemsize` 2 or 4, one byte for each of its elements and four for each row; writes x.
void roof_add_bytes(void* x, const std::int8_t* q, const std::uint32_t* scales, std::size_t rows,
                    std::size_t columns, std::size_t itemsize, int threads, Word mask) {
  if (itemsize == 2) {
    add_bytes(static_cast<std::uint16_t*>(x), q, scales, rows, columns, threads, mask);
  } else {
    add_bytes(static_cast<std::uint32_t*>(x), q, scales, rows, columns, threads, mask);
  }
}

// Reads a and b of `itemsize` 2 or 4; reads and writes one byte for each of their elements and four
// for each row.
void roof_store_bytes(std::uint8_t* q, std::uint32_t* scales, const void* a, const void* b,
                      std::size_t rows, std::size_t columns, std::size_t itemsize, int threads,
                      Word mask) {
  if (itemsize == 2) {
    store_bytes(q, scales, static_cast<const std::uint16_t*>(a),
                static_cast<const std::uint16_t*>(b), rows, columns, threads, mask);
  } else {
    store_bytes(q, scales, static_cast<const std::uint32_t*>(a),
                static_cast<const std::uint32_t*>(b), rows, columns, threads, mask);
  }
}
}
