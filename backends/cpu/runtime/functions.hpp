// Elementwise functions on vectors, and on scalars by the C library.
// Errors, in units of the last place, are measured in tests/backends/cpu/test_functions.py.
namespace mx {

template <class F> MX_INLINE vf each(vf x, F f) {
  for (int n = 0; n < LANES; ++n) x[n] = f(x[n]);
  return x;
}
template <class F> MX_INLINE vf each(vf x, vf y, F f) {
  for (int n = 0; n < LANES; ++n) x[n] = f(x[n], y[n]);
  return x;
}

#if defined(__AVX512F__) && MIXC_LANES == 16
MX_INLINE vf floor(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 1); }
MX_INLINE vf ceil(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 2); }
MX_INLINE vf round(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, 0); }
MX_INLINE vf sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
#else
MX_INLINE vf floor(vf x) { return each(x, __builtin_floorf); }
MX_INLINE vf ceil(vf x) { return each(x, __builtin_ceilf); }
MX_INLINE vf round(vf x) { return each(x, __builtin_rintf); }
MX_INLINE vf sqrt(vf x) { return each(x, __builtin_sqrtf); }
#endif
MX_INLINE vf abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
MX_INLINE vi abs(vi x) { return x < 0 ? -x : x; }
MX_INLINE vl abs(vl x) { return x < 0 ? -x : x; }
MX_INLINE vl relu(vl x) { return x < 0 ? vl{} : x; }
MX_INLINE vl sign(vl x) { return (x < 0) - (x > 0); }
MX_INLINE vf rsqrt(vf x) { return 1.0f / sqrt(x); }
MX_INLINE vf relu(vf x) { return x < 0.0f ? vf{} : x; }
MX_INLINE vi relu(vi x) { return x < 0 ? vi{} : x; }
MX_INLINE vf sign(vf x) { return to_float((x < 0.0f) - (x > 0.0f)); }
MX_INLINE vi sign(vi x) { return (x < 0) - (x > 0); }

// ------------------------------------------------------------------ exponentials and logarithms

// 2**n * y for a whole n and 1/2 < y < 2, also where the result is subnormal, 0 or infinite;
// ``limited``: the argument of an exponential, where |n| is to be 252 at most. A NaN stays one.
#if defined(__AVX512F__) && MIXC_LANES == 16
MX_INLINE vf limited(vf x, float) { return x; }
// n = -inf gives 0 whatever y is, n = inf gives inf.
MX_INLINE vf scale_by_power(vf y, vf n) { return (vf)_mm512_scalef_ps((__m512)y, (__m512)n); }
#else
MX_INLINE vf limited(vf x, float far) {
  return quick_min(splat(far), quick_max(splat(-far), x));
}
// In two steps, of which the first moves y's exponent and rounds nothing.
MX_INLINE vf scale_by_power(vf y, vf n) {
  vi whole = to_int(n), half = whole >> 1;
  return (vf)((vi)y + (half << 23)) * (vf)((whole - half + 127) << 23);
}
#endif

MX_INLINE vf exp2(vf x) {
  x = limited(x, 252.0f);
  vf n = round(x), r = x - n;
  vf p = splat(1.53533620e-4f);
  p = p * r + 1.33988750e-3f;
  p = p * r + 9.61843692e-3f;
  p = p * r + 5.55033237e-2f;
  p = p * r + 0.240226477f;
  p = p * r + 0.693147182f;
  p = p * r + 1.0f;
  return scale_by_power(p, n);
}

// x = n log(2) + r with a whole n; (exp(r) - 1 - r) / r**2.
MX_INLINE vf exp_parts(vf x, vf& n, vf& r) {
  n = round(x * 1.44269504f);
  r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vf p = splat(1.38436467e-3f);
  p = p * r + 8.37416109e-3f;
  p = p * r + 4.16680016e-2f;
  p = p * r + 0.166664317f;
  return p * r + 0.499999940f;
}
MX_INLINE vf exp(vf x) {
  vf n, r, p = exp_parts(limited(x, 174.0f), n, r);
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return scale_by_power(p, n);
}

