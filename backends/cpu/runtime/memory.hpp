// Tiles between memory and local arrays. A tile lies row-major in its array; memory has a stride
// per axis. Only the first rows and columns of a tile may exist: the others get the fill value.
#include <new>
#include <type_traits>

namespace mx {

// A tile that a thread's stack has no room for, as long as its scope lasts.
struct Heap {
  static constexpr std::align_val_t LINE{64};
  void* const start;
  explicit Heap(size_t bytes) : start(::operator new(bytes, LINE)) {}
  ~Heap() { ::operator delete(start, LINE); }
  Heap(const Heap&) = delete;
  template <class T>
  operator T*() const { return (T*)start; }
};

// A number that the host passes: a double in 64 bits.
MX_INLINE float number(int64_t bits) {
  double x;
  memcpy(&x, &bits, 8);
  return float(x);
}
MX_INLINE int clip(int64_t count, int block) {
  return count < 0 ? 0 : count < block ? int(count) : block;
}

// A number as a tile has it: in the type of memory itself, where it is only copied.
template <class To, class From> MX_INLINE To loaded(From x) {
  if constexpr (std::is_same_v<To, From>)
    return x;
  else
    return To(widen(x));
}
// Numbers side by side, from one type to another.
template <class To, class From>
MX_INLINE void widen_row(To* __restrict to, const From* __restrict from, int count) {
  for (int c = 0; c < count; ++c) to[c] = loaded<To>(from[c]);
}
MX_INLINE void widen_row(float* __restrict to, const fp16* __restrict from, int count) {
  int c = 0;
  for (; c + LANES <= count; c += LANES) store(to + c, widen_fp16(load(&from[c].bits)));
  for (; c < count; ++c) to[c] = widen(from[c]);
}
template <class To, class From>
MX_INLINE void narrow_row(To* __restrict to, const From* __restrict from, int count) {
  for (int c = 0; c < count; ++c) to[c] = narrow<To>(from[c]);
}
MX_INLINE void narrow_row(fp16* __restrict to, const float* __restrict from, int count) {
  int c = 0;
  for (; c + LANES <= count; c += LANES) store(&to[c].bits, narrow_fp16(load(from + c)));
  for (; c < count; ++c) to[c] = to_fp16(from[c]);
}

#if defined(__AVX512F__) && MIXC_LANES == 16
// A 16 by 16 block of 32-bit numbers, transposed: first 4 by 4 blocks within lanes of 128 bits,
// then the lanes. What is in x is lost.
MX_INLINE void transpose_registers(__m512i (&x)[16], __m512i (&y)[16]) {
  MX_UNROLL for (int n = 0; n < 16; n += 2) {
    y[n] = _mm512_unpacklo_epi32(x[n], x[n + 1]);
    y[n + 1] = _mm512_unpackhi_epi32(x[n], x[n + 1]);
  }
  MX_UNROLL for (int n = 0; n < 16; n += 4) {
    x[n] = _mm512_unpacklo_epi64(y[n], y[n + 2]);
    x[n + 1] = _mm512_unpackhi_epi64(y[n], y[n + 2]);
    x[n + 2] = _mm512_unpacklo_epi64(y[n + 1], y[n + 3]);
    x[n + 3] = _mm512_unpackhi_epi64(y[n + 1], y[n + 3]);
  }
  MX_UNROLL for (int n = 0; n < 4; ++n) {
    __m512i a = _mm512_shuffle_i32x4(x[n], x[n + 4], 0x88);
    __m512i b = _mm512_shuffle_i32x4(x[n], x[n + 4], 0xdd);
    __m512i c = _mm512_shuffle_i32x4(x[n + 8], x[n + 12], 0x88);
    __m512i d = _mm512_shuffle_i32x4(x[n + 8], x[n + 12], 0xdd);
    y[n] = _mm512_shuffle_i32x4(a, c, 0x88);
    y[n + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    y[n + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    y[n + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}
MX_INLINE void transpose_block(uint32_t* __restrict to, int64_t to_stride,
                               const uint16_t* __restrict from, int64_t from_stride) {
  __m512i x[16], y[16];
  MX_UNROLL for (int n = 0; n < 16; ++n) memcpy(&x[n], from + n * from_stride, 64);
  transpose_registers(x, y);
  MX_UNROLL for (int n = 0; n < 16; ++n) memcpy(to + n * to_stride, &y[n], 64);
}
// PAIRS vectors of pairs, turned: row n of the result has the pairs of lane n side by side.
template <int PAIRS>
MX_INLINE void turn_block(uint16_t* __restrict to, int64_t row_stride, __m512i (&x)[16]) {
  __m512i y[16];
  MX_UNROLL for (int n = PAIRS; n < 16; ++n) x[n] = _mm512_setzero_si512();
  transpose_registers(x, y);
  MX_UNROLL for (int n = 0; n < 16; ++n) memcpy(to + n * row_stride, &y[n], 4 * PAIRS);
}
#endif

// Eight rows of eight numbers, turned: pairs within lanes of 128 bits, pairs of those, then lanes.
typedef float v8 __attribute__((vector_size(32)));
MX_INLINE void transpose(v8 (&x)[8]) {
  v8 y[8];
  MX_UNROLL for (int n = 0; n < 8; n += 2) {
    y[n] = __builtin_shufflevector(x[n], x[n + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    y[n + 1] = __builtin_shufflevector(x[n], x[n + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  MX_UNROLL for (int n = 0; n < 8; n += 4)
    MX_UNROLL for (int m = 0; m < 2; ++m) {
      v8 a = y[n + m], b = y[n + m + 2];
      x[n + 2 * m] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      x[n + 2 * m + 1] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  MX_UNROLL for (int n = 0; n < 4; ++n) {
    y[n] = __builtin_shufflevector(x[n], x[n + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    y[n + 4] = __builtin_shufflevector(x[n], x[n + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  MX_UNROLL for (int n = 0; n < 8; ++n) x[n] = y[n];
}

// A tile whose rows lie side by side in memory, blocks of eight by eight at a time. It goes down
// few columns at once: far apart in memory, more of them would take each other's places in a cache.
template <int COLUMNS, class From>
static inline void load_turned(float* __restrict to, const From* __restrict from,
                               int64_t column_stride, int rows, int columns, float fill) {
  for (int c = 0; c < COLUMNS; c += 8) {
    int r = 0;
    for (; r + 8 <= rows; r += 8) {
      v8 x[8];
      MX_UNROLL for (int n = 0; n < 8; ++n) {
        x[n] = fill - v8{};
        if (c + n < columns) widen_row((float*)&x[n], from + (c + n) * column_stride + r, 8);
      }
      transpose(x);
      MX_UNROLL for (int n = 0; n < 8; ++n) memcpy(to + (r + n) * COLUMNS + c, &x[n], 32);
    }
    for (; r < rows; ++r)
      for (int n = c; n < c + 8; ++n)
        to[r * COLUMNS + n] = n < columns ? float(widen(from[n * column_stride + r])) : fill;
  }
}
template <int COLUMNS, class To>
static inline void store_turned(To* __restrict to, const float* __restrict from,
                                int64_t column_stride, int rows, int columns) {
  int c = 0;
#if defined(__AVX512F__) && MIXC_LANES == 16
  if constexpr (std::is_same_v<To, bf16>)  // 16 pairs of rows by 16 columns
    if (rows % 32 == 0)
      for (; c + 16 <= columns; c += 16)
        for (int r = 0; r < rows; r += 32) {
          const float* source = from + r * COLUMNS + c;
          __m512i x[16];
          MX_UNROLL for (int n = 0; n < 16; ++n)
            x[n] = (__m512i)(bf16_bits(load(source + 2 * n * COLUMNS)) |
                             bf16_bits(load(source + (2 * n + 1) * COLUMNS)) << 16);
          turn_block<16>((uint16_t*)to + c * column_stride + r, column_stride, x);
        }
#endif
  for (; c < columns; c += 8) {
    int r = 0;
    for (; r + 8 <= rows; r += 8) {
      v8 x[8];
      MX_UNROLL for (int n = 0; n < 8; ++n) memcpy(&x[n], from + (r + n) * COLUMNS + c, 32);
      transpose(x);
      MX_UNROLL for (int n = 0; n < 8; ++n)
        if (c + n < columns) narrow_row(to + (c + n) * column_stride + r, (float*)&x[n], 8);
    }
    for (; r < rows; ++r)
      for (int n = c; n < c + 8 && n < columns; ++n)
        to[n * column_stride + r] = narrow<To>(from[r * COLUMNS + n]);
  }
}

template <int ROWS, int COLUMNS, class To, class From>
static inline void load_tile(To* __restrict to, const From* __restrict from, int64_t row_stride,
                             int64_t column_stride, int rows, int columns, To fill) {
  int first = 0;
  if constexpr (COLUMNS % 8 == 0 && ROWS >= 8 && std::is_same_v<To, float>)
    if (row_stride == 1 && column_stride != 1) {
      load_turned<COLUMNS>(to, from, column_stride, rows, columns, fill);
      first = rows;
    }
  for (int r = first; r < ROWS; ++r) {
    To* row = to + r * COLUMNS;
    int count = r < rows ? columns : 0;
    const From* source = from + r * row_stride;
    if (count == COLUMNS && column_stride == 1)
      widen_row(row, source, COLUMNS);
    else {
      for (int c = 0; c < count; ++c) row[c] = loaded<To>(source[c * column_stride]);
      for (int c = count; c < COLUMNS; ++c) row[c] = fill;
    }
  }
}

// The same where the first rows or columns are missing, too.
template <int ROWS, int COLUMNS, class To, class From>
static inline void load_part(To* __restrict to, const From* __restrict from, int64_t row_stride,
                             int64_t column_stride, int rows, int columns, int first_row,
                             int first_column, To fill) {
  for (int r = 0; r < ROWS; ++r) {
    To* row = to + r * COLUMNS;
    const From* source = from + r * row_stride;
    const int end = first_row <= r && r < rows ? columns : 0;
    const int begin = first_column < end ? first_column : end;
    for (int c = 0; c < begin; ++c) row[c] = fill;
    if (column_stride == 1)
      widen_row(row + begin, source + begin, end - begin);
    else
      for (int c = begin; c < end; ++c) row[c] = loaded<To>(source[c * column_stride]);
    for (int c = end; c < COLUMNS; ++c) row[c] = fill;
  }
}

// A later row, to the first cache or (NEAR = 2) the second.
template <int COUNT, int NEAR = 3, class T> MX_INLINE void prefetch(const T* row) {
  MX_UNROLL for (int n = 0; n < int(COUNT * sizeof(T)); n += 64)
    __builtin_prefetch((const char*)row + n, 0, NEAR);
}

// Booleans become 0 and -1, as comparisons of vectors give them.
typedef uint8_t vflags __attribute__((vector_size(LANES)));
template <int ROWS, int COLUMNS>
static inline void load_flags(int32_t* __restrict to, const bool* __restrict from,
                              int64_t row_stride, int64_t column_stride, int rows, int columns,
                              int32_t fill) {
  for (int r = 0; r < ROWS; ++r) {
    int32_t* row = to + r * COLUMNS;
    const bool* source = from + r * row_stride;
    const int count = r < rows ? columns : 0;
    int c = 0;
    if (column_stride == 1)
      for (; c + LANES <= count; c += LANES) {
        vflags x;
        memcpy(&x, source + c, sizeof x);
        store(row + c, -__builtin_convertvector(x, vi));
      }
    for (; c < count; ++c) row[c] = -int32_t(source[c * column_stride]);
    for (; c < COLUMNS; ++c) row[c] = fill;
  }
}
template <int ROWS, int COLUMNS>
static inline void store_flags(bool* __restrict to, const int32_t* __restrict from,
                               int64_t row_stride, int64_t column_stride, int rows, int columns) {
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = from + r * COLUMNS;
    bool* target = to + r * row_stride;
    int c = 0;
    if (column_stride == 1)
      for (; c + LANES <= columns; c += LANES) {
        vflags x = __builtin_convertvector(load(row + c) & 1, vflags);
        memcpy(target + c, &x, sizeof x);
      }
    for (; c < columns; ++c) target[c * column_stride] = row[c] != 0;
  }
}

// Those of COUNT numbers that are chosen, one after another.
template <int COUNT>
static inline void compact(int32_t* to, int64_t stride, const int32_t* __restrict from,
                           const int32_t* __restrict chosen) {
  int n = 0;
#if defined(__AVX512F__) && MIXC_LANES == 16
  if (stride == 1)
    for (; n + 16 <= COUNT; n += 16) {
      const __m512i flags = (__m512i)load(chosen + n);
      const __mmask16 mask = _mm512_test_epi32_mask(flags, flags);
      const int count = __builtin_popcount(mask);
      const __m512i x = _mm512_maskz_compress_epi32(mask, (__m512i)load(from + n));
      _mm512_mask_storeu_epi32(to, (__mmask16)((1u << count) - 1), x);
      to += count;
    }
#endif
  for (; n < COUNT; ++n)
    if (chosen[n]) {
      *to = from[n];
      to += stride;
    }
}

template <int ROWS, int COLUMNS, class To, class From>
static inline void store_tile(To* __restrict to, const From* __restrict from, int64_t row_stride,
                              int64_t column_stride, int rows, int columns) {
  if constexpr (COLUMNS % 8 == 0 && ROWS >= 8 && std::is_same_v<From, float>)
    if (row_stride == 1 && column_stride != 1)
      return store_turned<COLUMNS>(to, from, column_stride, rows, columns);
  if (column_stride == 1)
    for (int r = 0; r < rows; ++r)
      narrow_row(to + r * row_stride, from + r * COLUMNS, columns);
  else
    for (int c = 0; c < columns; ++c)
      for (int r = 0; r < rows; ++r)
        to[r * row_stride + c * column_stride] = narrow<To>(from[r * COLUMNS + c]);
}

// A tile of sums to those in memory.
template <int ROWS, int COLUMNS>
static inline void add_tile(float* __restrict to, const float* __restrict from, int64_t row_stride,
                            int64_t column_stride, int rows, int columns) {
  if (column_stride == 1)
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c) to[r * row_stride + c] += from[r * COLUMNS + c];
  else
    for (int c = 0; c < columns; ++c)
      for (int r = 0; r < rows; ++r)
        to[r * row_stride + c * column_stride] += from[r * COLUMNS + c];
}

// Rows that lie at the places of an index, side by side; 0 where there is none.
template <int ROWS, int COLUMNS, class T>
static inline void gather_rows(T* __restrict to, const T* __restrict from,
                               const int32_t* __restrict at, int64_t row_stride,
                               int64_t column_stride, int rows, int columns) {
  for (int r = 0; r < ROWS; ++r) {
    T* row = to + r * COLUMNS;
    if (r >= rows) {
      memset((void*)row, 0, COLUMNS * sizeof(T));
      continue;
    }
    const T* source = from + at[r] * row_stride;
    if (columns == COLUMNS && column_stride == 1)
      memcpy(row, source, COLUMNS * sizeof(T));
    else {
      for (int c = 0; c < columns; ++c) row[c] = source[c * column_stride];
      memset((void*)(row + columns), 0, (COLUMNS - columns) * sizeof(T));
    }
  }
}

// The same back to their places, or (ADD) added to what is there.
template <int ROWS, int COLUMNS, bool ADD>
static inline void put_rows(const float* __restrict from, float* __restrict to,
                            const int32_t* __restrict at, int64_t row_stride,
                            int64_t column_stride, int rows, int columns) {
  for (int r = 0; r < rows; ++r) {
    const float* row = from + r * COLUMNS;
    float* target = to + at[r] * row_stride;
    if (columns == COLUMNS && column_stride == 1)
      for (int c = 0; c < COLUMNS; ++c) target[c] = ADD ? target[c] + row[c] : row[c];
    else
      for (int c = 0; c < columns; ++c) {
        float* place = target + c * column_stride;
        *place = ADD ? *place + row[c] : row[c];
      }
  }
}

// ------------------------------------------------------------------ bfloat16 operands of dots

template <int COLUMNS>
MX_INLINE void interleave(uint32_t* __restrict to, const uint16_t* __restrict low,
                          const uint16_t* __restrict high) {
  int c = 0;
#if defined(__AVX512BW__) && MIXC_LANES == 16
  const vi first = {0x200000, 0x210001, 0x220002, 0x230003, 0x240004, 0x250005,
                    0x260006, 0x270007, 0x280008, 0x290009, 0x2a000a, 0x2b000b,
                    0x2c000c, 0x2d000d, 0x2e000e, 0x2f000f};
  for (; c + 32 <= COLUMNS; c += 32) {
    __m512i a = (__m512i)load((const int32_t*)(low + c));
    __m512i b = (__m512i)load((const int32_t*)(high + c));
    __m512i next = (__m512i)(first + 0x100010);
    store((int32_t*)to + c, (vi)_mm512_permutex2var_epi16(a, (__m512i)first, b));
    store((int32_t*)to + c + 16, (vi)_mm512_permutex2var_epi16(a, next, b));
  }
#endif
  for (; c < COLUMNS; ++c) to[c] = low[c] | uint32_t(high[c]) << 16;
}

// Pairs of adjacent rows side by side: to[r / 2][c] = (from[r][c], from[r + 1][c]).
template <int ROWS, int COLUMNS>
static inline void load_pairs(uint32_t* __restrict to, const bf16* __restrict from,
                              int64_t row_stride, int64_t column_stride, int rows, int columns) {
  const uint16_t* bits = (const uint16_t*)from;
  if (rows == ROWS && columns == COLUMNS && column_stride == 1) {
    for (int r = 0; r < ROWS; r += 2)
      interleave<COLUMNS>(to + r / 2 * COLUMNS, bits + r * row_stride,
                          bits + (r + 1) * row_stride);
  } else if (rows == ROWS && row_stride == 1) {
    int c = 0;
#if defined(__AVX512F__) && MIXC_LANES == 16
    if (ROWS % 32 == 0)
      for (; c + 16 <= columns; c += 16)
        for (int r = 0; r < ROWS; r += 32)
          transpose_block(to + r / 2 * COLUMNS + c, COLUMNS, bits + c * column_stride + r,
                          column_stride);
#endif
    for (; c < COLUMNS; ++c)
      for (int r = 0; r < ROWS; r += 2) {
        uint32_t pair = 0;
        if (c < columns) memcpy(&pair, bits + c * column_stride + r, 4);
        to[r / 2 * COLUMNS + c] = pair;
      }
  } else {
    for (int r = 0; r < ROWS; r += 2)
      for (int c = 0; c < COLUMNS; ++c) {
        const uint16_t* source = bits + r * row_stride + c * column_stride;
        uint32_t low = r < rows && c < columns ? source[0] : 0;
        uint32_t high = r + 1 < rows && c < columns ? source[row_stride] : 0;
        to[r / 2 * COLUMNS + c] = low | high << 16;
      }
  }
}

// Rows of bfloat16, as they are.
template <int ROWS, int COLUMNS>
static inline void load_rows(uint16_t* __restrict to, const bf16* __restrict from,
                             int64_t row_stride, int64_t column_stride, int rows, int columns) {
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COLUMNS; ++c)
      to[r * COLUMNS + c] =
          r < rows && c < columns ? from[r * row_stride + c * column_stride].bits : 0;
}

// The same two forms from an array of floats.
template <int ROWS, int COLUMNS>
static inline void make_pairs(uint32_t* __restrict to, const float* __restrict from,
                              int row_stride, int column_stride) {
  if (column_stride == 1 && COLUMNS % LANES == 0) {
    for (int r = 0; r < ROWS; r += 2)
      for (int c = 0; c < COLUMNS; c += LANES) {
        const float* source = from + r * row_stride + c;
        vu pairs = pair_bf16(load(source), load(source + row_stride));
        store((int32_t*)to + r / 2 * COLUMNS + c, (vi)pairs);
      }
    return;
  }
  for (int r = 0; r < ROWS; r += 2)
    for (int c = 0; c < COLUMNS; ++c) {
      const float* source = from + r * row_stride + c * column_stride;
      uint32_t high = to_bf16(source[row_stride]).bits;
      to[r / 2 * COLUMNS + c] = to_bf16(source[0]).bits | high << 16;
    }
}

template <int ROWS, int COLUMNS>
static inline void make_rows(uint16_t* __restrict to, const float* __restrict from, int row_stride,
                             int column_stride) {
  if (column_stride == 1 && COLUMNS % LANES == 0) {
    for (int r = 0; r < ROWS; ++r)
      for (int c = 0; c < COLUMNS; c += LANES)
        store(to + r * COLUMNS + c, narrow_bf16(load(from + r * row_stride + c)));
    return;
  }
#if defined(__AVX512F__) && MIXC_LANES == 16
  if constexpr (ROWS % 16 == 0 && COLUMNS % 16 == 0)
    if (row_stride == 1) {
      for (int r = 0; r < ROWS; r += 16)
        for (int c = 0; c < COLUMNS; c += 32) {
          const float* source = from + c * column_stride + r;
          __m512i x[16];
          MX_UNROLL for (int n = 0; n < 16; ++n)
            if (c + 2 * n < COLUMNS)
              x[n] = (__m512i)pair_bf16(load(source + 2 * n * column_stride),
                                        load(source + (2 * n + 1) * column_stride));
          if (COLUMNS - c >= 32)
            turn_block<16>(to + r * COLUMNS + c, COLUMNS, x);
          else
            turn_block<8>(to + r * COLUMNS + c, COLUMNS, x);
        }
      return;
    }
#endif
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COLUMNS; ++c)
      to[r * COLUMNS + c] = to_bf16(from[r * row_stride + c * column_stride]).bits;
}

template <int ROWS, int COLUMNS>
static inline void make_columns(float* __restrict to, const float* __restrict from, int row_stride,
                                int column_stride) {
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COLUMNS; ++c)
      to[r * COLUMNS + c] = from[r * row_stride + c * column_stride];
}

// --------------------------------------------------------------------------------- searching

// How many of the first ``size`` entries of a sorted table are < value (<= value with RIGHT).
template <bool RIGHT, class T>
static inline int32_t search_sorted(const T* table, int64_t stride, int32_t size, int32_t value) {
  int32_t low = 0, high = size;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    bool below = RIGHT ? table[middle * stride] <= value : table[middle * stride] < value;
    if (below) low = middle + 1;
    else high = middle;
  }
  return low;
}

}  // namespace mx
