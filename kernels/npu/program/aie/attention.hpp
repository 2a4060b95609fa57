// Attention of one tile on an AIE2 core, as ../CONTRACT.md defines it, bit for bit.
//
// A core holds `Rows` query rows of a head. Key and value tiles of `Keys` keys stream past; per row it keeps the
// accumulator, the running exponent and the sum. Eight rows are worked on at a time:
//
//   scores    S = Q K^T by the 4x8x8 INT8 matrix unit, rounded to 16 bits and scaled by key (in `scores`), and each
//             row's largest
//   weights   p = 2^(z - m) of the logits z, 11 bits, 32 lanes of 16 bits (in `weights`), and their sums
//   values    a = P V by the 4x4x8 INT16 x INT8 matrix unit, merged into the accumulator
//
// Block layouts are those of ../layout.py. Every function sets the rounding and saturation modes that it needs: the
// hardware's defaults are to round down and to wrap. No dynamic memory. Locals are some vectors of 32 lanes and two
// arrays of eight words; plan.py's STACK_BYTES is what the design gives a core.
#pragma once

#include <aie_api/aie.hpp>
#include <cstdint>

namespace attention {

constexpr unsigned HeadDim = 64;
constexpr unsigned HeaderShift = 0, HeaderValid = 1, HeaderOutputBits = 2;  // words of the header

constexpr int ScoreShift = 5, KeyShift = 8, FractionBits = 8;
constexpr int16_t Farthest = 12 << FractionBits;  // from so many 1/256 octaves on a weight is 0
constexpr int16_t Padding = -32768;         // the score of a key that does not count: lower than any other
constexpr int32_t NoExponent = -(1 << 24);  // before the first tile; every real exponent is at least 2^-20 away from it
constexpr int MergeShiftMax = 31;           // shifting by 31 leaves 0 of every sum below 2^30
constexpr int16_t Int8Step = 160;           // the int8 kernel's score step, in 1/256 octaves

// What a core keeps between the tiles of a head, in 32-bit words: plan.py's state_words.
template <unsigned Rows> struct State {
    int32_t *accumulator;  // [Rows][64]
    int32_t *exponent;     // [Rows]
    int32_t *sum;          // [Rows]
    int32_t *seen;         // keys so far

    explicit State(int32_t *words)
        : accumulator(words), exponent(words + Rows * HeadDim), sum(exponent + Rows), seen(sum + Rows) {}
};

inline void set_modes() {
    aie::set_rounding(aie::rounding_mode::positive_inf);  // the contract's round_shift
    aie::set_saturation(aie::saturation_mode::saturate);
}

inline int32_t round_shift(int32_t x, int shift) { return shift == 0 ? x : (x + (int32_t(1) << (shift - 1))) >> shift; }

// One value for each of four rows, eight lanes each.
template <typename T> inline aie::vector<T, 32> by_row(const T *values) {
    return aie::concat(aie::broadcast<T, 8>(values[0]), aie::broadcast<T, 8>(values[1]),
                       aie::broadcast<T, 8>(values[2]), aie::broadcast<T, 8>(values[3]));
}

// Which of a block's 4 x 8 lanes hold keys that do not count; `left` of the eight keys do.
inline aie::mask<32> padding_mask(int left) {
    const uint32_t counting = left >= 8 ? 0xffu : left <= 0 ? 0u : (1u << left) - 1;
    return aie::mask<32>::from_uint32(~(counting * 0x01010101u));
}

// Steps 2 to 4 for a 4 x 8 block of scaled scores: how far logits lie under their row's exponent, which is `top` in the
// logits' own units. Those have `shift` bits more than the distance, 0 for the int8 kernel.
template <bool Int8Scores>
inline aie::vector<int16_t, 32> distances_of(const aie::vector<int16_t, 32> &scaled,
                                             const aie::vector<int16_t, 32> &multiplier, int shift,
                                             const aie::accum<acc32, 32> &top) {
    if constexpr (Int8Scores) {
        const aie::vector<int16_t, 32> z = aie::mul<acc32>(scaled, multiplier).template to_vector<int16_t>(shift);
        const aie::vector<int16_t, 32> clamped = aie::max(aie::min(z, int16_t(127)), int16_t(-128));
        return aie::msc(top, clamped, Int8Step).template to_vector<int16_t>();
    } else {
        return aie::msc(top, scaled, multiplier).template to_vector<int16_t>(shift);
    }
}

// Step 5: p = 2^(-d / 256) in units of 1/2047, for d from 0 to 12 octaves.
inline aie::vector<int16_t, 32> weights_of(const aie::vector<int16_t, 32> &d) {
    const aie::vector<int16_t, 32> f = aie::bit_and(int16_t(255), d);

    aie::vector<int16_t, 32> t = aie::mul<acc32>(f, int16_t(1290)).to_vector<int16_t>(8);
    t = aie::mul<acc32>(f, aie::sub(int16_t(7557), t)).to_vector<int16_t>(8);
    t = aie::mul<acc32>(f, aie::sub(int16_t(22645), t)).to_vector<int16_t>(8);
    const aie::vector<int16_t, 32> mantissa = aie::sub(int16_t(32752), t);

    // 2^(12 - n) for n = d >> 8, put together from n's four bits; a shift by n + 4 is then one by 16.
    const aie::mask<32> n8 = aie::ge(d, int16_t(8 * 256));
    const aie::mask<32> n4 = aie::neq(aie::bit_and(int16_t(4 * 256), d), int16_t(0));
    const aie::mask<32> n2 = aie::neq(aie::bit_and(int16_t(2 * 256), d), int16_t(0));
    const aie::mask<32> n1 = aie::neq(aie::bit_and(int16_t(1 * 256), d), int16_t(0));
    const aie::vector<int16_t, 32> high = aie::select(aie::select(int16_t(4096), int16_t(16), n8),
                                                      aie::select(int16_t(256), int16_t(1), n8), n4);
    const aie::vector<int16_t, 32> low = aie::select(aie::select(int16_t(8), int16_t(2), n2),
                                                     aie::select(int16_t(4), int16_t(1), n2), n1);
    const aie::vector<int16_t, 32> power = aie::mul<acc32>(high, low).to_vector<int16_t>(3);

    return aie::mul<acc32>(mantissa, power).to_vector<int16_t>(16);
}

// Scores of eight rows against the tile's first `blocks` * 8 keys, scaled by the keys; `largest` gets each row's.
template <unsigned Keys>
inline void score_rows(const int8_t *__restrict q, const int8_t *__restrict k,
                       const int16_t *__restrict key_multiplier, int valid, unsigned blocks,
                       int16_t *__restrict scores, int16_t *__restrict largest) {
    using Product = aie::mmul<4, 8, 8, int8_t, int8_t, acc32>;
    const int8_t *q0 = q, *q1 = q + 4 * HeadDim;
    aie::vector<int16_t, 32> most0 = aie::broadcast<int16_t, 32>(Padding), most1 = most0;

    for (unsigned block = 0; block < blocks; ++block) {
        const int8_t *keys = k + block * 8 * HeadDim;
        Product s0, s1;
        for (unsigned channel = 0; channel < HeadDim / 8; ++channel) {
            const auto b = aie::transpose(aie::load_v<64>(keys + channel * 64), 8, 8);
            const auto a0 = aie::load_v<32>(q0 + channel * 32), a1 = aie::load_v<32>(q1 + channel * 32);
            if (channel == 0) {
                s0.mul(a0, b);
                s1.mul(a1, b);
            } else {
                s0.mac(a0, b);
                s1.mac(a1, b);
            }
        }
        const aie::vector<int16_t, 32> scale = aie::load_v<8>(key_multiplier + block * 8).template grow_replicate<32>();
        const aie::mask<32> padding = padding_mask(valid - int(block * 8));
        const auto scaled = [&](const Product &s) {
            const aie::vector<int16_t, 32> held = s.template to_vector<int16_t>(ScoreShift);
            return aie::select(aie::mul<acc32>(held, scale).template to_vector<int16_t>(KeyShift), Padding, padding);
        };
        const aie::vector<int16_t, 32> t0 = scaled(s0), t1 = scaled(s1);
        most0 = aie::max(most0, t0);
        most1 = aie::max(most1, t1);
        aie::store_v(scores + block * 32, t0);
        aie::store_v(scores + (Keys / 8 + block) * 32, t1);
    }
    for (unsigned row = 0; row < 4; ++row) {
        largest[row] = aie::reduce_max(most0.template extract<8>(row));
        largest[4 + row] = aie::reduce_max(most1.template extract<8>(row));
    }
}

// Weights of four rows, cut into the 4 x 4 blocks that the product with V takes; `sums` gets each row's.
template <unsigned Keys, bool Int8Scores>
inline void weigh_rows(const int16_t *__restrict scores, const int16_t *__restrict multiplier, int shift,
                       const int32_t *__restrict tops, int valid, unsigned blocks, int16_t *__restrict weights,
                       int32_t *__restrict sums) {
    const aie::vector<int16_t, 32> by = by_row(multiplier);
    aie::accum<acc32, 32> top, total = aie::zeros<acc32, 32>();
    top.from_vector(by_row(tops));
    for (unsigned block = 0; block < blocks; ++block) {
        const aie::vector<int16_t, 32> far =
            aie::min(distances_of<Int8Scores>(aie::load_v<32>(scores + block * 32), by, shift, top), Farthest);
        const aie::vector<int16_t, 32> p =
            weights_of(aie::select(far, Farthest, padding_mask(valid - int(block * 8))));
        total = aie::mac(total, p, int16_t(1));
        const auto [first, second] =
            aie::interleave_unzip(p.template extract<16>(0), p.template extract<16>(1), 4);
        aie::store_v(weights + block * 32, first);
        aie::store_v(weights + block * 32 + 16, second);
    }
    const aie::vector<int32_t, 32> sum = total.to_vector<int32_t>();
    for (unsigned row = 0; row < 4; ++row) sums[row] = aie::reduce_add(sum.template extract<8>(row));
}

inline aie::vector<int32_t, 16> down(const aie::vector<int32_t, 16> &v, int shift) {
    aie::accum<acc64, 16> wide;
    wide.from_vector(v);
    return wide.to_vector<int32_t>(shift);
}

// P V for eight rows, added to the accumulator; `older` and `newer` are the shifts of what was there and of what comes.
template <unsigned Keys>
inline void add_values(const int16_t *__restrict weights, const int8_t *__restrict v, unsigned blocks,
                       const int32_t *__restrict older, const int32_t *__restrict newer,
                       int32_t *__restrict accumulator) {
    using Product = aie::mmul<4, 4, 8, int16_t, int8_t, acc32>;
    const int16_t *p0 = weights, *p1 = weights + 4 * Keys;
    for (unsigned column = 0; column < HeadDim / 8; column += 2) {
        Product a00, a01, a10, a11;
        for (unsigned step = 0; step < 2 * blocks; ++step) {
            const auto rows0 = aie::load_v<16>(p0 + step * 16), rows1 = aie::load_v<16>(p1 + step * 16);
            const auto left = aie::load_v<32>(v + step * 4 * HeadDim + column * 32);
            const auto right = aie::load_v<32>(v + step * 4 * HeadDim + column * 32 + 32);
            if (step == 0) {
                a00.mul(rows0, left);
                a01.mul(rows0, right);
                a10.mul(rows1, left);
                a11.mul(rows1, right);
            } else {
                a00.mac(rows0, left);
                a01.mac(rows0, right);
                a10.mac(rows1, left);
                a11.mac(rows1, right);
            }
        }
        const aie::vector<int32_t, 32> block00 = a00.template to_vector<int32_t>();
        const aie::vector<int32_t, 32> block01 = a01.template to_vector<int32_t>();
        const aie::vector<int32_t, 32> block10 = a10.template to_vector<int32_t>();
        const aie::vector<int32_t, 32> block11 = a11.template to_vector<int32_t>();
        for (unsigned row = 0; row < 4; ++row) {
            int32_t *a = accumulator + row * HeadDim + column * 8;
            int32_t *b = a + 4 * HeadDim;
            const auto upper = aie::concat(block00.template extract<8>(row), block01.template extract<8>(row));
            const auto lower = aie::concat(block10.template extract<8>(row), block11.template extract<8>(row));
            aie::store_v(a, aie::add(down(aie::load_v<16>(a), older[row]), down(upper, newer[row])));
            aie::store_v(b, aie::add(down(aie::load_v<16>(b), older[4 + row]), down(lower, newer[4 + row])));
        }
    }
}

// Before a head's first tile.
template <unsigned Rows> inline void start(int32_t *words) {
    State<Rows> state(words);
    for (unsigned i = 0; i < Rows * HeadDim; i += 16) aie::store_v(state.accumulator + i, aie::zeros<int32_t, 16>());
    for (unsigned row = 0; row < Rows; ++row) {
        state.exponent[row] = NoExponent;
        state.sum[row] = 0;
    }
    *state.seen = 0;
}

// One tile of keys and values against all rows. Keys from `valid_keys` of the head on count for nothing.
template <unsigned Rows, unsigned Keys, bool Int8Scores>
inline void tile(const int8_t *__restrict q, const int16_t *__restrict multiplier, const int32_t *__restrict header,
                 const int8_t *__restrict k, const int8_t *__restrict v, const int16_t *__restrict key_multiplier,
                 int32_t *__restrict words, int16_t *__restrict scores, int16_t *__restrict weights) {
    static_assert(Rows % 8 == 0 && Keys % 8 == 0);
    set_modes();
    State<Rows> state(words);
    const int left = header[HeaderValid] - *state.seen;
    *state.seen += int(Keys);
    if (left <= 0) return;  // nothing but padding
    const int valid = left < int(Keys) ? left : int(Keys);
    const unsigned blocks = unsigned(valid + 7) / 8;

    const int shift = header[HeaderShift];
    const int octave = Int8Scores ? FractionBits : shift + FractionBits;

    for (unsigned row = 0; row < Rows; row += 8) {
        int16_t largest[8];
        int32_t tops[8], sums[8], older[8], newer[8];
        score_rows<Keys>(q + row * HeadDim, k, key_multiplier, valid, blocks, scores, largest);
        for (unsigned i = 0; i < 8; ++i) {
            int32_t z = int32_t(largest[i]) * multiplier[row + i];
            if constexpr (Int8Scores) {
                z = round_shift(z, shift);
                z = (z > 127 ? 127 : z < -128 ? -128 : z) * Int8Step;
            }
            const int32_t exponent = (z + (int32_t(1) << octave) - 1) >> octave, before = state.exponent[row + i];
            const int32_t rise = exponent - before;
            older[i] = rise <= 0 ? 0 : rise < MergeShiftMax ? rise : MergeShiftMax;
            newer[i] = rise >= 0 ? 0 : -rise < MergeShiftMax ? -rise : MergeShiftMax;
            if (rise > 0) state.exponent[row + i] = exponent;
            tops[i] = exponent * (int32_t(1) << octave);
        }
        for (unsigned half = 0; half < 8; half += 4)
            weigh_rows<Keys, Int8Scores>(scores + half * Keys, multiplier + row + half, shift, tops + half, valid,
                                         blocks, weights + half * Keys, sums + half);
        for (unsigned i = 0; i < 8; ++i) {
            int32_t &sum = state.sum[row + i];
            sum = round_shift(sum, older[i]) + round_shift(sums[i] * 128, newer[i]);
        }
        add_values<Keys>(weights, v, blocks, older, newer, state.accumulator + row * HeadDim);
    }
}

// floor(2^45 / sum), bit by bit; 2^17 <= sum < 2^30, so the first 17 bits of the dividend give no quotient.
inline int32_t reciprocal(int32_t sum) {
    uint32_t rest = uint32_t(1) << 16, quotient = 0;
    for (unsigned bit = 0; bit < 29; ++bit) {
        rest <<= 1;
        quotient <<= 1;
        if (rest >= uint32_t(sum)) {
            rest -= uint32_t(sum);
            quotient |= 1;
        }
    }
    return int32_t(quotient);
}

// After the last tile: out = A / L, 16 or 8 bits, 16 columns at a time handed to `store(row, column, values)`.
template <unsigned Rows, typename Store> inline void finish(int32_t *words, int output_bits, Store store) {
    set_modes();
    State<Rows> state(words);
    const int shift = 46 - output_bits;
    for (unsigned row = 0; row < Rows; ++row) {
        const int32_t scale = reciprocal(state.sum[row]);
        for (unsigned column = 0; column < HeadDim; column += 16) {
            const auto a = aie::load_v<16>(state.accumulator + row * HeadDim + column);
            aie::vector<int16_t, 16> out = aie::mul<acc64>(a, scale).template to_vector<int16_t>(shift);
            if (output_bits == 8) out = aie::max(aie::min(out, int16_t(127)), int16_t(-128));
            store(row, column, out);
        }
    }
}

}  // namespace attention
