// The AIE2 core's types and intrinsics for a host: what AMD's aie_api is written on, where Peano would have them built
// in. With it in front, clang compiles the kernel against aie_api's own headers, and its results can be compared
// (../aie_api.py). Names, shapes and meanings are those of Peano's headers (llvm-aie, clang/lib/Headers/aiev2); the
// bodies are this project's own, and only what the kernel reaches has one. UNREACHED declares the rest.
//
// What the device would do quietly and the kernel must not need is refused, by the same words as in the project's own
// aie_api/aie.hpp: shifts out of range, sums that overflow, addresses that are not aligned (by -fsanitize=alignment).
#pragma once

#include "registers.hpp"

// Parts of registers.
template <typename T, unsigned N, aie2::Wide Part>
inline aie2::lanes<T, N> insert(aie2::lanes<T, N> v, auto at, const Part &part) {
    const auto w = aie2::native(part);
    for (unsigned i = 0; i < w.size; ++i) v.lane[at * w.size + i] = w.lane[i];
    return v;
}
template <typename T, unsigned N>
    requires std::is_arithmetic_v<T>
inline aie2::lanes<T, N> insert(aie2::lanes<T, N> v, auto at, T x) {
    v.lane[at] = x;
    return v;
}
namespace aie2 {
template <unsigned N, Wide Of> inline lanes<element_of<Of>, N> part(const Of &of, int at) {
    const auto v = native(of);
    lanes<element_of<Of>, N> out;
    for (unsigned i = 0; i < N; ++i) out.lane[i] = v.lane[at * N + i];
    return out;
}
template <typename T, unsigned N> inline lanes<T, N> filled(lane_of<T> x) {
    lanes<T, N> out;
    for (auto &lane : out.lane) lane = x;
    return out;
}
}  // namespace aie2
template <aie2::Wide A, aie2::Wide... Rest> inline auto concat(const A &first, const Rest &...rest) {
    aie2::lanes<aie2::element_of<A>, aie2::size_of<A> *(1 + sizeof...(Rest))> out;
    int at = 0;
    out = insert(out, at++, first);
    ((out = insert(out, at++, rest)), ...);
    return out;
}

#define REGISTER(name, T, n)                                                                                          \
    using v##n##name = aie2::lanes<T, n>;                                                                             \
    inline v##n##name undef_v##n##name() { return aie2::lanes<T, n>(); }                                              \
    inline v##n##name broadcast_zero_to_v##n##name() { return aie2::filled<T, n>({}); }                               \
    template <typename X> inline v##n##name broadcast_to_v##n##name(X x) {                                            \
        return aie2::filled<T, n>(aie2::lane_of<T>(x));                                                               \
    }                                                                                                                 \
    template <aie2::Wide Of> inline v##n##name extract_v##n##name(const Of &of, auto at) {                            \
        return v##n##name(aie2::part<n>(of, at));                                                                     \
    }                                                                                                                 \
    template <aie2::Wide Part> inline v##n##name set_v##n##name(auto at, const Part &part) {                          \
        return insert(v##n##name(), at, part);                                                                        \
    }
#define REGISTERS(name, T, a, b, c, d)                                                                                \
    REGISTER(name, T, a) REGISTER(name, T, b) REGISTER(name, T, c) REGISTER(name, T, d)
REGISTER(int32, int32_t, 2)
REGISTER(uint32, uint32_t, 2)
REGISTERS(int8, int8_t, 16, 32, 64, 128)
REGISTERS(uint8, uint8_t, 16, 32, 64, 128)
REGISTERS(int16, int16_t, 8, 16, 32, 64)
REGISTERS(uint16, uint16_t, 8, 16, 32, 64)
REGISTERS(int32, int32_t, 4, 8, 16, 32)
REGISTERS(uint32, uint32_t, 4, 8, 16, 32)
REGISTERS(acc32, acc32, 4, 8, 16, 32)
REGISTERS(acc64, acc64, 4, 8, 16, 32)
REGISTERS(cint16, cint16, 4, 8, 16, 32)
REGISTERS(cint32, cint32, 2, 4, 8, 16)
REGISTERS(cacc64, cacc64, 2, 4, 8, 16)
REGISTERS(int4, int4_t, 32, 64, 128, 256)
REGISTERS(uint4, uint4_t, 32, 64, 128, 256)
REGISTERS(bfloat16, bfloat16, 8, 16, 32, 64)
REGISTERS(float, float, 4, 8, 16, 32)
REGISTERS(cfloat, cfloat, 2, 4, 8, 16)
REGISTERS(cbfloat16, cbfloat16, 4, 8, 16, 32)
REGISTERS(accfloat, accfloat, 4, 8, 16, 32)
REGISTERS(caccfloat, caccfloat, 2, 4, 8, 16)
#undef REGISTERS
#undef REGISTER
inline v2uint32 set_v2uint32(auto at, uint32_t x) { return insert(v2uint32{}, at, x); }
inline v2int32 set_v2int32(auto at, int32_t x) { return insert(v2int32{}, at, x); }

