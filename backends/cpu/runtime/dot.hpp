// Register-blocked products: out[M][N] (+)= sum over k of a[m][k] * b[k][N].
//
// b is an operand in vectors along N, ``b_stride`` numbers from one k to the next; of a, one number at a time is spread over a vector. a may have
// any strides, so that it can be read where it lies. R rows by V vectors of out stay in registers.
#define MX_UNROLL_4 _Pragma("GCC unroll 4")

namespace mx {

// How the accumulators start: at zero, at out, or at out times a factor per row or per column.
enum class Start { ZERO, OUT, ROWS_SCALED, COLUMNS_SCALED };

template <int R, int V, int N, Start START>
MX_INLINE void start_block(vf (&c)[R][V], const float* out, const float* scale) {
  MX_UNROLL for (int r = 0; r < R; ++r)
    MX_UNROLL for (int v = 0; v < V; ++v) {
      c[r][v] = START == Start::ZERO ? vf{} : load(out + r * N + v * LANES);
      if (START == Start::ROWS_SCALED) c[r][v] *= splat(scale[r]);
      if (START == Start::COLUMNS_SCALED) c[r][v] *= load(scale + v * LANES);
    }
}
template <int R, int V, int N>
MX_INLINE void finish_block(const vf (&c)[R][V], float* out) {
  MX_UNROLL for (int r = 0; r < R; ++r)
    MX_UNROLL for (int v = 0; v < V; ++v) store(out + r * N + v * LANES, c[r][v]);
}

struct Floats {
  // One number of a, a vector of b.
  MX_INLINE float left(const float* a, int64_t row_stride, int64_t step, int m, int k) {
    return a[m * row_stride + k * step];
  }
  MX_INLINE vf right(const float* b, int64_t b_stride, int k, int n) {
    return load(b + k * b_stride + n);
  }

  template <int R, int V, int K, int N, Start START>
  static inline __attribute__((noinline)) void block(
      float* __restrict out, const float* __restrict a, int64_t row_stride, int64_t step,
      const float* __restrict b, int64_t b_stride, const float* __restrict scale) {
    vf c[R][V];
    start_block<R, V, N, START>(c, out, scale);
    MX_UNROLL_4 for (int k = 0; k < K; ++k) {
      vf column[V];
      MX_UNROLL for (int v = 0; v < V; ++v) column[v] = load(b + k * b_stride + v * LANES);
      MX_UNROLL for (int r = 0; r < R; ++r) {
        vf row = splat(a[r * row_stride + k * step]);
        MX_UNROLL for (int v = 0; v < V; ++v) c[r][v] += row * column[v];
      }
    }
    finish_block<R, V, N>(c, out);
  }
};

#ifdef MIXC_PAIRED_DOT
// bfloat16 in pairs of adjacent k: a pair of a lies at a[m * row_stride + k / 2 * step].
struct Pairs {
  MX_INLINE float left(const uint16_t* a, int64_t row_stride, int64_t step, int m, int k) {
    return widen(bf16{a[m * row_stride + k / 2 * step + k % 2]});
  }
  MX_INLINE vf right(const uint32_t* b, int64_t b_stride, int k, int n) {
    vi pair = load((const int32_t*)b + k / 2 * b_stride + n);
    return (vf)(k % 2 ? pair & int32_t(0xffff0000) : pair << 16);
  }

