// Sums over lags of two rows of numbers, W channels side by side: product by product where that
// takes less, else by a fast Fourier transform.
//
// Rows are real; two halves of one become real and imaginary parts, modulo z^n = i instead of 1
// (the "right-angle" transform): products of length 2 n by a transform of length n. A node of
// length m with z^m = e^(i phi) falls into four of length m / 4 with z^(m/4) = e^(i phi/4) i^k, in
// place, so that results come in an order which the way back undoes. Depth first: from some depth
// on a node stays in the caches.
#include <cmath>
#include <vector>

namespace mx {

constexpr int W = LANES < 8 ? 8 : LANES;
typedef float vw __attribute__((vector_size(4 * W)));
constexpr int AT_ONCE = 256;  // numbers whose transform is done level by level
constexpr int64_t FEW = 24;   // lags, or results: so many are summed one by one
// Products that take the time of one number and level of a transform, there and back.
#ifndef MIXC_OF_A_TRANSFORM
#define MIXC_OF_A_TRANSFORM 36
#endif
constexpr int AT_A_TIME = 16;    // results whose totals are in registers
constexpr int64_t STRIP = 1024;  // results of one group of channels after another

// Numbers per channel: one every ``stride``, channels ``lane`` apart.
template <class T> struct Row { T* start; int64_t stride, lane; };
// out[o] = the sum over r of a[r] * x[out_sign * o + lag_sign * r + offset], r < lags, 0 outside x;
// summed over further axes, too.
struct LagSum {
  int64_t outs, lags, size, out_sign, lag_sign, offset;
  int axes;
  int64_t counts[4], a_strides[4], x_strides[4];
};

struct Complex { vw re, im; };
MX_INLINE Complex load_complex(const float* p) {
  Complex x;
  memcpy(&x, p, sizeof x);
  return x;
}
MX_INLINE void store_complex(float* p, Complex x) { memcpy(p, &x, sizeof x); }
MX_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
MX_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
MX_INLINE Complex turned(Complex a) { return {-a.im, a.re}; }  // times i
MX_INLINE Complex times(Complex a, float re, float im) {
  return {a.re * re - a.im * im, a.re * im + a.im * re};
}
MX_INLINE Complex times(Complex a, Complex b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// The factors of each node, level by level: three for a node of four, one for the first of two.
struct Transform {
  int64_t length;
  bool halves;  // whether the first level has two nodes
  std::vector<float> factors;
  std::vector<const float*> levels;
};

inline Transform make_transform(int64_t length) {
  int bits = 0;
  while (int64_t(1) << bits < length) ++bits;
  Transform made{length, bits % 2 == 1, {}, {}};
  std::vector<double> angles{std::acos(0.0)}, next;
  std::vector<size_t> starts;
  for (int64_t size = length, ways = 0; size > 1; size /= ways) {
    ways = made.halves && size == length ? 2 : 4;
    starts.push_back(made.factors.size());
    next.clear();
    for (double angle : angles) {
      const double own = angle / double(ways);
      for (int way = 1; way < ways; ++way) {
        made.factors.push_back(float(std::cos(way * own)));
        made.factors.push_back(float(std::sin(way * own)));
      }
      for (int way = 0; way < ways; ++way)
        next.push_back(own + 4 * std::acos(0.0) * way / double(ways));
    }
    angles = next;
  }
  for (size_t start : starts) made.levels.push_back(made.factors.data() + start);
  return made;
}

// Made once for each length, and kept.
inline const Transform& transform_of(int64_t length) {
  static const Transform* known[64] = {};
  const Transform* found;
  const int bits = __builtin_ctzll(uint64_t(length));
#pragma omp critical(mixc_transforms)
  {
    if (!known[bits]) known[bits] = new Transform(make_transform(length));
    found = known[bits];
  }
  return *found;
}

MX_INLINE void four_forward(float* x, int64_t quarter, const float* w) {
  for (int64_t k = 0; k < quarter; ++k) {
    float *p0 = x + 2 * W * k, *p1 = p0 + 2 * W * quarter, *p2 = p1 + 2 * W * quarter,
          *p3 = p2 + 2 * W * quarter;
    Complex a = load_complex(p0), b = times(load_complex(p1), w[0], w[1]);
    Complex c = times(load_complex(p2), w[2], w[3]), d = times(load_complex(p3), w[4], w[5]);
    Complex even = a + c, odd = a - c, sum = b + d, difference = turned(b - d);
    store_complex(p0, even + sum);
    store_complex(p1, odd + difference);
    store_complex(p2, even - sum);
    store_complex(p3, odd - difference);
  }
}
MX_INLINE void four_backward(float* x, int64_t quarter, const float* w) {
  for (int64_t k = 0; k < quarter; ++k) {
    float *p0 = x + 2 * W * k, *p1 = p0 + 2 * W * quarter, *p2 = p1 + 2 * W * quarter,
          *p3 = p2 + 2 * W * quarter;
    Complex a = load_complex(p0), b = load_complex(p1), c = load_complex(p2), d = load_complex(p3);
    Complex even = a + c, sum = a - c, odd = b + d, difference = turned(b - d);
    store_complex(p0, even + odd);
    store_complex(p1, times(sum - difference, w[0], -w[1]));
    store_complex(p2, times(even - odd, w[2], -w[3]));
    store_complex(p3, times(sum + difference, w[4], -w[5]));
  }
}
MX_INLINE void two_forward(float* x, int64_t half, const float* w) {
  for (int64_t k = 0; k < half; ++k) {
    float *p = x + 2 * W * k, *q = p + 2 * W * half;
    Complex a = load_complex(p), b = times(load_complex(q), w[0], w[1]);
    store_complex(p, a + b);
    store_complex(q, a - b);
  }
}
MX_INLINE void two_backward(float* x, int64_t half, const float* w) {
  for (int64_t k = 0; k < half; ++k) {
    float *p = x + 2 * W * k, *q = p + 2 * W * half;
    Complex a = load_complex(p), b = load_complex(q);
    store_complex(p, a + b);
    store_complex(q, times(a - b, w[0], -w[1]));
  }
}

// Node ``index`` of a level, ``size`` numbers at x.
static void forward(const Transform& t, float* x, int64_t size, int level, int64_t index) {
  if (size <= AT_ONCE) {
    int64_t nodes = 1;
    for (; size > 1; size /= 4, nodes *= 4, ++level)
      for (int64_t n = 0; n < nodes; ++n)
        four_forward(x + 2 * W * size * n, size / 4, t.levels[level] + 6 * (index * nodes + n));
    return;
  }
  four_forward(x, size / 4, t.levels[level] + 6 * index);
  for (int64_t n = 0; n < 4; ++n)
    forward(t, x + 2 * W * (size / 4) * n, size / 4, level + 1, 4 * index + n);
}
static void backward(const Transform& t, float* x, int64_t size, int level, int64_t index) {
  if (size <= AT_ONCE) {
    int64_t nodes = size / 4;
    int last = level;
    for (int64_t n = nodes; n > 1; n /= 4) ++last;
    for (int64_t part = 4; nodes >= 1; part *= 4, nodes /= 4, --last)
      for (int64_t n = 0; n < nodes; ++n)
        four_backward(x + 2 * W * part * n, part / 4, t.levels[last] + 6 * (index * nodes + n));
    return;
  }
  for (int64_t n = 0; n < 4; ++n)
    backward(t, x + 2 * W * (size / 4) * n, size / 4, level + 1, 4 * index + n);
  four_backward(x, size / 4, t.levels[level] + 6 * index);
}
static void forward(const Transform& t, float* x) {
  if (!t.halves) return forward(t, x, t.length, 0, 0);
  const int64_t half = t.length / 2;
  two_forward(x, half, t.levels[0]);
  for (int64_t n = 0; n < 2; ++n) forward(t, x + 2 * W * half * n, half, 1, n);
}
static void backward(const Transform& t, float* x) {
  if (!t.halves) return backward(t, x, t.length, 0, 0);
  const int64_t half = t.length / 2;
  for (int64_t n = 0; n < 2; ++n) backward(t, x + 2 * W * half * n, half, 1, n);
  two_backward(x, half, t.levels[0]);
}

template <class T> MX_INLINE vw load_lanes(const T* p, int64_t lane, int count) {
  vw x{};
  if (lane == 1 && count == W) {
    if constexpr (std::is_same_v<T, float>)
      memcpy(&x, p, sizeof x);
    else
      for (int n = 0; n < W; ++n) x[n] = widen(p[n]);
  } else {
    for (int n = 0; n < count; ++n) x[n] = widen(p[n * lane]);
  }
  return x;
}
template <class T> MX_INLINE void store_lanes(T* p, int64_t lane, int count, vw x) {
  if (std::is_same_v<T, float> && lane == 1 && count == W)
    memcpy((void*)p, &x, sizeof x);
  else
    for (int n = 0; n < count; ++n) p[n * lane] = narrow<T>(x[n]);
}

// Numbers first ... first + count - 1 of a row as a transform of ``length`` takes them.
template <class T>
static void load_row(float* to, const Row<T>& row, int lanes, int64_t first, int64_t count,
                     int64_t step, int64_t length) {
  for (int part = 0; part < 2; ++part)
    for (int64_t n = 0; n < length; ++n) {
      const int64_t at = n + part * length;
      vw x{};
      if (at < count) x = load_lanes(row.start + (first + step * at) * row.stride, row.lane, lanes);
      memcpy(to + 2 * W * n + W * part, &x, sizeof x);
    }
}

// The places of a further axis or several, one after another.
template <class F> MX_INLINE void each_place(const LagSum& sum, F visit) {
  int64_t total = 1;
  for (int n = 0; n < sum.axes; ++n) total *= sum.counts[n];
  for (int64_t place = 0; place < total; ++place) {
    int64_t rest = place, a = 0, x = 0;
    for (int n = 0; n < sum.axes; ++n) {
      a += rest % sum.counts[n] * sum.a_strides[n];
      x += rest % sum.counts[n] * sum.x_strides[n];
      rest /= sum.counts[n];
    }
    visit(a, x, place == 0);
  }
}

// The lags r of result o for which there is a number of x.
struct Lags { int64_t low, high; };
MX_INLINE Lags lags_of(const LagSum& sum, int64_t o) {
  const int64_t from = sum.out_sign * o + sum.offset;  // 0 <= from + lag_sign * r < size
  const int64_t low = sum.lag_sign > 0 ? -from : from - sum.size + 1;
  const int64_t high = sum.lag_sign > 0 ? sum.size - from : from + 1;
  return {low > 0 ? low : 0, high < sum.lags ? high : sum.lags};
}

template <class Out, class A, class X>
static void direct_sums(const Row<Out>& out, const Row<const A>& a, const Row<const X>& x,
                        int lanes, const LagSum& sum) {
  for (int64_t o = 0; o < sum.outs; ++o) {
    const int64_t from = sum.out_sign * o + sum.offset;
    const Lags own = lags_of(sum, o);
    vw total{};
    each_place(sum, [&](int64_t a_place, int64_t x_place, bool) {
      const A* a_start = a.start + a_place;
      const X* x_start = x.start + x_place;
      for (int64_t r = own.low; r < own.high; ++r)
        total += load_lanes(a_start + r * a.stride, a.lane, lanes) *
                 load_lanes(x_start + (from + sum.lag_sign * r) * x.stride, x.lane, lanes);
    });
    store_lanes(out.start + o * out.stride, out.lane, lanes, total);
  }
}

MX_INLINE vw load_place(const float* p) {
  vw x;
  memcpy(&x, p, sizeof x);
  return x;
}
MX_INLINE void store_place(float* p, vw x) { memcpy(p, &x, sizeof x); }

// R results from o on: each number of a is loaded once for all of them. Row n of x is at x + n * W.
template <int R>
MX_INLINE void add_sums(vw (&total)[R], const float* a, const float* x, const LagSum& sum,
                        int64_t o) {
  Lags own[R], all{0, sum.lags};
  for (int n = 0; n < R; ++n) {
    own[n] = lags_of(sum, o + n);
    all = {all.low > own[n].low ? all.low : own[n].low,
           all.high < own[n].high ? all.high : own[n].high};
  }
  if (all.high < all.low) all.high = all.low;
  const int64_t from = sum.out_sign * o + sum.offset;
  const float* at = x + (from + sum.lag_sign * all.low) * W;
  const auto whole = [&](auto forward) {
    constexpr int step = forward ? W : -W;
    for (int64_t r = all.low; r < all.high; ++r, at += sum.lag_sign * W) {
      const vw factor = load_place(a + r * W);
      MX_UNROLL for (int n = 0; n < R; ++n) total[n] += factor * load_place(at + step * n);
    }
  };
  if (sum.out_sign > 0) whole(std::true_type{}); else whole(std::false_type{});
  MX_UNROLL for (int n = 0; n < R; ++n) {  // at the ends of x some have lags that others lack
    const float* row = x + (from + sum.out_sign * n) * W;
    const auto add = [&](int64_t low, int64_t high) {
      for (int64_t r = low; r < high; ++r)
        total[n] += load_place(a + r * W) * load_place(row + sum.lag_sign * r * W);
    };
    add(own[n].low, all.low < own[n].high ? all.low : own[n].high);
    add(all.high > own[n].low ? all.high : own[n].low, own[n].high);
  }
}

// Numbers first ... first + count - 1 of all channels, which lie together in memory, as a block for
// each group of W channels.
template <class T>
static void copy_rows(float* to, const Row<T>& row, int64_t lanes, int64_t first, int64_t count) {
  for (int64_t n = 0; n < count; ++n)
    for (int64_t lane = 0; lane < lanes; lane += W)
      store_place(to + lane * count + n * W,
                  load_lanes(row.start + (first + n) * row.stride + lane * row.lane, row.lane,
                             clip(lanes - lane, W)));
}

// Results first ... first + count - 1, with both factors side by side and totals in registers.
template <class Out, class A, class X>
static void short_sums(const Row<Out>& out, const Row<const A>& a, const Row<const X>& x,
                       int64_t lanes, const LagSum& sum, int64_t first, int64_t count) {
  // The numbers of x that they read.
  const int64_t one = sum.out_sign * first + sum.offset, other = one + sum.out_sign * (count - 1);
  const int64_t reach = sum.lag_sign * (sum.lags - 1);
  int64_t low = (one < other ? one : other) + (reach < 0 ? reach : 0);
  int64_t high = (one < other ? other : one) + (reach < 0 ? 0 : reach) + 1;
  low = low > 0 ? low : 0;
  high = high < sum.size ? high : sum.size;
  const int64_t read = high > low ? high - low : 0;
  const int64_t wide = (lanes + W - 1) / W * W;
  Heap memory(size_t(sum.lags + read + count) * wide * sizeof(float));
  float *factors = memory, *rows = factors + sum.lags * wide, *totals = rows + read * wide;
  each_place(sum, [&](int64_t a_place, int64_t x_place, bool is_first) {
    copy_rows(factors, Row<const A>{a.start + a_place, a.stride, a.lane}, lanes, 0, sum.lags);
    copy_rows(rows, Row<const X>{x.start + x_place, x.stride, x.lane}, lanes, low, read);
    for (int64_t lane = 0; lane < lanes; lane += W) {
      const auto add = [&](auto results, int64_t o) {
        constexpr int R = decltype(results)::value;
        vw total[R]{};
        float* at = totals + lane * count + (o - first) * W;
        if (!is_first) MX_UNROLL for (int n = 0; n < R; ++n) total[n] = load_place(at + n * W);
        add_sums<R>(total, factors + lane * sum.lags, rows + lane * read - low * W, sum, o);
        MX_UNROLL for (int n = 0; n < R; ++n) store_place(at + n * W, total[n]);
      };
      int64_t o = first;
      for (; o + AT_A_TIME <= first + count; o += AT_A_TIME)
        add(std::integral_constant<int, AT_A_TIME>{}, o);
      for (; o < first + count; ++o) add(std::integral_constant<int, 1>{}, o);
    }
  });
  for (int64_t o = 0; o < count; ++o)
    for (int64_t lane = 0; lane < lanes; lane += W)
      store_lanes(out.start + (first + o) * out.stride + lane * out.lane, out.lane,
                  clip(lanes - lane, W), load_place(totals + lane * count + o * W));
}

// Which lags and which numbers of x count at all, both forwards: result n is number n + shift of
// the product of polynomials.
struct Parts {
  int64_t a_first, a_count, x_first, x_count, shift, length;
};
inline Parts parts_of(const LagSum& s) {
  // With o counted from the end where its sign is -1, and r where its sign is 1.
  int64_t shift = s.offset;
  if (s.out_sign < 0) shift -= s.outs - 1;
  if (s.lag_sign > 0) shift += s.lags - 1;
  Parts p{};
  const int64_t last = s.outs - 1 + shift;
  p.a_first = shift - s.size + 1 > 0 ? shift - s.size + 1 : 0;
  p.a_count = (last < s.lags - 1 ? last : s.lags - 1) - p.a_first + 1;
  if (p.a_count <= 0) return p;
  const int64_t least = shift - (p.a_first + p.a_count - 1);
  p.x_first = least > 0 ? least : 0;
  const int64_t most = last - p.a_first;
  p.x_count = (most < s.size - 1 ? most : s.size - 1) - p.x_first + 1;
  p.shift = shift - p.a_first - p.x_first;
  // A number past 2 * length comes back from the start, where no result may lie.
  const int64_t whole = p.a_count + p.x_count - 1;
  const int64_t high = p.shift + s.outs < whole ? p.shift + s.outs : whole;
  const int64_t rest = p.shift > 0 ? whole - p.shift : whole;
  const int64_t needed = high > rest ? high : rest;
  p.length = 1;
  while (2 * p.length < needed) p.length *= 2;
  return p;
}

// Results into memory; whether all are finite.
template <class Out>
static bool store_sums(const Row<Out>& out, const float* from, int lanes, const LagSum& sum,
                       const Parts& p) {
  const vw scale = 1.0f / float(p.length) - vw{};
  vw unlike{};
  for (int64_t n = 0; n < sum.outs; ++n) {
    const int64_t at = n + p.shift;
    vw x{};
    if (at >= 0 && at < p.a_count + p.x_count - 1) {
      memcpy(&x, from + (at < p.length ? 2 * W * at : 2 * W * (at - p.length) + W), sizeof x);
      x *= scale;
    }
    unlike += x - x;  // 0 as long as x is finite
    const int64_t o = sum.out_sign < 0 ? sum.outs - 1 - n : n;
    store_lanes(out.start + o * out.stride, out.lane, lanes, x);
  }
  for (int n = 0; n < lanes; ++n)
    if (!(unlike[n] == 0.0f)) return false;
  return true;
}

// W channels or fewer. What is not finite, or overflows on the way, is summed one by one, so that
// it counts where the sums have it and nowhere else.
template <class Out, class A, class X>
static void convolve_lanes(const Row<Out>& out, const Row<const A>& a, const Row<const X>& x,
                           int lanes, const LagSum& sum) {
  const Parts p = parts_of(sum);
  int64_t places = 1;
  for (int n = 0; n < sum.axes; ++n) places *= sum.counts[n];
  if (p.a_count <= FEW || p.x_count <= FEW || sum.outs <= FEW || places == 0)
    return direct_sums(out, a, x, lanes, sum);
  const Transform& t = transform_of(p.length);
  const size_t numbers = size_t(2 * W * p.length);
  Heap memory(3 * numbers * sizeof(float));
  float *own = memory, *other = own + numbers, *total = sum.axes ? other + numbers : other;
  const int64_t step = sum.lag_sign > 0 ? -1 : 1;
  const int64_t first = sum.lag_sign > 0 ? sum.lags - 1 - p.a_first : p.a_first;
  each_place(sum, [&](int64_t a_place, int64_t x_place, bool is_first) {
    load_row(own, Row<const A>{a.start + a_place, a.stride, a.lane}, lanes, first, p.a_count, step,
             p.length);
    forward(t, own);
    load_row(other, Row<const X>{x.start + x_place, x.stride, x.lane}, lanes, p.x_first, p.x_count,
             1, p.length);
    forward(t, other);
    for (size_t n = 0; n < numbers; n += 2 * W) {
      Complex product = times(load_complex(own + n), load_complex(other + n));
      if (!is_first) product = product + load_complex(total + n);
      store_complex(total + n, product);
    }
  });
  backward(t, total);
  if (!store_sums(out, total, lanes, sum, p)) direct_sums(out, a, x, lanes, sum);
}

// Whether products one by one take less than transforms of both factors and of what they make.
inline bool is_short(const LagSum& sum) {
  const Parts p = parts_of(sum);
  if (p.a_count <= FEW || p.x_count <= FEW || sum.outs <= FEW) return false;
  for (int n = 0; n < sum.axes; ++n)
    if (sum.counts[n] == 0) return false;
  return double(sum.outs) * p.a_count < MIXC_OF_A_TRANSFORM * p.length * std::log2(p.length);
}

// ``lanes`` channels from the first of each row on.
template <class Out, class A, class X>
static inline __attribute__((noinline)) void convolve(Row<Out> out, Row<const A> a,
                                                      Row<const X> x, int64_t lanes,
                                                      const LagSum& sum) {
  if (is_short(sum)) {
    for (int64_t first = 0; first < sum.outs; first += STRIP)
      short_sums(out, a, x, lanes, sum, first, clip(sum.outs - first, STRIP));
    return;
  }
  for (int64_t done = 0; done < lanes; done += W) {
    convolve_lanes(out, a, x, clip(lanes - done, W), sum);
    out.start += W * out.lane;
    a.start += W * a.lane;
    x.start += W * x.lane;
  }
}

}  // namespace mx
