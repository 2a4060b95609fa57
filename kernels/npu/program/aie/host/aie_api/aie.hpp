// A stand-in for the part of AMD's aie_api that ../../attention.hpp uses, so that the device's source compiles and runs
// on any host. It computes each operation as aie_api documents it, lane by lane, and refuses what the device does not do.
//
// Where each rule was read: aie_api of March 2025 (github.com/Xilinx/aie_api, commit dc3ab77), files under include/aie_api:
//   aie.hpp              documented semantics (pseudo-code) of load_v, store_v, select, bit_and, comparisons, min, max,
//                        add, sub, mul, mac, msc, reduce_*, interleave_unzip, transpose, broadcast, zeros, concat
//   aie_types.hpp        rounding modes: positive_inf is to the nearest, halves towards positive infinity
//   mask.hpp             mask<32>::from_uint32: bit i is lane i
//   detail/mmul.hpp      the modes an AIE-ML (XDNA 1) core has as one instruction: 4x8x8 for 8b x 8b, 4x4x8 for 16b x 8b
//   detail/aie2/mmul_8_8.hpp, mmul_16_8.hpp    row-major blocks, 32-bit accumulators
//   detail/aie2/accum.hpp        to_vector: shift, round, saturate as set (SRS); but from a 32-bit accumulator to 32-bit
//                        lanes, and back, it is a plain cast that ignores the shift: refused here unless the shift is 0
//   detail/aie2/mul_acc32.hpp, mul_acc64.hpp   16b x 16b -> acc32, 32b x 16b and 32b x 32b -> acc64
//
// Rounding and saturation start as the hardware's do, floor and none, so a function that forgets to set them fails here.
// An accumulator or a sum that overflows, a load from an address that is not aligned, and a lane that was never written
// are errors too: the source must not need them. Errors are C++ exceptions; ../host.cc turns them into text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

struct acc32 {};
struct acc64 {};