  template <int R, int V, int K, int N, Start START>
  static inline __attribute__((noinline)) void block(
      float* __restrict out, const uint16_t* __restrict a, int64_t row_stride, int64_t step,
      const uint32_t* __restrict b, int64_t b_stride, const float* __restrict scale) {
    vf c[R][V];
    start_block<R, V, N, START>(c, out, scale);
    MX_UNROLL_4 for (int k = 0; k < K / 2; ++k) {
      vi column[V];
      MX_UNROLL for (int v = 0; v < V; ++v)
        column[v] = load((const int32_t*)b + k * b_stride + v * LANES);
      MX_UNROLL for (int r = 0; r < R; ++r) {
        int32_t pair;
        memcpy(&pair, a + r * row_stride + k * step, 4);
        vi row = splat(pair);
        MX_UNROLL for (int v = 0; v < V; ++v)
          c[r][v] = (vf)_mm512_dpbf16_ps((__m512)c[r][v], (__m512bh)row, (__m512bh)column[v]);
      }
    }
    finish_block<R, V, N>(c, out);
  }
};
#endif

// Rows in blocks of R at most that differ by one at most: a last block of few rows would wait for
// its own sums.
template <class Kind, int M, int N, int K, int R, int V, Start START, class A, class B>
static inline void dot_columns(float* out, const A* a, int64_t row_stride, int64_t step,
                               const B* b, int64_t b_stride, const float* scale) {
  constexpr int BLOCKS = (M + R - 1) / R, FEW = M / BLOCKS, MORE = M % BLOCKS * (FEW + 1);
  constexpr int PER_ROW = START == Start::ROWS_SCALED;
  for (int m = 0; m < MORE; m += FEW + 1)
    Kind::template block<FEW + (MORE > 0), V, K, N, START>(
        out + m * N, a + m * row_stride, row_stride, step, b, b_stride, scale + m * PER_ROW);
  for (int m = MORE; m < M; m += FEW)
    Kind::template block<FEW, V, K, N, START>(out + m * N, a + m * row_stride, row_stride, step, b,
                                              b_stride, scale + m * PER_ROW);
}

template <class Kind, int M, int N, int K, int R, int V, Start START, class A, class B>
static inline void dot(float* out, const A* a, int64_t row_stride, int64_t step, const B* b,
                       int64_t b_stride, const float* scale = nullptr) {
  constexpr int WIDTH = V * LANES, REST = N % WIDTH / LANES, DONE = N / WIDTH * WIDTH;
  constexpr int PER_COLUMN = START == Start::COLUMNS_SCALED;
  for (int n = 0; n < DONE; n += WIDTH)
    dot_columns<Kind, M, N, K, R, V, START>(out + n, a, row_stride, step, b + n,
                                            b_stride, scale + n * PER_COLUMN);
  if constexpr (REST != 0)
    dot_columns<Kind, M, N, K, R, REST, START>(out + DONE, a, row_stride, step, b + DONE,
                                               b_stride, scale + DONE * PER_COLUMN);
}

// The same of the first rows and columns, up to the end of a block of them: nothing reads others.
template <class Kind, int M, int N, int K, int R, int V, Start START, class A, class B>
static inline void dot(float* out, const A* a, int64_t row_stride, int64_t step, const B* b,
                       int64_t b_stride, const float* scale, int rows, int columns) {
  constexpr int WIDTH = V * LANES, MORE = R * V < 16 ? R * V : 16;
  constexpr int PER_COLUMN = START == Start::COLUMNS_SCALED, PER_ROW = START == Start::ROWS_SCALED;
  if (M % R || N % LANES || (rows >= M && columns >= N))
    return dot<Kind, M, N, K, R, V, START>(out, a, row_stride, step, b, b_stride, scale);
  if (rows < M) {
    for (int n = 0; n + WIDTH <= N; n += WIDTH)
      for (int m = 0; m < rows; m += R)
        Kind::template block<R, V, K, N, START>(
            out + m * N + n, a + m * row_stride, row_stride, step, b + n, b_stride,
            scale + m * PER_ROW + n * PER_COLUMN);
    for (int n = N / WIDTH * WIDTH; n < N; n += LANES)
      for (int m = 0; m < rows; m += R)
        Kind::template block<R, 1, K, N, START>(
            out + m * N + n, a + m * row_stride, row_stride, step, b + n, b_stride,
            scale + m * PER_ROW + n * PER_COLUMN);
    return;
  }
  int n = 0;
  for (; n + WIDTH <= columns; n += WIDTH)
    dot_columns<Kind, M, N, K, R, V, START>(out + n, a, row_stride, step, b + n, b_stride,
                                            scale + n * PER_COLUMN);
  for (; n < columns; n += LANES)  // one vector of a row leaves registers for more rows
    dot_columns<Kind, M, N, K, M % MORE ? R : MORE, 1, START>(
        out + n, a, row_stride, step, b + n, b_stride, scale + n * PER_COLUMN);
}

// ---------------------------------------------------------------- dots of which one operand masks
//
// It is 0 where the other holds what a row must not see, which may be infinite or NaN: seldom, so
// that it is worth a look whether there is any such number.

template <class Kind, int N, int K, class B>
static inline bool right_is_finite(const B* b, int64_t b_stride) {
  vi odd = {};
  for (int k = 0; k < K; ++k)
    MX_UNROLL for (int n = 0; n < N; n += LANES) {
      vf x = Kind::right(b, b_stride, k, n);
      odd |= x - x != 0.0f;
    }
  return !any_lanes(odd);
}
template <class Kind, int M, int K, class A>
static inline bool left_is_finite(const A* a, int64_t row_stride, int64_t step) {
  bool odd = false;
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k) {
      float x = Kind::left(a, row_stride, step, m, k);
      odd |= x - x != 0.0f;
    }
  return !odd;
}