// x = 2**n * (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); the log of 1 + f, less f.
MX_INLINE vf log_parts(vf x, vf& n, vf& f) {
  vi tiny = x < 0x1p-126f;
  x = tiny ? x * 0x1p23f : x;
  vi bits = (vi)x - 0x3f3504f3;
  n = to_float((bits >> 23) - (tiny & 23));
  f = (vf)((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
  vf p = splat(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  return f * f * (f * p - 0.5f);
}
MX_INLINE vf log_edges(vf x, vf y) {
  y = x == 0.0f ? splat(-INF) : y;
  y = x == INF ? x : y;
  return (x < 0.0f) | (x != x) ? splat(__builtin_nanf("")) : y;
}
MX_INLINE vf log(vf x) {
  vf n, f, rest = log_parts(x, n, f);
  return log_edges(x, n * 0.693359375f + (f + (rest - n * 2.12194440e-4f)));
}
MX_INLINE vf log2(vf x) {
  vf n, f, rest = log_parts(x, n, f);
  vf low = rest * 1.44269504f + (f * 0.44269504f);
  return log_edges(x, n + (f + low));
}

MX_INLINE vf sigmoid(vf x) {
  vf e = exp(-abs(x));
  return (x < 0.0f ? e : splat(1.0f)) / (1.0f + e);
}
MX_INLINE vf tanh(vf x) {
  vf a = abs(x), e = exp(-2.0f * a), s = x * x;
  vf far = (1.0f - e) / (1.0f + e);
  vf p = splat(-5.70498872745e-3f);
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  return a < 0.625f ? x + x * s * p : (x < 0.0f ? -far : far);
}
MX_INLINE vf silu(vf x) { return x * sigmoid(x); }
// 2**n * (1 + p) - 1 with p = expm1(r), each part by itself: what is near 0 keeps its digits.
MX_INLINE vf expm1(vf x) {
  x = quick_max(splat(-18.0f), limited(x, 174.0f));
  vf n, r, p = exp_parts(x, n, r);
  p = p * r * r + r;
  vf power = scale_by_power(splat(1.0f), n);
  vf large = scale_by_power(p + 1.0f, n), small = p * power + (power - 1.0f);
  return n > 24.0f ? large : x == 0.0f ? x : small;
}
MX_INLINE vf log1p(vf x) {  // the rounding of 1 + x is put right by a division
  vf u = 1.0f + x;
  vf y = log(u) * (x / (u - 1.0f));
  return (u == 1.0f) | (u == INF) ? (u == 1.0f ? x : u) : y;
}
MX_INLINE vf softplus(vf x) { return (x > 0.0f ? x : vf{}) + log1p(exp(-abs(x))); }
MX_INLINE vf logsigmoid(vf x) { return (x < 0.0f ? x : vf{}) - log1p(exp(-abs(x))); }
MX_INLINE vf logaddexp(vf a, vf b) {
  vf top = max(a, b), gap = a == b ? vf{} : abs(a - b);
  return top + log1p(exp(-gap));
}
// To 1 a polynomial of x * x; from there on 1 less the exponential of one, which is log(erfc(x)).
MX_INLINE vf erf(vf x) {
  vf a = quick_min(splat(4.0f), abs(x)), s = x * x;
  vf near = splat(7.85383005e-5f);
  near = near * s - 8.01018368e-4f;
  near = near * s + 5.18832648e-3f;
  near = near * s - 2.68538112e-2f;
  near = near * s + 1.12835851e-1f;
  near = near * s - 3.76126258e-1f;
  near = near * s + 1.28379166e-1f;
  vf far = splat(1.86372745e-4f);
  far = far * a - 2.94759516e-3f;
  far = far * a + 2.18378114e-2f;
  far = far * a - 1.03106226e-1f;
  far = far * a - 6.38145442e-1f;
  far = far * a - 1.12708882f;
  far = far * a - 3.41613572e-4f;
  far = 1.0f - exp(far);
  return a < 1.0f ? x + x * near : (x < 0.0f ? -far : far);
}
MX_INLINE vf gelu(vf x) { return 0.5f * x * (1.0f + erf(x * 0.707106781f)); }
MX_INLINE vf gelu_tanh(vf x) {
  return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}
MX_INLINE vf elu(vf x) { return x > 0.0f ? x : expm1(x); }

// ------------------------------------------------------------------------------ trigonometry

// The remainder after whole quarter turns is taken in double precision: any angle a position gives.
MX_INLINE vf turned(vf x, int shift) {
  typedef double vd __attribute__((vector_size(8 * LANES)));
  vd wide = __builtin_convertvector(x, vd);
  vd magic = vd{} + 0x1.8p52;
  vd turns = (wide * 0.63661977236758134308 + magic) - magic;
  vf r = __builtin_convertvector(wide - turns * 1.57079632679489661923, vf);
  vi quarter = __builtin_convertvector(turns, vi) + shift;
  vf s = r * r;
  vf sine = splat(-1.9515295891e-4f);
  sine = sine * s + 8.3321608736e-3f;
  sine = sine * s - 1.6666654611e-1f;
  sine = r + r * s * sine;
  vf cosine = splat(2.443315711809948e-5f);
  cosine = cosine * s - 1.388731625493765e-3f;
  cosine = cosine * s + 4.166664568298827e-2f;
  cosine = 1.0f + s * (s * cosine - 0.5f);
  vf y = (quarter & 1) != 0 ? cosine : sine;
  return (quarter & 2) != 0 ? -y : y;
}
MX_INLINE vf sin(vf x) { return turned(x, 0); }
MX_INLINE vf cos(vf x) { return turned(x, 1); }
MX_INLINE vf acos(vf x) { return each(x, __builtin_acosf); }
MX_INLINE vf pow(vf x, vf y) { return each(x, y, __builtin_powf); }

// ----------------------------------------------------------------------------------- integers

template <class T> MX_INLINE T floor_divide_whole(T a, T b) {
  T q = b == 0 ? 0 : a / b;
  return q - (a % (b == 0 ? 1 : b) != 0 && (a < 0) != (b < 0));
}
MX_INLINE int32_t floor_divide(int32_t a, int32_t b) { return floor_divide_whole(a, b); }
MX_INLINE int64_t floor_divide(int64_t a, int64_t b) { return floor_divide_whole(a, b); }
MX_INLINE int32_t modulo(int32_t a, int32_t b) { return a - floor_divide(a, b) * b; }
MX_INLINE int64_t modulo(int64_t a, int64_t b) { return a - floor_divide(a, b) * b; }
MX_INLINE float floor_divide(float a, float b) { return __builtin_floorf(a / b); }
MX_INLINE float modulo(float a, float b) { return a - __builtin_floorf(a / b) * b; }
// Exact in double precision, whose division rounds a quotient of 32-bit integers to no wrong floor.
MX_INLINE vi floor_divide(vi a, vi b) {
  for (int n = 0; n < LANES; ++n) a[n] = floor_divide(a[n], b[n]);
  return a;
}
MX_INLINE vi modulo(vi a, vi b) { return a - floor_divide(a, b) * b; }
MX_INLINE vl floor_divide(vl a, vl b) {
  for (int n = 0; n < LANES; ++n) a[n] = floor_divide(a[n], b[n]);
  return a;
}
MX_INLINE vl modulo(vl a, vl b) { return a - floor_divide(a, b) * b; }
MX_INLINE vf floor_divide(vf a, vf b) { return floor(a / b); }
MX_INLINE vf modulo(vf a, vf b) { return a - floor(a / b) * b; }
// By squaring, in a number of turns that no power exceeds whose result has 64 bits.
MX_INLINE vl pow(vl x, vl y) {
  vul product = vul{} + 1, square = (vul)x;
  for (int turn = 0; turn < 6; ++turn) {
    product = (y & 1L << turn) != 0 ? product * square : product;
    square *= square;
  }
  return (x == 0) & (y > 0) ? vl{} : (vl)product;
}
MX_INLINE vi pow(vi x, vi y) { return to_int(pow(to_long(x), to_long(y))); }

// ------------------------------------------------------------------------------------ scalars

#define MX_SCALAR(name) \
  MX_INLINE float name(float x) { return name(splat(x))[0]; }
MX_SCALAR(floor) MX_SCALAR(ceil) MX_SCALAR(round) MX_SCALAR(abs) MX_SCALAR(sqrt)
MX_SCALAR(rsqrt) MX_SCALAR(relu) MX_SCALAR(exp) MX_SCALAR(exp2) MX_SCALAR(log)
MX_SCALAR(log2) MX_SCALAR(sigmoid) MX_SCALAR(tanh) MX_SCALAR(silu) MX_SCALAR(expm1)
MX_SCALAR(log1p) MX_SCALAR(softplus) MX_SCALAR(logsigmoid) MX_SCALAR(erf) MX_SCALAR(gelu)
MX_SCALAR(gelu_tanh) MX_SCALAR(elu) MX_SCALAR(sin) MX_SCALAR(cos) MX_SCALAR(acos)
MX_INLINE float logaddexp(float a, float b) { return logaddexp(splat(a), splat(b))[0]; }
MX_INLINE float pow(float a, float b) { return __builtin_powf(a, b); }
MX_INLINE int32_t pow(int32_t a, int32_t b) { return pow(splat(a), splat(b))[0]; }
MX_INLINE int64_t pow(int64_t a, int64_t b) { return pow(splat(a), splat(b))[0]; }
MX_INLINE int64_t sign(int64_t x) { return (x > 0) - (x < 0); }
MX_INLINE int64_t abs(int64_t x) { return x < 0 ? -x : x; }
MX_INLINE int64_t relu(int64_t x) { return x < 0 ? 0 : x; }
MX_INLINE float sign(float x) { return float((x > 0) - (x < 0)); }
MX_INLINE int32_t sign(int32_t x) { return (x > 0) - (x < 0); }
MX_INLINE int32_t abs(int32_t x) { return x < 0 ? -x : x; }
MX_INLINE int32_t relu(int32_t x) { return x < 0 ? 0 : x; }

}  // namespace mx
