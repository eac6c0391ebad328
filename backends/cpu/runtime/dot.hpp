// Register-blocked products: out[M][N] (+)= sum over k of a[m][k] * b[k][N].
//
// b is an operand in vectors along N, ``b_stride`` numbers from one k to the next; of a, one number at a time is spread over a vector. a may have
// any strides, so that it can be read where it lies. R rows by V vectors of out stay in registers.
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
  template <int R, int V, int K, int N, Start START>
  static inline __attribute__((noinline)) void block(
      float* __restrict out, const float* __restrict a, int64_t row_stride, int64_t step,
      const float* __restrict b, int64_t b_stride, const float* __restrict scale) {
    vf c[R][V];
    start_block<R, V, N, START>(c, out, scale);
    for (int k = 0; k < K; ++k) {
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
  template <int R, int V, int K, int N, Start START>
  static inline __attribute__((noinline)) void block(
      float* __restrict out, const uint16_t* __restrict a, int64_t row_stride, int64_t step,
      const uint32_t* __restrict b, int64_t b_stride, const float* __restrict scale) {
    vf c[R][V];
    start_block<R, V, N, START>(c, out, scale);
    for (int k = 0; k < K / 2; ++k) {
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

template <class Kind, int M, int N, int K, int R, int V, Start START, class A, class B>
static inline void dot_columns(float* out, const A* a, int64_t row_stride, int64_t step,
                               const B* b, int64_t b_stride, const float* scale) {
  constexpr int REST = M % R, DONE = M - REST, PER_ROW = START == Start::ROWS_SCALED;
  for (int m = 0; m < DONE; m += R)
    Kind::template block<R, V, K, N, START>(out + m * N, a + m * row_stride, row_stride, step, b,
                                            b_stride, scale + m * PER_ROW);
  if constexpr (REST != 0)
    Kind::template block<REST, V, K, N, START>(out + DONE * N, a + DONE * row_stride, row_stride,
                                               step, b, b_stride, scale + DONE * PER_ROW);
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

}  // namespace mx