// As it is defined: number by number.
template <class Kind, int M, int N, int K, Start START, bool LEFT_MASKS, class A, class B>
static __attribute__((noinline)) void dot_of_seen(float* out, const A* a, int64_t row_stride,
                                                  int64_t step, const B* b, int64_t b_stride,
                                                  const float* scale) {
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; n += LANES) {
      vf c[1][1];
      int at = START == Start::ROWS_SCALED ? m : START == Start::COLUMNS_SCALED ? n : 0;
      start_block<1, 1, N, START>(c, out + m * N + n, scale + at);
      for (int k = 0; k < K; ++k) {
        vf row = splat(Kind::left(a, row_stride, step, m, k));
        vf column = Kind::right(b, b_stride, k, n);
        c[0][0] += (LEFT_MASKS ? row : column) == 0.0f ? vf{} : row * column;
      }
      finish_block<1, 1, N>(c, out + m * N + n);
    }
}

template <class Kind, int M, int N, int K, int R, int V, Start START, bool LEFT_MASKS, class A,
          class B>
static inline void masked_dot(float* out, const A* a, int64_t row_stride, int64_t step, const B* b,
                              int64_t b_stride, const float* scale = nullptr) {
  bool plain = LEFT_MASKS ? right_is_finite<Kind, N, K>(b, b_stride)
                          : left_is_finite<Kind, M, K>(a, row_stride, step);
  if (plain)
    dot<Kind, M, N, K, R, V, START>(out, a, row_stride, step, b, b_stride, scale);
  else
    dot_of_seen<Kind, M, N, K, START, LEFT_MASKS>(out, a, row_stride, step, b, b_stride, scale);
}
template <class Kind, int M, int N, int K, int R, int V, Start START, bool LEFT_MASKS, class A,
          class B>
static inline void masked_dot(float* out, const A* a, int64_t row_stride, int64_t step, const B* b,
                              int64_t b_stride, const float* scale, int rows, int columns) {
  bool plain = LEFT_MASKS ? right_is_finite<Kind, N, K>(b, b_stride)
                          : left_is_finite<Kind, M, K>(a, row_stride, step);
  if (plain)
    dot<Kind, M, N, K, R, V, START>(out, a, row_stride, step, b, b_stride, scale, rows, columns);
  else
    dot_of_seen<Kind, M, N, K, START, LEFT_MASKS>(out, a, row_stride, step, b, b_stride, scale);
}

}  // namespace mx
