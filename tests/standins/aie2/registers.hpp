// What a core's scalars, registers and modes are on a host, for intrinsics.hpp.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#define __AIENGINE__ 2
#define __AIE_ARCH__ 20
#define __AIE_MODEL_VERSION__ 10500  // Peano's, which aie_api asks for
#define __AIE_API_AIE_ADF_HPP__      // as the build has it: adf.h is Vitis's

#define chess_const(x) false
#define chess_copy(x) (x)
#define chess_dont_care(type) type()
#define chess_dont_chain(x) (x)
#define chess_error(...)
#define chess_loop_range(...)
#define chess_manifest(x) false
#define chess_prepare_for_pipelining
#define chess_protect_access
#define chess_separator(...)
#define chess_separator_scheduler(...)
#define chess_separator_scheduler_local(...)
#define chess_storage(...)
#define chess_unroll_loop(...)
#define chess_warning(...)
#define property(...)
#define __aie_register(...)
#define __aie_register_keep(...)

// What host.cc asks of the project's own aie_api.
namespace aie {

struct refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void require(bool holds, const char *what) {
    if (__builtin_expect(!holds, 0)) throw refused(what);
}

struct modes {
    unsigned rounding = 0;  // rnd_floor
    unsigned saturation = 0;
};

inline modes &current_modes() {
    static thread_local modes m;
    return m;
}

}  // namespace aie

// Scalars that a host has not. Nothing computes with them.
struct anything {
    [[noreturn]] static void refuse() { throw aie::refused("an AIE2 intrinsic without a body"); }
    template <typename T> operator T() const { refuse(); }
    template <typename T> friend uint64_t operator|(anything, T) { refuse(); }
};
struct bfloat16 {
    uint16_t bits;
    bfloat16() = default;
    template <typename T> constexpr bfloat16(T) : bits(0) {}
    template <typename T> explicit operator T() const { return anything(); }
    bfloat16 operator-() const { return *this; }
};
template <typename T> struct pair_of {
    T real, imag;
};
using cint16 = pair_of<int16_t>;
using cint32 = pair_of<int32_t>;
using cfloat = pair_of<float>;
struct cbfloat16 : pair_of<bfloat16> {};
template <bool Signed> struct nibble {
    int8_t value;
    nibble() = default;
    constexpr explicit nibble(int x) : value(static_cast<int8_t>(x)) {}
    constexpr operator int() const { return value; }
};
using int4_t = nibble<true>;
using uint4_t = nibble<false>;
struct acc16 {};
struct acc24 {};
struct acc32 {};
struct acc40 {};
struct acc48 {};
struct acc56 {};
struct acc64 {};
struct cacc16 {};
struct cacc24 {};
struct cacc32 {};
struct cacc40 {};
struct cacc48 {};
struct cacc56 {};
struct cacc64 {};
struct accfloat {};
struct caccfloat {};
using addr_t = unsigned;
struct mask64 {
    unsigned long long bits;
};

