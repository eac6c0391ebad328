// Products of bfloat16 by tiles of registers (AMX): out[M][N] (+)= sum over k of a[m][k] * b[k][N].
//
// A tile is 16 rows of 64 bytes: 16 x 16 sums, 16 rows of 32 numbers of a, 16 pairs of rows of b.
// Rows of a lie anywhere, each in one piece; b is in pairs, as a dot of pairs has it. M, N and K are
// multiples of 16. Two by two tiles of out stay in registers over all of K.
namespace mx {

// What each of the eight tiles is, as the hardware reads it. With HALVES (K is no multiple of 32
// somewhere) two hold 16 numbers of a row, and 8 pairs of rows.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  explicit TileShapes(bool halves) {
    for (int tile = 0; tile < 8; ++tile) row_bytes[tile] = 64, rows[tile] = 16;
    if (halves) row_bytes[6] = 32, rows[7] = 8;
  }
};

// A thread's tiles, as long as a kernel runs there; then they are as they were found.
template <bool HALVES> struct Tiles {
  TileShapes found{false};
  Tiles() {
    asm volatile("sttilecfg %0" : "=m"(found) : : "memory");
    const TileShapes own(HALVES);
    asm volatile("ldtilecfg %0" : : "m"(own) : "memory");
  }
  ~Tiles() {
    if (found.palette)
      asm volatile("ldtilecfg %0" : : "m"(found) : "memory");
    else
      asm volatile("tilerelease" : : : "memory");
  }
  Tiles(const Tiles&) = delete;
};

// A sanitiser does not see what the instructions below read and write: it is shown the ends of rows.
MX_INLINE void touch([[maybe_unused]] const void* at, [[maybe_unused]] int64_t stride,
                     [[maybe_unused]] int rows, [[maybe_unused]] int row_bytes) {
#ifdef __SANITIZE_ADDRESS__
  for (int r = 0; r < rows; ++r) {
    const volatile char* row = (const char*)at + r * stride;
    (void)row[0];
    (void)row[row_bytes - 1];
  }
#endif
}

template <int T>
MX_INLINE void tile_load(const void* from, int64_t stride, int rows = 16, int row_bytes = 64) {
  touch(from, stride, rows, row_bytes);
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(from), "r"(stride) : "memory");
}
template <int T> MX_INLINE void tile_store(void* to, int64_t stride) {
  touch(to, stride, 16, 64);
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(to), "r"(stride) : "memory");
}
template <int T> MX_INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" : : "i"(T)); }
template <int C, int A, int B> MX_INLINE void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

