// What the array's cores call. Compiled once for each program:
//
//   -DTILE_SIZE=64|128|256 -DSCORES_INT8=0|1    the streaming run, 32 rows a core
//   -DSINGLE_TILE -DSCORES_INT8=0|1             the single-tile run, 64 rows and 64 keys, fixed scale
//
// Sizes and layouts are those of ../plan.py and ../layout.py; ENTRY names the functions, so that a host can have all
// programs in one library.
#include "attention.hpp"

#ifndef ENTRY
#define ENTRY(name) name
#endif

extern "C" {

#ifdef SINGLE_TILE

// 23730 / 2^4 / 32 and 18984 / 2^11 / 32 * 160: log2(e) / 8 * 256 for each unit of Q K^T, times 256 / 255 for the keys'
// multiplier.
void ENTRY(attention_single)(const int8_t *q, const int8_t *k, const int8_t *v, int32_t *state, int16_t *scores,
                             int16_t *weights, int8_t *output) {
    alignas(32) int16_t multiplier[64], key_multiplier[64];
    alignas(32) const int32_t header[3] = {SCORES_INT8 ? 11 : 4, 64, 8};
    for (unsigned i = 0; i < 64; ++i) {
        multiplier[i] = SCORES_INT8 ? 18984 : 23730;
        key_multiplier[i] = 255;
    }
    attention::start<64>(state);
    attention::tile<64, 64, SCORES_INT8>(q, multiplier, header, k, v, key_multiplier, state, scores, weights);
    attention::finish<64>(state, 8, [&](unsigned row, unsigned column, const aie::vector<int16_t, 16> &out) {
        aie::store_v(output + row * attention::HeadDim + column, out.pack<int8_t>());
    });
}

#else

void ENTRY(attention_start)(int32_t *state) { attention::start<32>(state); }

void ENTRY(attention_tile)(const int8_t *query_block, const int8_t *key_value_tile, int32_t *state, int16_t *scores,
                           int16_t *weights) {
    constexpr unsigned queries = 32 * attention::HeadDim, keys = TILE_SIZE * attention::HeadDim;
    const auto *multiplier = reinterpret_cast<const int16_t *>(query_block + queries);
    const auto *header = reinterpret_cast<const int32_t *>(query_block + queries + 2 * 32);
    const auto *key_multiplier = reinterpret_cast<const int16_t *>(key_value_tile + 2 * keys);
    attention::tile<32, TILE_SIZE, SCORES_INT8>(query_block, multiplier, header, key_value_tile,
                                                key_value_tile + keys, key_multiplier, state, scores, weights);
}

void ENTRY(attention_finish)(const int8_t *query_block, int32_t *state, int16_t *output) {
    const auto *header =
        reinterpret_cast<const int32_t *>(query_block + 32 * attention::HeadDim + 2 * 32);
    attention::finish<32>(state, header[attention::HeaderOutputBits],
                          [&](unsigned row, unsigned column, const aie::vector<int16_t, 16> &out) {
                              aie::store_v(output + row * attention::HeadDim + column, out);
                          });
}

#endif

}  // extern "C"