namespace aie2 {

template <typename T> struct stored {
    using type = T;
};
template <> struct stored<acc32> {
    using type = int32_t;
};
template <> struct stored<acc64> {
    using type = int64_t;
};
template <> struct stored<cacc64> {
    using type = pair_of<int64_t>;
};
template <> struct stored<accfloat> {
    using type = float;
};
template <> struct stored<caccfloat> {
    using type = cfloat;
};
template <typename T> using lane_of = typename stored<T>::type;

// A vector register or an accumulator. aie_api casts between those of one size, which keeps the bits.
template <typename T, unsigned N> struct alignas(sizeof(lane_of<T>) * N < 32 ? sizeof(lane_of<T>) * N : 32) lanes {
    using element = T;
    static constexpr unsigned size = N;
    lane_of<T> lane[N];

    lanes() = default;
    template <typename U, unsigned M>
        requires(sizeof(lane_of<U>) * M == sizeof(lane))
    explicit lanes(const lanes<U, M> &other) {
        std::memcpy(lane, other.lane, sizeof lane);
    }
    template <typename Of>
        requires requires(const Of &of) { of.to_native(); }
    explicit lanes(const Of &of) : lanes(lanes<T, N>(of.to_native())) {}
};

template <typename T, unsigned N> const lanes<T, N> &native(const lanes<T, N> &v) { return v; }
template <typename Of> auto native(const Of &of) -> decltype(of.to_native()) { return of.to_native(); }

// What intrinsics take: a register or what aie_api makes of one.
template <typename A>
concept Wide = requires(const A &a) { native(a).lane; };
template <Wide A> using native_of = std::remove_cvref_t<decltype(native(std::declval<const A &>()))>;
template <Wide A> using element_of = typename native_of<A>::element;
template <Wide A> constexpr unsigned size_of = native_of<A>::size;

template <typename T> inline T fits(int64_t x, const char *what) {
    aie::require(x >= std::numeric_limits<T>::min() && x <= std::numeric_limits<T>::max(), what);
    return static_cast<T>(x);
}

// Lanes' sums and differences wrap on the device: what passes their range is refused.
template <typename T, typename Result> inline T lane_result(Result x) {
    if constexpr (std::is_signed_v<T>) return fits<T>(x, "a lane overflows");
    return static_cast<T>(x);
}

template <Wide A, Wide B, typename Op> inline native_of<A> each(const A &a, const B &b, Op op) {
    const native_of<A> x = native(a), y = native(b);
    native_of<A> out;
    for (unsigned i = 0; i < size_of<A>; ++i) out.lane[i] = op(x.lane[i], y.lane[i]);
    return out;
}

template <Wide A, Wide B, typename Test> inline auto test(const A &a, const B &b, Test holds) {
    const native_of<A> x = native(a), y = native(b);
    std::conditional_t<(size_of<A> > 32), unsigned long long, unsigned> out = 0;
    for (unsigned i = 0; i < size_of<A>; ++i) out |= decltype(out)(holds(x.lane[i], y.lane[i])) << i;
    return out;
}

// Rows of A (M x K) times columns of B (K x N), row-major; registers may be longer.
template <unsigned M, unsigned K, unsigned N, Wide A, Wide B>
inline lanes<acc32, M * N> multiply(const A &a, const B &b, const lanes<acc32, M * N> &onto, int by) {
    const auto x = native(a);
    const auto y = native(b);
    lanes<acc32, M * N> out;
    for (unsigned i = 0; i < M; ++i) {
        int64_t row[N];
        for (unsigned j = 0; j < N; ++j) row[j] = onto.lane[i * N + j];
        for (unsigned k = 0; k < K; ++k)
            for (unsigned j = 0; j < N; ++j) row[j] += by * int32_t(x.lane[i * K + k]) * int32_t(y.lane[k * N + j]);
        for (unsigned j = 0; j < N; ++j) out.lane[i * N + j] = fits<int32_t>(row[j], "mmul: acc32 overflows");
    }
    return out;
}

template <typename Acc, unsigned N> inline lanes<Acc, N> nothing() {
    lanes<Acc, N> out;
    for (auto &lane : out.lane) lane = 0;
    return out;
}

// Lane by lane, `by` times a product added to an accumulator.
template <typename Acc, unsigned N, Wide A, Wide B>
inline lanes<Acc, N> by_lane(const A &a, const B &b, const lanes<Acc, N> &onto, int by) {
    const auto x = native(a);
    const auto y = native(b);
    lanes<Acc, N> out;
    for (unsigned i = 0; i < N; ++i)
        out.lane[i] = fits<lane_of<Acc>>(onto.lane[i] + by * int64_t(x.lane[i]) * y.lane[i], "acc32 overflows");
    return out;
}

// Shift, round, saturate: how an accumulator's lane becomes a vector's.
template <typename T, unsigned N, Wide A> inline lanes<T, N> srs(const A &a, int shift) {
    static_assert(size_of<A> == N);
    const auto acc = native(a);
    const aie::modes m = aie::current_modes();
    aie::require(shift >= 0 && shift < 60, "SRS: the shift is out of range");
    aie::require(m.rounding == 0 || m.rounding == 9, "SRS: a rounding mode without a body");
    constexpr int64_t low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    lanes<T, N> out;
    for (unsigned i = 0; i < N; ++i) {
        int64_t x = acc.lane[i];
        if (shift > 0) x = (m.rounding == 9 ? x + (int64_t(1) << (shift - 1)) : x) >> shift;
        out.lane[i] = static_cast<T>(m.saturation == 1 ? (x < low ? low : x > high ? high : x) : x);
    }
    return out;
}

template <typename Acc, unsigned N, Wide A> inline lanes<Acc, N> ups(const A &a, int shift) {
    static_assert(size_of<A> == N);
    const auto v = native(a);
    lanes<Acc, N> out;
    for (unsigned i = 0; i < N; ++i) out.lane[i] = lane_of<Acc>(v.lane[i]) << shift;
    return out;
}

// A shuffle reads both registers as a matrix of `rows` x `columns` elements and gives a half of its transpose, the
// first or the second; the short ones, without _lo and _hi, are of one register.
struct shuffling {
    unsigned bits, rows, columns, half;
};
#define SHUFFLES(_)                                                                                                    \
    _(8, 64, 2, _lo, 0) _(8, 64, 2, _hi, 1) _(16, 32, 2, _lo, 0) _(16, 32, 2, _hi, 1) _(32, 16, 2, _lo, 0)             \
    _(32, 16, 2, _hi, 1) _(64, 8, 2, _lo, 0) _(64, 8, 2, _hi, 1) _(128, 4, 2, _lo, 0) _(128, 4, 2, _hi, 1)             \
    _(256, 2, 2, _lo, 0) _(256, 2, 2, _hi, 1) _(128, 2, 4, _lo, 0) _(128, 2, 4, _hi, 1) _(64, 2, 8, _lo, 0)            \
    _(64, 2, 8, _hi, 1) _(32, 2, 16, _lo, 0) _(32, 2, 16, _hi, 1) _(16, 2, 32, _lo, 0) _(16, 2, 32, _hi, 1)            \
    _(8, 2, 64, _lo, 0) _(8, 2, 64, _hi, 1) _(512, 1, 2, _lo, 0) _(512, 1, 2, _hi, 1) _(16, 16, 4, _lo, 0)             \
    _(16, 16, 4, _hi, 1) _(16, 4, 16, _lo, 0) _(16, 4, 16, _hi, 1) _(16, 8, 4, , 0) _(16, 4, 8, , 0)                   \
    _(32, 8, 4, _lo, 0) _(32, 8, 4, _hi, 1) _(32, 4, 8, _lo, 0) _(32, 4, 8, _hi, 1) _(32, 4, 4, , 0) _(8, 8, 8, , 0)   \
    _(8, 16, 4, , 0) _(8, 4, 16, , 0) _(16, 1, 2, _flip, 0) _(16, 4, 4, , 0) _(16, 4, 2, , 0) _(16, 2, 4, , 0)         \
    _(16, 8, 2, , 0) _(16, 2, 8, , 0) _(16, 16, 2, , 0) _(16, 2, 16, , 0) _(8, 8, 4, , 0) _(8, 4, 8, , 0)
#define NAMED(bits, rows, columns, end, half) T##bits##_##rows##x##columns##end,
#define ROW(bits, rows, columns, end, half) shuffling{bits, rows, columns, half},
constexpr shuffling shufflings[] = {SHUFFLES(ROW)};

}  // namespace aie2