// ROWS by COLUMNS tiles of sums, 1 or 2 each: tmm0 and tmm1, below them tmm2 and tmm3.
template <int ROWS, int COLUMNS, int N, int K, bool ZERO, bool HALVES>
MX_INLINE void tile_block(float* out, const uint16_t* a, int64_t a_bytes, const uint32_t* b,
                          int64_t b_bytes) {
  constexpr bool DOWN = ROWS == 2, BESIDE = COLUMNS == 2;
  constexpr int64_t OUT = 4 * N;
  const uint16_t* a_below = (const uint16_t*)((const char*)a + 16 * a_bytes);
  if constexpr (ZERO) {
    tile_zero<0>();
    if constexpr (BESIDE) tile_zero<1>();
    if constexpr (DOWN) tile_zero<2>();
    if constexpr (DOWN && BESIDE) tile_zero<3>();
  } else {
    tile_load<0>(out, OUT);
    if constexpr (BESIDE) tile_load<1>(out + 16, OUT);
    if constexpr (DOWN) tile_load<2>(out + 16 * N, OUT);
    if constexpr (DOWN && BESIDE) tile_load<3>(out + 16 * N + 16, OUT);
  }
  for (int k = 0; k < K / 32; ++k) {
    const uint32_t* pairs = (const uint32_t*)((const char*)b + k * 16 * b_bytes);
    tile_load<4>(a + 32 * k, a_bytes);
    if constexpr (HALVES) {  // one tile at a time for each factor: the other two are halves
      tile_load<5>(pairs, b_bytes);
      tile_multiply<0, 4, 5>();
      if constexpr (DOWN) {
        tile_load<4>(a_below + 32 * k, a_bytes);
        tile_multiply<2, 4, 5>();
      }
      if constexpr (BESIDE) {
        tile_load<5>(pairs + 16, b_bytes);
        if constexpr (DOWN) tile_multiply<3, 4, 5>();
        if constexpr (DOWN) tile_load<4>(a + 32 * k, a_bytes);
        tile_multiply<1, 4, 5>();
      }
    } else {
      tile_load<6>(pairs, b_bytes);
      tile_multiply<0, 4, 6>();
      if constexpr (DOWN) {
        tile_load<5>(a_below + 32 * k, a_bytes);
        tile_multiply<2, 5, 6>();
      }
      if constexpr (BESIDE) {
        tile_load<7>(pairs + 16, b_bytes);
        tile_multiply<1, 4, 7>();
        if constexpr (DOWN) tile_multiply<3, 5, 7>();
      }
    }
  }
  if constexpr (K % 32 != 0) {
    static_assert(HALVES && K % 32 == 16);
    constexpr int DONE = K / 32 * 32;
    const uint32_t* pairs = (const uint32_t*)((const char*)b + DONE / 2 * b_bytes);
    tile_load<6>(a + DONE, a_bytes, 16, 32);
    tile_load<7>(pairs, b_bytes, 8);
    tile_multiply<0, 6, 7>();
    if constexpr (DOWN) {
      tile_load<6>(a_below + DONE, a_bytes, 16, 32);
      tile_multiply<2, 6, 7>();
    }
    if constexpr (BESIDE) {
      tile_load<7>(pairs + 16, b_bytes, 8);
      if constexpr (DOWN) tile_multiply<3, 6, 7>();
      if constexpr (DOWN) tile_load<6>(a + DONE, a_bytes, 16, 32);
      tile_multiply<1, 6, 7>();
    }
  }
  tile_store<0>(out, OUT);
  if constexpr (BESIDE) tile_store<1>(out + 16, OUT);
  if constexpr (DOWN) tile_store<2>(out + 16 * N, OUT);
  if constexpr (DOWN && BESIDE) tile_store<3>(out + 16 * N + 16, OUT);
}

// Sums times a factor per row or per column; most factors are 1 once a maximum has been met.
template <int M, int N, Start START>
MX_INLINE void rescale(float* __restrict out, const float* __restrict scale) {
  if constexpr (START == Start::ROWS_SCALED)
    for (int m = 0; m < M; ++m) {
      if (scale[m] == 1.0f) continue;
      MX_UNROLL for (int n = 0; n < N; n += LANES)
        store(out + m * N + n, load(out + m * N + n) * splat(scale[m]));
    }
  if constexpr (START == Start::COLUMNS_SCALED)
    for (int n = 0; n < N; n += LANES) {
      vf factor = load(scale + n);
      if (!any_lanes(factor != 1.0f)) continue;
      for (int m = 0; m < M; ++m) store(out + m * N + n, load(out + m * N + n) * factor);
    }
}

template <int ROWS, int N, int K, bool ZERO, bool HALVES>
MX_INLINE void tile_rows(float* out, const uint16_t* a, int64_t a_bytes, const uint32_t* b,
                         int64_t b_bytes) {
  for (int n = 0; n + 32 <= N; n += 32)
    tile_block<ROWS, 2, N, K, ZERO, HALVES>(out + n, a, a_bytes, b + n, b_bytes);
  if constexpr (N % 32 != 0)
    tile_block<ROWS, 1, N, K, ZERO, HALVES>(out + N - 16, a, a_bytes, b + N - 16, b_bytes);
}

