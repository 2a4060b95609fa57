// The device's source for every program, compiled for the host, and a driver that does what the array does with a run's
// buffers: each core's query block against its head's stream of tiles. Functions return null, or what was refused.
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#define SCORES_INT8 0
#define TILE_SIZE 64
#define ENTRY(name) name##_int32_t64
#include "../kernel.cc"
#undef TILE_SIZE
#undef ENTRY
#define TILE_SIZE 128
#define ENTRY(name) name##_int32_t128
#include "../kernel.cc"
#undef TILE_SIZE
#undef ENTRY
#define TILE_SIZE 256
#define ENTRY(name) name##_int32_t256
#include "../kernel.cc"
#undef TILE_SIZE
#undef ENTRY
#define SINGLE_TILE
#define ENTRY(name) name##_int32
#include "../kernel.cc"
#undef SINGLE_TILE
#undef ENTRY
#undef SCORES_INT8

#define SCORES_INT8 1
#define TILE_SIZE 64
#define ENTRY(name) name##_int8_t64
#include "../kernel.cc"
#undef TILE_SIZE
#undef ENTRY
#define TILE_SIZE 128
#define ENTRY(name) name##_int8_t128
#include "../kernel.cc"
#undef TILE_SIZE
#undef ENTRY
#define TILE_SIZE 256
#define ENTRY(name) name##_int8_t256
#include "../kernel.cc"
#undef TILE_SIZE
#undef ENTRY
#define SINGLE_TILE
#define ENTRY(name) name##_int8
#include "../kernel.cc"
#undef SINGLE_TILE
#undef ENTRY
#undef SCORES_INT8

namespace {

struct Program {
    void (*start)(int32_t *);
    void (*tile)(const int8_t *, const int8_t *, int32_t *, int16_t *, int16_t *);
    void (*finish)(const int8_t *, int32_t *, int16_t *);
};

Program program(int int8_scores, int tile_size) {
#define PROGRAM(name) Program{attention_start_##name, attention_tile_##name, attention_finish_##name}
    if (int8_scores) {
        if (tile_size == 64) return PROGRAM(int8_t64);
        return tile_size == 128 ? PROGRAM(int8_t128) : PROGRAM(int8_t256);
    }
    if (tile_size == 64) return PROGRAM(int32_t64);
    return tile_size == 128 ? PROGRAM(int32_t128) : PROGRAM(int32_t256);
#undef PROGRAM
}

// A core's own memory, filled with what a core may find there: anything. What lies behind its end must stay as it is.
class Local {
    static constexpr size_t Guard = 64;
    size_t bytes_;
    std::unique_ptr<int8_t[], void (*)(int8_t *)> memory_;

  public:
    explicit Local(size_t bytes)
        : bytes_(bytes),
          memory_(static_cast<int8_t *>(::operator new(bytes + Guard, std::align_val_t(32))),
                  [](int8_t *p) { ::operator delete(p, std::align_val_t(32)); }) {
        std::memset(memory_.get(), 0x5a, bytes + Guard);
    }
    template <typename T> T *as() { return reinterpret_cast<T *>(memory_.get()); }
    void check() const {
        for (size_t i = 0; i < Guard; ++i) aie::require(memory_[bytes_ + i] == 0x5a, "a buffer's end was written over");
    }
};

thread_local char refusal[160];

template <typename Work> const char *guarded(Work work) {
    aie::current_modes() = aie::modes();
    try {
        work();
        return nullptr;
    } catch (const std::exception &e) {
        std::strncpy(refusal, e.what(), sizeof refusal - 1);
        return refusal;
    }
}

}  // namespace

extern "C" {

// A streaming run of some heads: the first `blocks` of each head's `stored` query blocks, against all of its tiles.
const char *host_stream(int int8_scores, int tile_size, int heads, int blocks, int stored, int tiles,
                        int query_block_bytes, int tile_bytes, int output_block_bytes, int state_words,
                        int score_halves, int weight_halves, const int8_t *queries, const int8_t *stream,
                        int8_t *output) {
    return guarded([&] {
        const Program run = program(int8_scores, tile_size);
        Local state(4 * state_words), scores(2 * score_halves), weights(2 * weight_halves);
        Local query(query_block_bytes), tile(tile_bytes), out(output_block_bytes);
        for (int head = 0; head < heads; ++head) {
            for (int block = 0; block < blocks; ++block) {
                const size_t index = size_t(head) * stored + block;
                std::memcpy(query.as<int8_t>(), queries + index * query_block_bytes, query_block_bytes);
                run.start(state.as<int32_t>());
                for (int t = 0; t < tiles; ++t) {
                    const int8_t *next = stream + (size_t(head) * tiles + t) * tile_bytes;
                    std::memcpy(tile.as<int8_t>(), next, tile_bytes);
                    run.tile(query.as<int8_t>(), tile.as<int8_t>(), state.as<int32_t>(), scores.as<int16_t>(),
                             weights.as<int16_t>());
                }
                run.finish(query.as<int8_t>(), state.as<int32_t>(), out.as<int16_t>());
                std::memcpy(output + index * output_block_bytes, out.as<int8_t>(), output_block_bytes);
            }
        }
        for (const Local *local : {&state, &scores, &weights, &query, &tile, &out}) local->check();
    });
}

// A single-tile run: Q, K and V cut into the matrix unit's blocks, one after the other.
const char *host_single(int int8_scores, const int8_t *blocks, int8_t *output) {
    return guarded([&] {
        Local q(4096), k(4096), v(4096), out(4096);
        Local state(4 * (64 * 66 + 8)), scores(2 * 8 * 64), weights(2 * 8 * 64);
        std::memcpy(q.as<int8_t>(), blocks, 4096);
        std::memcpy(k.as<int8_t>(), blocks + 4096, 4096);
        std::memcpy(v.as<int8_t>(), blocks + 8192, 4096);
        (int8_scores ? attention_single_int8 : attention_single_int32)(
            q.as<int8_t>(), k.as<int8_t>(), v.as<int8_t>(), state.as<int32_t>(), scores.as<int16_t>(),
            weights.as<int16_t>(), out.as<int8_t>());
        std::memcpy(output, out.as<int8_t>(), 4096);
        for (const Local *local : {&q, &k, &v, &out, &state, &scores, &weights}) local->check();
    });
}

}  // extern "C"
