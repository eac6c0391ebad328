// Vectors of LANES elements, with GCC vector extensions: one source for every instruction set.
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

#define MX_INLINE static inline __attribute__((always_inline))
#define MX_UNROLL _Pragma("GCC unroll 32")

namespace mx {

constexpr int LANES = MIXC_LANES;
constexpr float INF = __builtin_inff();

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef int64_t vl __attribute__((vector_size(8 * LANES)));
typedef uint64_t vul __attribute__((vector_size(8 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

struct bf16 { uint16_t bits; };
struct fp16 { uint16_t bits; };

template <class T> struct vector_of { using type = vf; };
template <> struct vector_of<int32_t> { using type = vi; };
template <> struct vector_of<int64_t> { using type = vl; };

MX_INLINE vf load(const float* p) { vf x; memcpy(&x, p, sizeof x); return x; }
MX_INLINE vi load(const int32_t* p) { vi x; memcpy(&x, p, sizeof x); return x; }
MX_INLINE vl load(const int64_t* p) { vl x; memcpy(&x, p, sizeof x); return x; }
MX_INLINE vh load(const uint16_t* p) { vh x; memcpy(&x, p, sizeof x); return x; }
MX_INLINE void store(float* p, vf x) { memcpy(p, &x, sizeof x); }
MX_INLINE void store(int32_t* p, vi x) { memcpy(p, &x, sizeof x); }
MX_INLINE void store(int64_t* p, vl x) { memcpy(p, &x, sizeof x); }
MX_INLINE void store(uint16_t* p, vh x) { memcpy(p, &x, sizeof x); }
MX_INLINE vf splat(float x) { return x - vf{}; }
MX_INLINE vi splat(int32_t x) { return x - vi{}; }
MX_INLINE vl splat(int64_t x) { return x - vl{}; }
MX_INLINE vi splat(bool x) { return -int32_t(x) - vi{}; }  // as a comparison gives it: 0 or -1
MX_INLINE vi iota() {
  vi x;
  for (int n = 0; n < LANES; ++n) x[n] = n;
  return x;
}
MX_INLINE vf select(vi c, vf a, vf b) { return c ? a : b; }
MX_INLINE vi select(vi c, vi a, vi b) { return c ? a : b; }
MX_INLINE vl to_long(vi x) { return __builtin_convertvector(x, vl); }
MX_INLINE vl to_long(vf x) { return __builtin_convertvector(x, vl); }
MX_INLINE vl select(vi c, vl a, vl b) { return to_long(c) ? a : b; }
template <class T> MX_INLINE T select(bool c, T a, T b) { return c ? a : b; }
MX_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
MX_INLINE vf to_float(vl x) { return __builtin_convertvector(x, vf); }
MX_INLINE vi to_int(vf x) { return __builtin_convertvector(x, vi); }
MX_INLINE vi to_int(vl x) { return __builtin_convertvector(x, vi); }
MX_INLINE vf as_float(vi x) { return (vf)x; }
MX_INLINE vi as_int(vf x) { return (vi)x; }
MX_INLINE float as_float(int32_t x) {
  float y;
  __builtin_memcpy(&y, &x, sizeof y);
  return y;
}

// A NaN on either side gives a NaN, as in torch.
MX_INLINE vf min(vf a, vf b) { return (a < b) | (a != a) ? a : b; }
MX_INLINE vf max(vf a, vf b) { return (a > b) | (a != a) ? a : b; }
MX_INLINE float min(float a, float b) { return a < b || a != a ? a : b; }
MX_INLINE float max(float a, float b) { return a > b || a != a ? a : b; }
// The second where either is a NaN: one instruction. For running maxima of scores.
// By name where it has one: of a comparison with a constant GCC does not make it.
#if defined(__AVX__) && MIXC_LANES == 8
MX_INLINE vf quick_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
MX_INLINE vf quick_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
MX_INLINE vf quick_max(vf a, vf b) { return a > b ? a : b; }
MX_INLINE vf quick_min(vf a, vf b) { return a < b ? a : b; }
#endif
MX_INLINE vi quick_max(vi a, vi b) { return a > b ? a : b; }
MX_INLINE float quick_max(float a, float b) { return a > b ? a : b; }
MX_INLINE int32_t quick_max(int32_t a, int32_t b) { return a > b ? a : b; }
MX_INLINE vl quick_max(vl a, vl b) { return a > b ? a : b; }
MX_INLINE int64_t quick_max(int64_t a, int64_t b) { return a > b ? a : b; }
MX_INLINE vl min(vl a, vl b) { return a < b ? a : b; }
MX_INLINE vl max(vl a, vl b) { return a > b ? a : b; }
MX_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
MX_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
MX_INLINE vi min(vi a, vi b) { return a < b ? a : b; }
MX_INLINE vi max(vi a, vi b) { return a > b ? a : b; }
MX_INLINE int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }
MX_INLINE int32_t max(int32_t a, int32_t b) { return a > b ? a : b; }

struct Sum {
  static constexpr float START = 0;
  template <class V> MX_INLINE V of(V a, V b) { return a + b; }
};
struct Prod {
  static constexpr float START = 1;
  template <class V> MX_INLINE V of(V a, V b) { return a * b; }
};
struct Max {
  static constexpr float START = -INF;
  template <class V> MX_INLINE V of(V a, V b) { return max(a, b); }
};
struct Min {
  static constexpr float START = INF;
  template <class V> MX_INLINE V of(V a, V b) { return min(a, b); }
};

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define MX_SHUFFLE(x, y, ...) __builtin_shuffle(x, y, vi{__VA_ARGS__})
#else
#define MX_SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#endif

template <int... N> struct Lanes {};
template <int COUNT, int... N> struct Count : Count<COUNT - 1, COUNT - 1, N...> {};
template <int... N> struct Count<0, N...> { using type = Lanes<N...>; };
using EachLane = typename Count<LANES>::type;

// All lanes as one number: halves are put together until there is one lane. Longs, which are rare,
// go one by one.
template <class F, int BY, class V, int... N> MX_INLINE V folded(V x, Lanes<N...> lanes) {
  if constexpr (BY > 0)
    return folded<F, BY / 2>(F::of(x, MX_SHUFFLE(x, x, ((N + BY) % LANES)...)), lanes);
  return x;
}
template <class F, class V> MX_INLINE auto across(V x) {
  if constexpr (sizeof(x[0]) == 4) return folded<F, LANES / 2>(x, EachLane{})[0];
  auto s = x[0];
  for (int n = 1; n < LANES; ++n) s = F::of(s, x[n]);
  return s;
}
template <class V> MX_INLINE auto sum_lanes(V x) { return across<Sum>(x); }
template <class V> MX_INLINE auto prod_lanes(V x) { return across<Prod>(x); }
template <class V> MX_INLINE auto max_lanes(V x) { return across<Max>(x); }
template <class V> MX_INLINE auto min_lanes(V x) { return across<Min>(x); }

// COUNT rows, each folded to one number. Of as many rows as there are lanes, row n ends in lane n:
// each step folds two vectors at once, one into each half of a group of lanes.
template <int BY, int FROM, int... N> MX_INLINE vf halves(vf x, vf y, Lanes<N...>) {
  return MX_SHUFFLE(
      x, y, (N - N % (2 * BY) + N % BY + FROM + (N % (2 * BY) < BY ? 0 : LANES))...);
}
template <class F, int BY> MX_INLINE vf fold_square(vf (&x)[LANES]) {
  if constexpr (BY > 0) {
    MX_UNROLL for (int n = 0; n < BY; ++n) {
      vf y = x[n + BY];
      x[n] = F::of(halves<BY, 0>(x[n], y, EachLane{}), halves<BY, BY>(x[n], y, EachLane{}));
    }
    return fold_square<F, BY / 2>(x);
  }
  return x[0];
}
template <class F, int COUNT>
static inline void fold_rows(float* __restrict to, const float* __restrict from) {
  int row = 0;
  for (; row + LANES <= COUNT; row += LANES) {
    vf x[LANES];
    MX_UNROLL for (int n = 0; n < LANES; ++n) x[n] = load(from + (row + n) * LANES);
    store(to + row, fold_square<F, LANES / 2>(x));
  }
  for (; row < COUNT; ++row) to[row] = across<F>(load(from + row * LANES));
}

MX_INLINE bool any_lanes(vi x) { return min_lanes(x) != 0; }
MX_INLINE bool all_lanes(vi x) { return max_lanes(x) != 0; }

// ---------------------------------------------------------------------- narrow floating point

MX_INLINE float widen(float x) { return x; }
MX_INLINE int32_t widen(int32_t x) { return x; }
MX_INLINE bool widen(bool x) { return x; }
MX_INLINE int64_t widen(int64_t x) { return x; }
MX_INLINE float widen(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
MX_INLINE vf widen_bf16(vh x) { return (vf)(__builtin_convertvector(x, vu) << 16); }

// To nearest, ties to even; a NaN stays one.
MX_INLINE bf16 to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return bf16{uint16_t(x != x ? 0x7fc0 : rounded)};
}
MX_INLINE vu bf16_bits(vf x) {  // in the low half of each lane
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return x != x ? vu{} + 0x7fc0 : rounded;
}
MX_INLINE vf round_bf16(vf x) { return (vf)(bf16_bits(x) << 16); }
MX_INLINE float round_bf16(float x) { return widen(to_bf16(x)); }
#if defined(__AVX512BF16__) && MIXC_LANES == 16
MX_INLINE vh narrow_bf16(vf x) { return (vh)_mm512_cvtneps_pbh((__m512)x); }
// (low, high) of each lane side by side, as a dot of pairs wants them.
MX_INLINE vu pair_bf16(vf low, vf high) {
  const vi order = {0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005,
                    0x160006, 0x170007, 0x180008, 0x190009, 0x1a000a, 0x1b000b,
                    0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f};
  __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  return (vu)_mm512_permutexvar_epi16((__m512i)order, both);
}
#else
MX_INLINE vh narrow_bf16(vf x) { return __builtin_convertvector(bf16_bits(x), vh); }
MX_INLINE vu pair_bf16(vf low, vf high) { return bf16_bits(low) | bf16_bits(high) << 16; }
#endif

// By one instruction where there is one, and to the same bits elsewhere: to nearest, ties to even;
// a NaN stays one, quiet, with the upper part of its payload.
#if defined(__F16C__) && MIXC_LANES == 8
MX_INLINE vf widen_fp16(vh x) { return (vf)_mm256_cvtph_ps((__m128i)x); }
MX_INLINE vh narrow_fp16(vf x) { return (vh)_mm256_cvtps_ph((__m256)x, 0); }
#elif defined(__AVX512F__) && MIXC_LANES == 16
MX_INLINE vf widen_fp16(vh x) { return (vf)_mm512_cvtph_ps((__m256i)x); }
MX_INLINE vh narrow_fp16(vf x) { return (vh)_mm512_cvtps_ph((__m512)x, 0); }
#else
MX_INLINE vf widen_fp16(vh x) {
  vu bits = __builtin_convertvector(x, vu), size = (bits & 0x7fff) << 13;
  vu tiny = (vu)((vf)size * 0x1p112f);
  vu wide = (size + 0x70000000) | (size > 0xf800000 ? vu{} + 0x400000 : vu{});
  return (vf)((size < 0xf800000 ? tiny : wide) | (bits & 0x8000) << 16);
}
MX_INLINE vh narrow_fp16(vf x) {
  vu bits = (vu)x, size = bits & 0x7fffffff;
  vu tiny = (vu)((vf)size + 0.5f) - 0x3f000000;  // subnormal: the addition rounds
  vu half = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
  half = size < 0x38800000 ? tiny : half;
  half = size >= 0x477ff000 ? vu{} + 0x7c00 : half;
  half = size > 0x7f800000 ? 0x7e00 | (size >> 13 & 0x3ff) : half;
  return __builtin_convertvector(half | (bits >> 16 & 0x8000), vh);
}
#endif
MX_INLINE vf round_fp16(vf x) { return widen_fp16(narrow_fp16(x)); }
MX_INLINE float widen(fp16 x) { return widen_fp16(vh{x.bits})[0]; }
MX_INLINE fp16 to_fp16(float x) { return fp16{narrow_fp16(splat(x))[0]}; }
MX_INLINE float round_fp16(float x) { return round_fp16(splat(x))[0]; }

// A vector from numbers of any width in memory, and to them.
MX_INLINE vf load_wide(const float* p) { return load(p); }
MX_INLINE vf load_wide(const bf16* p) { return widen_bf16(load(&p->bits)); }
MX_INLINE vf load_wide(const fp16* p) { return widen_fp16(load(&p->bits)); }
MX_INLINE void store_narrow(float* p, vf x) { store(p, x); }
MX_INLINE void store_narrow(bf16* p, vf x) { store(&p->bits, narrow_bf16(x)); }
MX_INLINE void store_narrow(fp16* p, vf x) { store(&p->bits, narrow_fp16(x)); }

template <class T> inline T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline bf16 narrow<bf16>(float x) { return to_bf16(x); }
template <> inline fp16 narrow<fp16>(float x) { return to_fp16(x); }
template <class T> MX_INLINE T narrow(int32_t x) { return T(x); }
template <class T> MX_INLINE T narrow(int64_t x) { return T(x); }
template <class T> MX_INLINE T narrow(bf16 x) { return x; }
template <class T> MX_INLINE T narrow(fp16 x) { return x; }

}  // namespace mx