template <bool HALVES, int M, int N, int K, Start START>
static __attribute__((noinline)) void tile_dot(float* out, const uint16_t* a, int64_t row_stride,
                                               int64_t, const uint32_t* b, int64_t b_stride,
                                               const float* scale = nullptr) {
  static_assert(M % 16 == 0 && N % 16 == 0 && K % 16 == 0);
  constexpr bool ZERO = START == Start::ZERO;
  rescale<M, N, START>(out, scale);
  for (int m = 0; m + 32 <= M; m += 32)
    tile_rows<2, N, K, ZERO, HALVES>(out + m * N, a + m * row_stride, 2 * row_stride, b,
                                     4 * b_stride);
  if constexpr (M % 32 != 0)
    tile_rows<1, N, K, ZERO, HALVES>(out + (M - 16) * N, a + (M - 16) * row_stride,
                                     2 * row_stride, b, 4 * b_stride);
}

template <int M, int K> static inline bool rows_are_finite(const uint16_t* a, int64_t row_stride) {
  vh odd = {};
  for (int m = 0; m < M; ++m)
    MX_UNROLL for (int k = 0; k < K; k += LANES)
      odd |= (vh)((load(a + m * row_stride + k) & 0x7f80) == 0x7f80);
  bool any = false;
  for (int n = 0; n < LANES; ++n) any |= odd[n] != 0;
  return !any;
}

// A dot of which one operand masks, see ``masked_dot``.
template <bool HALVES, int M, int N, int K, Start START, bool LEFT_MASKS>
static inline void masked_tile_dot(float* out, const uint16_t* a, int64_t row_stride, int64_t step,
                                   const uint32_t* b, int64_t b_stride,
                                   const float* scale = nullptr) {
  bool plain = LEFT_MASKS ? right_is_finite<Pairs, N, K>(b, b_stride)
                          : rows_are_finite<M, K>(a, row_stride);
  if (plain)
    tile_dot<HALVES, M, N, K, START>(out, a, row_stride, step, b, b_stride, scale);
  else
    dot_of_seen<Pairs, M, N, K, START, LEFT_MASKS>(out, a, row_stride, step, b, b_stride, scale);
}

// ---------------------------------------------------------------------------- rows out of pairs

// from[k / 2][m] of pairs --> to[m][k].
template <int M, int K>
static inline void turn_pairs(uint16_t* __restrict to, const uint32_t* __restrict from) {
  __m512i x[16];
  for (int m = 0; m < M; m += 16) {
    for (int k = 0; k + 32 <= K; k += 32) {
      MX_UNROLL for (int n = 0; n < 16; ++n) memcpy(&x[n], from + (k / 2 + n) * M + m, 64);
      turn_block<16>(to + m * K + k, K, x);
    }
    if constexpr (K % 32 != 0) {
      constexpr int DONE = K / 32 * 32;
      MX_UNROLL for (int n = 0; n < 8; ++n) memcpy(&x[n], from + (DONE / 2 + n) * M + m, 64);
      turn_block<8>(to + m * K + DONE, K, x);
    }
  }
}

// Rows of bfloat16 whose numbers lie below each other in memory: to[r][c] = from[c][r].
template <int ROWS, int COLUMNS>
static inline void load_turned_rows(uint16_t* __restrict to, const bf16* __restrict from,
                                    int64_t row_stride, int64_t column_stride, int rows,
                                    int columns) {
  if (ROWS % 16 || COLUMNS % 16 || row_stride != 1 || rows != ROWS)
    return load_rows<ROWS, COLUMNS>(to, from, row_stride, column_stride, rows, columns);
  const uint16_t* bits = (const uint16_t*)from;
  const auto numbers = [&](int c, int r) {
    vh x = {};
    if (c < columns) x = load(bits + c * column_stride + r);
    return __builtin_convertvector(x, vu);
  };
  __m512i x[16];
  for (int r = 0; r < ROWS; r += 16)
    for (int c = 0; c < COLUMNS; c += 32) {
      MX_UNROLL for (int n = 0; n < 16; ++n) {
        const int at = c + 2 * n;
        x[n] = (__m512i)(numbers(at, r) | numbers(at + 1, r) << 16);
      }
      if (COLUMNS - c >= 32)
        turn_block<16>(to + r * COLUMNS + c, COLUMNS, x);
      else
        turn_block<8>(to + r * COLUMNS + c, COLUMNS, x);
    }
}

}  // namespace mx