enum shuffle_mode_of_aie2 : unsigned { SHUFFLES(NAMED) };
#undef NAMED
#undef ROW
#undef SHUFFLES
#define INTERLEAVING(from, to, rows, columns)                                                                         \
    constexpr unsigned INTLV_lo_##from##o##to = T##from##_##columns##x##rows##_lo;                                    \
    constexpr unsigned INTLV_hi_##from##o##to = T##from##_##columns##x##rows##_hi;                                    \
    constexpr unsigned DINTLV_lo_##from##o##to = T##from##_##rows##x##columns##_lo;                                   \
    constexpr unsigned DINTLV_hi_##from##o##to = T##from##_##rows##x##columns##_hi;
INTERLEAVING(8, 16, 64, 2)
INTERLEAVING(16, 32, 32, 2)
INTERLEAVING(32, 64, 16, 2)
INTERLEAVING(64, 128, 8, 2)
INTERLEAVING(128, 256, 4, 2)
INTERLEAVING(256, 512, 2, 2)
constexpr unsigned INTLV_lo_512o1024 = T512_1x2_lo, INTLV_hi_512o1024 = T512_1x2_hi;
constexpr unsigned rnd_floor = 0, rnd_ceil = 1, rnd_sym_floor = 2, rnd_sym_ceil = 3, rnd_neg_inf = 8, rnd_pos_inf = 9,
                   rnd_sym_zero = 10, rnd_sym_inf = 11, rnd_conv_even = 12, rnd_conv_odd = 13;
constexpr unsigned AIE_VECTOR_LDST_ALIGN = 32;
enum { OP_TERM_NEG_COMPLEX, OP_TERM_NEG_COMPLEX_CONJUGATE_X, OP_TERM_NEG_COMPLEX_CONJUGATE_Y,
       OP_TERM_NEG_COMPLEX_CONJUGATE_X_Y, OP_TERM_NEG_COMPLEX_CONJUGATE_BUTTERFLY, OP_TERM_NEG_COMPLEX_BUTTERFLY };

// A core's banks of memory and its streams, which a host has not.
enum class aie_dm_resource { none, stack, a, b, c, d, ab, ac, ad, bc, bd, cd };
enum class aie_stream_resource_in { none, a, b };
enum class aie_stream_resource_out { none, a, b };
#define __aie_dm_resource_stack
#define __aie_dm_resource_a
#define __aie_dm_resource_b
#define __aie_dm_resource_c
#define __aie_dm_resource_d
#define __aie_dm_resource_ab
#define __aie_dm_resource_ac
#define __aie_dm_resource_ad
#define __aie_dm_resource_bc
#define __aie_dm_resource_bd
#define __aie_dm_resource_cd
template <typename T> using aie_dm_resource_remove_t = T;
template <typename T, aie_dm_resource> using aie_dm_resource_set_t = T;
template <typename T> constexpr aie_dm_resource aie_dm_resource_get_v = aie_dm_resource::none;
struct dims_2d_t {
    unsigned num1;
    int inc1, inc2;
};
struct dims_3d_t {
    unsigned num1;
    int inc1;
    unsigned num2;
    int inc2, inc3;
};
