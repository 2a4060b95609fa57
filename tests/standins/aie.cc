// Each operation of the stand-in for aie_api by itself: values worked out by hand, and what has to be refused.
#include <aie_api/aie.hpp>
#include <cstdio>
#include <functional>

static int failures = 0;

static void expect(bool holds, const char *what) {
    if (!holds) {
        std::printf("%s\n", what);
        ++failures;
    }
}

static void refuses(const std::function<void()> &work, const char *what) {
    try {
        work();
    } catch (const aie::refused &) {
        return;
    }
    expect(false, what);
}

template <typename T, unsigned N> static aie::vector<T, N> counting(int first = 0, int step = 1) {
    aie::vector<T, N> v;
    for (unsigned i = 0; i < N; ++i) v.lane[i] = static_cast<T>(first + int(i) * step);
    return v;
}

int main() {
    using namespace aie;

    // The hardware's own modes are floor and no saturation.
    accum<acc64, 16> wide;
    wide.from_vector(counting<int32_t, 16>(-8));
    expect(wide.to_vector<int32_t>(1).lane[7] == -1, "-1 >> 1 is -1 by floor");
    wide.from_vector(broadcast<int32_t, 16>(70000));
    expect(wide.to_vector<int16_t>().lane[0] == static_cast<int16_t>(70000), "without saturation it wraps");

    set_rounding(rounding_mode::positive_inf);
    set_saturation(saturation_mode::saturate);
    wide.from_vector(counting<int32_t, 16>(-8));
    const auto halves = wide.to_vector<int32_t>(1);
    expect(halves.lane[5] == -1 && halves.lane[7] == 0 && halves.lane[9] == 1 && halves.lane[11] == 2,
           "-3/2, -1/2, 1/2, 3/2 round to -1, 0, 1, 2");
    wide.from_vector(broadcast<int32_t, 16>(-70000));
    expect(wide.to_vector<int16_t>().lane[3] == -32768, "saturates below");
    expect(wide.to_vector<int32_t>(31).lane[3] == 0, "a shift by 31 leaves nothing of 70000");

    accum<acc32, 32> narrow;
    narrow.from_vector(broadcast<int32_t, 32>(1 << 20));
    expect(narrow.to_vector<int16_t>().lane[31] == 32767, "32 bits to 16 saturates");
    refuses([&] { (void)narrow.to_vector<int32_t>(1); }, "a shift from acc32 to int32 is ignored by the device");
    refuses([&] { (void)wide.to_vector<int32_t>(-1); }, "a negative shift");

    // Matrix units: C[i][j] = sum over k of A[i][k] * B[k][j].
    const auto a8 = counting<int8_t, 32>(-16);
    const auto b8 = counting<int8_t, 64>(-32);
    mmul<4, 8, 8, int8_t, int8_t, acc32> c8;
    refuses([&] { (void)c8.to_vector<int32_t>(); }, "a product read before it was written");
    c8.mac(a8, b8);
    int by_hand = 0;
    for (int k = 0; k < 8; ++k) by_hand += (-16 + 2 * 8 + k) * (-32 + k * 8 + 5);
    expect(c8.to_vector<int32_t>().lane[2 * 8 + 5] == by_hand, "4x8x8: the first mac is a mul");
    c8.mac(a8, b8);
    expect(c8.to_vector<int32_t>().lane[2 * 8 + 5] == 2 * by_hand, "4x8x8: the second adds");
    c8.mul(a8, b8);
    expect(c8.to_vector<int32_t>().lane[2 * 8 + 5] == by_hand, "4x8x8: mul starts again");

    mmul<4, 4, 8, int16_t, int8_t, acc32> c16;
    c16.mul(counting<int16_t, 16>(2000, 3), counting<int8_t, 32>(-16));
    by_hand = 0;
    for (int k = 0; k < 4; ++k) by_hand += (2000 + 3 * (3 * 4 + k)) * (-16 + k * 8 + 7);
    expect(c16.to_vector<int32_t>().lane[3 * 8 + 7] == by_hand, "4x4x8");
    refuses(
        [&] {
            mmul<4, 4, 8, int16_t, int8_t, acc32> c;
            for (int i = 0; i < 200; ++i) c.mac(broadcast<int16_t, 16>(32767), broadcast<int8_t, 32>(127));
        },
        "acc32 overflows");

    // Elementwise.
    const auto down = counting<int16_t, 32>(16, -1);
    expect(max(down, int16_t(0)).lane[20] == 0 && max(down, int16_t(0)).lane[2] == 14, "max");
    expect(min(down, int16_t(0)).lane[20] == -4 && min(down, int16_t(0)).lane[2] == 0, "min");
    expect(sub(int16_t(100), down).lane[20] == 104, "sub from a scalar");
    expect(add(down, down).lane[20] == -8, "add");
    refuses([&] { (void)add(broadcast<int32_t, 16>(1 << 30), broadcast<int32_t, 16>(1 << 30)); }, "add overflows");
    refuses([&] { (void)sub(broadcast<int16_t, 32>(-32768), broadcast<int16_t, 32>(1)); }, "sub overflows");
    expect(bit_and(int16_t(6), counting<int16_t, 32>()).lane[13] == 4, "13 & 6 is 4");
    expect(ge(down, int16_t(14)).bit[2] && !ge(down, int16_t(14)).bit[3], "ge");
    expect(neq(down, int16_t(14)).bit[3] && !neq(down, int16_t(14)).bit[2], "neq");

    const auto even = mask<32>::from_uint32(0x55555555u);
    const auto chosen = select(broadcast<int32_t, 32>(7), counting<int32_t, 32>(), even);
    expect(chosen.lane[4] == 4 && chosen.lane[5] == 7, "a mask's 1 takes the second");
    expect(select(int16_t(1), int16_t(2), even).lane[0] == 2, "select between scalars");

    expect(mul<acc32>(broadcast<int16_t, 32>(-32768), int16_t(-32768)).to_vector<int16_t>(16).lane[0] == 16384,
           "16 x 16 bits to acc32");
    expect(mul<acc64>(broadcast<int32_t, 16>(-(1 << 30)), int32_t(1 << 28)).to_vector<int32_t>(38).lane[0] ==
               -(1 << 20),
           "32 x 32 bits to acc64");
    expect(mul<acc64>(counting<int32_t, 16>(1 << 20), counting<int16_t, 16>(1)).to_vector<int32_t>(8).lane[15] ==
               ((((1 << 20) + 15) * 16 + 128) >> 8),
           "32 x 16 bits to acc64");
    auto total = zeros<acc32, 32>();
    total = mac(total, counting<int16_t, 32>(), int16_t(3));
    expect(total.to_vector<int32_t>().lane[10] == 30, "mac");

    // Reductions and rearrangements.
    expect(reduce_max(counting<int32_t, 8>(-20, 3)) == 1 && reduce_add(counting<int32_t, 8>(1)) == 36, "reductions");
    const auto turned = transpose(counting<int8_t, 64>(), 8, 8);
    expect(turned.lane[3 * 8 + 5] == 5 * 8 + 3, "transpose 8 x 8");
    refuses([&] { (void)transpose(counting<int8_t, 64>(), 4, 8); }, "transpose of another shape");
    const auto [first, second] = interleave_unzip(counting<int16_t, 16>(), counting<int16_t, 16>(16), 4);
    expect(first.lane[0] == 0 && first.lane[4] == 8 && first.lane[8] == 16 && first.lane[15] == 27, "even chunks");
    expect(second.lane[0] == 4 && second.lane[4] == 12 && second.lane[15] == 31, "odd chunks");
    refuses([&] { (void)interleave_unzip(down, down, 3); }, "chunks that are no power of two");
    const auto joined = concat(counting<int16_t, 8>(), counting<int16_t, 8>(8), counting<int16_t, 8>(16),
                               counting<int16_t, 8>(24));
    expect(joined.lane[19] == 19 && joined.extract<8>(2).lane[3] == 19, "concat and extract");
    expect(counting<int16_t, 8>().grow_replicate<32>().lane[29] == 5, "grow_replicate");
    expect(counting<int16_t, 16>(-8).pack<int8_t>().lane[1] == -7, "pack");
    refuses([&] { (void)broadcast<int16_t, 16>(128).pack<int8_t>(); }, "pack of what does not fit");

    // Memory.
    alignas(32) int32_t memory[32] = {};
    store_v(memory + 8, counting<int32_t, 16>(5));
    expect(load_v<8>(memory + 16).lane[0] == 13, "what was stored is loaded");
    refuses([&] { (void)load_v<8>(memory + 4); }, "256 bits from an address that is not a multiple of 32");
    refuses([&] { store_v(memory + 2, counting<int32_t, 4>()); }, "128 bits to an address that is not a multiple of 16");

    if (failures == 0) std::printf("all hold\n");
    return failures != 0;
}
