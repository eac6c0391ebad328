// Running sums along a row, triangular and dense systems of equations.
namespace mx {

// Lane n becomes lane n - BY, the first ones those of ``rest`` (n + BY and the last with REVERSE).
template <int BY, bool REVERSE, int... N>
MX_INLINE vf moved(vf x, vf rest, Lanes<N...>) {
  if constexpr (REVERSE) return MX_SHUFFLE(x, rest, (N + BY)...);
  return MX_SHUFFLE(rest, x, (LANES + N - BY)...);
}
template <class F, bool REVERSE, int BY = 1> MX_INLINE vf running_lanes(vf x) {
  if constexpr (BY < LANES) {
    x = F::of(moved<BY, REVERSE>(x, splat(F::START), EachLane{}), x);
    return running_lanes<F, REVERSE, 2 * BY>(x);
  }
  return x;
}

// The running sum (product, maximum) of each row: a row is whole vectors.
template <class F, bool REVERSE, int ROWS, int COLUMNS>
static inline void running_rows(float* __restrict to, const float* __restrict from) {
  for (int r = 0; r < ROWS; ++r) {
    float so_far = F::START;
    for (int turn = 0; turn < COLUMNS; turn += LANES) {
      int at = r * COLUMNS + (REVERSE ? COLUMNS - LANES - turn : turn);
      vf x = F::of(splat(so_far), running_lanes<F, REVERSE>(load(from + at)));
      store(to + at, x);
      so_far = x[REVERSE ? 0 : LANES - 1];
    }
  }
}

// ------------------------------------------------------------------- unit triangular systems

// Rows first ... first + R - 1 of x, once those before are known: R by V vectors in registers.
template <int R, int V, int N>
static inline __attribute__((noinline)) void substitute_block(
    float* __restrict x, int first, const float* __restrict a, int64_t row_stride,
    int64_t column_stride) {
  vf c[R][V];
  float* own = x + int64_t(first) * N;
  const float* rows = a + first * row_stride;
  MX_UNROLL for (int r = 0; r < R; ++r)
    MX_UNROLL for (int v = 0; v < V; ++v) c[r][v] = load(own + r * N + v * LANES);
  for (int s = 0; s < first; ++s) {
    vf known[V];
    MX_UNROLL for (int v = 0; v < V; ++v) known[v] = load(x + int64_t(s) * N + v * LANES);
    MX_UNROLL for (int r = 0; r < R; ++r) {
      vf factor = splat(rows[r * row_stride + s * column_stride]);
      MX_UNROLL for (int v = 0; v < V; ++v) c[r][v] += factor * known[v];
    }
  }
  rows += first * column_stride;
  MX_UNROLL for (int s = 0; s + 1 < R; ++s)
    MX_UNROLL for (int r = s + 1; r < R; ++r) {
      vf factor = splat(rows[r * row_stride + s * column_stride]);
      MX_UNROLL for (int v = 0; v < V; ++v) c[r][v] += factor * c[s][v];
    }
  MX_UNROLL for (int r = 0; r < R; ++r)
    MX_UNROLL for (int v = 0; v < V; ++v) store(own + r * N + v * LANES, c[r][v]);
}

template <int R, int V, int M, int N>
static inline void substitute_columns(float* x, const float* a, int64_t row_stride,
                                      int64_t column_stride) {
  constexpr int REST = M % R, DONE = M - REST;
  for (int first = 0; first < DONE; first += R)
    substitute_block<R, V, N>(x, first, a, row_stride, column_stride);
  if constexpr (REST != 0) substitute_block<REST, V, N>(x, DONE, a, row_stride, column_stride);
}

// x[t] += the sum over s < t of a[t][s] * x[s], in place; x lies row-major, M by N.
template <int M, int N>
static inline void substitute(float* __restrict x, const float* __restrict a, int64_t row_stride,
                              int64_t column_stride) {
  constexpr int R = 8, V = 2, WIDTH = V * LANES;
  if constexpr (N % LANES == 0) {
    constexpr int REST = N % WIDTH / LANES, DONE = N / WIDTH * WIDTH;
    for (int n = 0; n < DONE; n += WIDTH)
      substitute_columns<R, V, M, N>(x + n, a, row_stride, column_stride);
    if constexpr (REST != 0)
      substitute_columns<R, REST, M, N>(x + DONE, a, row_stride, column_stride);
  } else {
    for (int t = 1; t < M; ++t)
      for (int s = 0; s < t; ++s)
        for (int n = 0; n < N; ++n)
          x[t * N + n] += a[t * row_stride + s * column_stride] * x[s * N + n];
  }
}

// ---------------------------------------------------------------------------- dense systems

// The x for which matrix * x = b, of the first ``size`` rows and columns; 0 past them. ``matrix``
// and ``b`` are overwritten: elimination with the largest pivot of each column.
template <int M, int N>
static inline void solve(float* __restrict x, float* __restrict matrix, float* __restrict b,
                         int size) {
  for (int n = 0; n < size; ++n) {
    int pivot = n;
    for (int r = n + 1; r < size; ++r)
      if (abs(matrix[r * M + n]) > abs(matrix[pivot * M + n])) pivot = r;
    if (pivot != n) {
      for (int c = 0; c < M; ++c) {
        float other = matrix[n * M + c];
        matrix[n * M + c] = matrix[pivot * M + c];
        matrix[pivot * M + c] = other;
      }
      for (int c = 0; c < N; ++c) {
        float other = b[n * N + c];
        b[n * N + c] = b[pivot * N + c];
        b[pivot * N + c] = other;
      }
    }
    float inverse = 1.0f / matrix[n * M + n];
    for (int r = n + 1; r < size; ++r) {
      float factor = matrix[r * M + n] * inverse;
      for (int c = 0; c < M; ++c) matrix[r * M + c] -= factor * matrix[n * M + c];
      for (int c = 0; c < N; ++c) b[r * N + c] -= factor * b[n * N + c];
    }
  }
  for (int n = M - 1; n >= 0; --n) {
    if (n >= size) {
      for (int c = 0; c < N; ++c) x[n * N + c] = 0.0f;
      continue;
    }
    float* row = x + n * N;
    for (int c = 0; c < N; ++c) row[c] = b[n * N + c];
    for (int s = n + 1; s < size; ++s)
      for (int c = 0; c < N; ++c) row[c] -= matrix[n * M + s] * x[s * N + c];
    for (int c = 0; c < N; ++c) row[c] /= matrix[n * M + n];
  }
}

}  // namespace mx