namespace aie {

struct refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void require(bool holds, const char *what) {
    if (__builtin_expect(!holds, 0)) throw refused(what);
}

enum class rounding_mode { floor, positive_inf };
enum class saturation_mode { none, saturate };

struct modes {
    rounding_mode rounding = rounding_mode::floor;
    saturation_mode saturation = saturation_mode::none;
};

inline modes &current_modes() {
    static thread_local modes m;
    return m;
}

inline void set_rounding(rounding_mode m) { current_modes().rounding = m; }
inline void set_saturation(saturation_mode m) { current_modes().saturation = m; }

template <typename T>
constexpr bool is_element = std::is_same_v<T, int8_t> || std::is_same_v<T, int16_t> || std::is_same_v<T, int32_t>;

template <typename T> inline T fits(int64_t x, const char *what) {
    require(x >= std::numeric_limits<T>::min() && x <= std::numeric_limits<T>::max(), what);
    return static_cast<T>(x);
}

// Shift, round, saturate: how an accumulator's lane becomes a vector's.
template <typename T> inline T srs(int64_t x, int shift) {
    require(shift >= 0 && shift < 60, "SRS: the shift is out of range");
    const modes m = current_modes();
    if (shift > 0) x = (m.rounding == rounding_mode::positive_inf ? x + (int64_t(1) << (shift - 1)) : x) >> shift;
    constexpr int64_t low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    if (m.saturation == saturation_mode::saturate) return static_cast<T>(x < low ? low : x > high ? high : x);
    return static_cast<T>(x);
}

template <typename T, unsigned N> class vector {
    static_assert(is_element<T>, "lanes are int8, int16 or int32");
    static_assert(sizeof(T) * N == 16 || sizeof(T) * N == 32 || sizeof(T) * N == 64 || sizeof(T) * N == 128,
                  "vectors have 128, 256, 512 or 1024 bits");

  public:
    using value_type = T;
    std::array<T, N> lane;

    vector() { lane.fill(static_cast<T>(0x5a5a5a5a)); }  // undefined on the device: anything but zero
    static constexpr unsigned size() { return N; }

    template <unsigned M> vector<T, M> extract(unsigned index) const {
        static_assert(M <= N && N % M == 0);
        require(index < N / M, "extract: no such part");
        vector<T, M> out;
        for (unsigned i = 0; i < M; ++i) out.lane[i] = lane[index * M + i];
        return out;
    }
    template <unsigned M> vector<T, M> grow_replicate() const {
        static_assert(M >= N && M % N == 0);
        vector<T, M> out;
        for (unsigned i = 0; i < M; ++i) out.lane[i] = lane[i % N];
        return out;
    }
    template <typename U> vector<U, N> pack() const {
        static_assert(sizeof(U) * 2 == sizeof(T));
        vector<U, N> out;
        for (unsigned i = 0; i < N; ++i) out.lane[i] = fits<U>(lane[i], "pack: a lane does not fit");
        return out;
    }
};

template <unsigned N> class mask {
  public:
    std::array<bool, N> bit{};
    static mask from_uint32(uint32_t word) {
        static_assert(N == 32);
        mask out;
        for (unsigned i = 0; i < N; ++i) out.bit[i] = word >> i & 1;
        return out;
    }
};

template <typename Tag, unsigned N> class accum {
    static_assert(std::is_same_v<Tag, acc32> || std::is_same_v<Tag, acc64>);

  public:
    static constexpr bool wide = std::is_same_v<Tag, acc64>;
    using lane_type = std::conditional_t<wide, int64_t, int32_t>;
    std::array<lane_type, N> lane;

    accum() { lane.fill(static_cast<lane_type>(0x5a5a5a5a)); }

    template <typename T> void from_vector(const vector<T, N> &v, int shift = 0) {
        require(shift == 0, "from_vector: this stand-in knows no shift to the left");
        for (unsigned i = 0; i < N; ++i) lane[i] = v.lane[i];
    }
    template <typename T> vector<T, N> to_vector(int shift = 0) const {
        require(wide || sizeof(T) < 4 || shift == 0, "to_vector: the device ignores a shift from acc32 to 32-bit lanes");
        vector<T, N> out;
        for (unsigned i = 0; i < N; ++i) out.lane[i] = srs<T>(lane[i], shift);
        return out;
    }
};

// Rows of A (MxK) times columns of B (KxN), both row-major blocks of INT8 or INT16 x INT8, on 32-bit accumulators.
template <unsigned M, unsigned K, unsigned N, typename A, typename B, typename Tag> class mmul {
    static_assert(std::is_same_v<B, int8_t> && std::is_same_v<Tag, acc32>);
    static_assert((std::is_same_v<A, int8_t> && M == 4 && K == 8 && N == 8) ||
                      (std::is_same_v<A, int16_t> && M == 4 && K == 4 && N == 8),
                  "4x8x8 for INT8 x INT8 and 4x4x8 for INT16 x INT8 are one instruction");
    accum<acc32, M * N> data;
    bool filled = false;

    void multiply(const vector<A, M * K> &a, const vector<B, K * N> &b, bool add) {
        for (unsigned i = 0; i < M; ++i) {
            int64_t row[N];
            for (unsigned j = 0; j < N; ++j) row[j] = add ? data.lane[i * N + j] : 0;
            for (unsigned k = 0; k < K; ++k)
                for (unsigned j = 0; j < N; ++j) row[j] += int32_t(a.lane[i * K + k]) * int32_t(b.lane[k * N + j]);
            for (unsigned j = 0; j < N; ++j) data.lane[i * N + j] = fits<int32_t>(row[j], "mmul: acc32 overflows");
        }
        filled = true;
    }

  public:
    void mul(const vector<A, M * K> &a, const vector<B, K * N> &b) { multiply(a, b, false); }
    void mac(const vector<A, M * K> &a, const vector<B, K * N> &b) { multiply(a, b, filled); }
    template <typename T> vector<T, M * N> to_vector(int shift = 0) const {
        require(filled, "mmul: read before it was written");
        return data.template to_vector<T>(shift);
    }
};

template <unsigned N, typename T> inline void check_aligned(const T *p) {
    constexpr size_t bytes = sizeof(T) * N, alignment = bytes < 32 ? bytes : 32;
    require(reinterpret_cast<uintptr_t>(p) % alignment == 0, "a vector's address is not aligned");
}

template <unsigned N, typename T> inline vector<std::remove_const_t<T>, N> load_v(T *p) {
    check_aligned<N>(p);
    vector<std::remove_const_t<T>, N> out;
    for (unsigned i = 0; i < N; ++i) out.lane[i] = p[i];
    return out;
}

template <typename T, unsigned N> inline void store_v(T *p, const vector<T, N> &v) {
    check_aligned<N>(p);
    for (unsigned i = 0; i < N; ++i) p[i] = v.lane[i];
}

template <typename T, unsigned N> inline vector<T, N> broadcast(T value) {
    vector<T, N> out;
    out.lane.fill(value);
    return out;
}

namespace detail {
template <typename T, unsigned N> struct zeros {
    static vector<T, N> make() { return broadcast<T, N>(0); }
};
template <unsigned N> struct zeros<acc32, N> {
    static accum<acc32, N> make() {
        accum<acc32, N> out;
        out.lane.fill(0);
        return out;
    }
};

template <typename T, unsigned N, typename Op> inline vector<T, N> each(const vector<T, N> &a, const vector<T, N> &b, Op op) {
    vector<T, N> out;
    for (unsigned i = 0; i < N; ++i) out.lane[i] = op(a.lane[i], b.lane[i]);
    return out;
}

template <typename Tag, typename A, typename B> constexpr bool multiplies =
    (std::is_same_v<Tag, acc32> && sizeof(A) == 2 && sizeof(B) == 2) ||
    (std::is_same_v<Tag, acc64> && sizeof(A) == 4 && (sizeof(B) == 2 || sizeof(B) == 4));
}  // namespace detail

template <typename T, unsigned N> inline auto zeros() { return detail::zeros<T, N>::make(); }

template <typename T, unsigned N, typename... Rest>
inline vector<T, N *(1 + sizeof...(Rest))> concat(const vector<T, N> &first, const Rest &...rest) {
    vector<T, N *(1 + sizeof...(Rest))> out;
    const std::array<vector<T, N>, 1 + sizeof...(Rest)> parts{first, rest...};
    for (unsigned p = 0; p < parts.size(); ++p)
        for (unsigned i = 0; i < N; ++i) out.lane[p * N + i] = parts[p].lane[i];
    return out;
}

template <typename T, unsigned N> inline vector<T, N> max(const vector<T, N> &a, const vector<T, N> &b) {
    return detail::each(a, b, [](T x, T y) { return x > y ? x : y; });
}
template <typename T, unsigned N> inline vector<T, N> max(const vector<T, N> &a, T b) { return max(a, broadcast<T, N>(b)); }
template <typename T, unsigned N> inline vector<T, N> min(const vector<T, N> &a, const vector<T, N> &b) {
    return detail::each(a, b, [](T x, T y) { return x < y ? x : y; });
}
template <typename T, unsigned N> inline vector<T, N> min(const vector<T, N> &a, T b) { return min(a, broadcast<T, N>(b)); }

template <typename T, unsigned N> inline vector<T, N> add(const vector<T, N> &a, const vector<T, N> &b) {
    return detail::each(a, b, [](T x, T y) { return fits<T>(int64_t(x) + y, "add: a lane overflows"); });
}
template <typename T, unsigned N> inline vector<T, N> sub(const vector<T, N> &a, const vector<T, N> &b) {
    return detail::each(a, b, [](T x, T y) { return fits<T>(int64_t(x) - y, "sub: a lane overflows"); });
}
template <typename T, unsigned N> inline vector<T, N> sub(T a, const vector<T, N> &b) { return sub(broadcast<T, N>(a), b); }

template <typename T, unsigned N> inline vector<T, N> bit_and(T a, const vector<T, N> &b) {
    return detail::each(broadcast<T, N>(a), b, [](T x, T y) { return static_cast<T>(x & y); });
}

template <typename T, unsigned N> inline mask<N> ge(const vector<T, N> &a, T b) {
    mask<N> out;
    for (unsigned i = 0; i < N; ++i) out.bit[i] = a.lane[i] >= b;
    return out;
}
template <typename T, unsigned N> inline mask<N> neq(const vector<T, N> &a, T b) {
    mask<N> out;
    for (unsigned i = 0; i < N; ++i) out.bit[i] = a.lane[i] != b;
    return out;
}

// Where the mask has 0 the first, where it has 1 the second.
template <typename T, unsigned N> inline vector<T, N> select(const vector<T, N> &a, const vector<T, N> &b, const mask<N> &m) {
    vector<T, N> out;
    for (unsigned i = 0; i < N; ++i) out.lane[i] = m.bit[i] ? b.lane[i] : a.lane[i];
    return out;
}
template <typename T, unsigned N> inline vector<T, N> select(const vector<T, N> &a, T b, const mask<N> &m) {
    return select(a, broadcast<T, N>(b), m);
}
template <typename T, unsigned N> requires std::is_integral_v<T> inline vector<T, N> select(T a, T b, const mask<N> &m) {
    return select(broadcast<T, N>(a), broadcast<T, N>(b), m);
}

template <typename T, unsigned N> inline T reduce_max(const vector<T, N> &v) {
    T out = v.lane[0];
    for (unsigned i = 1; i < N; ++i) out = v.lane[i] > out ? v.lane[i] : out;
    return out;
}
template <typename T, unsigned N> inline T reduce_add(const vector<T, N> &v) {
    int64_t out = 0;
    for (unsigned i = 0; i < N; ++i) out += v.lane[i];
    return fits<T>(out, "reduce_add: the sum overflows");
}

template <typename Tag, typename A, typename B, unsigned N>
inline accum<Tag, N> mul(const vector<A, N> &a, const vector<B, N> &b) {
    static_assert(detail::multiplies<Tag, A, B>, "this stand-in multiplies 16x16 to acc32 and 32x16, 32x32 to acc64");
    accum<Tag, N> out;
    for (unsigned i = 0; i < N; ++i)
        out.lane[i] = static_cast<typename accum<Tag, N>::lane_type>(int64_t(a.lane[i]) * int64_t(b.lane[i]));
    return out;
}
template <typename Tag, typename A, typename B, unsigned N> requires std::is_integral_v<B>
inline accum<Tag, N> mul(const vector<A, N> &a, B b) {
    return mul<Tag>(a, broadcast<B, N>(b));
}

template <unsigned N> inline accum<acc32, N> mac(const accum<acc32, N> &acc, const vector<int16_t, N> &a, int16_t b) {
    accum<acc32, N> out;
    for (unsigned i = 0; i < N; ++i)
        out.lane[i] = fits<int32_t>(int64_t(acc.lane[i]) + int32_t(a.lane[i]) * b, "mac: acc32 overflows");
    return out;
}
template <unsigned N>
inline accum<acc32, N> msc(const accum<acc32, N> &acc, const vector<int16_t, N> &a, const vector<int16_t, N> &b) {
    accum<acc32, N> out;
    for (unsigned i = 0; i < N; ++i)
        out.lane[i] = fits<int32_t>(int64_t(acc.lane[i]) - int32_t(a.lane[i]) * b.lane[i], "msc: acc32 overflows");
    return out;
}
template <unsigned N> inline accum<acc32, N> msc(const accum<acc32, N> &acc, const vector<int16_t, N> &a, int16_t b) {
    return msc(acc, a, broadcast<int16_t, N>(b));
}

// A row-major matrix of `rows` x `columns` becomes one of `columns` x `rows`.
template <typename T, unsigned N> inline vector<T, N> transpose(const vector<T, N> &v, unsigned rows, unsigned columns) {
    require(rows * columns == N, "transpose: the shape does not fit");
    vector<T, N> out;
    for (unsigned r = 0; r < rows; ++r)
        for (unsigned c = 0; c < columns; ++c) out.lane[c * rows + r] = v.lane[r * columns + c];
    return out;
}

// Chunks of both vectors in turn: the even ones into the first result, the odd ones into the second.
template <typename T, unsigned N>
inline std::pair<vector<T, N>, vector<T, N>> interleave_unzip(const vector<T, N> &v, const vector<T, N> &w, unsigned chunk) {
    require(chunk <= N && (chunk & (chunk - 1)) == 0, "interleave_unzip: the chunk is no power of two");
    std::pair<vector<T, N>, vector<T, N>> out;
    for (unsigned i = 0; i < 2 * N; ++i) {
        const T value = i < N ? v.lane[i] : w.lane[i - N];
        const unsigned chunk_index = i / chunk, position = chunk_index / 2 * chunk + i % chunk;
        (chunk_index % 2 ? out.second : out.first).lane[position] = value;
    }
    return out;
}

}  // namespace aie