#define SPARSE(name)                                                                                                  \
    struct v##name##_sparse {                                                                                         \
        template <typename... A> v##name##_sparse(A...) {}                                                            \
    };                                                                                                                \
    struct v##name##_sparse_compress {};                                                                              \
    inline v##name##_sparse undef_v##name##_sparse() { return {}; }
SPARSE(256int4)
SPARSE(256uint4)
SPARSE(128int8)
SPARSE(128uint8)
SPARSE(64int16)
SPARSE(64uint16)
SPARSE(64bfloat16)
#undef SPARSE
struct sparsity_t {};
inline anything get_coreid() { return {}; }

// Of a word, as aie_api asks for it: the zeros in front.
inline unsigned clb(unsigned x) { return std::countl_zero(x); }

// Modes.
inline void set_rnd(unsigned mode) { aie::current_modes().rounding = mode; }
inline unsigned get_rnd() { return aie::current_modes().rounding; }
inline void set_satmode(unsigned mode) { aie::current_modes().saturation = mode; }
inline unsigned get_satmode() { return aie::current_modes().saturation; }

// Lane by lane. A flag after the operands says whether they are signed, as their types do here.
#define LANEWISE(name, expression)                                                                                    \
    template <aie2::Wide A, aie2::Wide B> inline auto name(const A &a, const B &b, auto...) {                         \
        using T = aie2::lane_of<aie2::element_of<A>>;                                                                 \
        return aie2::each(a, b, [](T x, T y) { return aie2::lane_result<T>(expression); });                           \
    }
#define COMPARISON(name, expression)                                                                                  \
    template <aie2::Wide A, aie2::Wide B> inline auto name(const A &a, const B &b, auto...) {                         \
        return aie2::test(a, b, [](auto x, auto y) { return expression; });                                           \
    }
LANEWISE(add, int64_t(x) + y)
LANEWISE(sub, int64_t(x) - y)
LANEWISE(band, x &y)
LANEWISE(bor, x | y)
LANEWISE(bxor, x ^ y)
LANEWISE(max, x > y ? x : y)
LANEWISE(min, x < y ? x : y)
COMPARISON(lt, x < y)
COMPARISON(le, x <= y)
COMPARISON(gt, x > y)
COMPARISON(ge, x >= y)
COMPARISON(eq, x == y)
COMPARISON(ne, x != y)
#undef LANEWISE
#undef COMPARISON
template <aie2::Wide A, typename... Sign> inline auto ltz(const A &a, Sign...) {
    return ::lt(aie2::native(a), aie2::filled<aie2::element_of<A>, aie2::size_of<A>>(0));
}
template <aie2::Wide A, typename... Sign> inline auto gtz(const A &a, Sign...) {
    return ::gt(aie2::native(a), aie2::filled<aie2::element_of<A>, aie2::size_of<A>>(0));
}
template <aie2::Wide A> inline auto eqz(const A &a) {
    return ::eq(aie2::native(a), aie2::filled<aie2::element_of<A>, aie2::size_of<A>>(0));
}
template <aie2::Wide A, typename Mask> inline auto sel(const A &a, const A &b, Mask mask) {
    auto out = aie2::native(a);
    const auto other = aie2::native(b);
    const uint64_t chosen = std::bit_cast<std::conditional_t<sizeof(Mask) == 4, uint32_t, uint64_t>>(mask);
    for (unsigned i = 0; i < out.size; ++i)
        if (chosen >> i & 1) out.lane[i] = other.lane[i];
    return out;
}
template <aie2::Wide A, typename... Sign> inline auto extract_elem(const A &a, auto at, Sign...) {
    return aie2::native(a).lane[at];
}

// Elements moved about: `shuffle`, and bytes of both registers, in sequence, from a place on.
template <aie2::Wide A> inline auto shuffle(const A &a, const A &b, auto mode) {
    static_assert(sizeof(aie2::native_of<A>) == 64);
    const auto [bits, rows, columns, half] = aie2::shufflings[mode];
    const unsigned bytes = bits / 8;
    const std::array<aie2::native_of<A>, 2> both{aie2::native(a), aie2::native(b)};
    uint8_t from[128], to[128];
    std::memcpy(from, &both, sizeof from);
    std::memcpy(to, &both, sizeof to);
    for (unsigned i = 0; i < rows * columns; ++i)
        std::memcpy(to + (i % columns * rows + i / columns) * bytes, from + i * bytes, bytes);
    aie2::native_of<A> out;
    std::memcpy(&out, to + half * 64, sizeof out);
    return out;
}
template <aie2::Wide A> inline auto shuffle(const A &a, auto mode) { return shuffle(a, a, mode); }
template <aie2::Wide A> inline auto shift_bytes(const A &a, const A &b, auto bytes) {
    const std::array<aie2::native_of<A>, 2> both{aie2::native(a), aie2::native(b)};
    aie2::native_of<A> out;
    std::memcpy(&out, reinterpret_cast<const uint8_t *>(&both) + bytes, sizeof out);
    return out;
}
template <aie2::Wide A> inline auto shift(const A &a, const A &b, auto bytes) { return shift_bytes(a, b, bytes); }

// Products, with flags: is an operand signed, as its type is here; is the accumulator zeroed; are product or accumulator
// subtracted. aie_api's first version has the plain forms, its second those with _conf.
#define PRODUCTS(name, Acc, n, parameters, product)                                                                   \
    template <aie2::Wide A, aie2::Wide B> inline auto mul_##name(parameters) {                                        \
        return product(1, (aie2::nothing<Acc, n>()));                                                                 \
    }                                                                                                                 \
    template <aie2::Wide A, aie2::Wide B> inline auto mul_##name##_conf(parameters, auto sub_mul) {                   \
        return product(sub_mul ? -1 : 1, (aie2::nothing<Acc, n>()));                                                  \
    }                                                                                                                 \
    template <aie2::Wide A, aie2::Wide B, aie2::Wide C> inline auto mac_##name(parameters, const C &acc) {            \
        return product(1, aie2::native(acc));                                                                         \
    }                                                                                                                 \
    template <aie2::Wide A, aie2::Wide B, aie2::Wide C> inline auto msc_##name(parameters, const C &acc) {            \
        return product(-1, aie2::native(acc));                                                                        \
    }                                                                                                                 \
    template <aie2::Wide A, aie2::Wide B, aie2::Wide C>                                                               \
    inline auto mac_##name##_conf(parameters, const C &acc, auto zeroed, auto shift16, auto sub_mul, auto sub_acc) {  \
        aie::require(!shift16 && !sub_acc, "a product in a way without a body");                                      \
        return product(sub_mul ? -1 : 1, (zeroed ? aie2::nothing<Acc, n>() : aie2::native(acc)));                     \
    }                                                                                                                 \
    template <aie2::Wide A, aie2::Wide B, aie2::Wide C>                                                               \
    inline auto msc_##name##_conf(parameters, const C &acc, auto zeroed, auto shift16, auto sub_mul, auto sub_acc) {  \
        aie::require(!shift16 && !sub_acc, "a product in a way without a body");                                      \
        return product(sub_mul ? 1 : -1, (zeroed ? aie2::nothing<Acc, n>() : aie2::native(acc)));                     \
    }
#define AND ,
#define OPERANDS const A &a AND auto AND const B &b AND auto
#define PAIRS const A &a AND const A & AND auto AND const B &b AND const B & AND auto  // the second a is zero
#define BY_LANE(by, onto) aie2::by_lane(a, b, onto, by)
#define BY_4x8x8(by, onto) aie2::multiply<4, 8, 8>(a, b, onto, by)
#define BY_4x4x8(by, onto) aie2::multiply<4, 4, 8>(a, b, onto, by)
PRODUCTS(4x8_8x8, acc32, 32, OPERANDS, BY_4x8x8)
PRODUCTS(4x4_4x8, acc32, 32, OPERANDS, BY_4x4x8)
PRODUCTS(elem_32, acc32, 32, OPERANDS, BY_LANE)
PRODUCTS(elem_16_2, acc64, 16, PAIRS, BY_LANE)
#undef PRODUCTS

// Between accumulators and vectors.
#define SRS(n, name, T)                                                                                               \
    template <aie2::Wide A> inline auto srs_to_v##n##name(const A &a, auto shift, auto...) {                       \
        return aie2::srs<T, n>(a, shift);                                                                             \
    }
SRS(16, int16, int16_t)
SRS(32, int16, int16_t)
SRS(8, int32, int32_t)
SRS(16, int32, int32_t)
SRS(32, int8, int8_t)
#undef SRS
#define UPS(n, name)                                                                                                  \
    template <aie2::Wide A> inline auto ups_to_v##n##name(const A &a, auto shift, auto...) {                       \
        return aie2::ups<name, n>(a, shift);                                                                          \
    }
UPS(16, acc32)
UPS(32, acc32)
UPS(8, acc64)
UPS(16, acc64)
#undef UPS
template <aie2::Wide A, typename... Sign> inline auto pack(const A &a, Sign...) {
    using T = std::conditional_t<sizeof(aie2::lane_of<aie2::element_of<A>>) == 2, int8_t, int16_t>;
    const auto v = aie2::native(a);
    aie2::lanes<T, aie2::size_of<A>> out;
    for (unsigned i = 0; i < v.size; ++i) out.lane[i] = aie2::fits<T>(v.lane[i], "pack: a lane does not fit");
    return out;
}

#define UNREACHED(name)                                                                                               \
    template <typename... A> inline anything name(const A &...) {                                                     \
        throw aie::refused("the AIE2 intrinsic " #name " has no body");                                               \
    }
