// A driver that pretends: preloaded (LD_PRELOAD) beneath AMD's own XRT, it takes the place of the kernel's amdxdna driver
// and of the NPU. It answers the device node's open, close, mmap and ioctls (drm/amdxdna_accel.h), and runs programs on
// the AIE2 source as host_kernel.py compiles it for the CPU. No NPU is involved, and its times say nothing of one.
//
// The host's side of buffers is a memory file that the process maps; the device's side is memory that SYNC_BO alone
// copies to and from, so that a missing sync gives wrong bits (XRT syncs so under `force_driver_sync`). Programs are
// those that xclbin.py writes. `Control`, a file that tests map as well, says what is to go wrong, and counts.
#include <dlfcn.h>
#include <drm/amdxdna_accel.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

constexpr const char *Node = "/dev/accel/accel0";
constexpr uint64_t Memory = 64ull << 30;  // address space, of which little is ever touched
constexpr uint64_t Base = 1ull << 40;     // the device's address of its first byte
constexpr uint64_t Page = 4096, HeapBytes = 64 << 20;
constexpr int ContextsMost = 16;
constexpr uint32_t Instructions[] = {0x06030100, 0x00000104, 0x74696c65};  // machine.py's

enum Fault { None, Timeout, Hang, Error, Abort, Slow, LostWhileWaiting };
enum State : uint32_t { Completed = 4, Failed = 5, Aborted = 6, TimedOut = 8 };
enum Kind { OfDevice, OfContext, OfBuffer, OfRun };

// In a file that tests map (amdxdna.py has the same fields), and every process that uses the device.
struct Control {
    int32_t contexts, lost_from, corrupt_from;  // as in machine.py; -1: never
    int32_t runs;                               // started
    int32_t alive[4], made[4];                  // by Kind; a run is the buffer of its command
    int32_t fault_at[8], fault[8];
    int32_t owners[ContextsMost];  // the process of each context; 0: free
    int64_t memory, taken;         // bytes that shared buffers may take, and do
};

// What xclbin.py writes in place of an array's configuration.
struct Program {
    uint32_t key[4];
    int32_t single, int8_scores, tile_size, blocks, stored, tiles;
    int32_t query_block_bytes, tile_bytes, output_block_bytes, state_words, score_halves, weight_halves;
};

struct Buffer {
    uint64_t offset, size;
    uint32_t type;
    bool counted;
};

struct Context {
    int owner;
    Program program{};
    bool broken = false;  // a run timed out in it
};

struct Command {
    std::shared_ptr<Context> context;
    int done = eventfd(0, EFD_CLOEXEC);
    ~Command() { close(done); }
};

template <typename F> F next(const char *name, F) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

[[noreturn]] void give_up(const std::string &why) {
    dprintf(2, "the driver that pretends: %s\n", why.c_str());
    _exit(70);
}

// The device as one process has it open: XRT opens its node once, and counts.
class Device {
    std::mutex lock_;
    Control *control_;
    int file_ = -1;
    uint8_t *host_, *memory_;
    uint64_t top_ = Page, heap_ = 0, heap_top_ = 0, sequence_ = 0;
    uint32_t handle_ = 0;
    std::map<uint32_t, Buffer> buffers_;
    std::map<uint32_t, std::shared_ptr<Context>> contexts_;
    std::map<uint64_t, std::shared_ptr<Command>> commands_;
    const char *(*stream_)(int, int, int, int, int, int, int, int, int, int, int, int, const uint8_t *, const uint8_t *,
                           uint8_t *);
    const char *(*single_)(int, const uint8_t *, uint8_t *);

  public:
    Device() {
        const char *shared = getenv("TILESCRIBE_PRETENDED_NPU"), *kernel = getenv("TILESCRIBE_HOST_KERNEL");
        const int file = shared ? next("open", &::open)(shared, O_RDWR | O_CLOEXEC) : -1;
        if (file < 0) give_up("TILESCRIBE_PRETENDED_NPU names no file");
        control_ = static_cast<Control *>(mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
        void *library = kernel ? dlopen(kernel, RTLD_NOW) : nullptr;
        if (!library) give_up("TILESCRIBE_HOST_KERNEL names no library");
        stream_ = reinterpret_cast<decltype(stream_)>(dlsym(library, "host_stream"));
        single_ = reinterpret_cast<decltype(single_)>(dlsym(library, "host_single"));
    }

    int file() const { return file_; }

    int open() {
        std::lock_guard held(lock_);
        if (lost()) return -ENODEV;
        if (file_ >= 0) give_up("its node was opened twice");
        const int file = memfd_create("pretended-npu", MFD_CLOEXEC);
        if (ftruncate(file, Memory)) give_up("there is no memory file");
        const auto map = [](int flags, int of) {
            return static_cast<uint8_t *>(mmap(nullptr, Memory, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, of, 0));
        };
        host_ = map(MAP_SHARED, file), memory_ = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
        count(OfDevice, 1);
        return file_ = file;
    }

    void close() {
        std::lock_guard held(lock_);
        for (auto &[_, context] : contexts_) give_back(*context);
        for (auto &[_, buffer] : buffers_) count(buffer, -1);
        contexts_.clear(), buffers_.clear(), commands_.clear();
        munmap(host_, Memory), munmap(memory_, Memory);
        top_ = Page, file_ = -1;
        count(OfDevice, -1);
    }

    int answer(unsigned long request, void *argument) {
        // By number alone: WAIT_CMD's direction is not the same in every header.
        const unsigned number = _IOC_NR(request);
        if (number == _IOC_NR(DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT)) return wait(argument);
        std::lock_guard held(lock_);
        switch (number) {
            // What lets go of things works on a device that is gone; so does a sync, really a flush of caches.
            case _IOC_NR(DRM_IOCTL_GEM_CLOSE): return close_buffer(argument);
            case _IOC_NR(DRM_IOCTL_SYNCOBJ_DESTROY): return 0;
            case _IOC_NR(DRM_IOCTL_AMDXDNA_DESTROY_HWCTX): return destroy_context(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_SYNC_BO): return sync(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_EXEC_CMD): ++control_->runs;
        }
        if (lost()) return -ENODEV;
        switch (number) {
            case _IOC_NR(DRM_IOCTL_AMDXDNA_EXEC_CMD): return execute(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_CREATE_BO): return create_buffer(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_GET_BO_INFO): return about_buffer(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_CREATE_HWCTX): return create_context(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_CONFIG_HWCTX): return configure_context(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_GET_INFO): return about_device(argument);
            case _IOC_NR(DRM_IOCTL_AMDXDNA_GET_ARRAY): return of<amdxdna_drm_get_array>(argument).num_element = 0;
        }
        give_up("it has no answer to ioctl " + std::to_string(number));
    }

  private:
    template <typename T> static T &of(void *argument) { return *static_cast<T *>(argument); }

    bool lost() const { return control_->lost_from >= 0 && control_->runs >= control_->lost_from; }

    void count(Kind kind, int sign) {
        control_->alive[kind] += sign;
        control_->made[kind] += sign > 0;
    }

    void count(const Buffer &buffer, int sign) {
        if (buffer.counted) count(buffer.type == AMDXDNA_BO_CMD ? OfRun : OfBuffer, sign);
        if (buffer.type == AMDXDNA_BO_SHARE) control_->taken += sign * int64_t(buffer.size);
    }

    // The device's side of so many bytes; null where no buffer has them.
    uint8_t *at(uint64_t address, uint64_t bytes) {
        for (auto &[_, buffer] : buffers_) {
            const uint64_t first = address - Base - buffer.offset;
            if (first < buffer.size && bytes <= buffer.size - first) return memory_ + (address - Base);
        }
        return nullptr;
    }

    int create_buffer(void *argument) {
        auto &arg = of<amdxdna_drm_create_bo>(argument);
        const uint64_t size = (arg.size + Page - 1) / Page * Page;
        const bool shared = arg.type == AMDXDNA_BO_SHARE, in_heap = arg.type == AMDXDNA_BO_DEV;
        if (shared && control_->taken + int64_t(size) > control_->memory) return -ENOMEM;
        if (in_heap && heap_top_ + size > heap_ + HeapBytes) return -ENOMEM;
        if (arg.type == AMDXDNA_BO_DEV_HEAP) heap_ = heap_top_ = top_ = (top_ + size - 1) / size * size;
        uint64_t &top = in_heap ? heap_top_ : top_;
        if (shared || in_heap) {  // whatever was there before, and not the same on the two sides
            std::memset(host_ + top, 0xa5, size);
            std::memset(memory_ + top, 0x5a, size);
        }
        const Buffer &made = buffers_[arg.handle = ++handle_] = {top, size, arg.type, arg.type != AMDXDNA_BO_DEV_HEAP};
        top += size;
        count(made, 1);
        return 0;
    }

    int about_buffer(void *argument) {
        auto &arg = of<amdxdna_drm_get_bo_info>(argument);
        const Buffer &buffer = buffers_.at(arg.handle);
        arg.xdna_addr = Base + buffer.offset;
        arg.map_offset = buffer.type == AMDXDNA_BO_DEV ? AMDXDNA_INVALID_ADDR : buffer.offset;
        return 0;
    }

    int close_buffer(void *argument) {
        const auto found = buffers_.find(of<drm_gem_close>(argument).handle);
        const Buffer &buffer = found->second;
        count(buffer, -1);
        if (buffer.type != AMDXDNA_BO_DEV) {
            fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, buffer.offset, buffer.size);
            madvise(memory_ + buffer.offset, buffer.size, MADV_DONTNEED);
        }
        buffers_.erase(found);
        return 0;
    }

    int sync(void *argument) {
        const auto &arg = of<amdxdna_drm_sync_bo>(argument);
        const uint64_t first = buffers_.at(arg.handle).offset + arg.offset;
        const bool to_device = arg.direction == SYNC_DIRECT_TO_DEVICE;
        std::memcpy((to_device ? memory_ : host_) + first, (to_device ? host_ : memory_) + first, arg.size);
        return 0;
    }

    int create_context(void *argument) {
        auto &arg = of<amdxdna_drm_create_hwctx>(argument);
        for (int i = 0; i < std::min(control_->contexts, ContextsMost); ++i) {
            int &owner = control_->owners[i];
            if (owner && (kill(owner, 0) == 0 || errno != ESRCH)) continue;
            owner = getpid();
            contexts_[arg.handle = arg.syncobj_handle = ++handle_] = std::make_shared<Context>(i);
            count(OfContext, 1);
            return 0;
        }
        return -ENOENT;
    }

    int configure_context(void *argument) {
        const auto &arg = of<amdxdna_drm_config_hwctx>(argument);
        if (arg.param_type != DRM_AMDXDNA_HWCTX_CONFIG_CU) return -EOPNOTSUPP;  // no log of the cores
        const auto *units = reinterpret_cast<amdxdna_hwctx_param_config_cu *>(arg.param_val);
        Buffer &configuration = buffers_.at(units->cu_configs[0].cu_bo);
        if (configuration.counted) --control_->alive[OfBuffer], --control_->made[OfBuffer];
        configuration.counted = false;  // XRT's own
        std::memcpy(&contexts_.at(arg.handle)->program, memory_ + configuration.offset, sizeof(Program));
        return 0;
    }

    void give_back(const Context &context) {
        control_->owners[context.owner] = 0;
        count(OfContext, -1);
    }

    int destroy_context(void *argument) {
        const auto found = contexts_.find(of<amdxdna_drm_destroy_hwctx>(argument).handle);
        give_back(*found->second);
        contexts_.erase(found);
        return 0;
    }

    int execute(void *argument) {
        auto &arg = of<amdxdna_drm_exec_cmd>(argument);
        auto command = std::make_shared<Command>(contexts_.at(arg.hwctx));
        auto *packet = reinterpret_cast<uint32_t *>(host_ + buffers_.at(arg.cmd_handles).offset);
        const int32_t *planned = std::find(control_->fault_at, control_->fault_at + 8, control_->runs);
        const int fault = planned == control_->fault_at + 8 ? None : planned[8];
        std::erase_if(commands_, [](auto &one) {
            pollfd over{one.second->done, POLLIN, 0};
            return poll(&over, 1, 0) == 1;
        });
        commands_[arg.seq = ++sequence_] = command;
        if (fault == LostWhileWaiting) control_->lost_from = control_->runs;
        if (fault == Hang || fault == LostWhileWaiting) {
            command->context->broken = true;
            return 0;
        }
        std::function<State()> work = prepare(command->context->program, packet);
        if (fault == Timeout || command->context->broken) work = [] { return TimedOut; };
        if (fault == Error) work = [] { return Failed; };
        if (fault == Abort) work = [] { return Aborted; };
        std::thread([=] {
            const State state = work();
            if (fault == Slow) std::this_thread::sleep_for(std::chrono::milliseconds(400));
            if (state == TimedOut) command->context->broken = true;
            __atomic_store_n(packet, (*packet & ~0xfu) | state, __ATOMIC_RELEASE);
            eventfd_write(command->done, 1);
        }).detach();
        return 0;
    }

    // What a command's packet asks for. Word 0 has the count of extra masks in bits 10 and 11; the kernel's arguments
    // begin after them: opcode and address of the instructions, 64 bits each, their length, 32, and addresses.
    std::function<State()> prepare(const Program &program, const uint32_t *packet) {
        const auto *arguments = reinterpret_cast<const uint8_t *>(packet + 2 + (*packet >> 10 & 3));
        const auto argument = [&](int byte, uint64_t bytes) {
            uint64_t address;
            std::memcpy(&address, arguments + byte, sizeof address);
            return bytes ? at(address, bytes) : reinterpret_cast<uint8_t *>(address);
        };
        const auto *words = reinterpret_cast<const uint32_t *>(argument(8, 8 * sizeof(uint32_t)));
        if (reinterpret_cast<uint64_t>(argument(0, 0)) != 3 || !words ||
            std::memcmp(words, Instructions, sizeof Instructions) ||
            std::memcmp(words + 4, program.key, sizeof program.key))
            return [] { return Failed; };
        const int heads = words[3];
        const uint64_t blocks = uint64_t(heads) * program.stored;
        uint8_t *first = argument(20, program.single ? 3 * 4096 : blocks * program.query_block_bytes);
        uint8_t *second = argument(28, program.single ? 4096 : uint64_t(heads) * program.tiles * program.tile_bytes);
        uint8_t *third = program.single ? second : argument(36, blocks * program.output_block_bytes);
        if (!first || !second || !third) return [] { return TimedOut; };  // the array's DMA waits for ever
        return [=, this] {
            if (program.single) tile(program, first, second);
            else stream(program, heads, first, second, third);
            if (control_->corrupt_from >= 0 && control_->runs >= control_->corrupt_from) *third ^= 1;
            return Completed;
        };
    }

    void stream(const Program &p, int heads, const uint8_t *queries, const uint8_t *keys, uint8_t *output) {
        const auto some = [&](uint64_t first, int count) {
            const char *refusal =
                stream_(p.int8_scores, p.tile_size, count, p.blocks, p.stored, p.tiles, p.query_block_bytes,
                        p.tile_bytes, p.output_block_bytes, p.state_words, p.score_halves, p.weight_halves,
                        queries + first * p.stored * p.query_block_bytes, keys + first * p.tiles * p.tile_bytes,
                        output + first * p.stored * p.output_block_bytes);
            if (refusal) give_up(refusal);
        };
        std::thread half(some, 0, heads / 2);
        some(heads / 2, heads - heads / 2);
        half.join();
    }

    // The array's DMA cuts the matrix unit's blocks from row-major matrices.
    void tile(const Program &p, const uint8_t *data, uint8_t *output) {
        uint8_t blocks[3 * 4096], *into = blocks;
        for (int matrix = 0; matrix < 3; ++matrix)
            for (int rows = matrix == 1 ? 8 : 4, row = 0; row < 64; row += rows)
                for (int column = 0; column < 64; column += 8)
                    for (int r = row; r < row + rows; ++r, into += 8)
                        std::memcpy(into, data + matrix * 4096 + r * 64 + column, 8);
        if (const char *refusal = single_(p.int8_scores, blocks, output)) give_up(refusal);
    }

    // As in the kernel, a signal with a handler ends it.
    int wait(void *argument) {
        const auto &arg = of<drm_syncobj_timeline_wait>(argument);
        timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        const int64_t left = std::max<int64_t>(0, arg.timeout_nsec - (now.tv_sec * 1000000000ll + now.tv_nsec));
        std::shared_ptr<Command> command;
        {
            std::lock_guard held(lock_);
            if (lost()) return -ENODEV;
            const auto found = commands_.find(*reinterpret_cast<uint64_t *>(arg.points));
            if (found == commands_.end()) return 0;
            command = found->second;
        }
        pollfd over{command->done, POLLIN, 0};
        const timespec limit{left / 1000000000, left % 1000000000};
        const int ready = ppoll(&over, 1, &limit, nullptr);
        return ready > 0 ? 0 : ready < 0 ? -errno : -ETIME;
    }

    int about_device(void *argument) {
        const auto &arg = of<amdxdna_drm_get_info>(argument);
        auto *into = reinterpret_cast<void *>(arg.buffer);
        std::memset(into, 0, arg.buffer_size);
        const auto fill = [&](const auto &what) {
            std::memcpy(into, &what, std::min<size_t>(sizeof what, arg.buffer_size));
            return 0;
        };
        if (arg.param == DRM_AMDXDNA_QUERY_AIE_METADATA)  // rows, first row, DMA channels, locks, events
            return fill(amdxdna_drm_query_aie_metadata{
                0x200000, 5, 6, {2, 0}, {4, 2, 4, 16, 128, {}}, {1, 1, 12, 64, 160, {}}, {1, 0, 4, 16, 110, {}}});
        if (arg.param == DRM_AMDXDNA_QUERY_AIE_VERSION) return fill(amdxdna_drm_query_aie_version{2, 0});
        if (arg.param == DRM_AMDXDNA_QUERY_FIRMWARE_VERSION)
            return fill(amdxdna_drm_query_firmware_version{1, 5, 5, 391});
        return 0;
    }
};

// Made when the node is first opened, and never destroyed: runs may be at work when the process ends.
std::atomic<Device *> device;

bool is_device(int file) { return file >= 0 && device && file == device.load()->file(); }

template <typename F> int open_file(F real, const char *path, int flags, mode_t mode) {
    if (!path || std::strcmp(path, Node)) return real(path, flags, mode);
    if (!device) device = new Device;
    const int file = device.load()->open();
    if (file < 0) errno = -file;
    return file < 0 ? -1 : file;
}

template <typename F> void *map_file(F real, void *where, size_t size, int access, int flags, int file, off_t offset) {
    if (is_device(file)) flags &= ~MAP_LOCKED;  // an ordinary user may lock little
    return real(where, size, access, flags, file, offset);
}

}  // namespace

extern "C" {

#define OPEN(name)                                             \
    int name(const char *path, int flags, ...) {               \
        va_list rest;                                          \
        va_start(rest, flags);                                 \
        const mode_t mode = va_arg(rest, mode_t);              \
        va_end(rest);                                          \
        return open_file(next(#name, &name), path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#undef OPEN

int close(int file) {
    if (is_device(file)) device.load()->close();
    return next("close", &close)(file);
}

void *mmap(void *where, size_t size, int access, int flags, int file, off_t offset) noexcept {
    return map_file(next("mmap", &mmap), where, size, access, flags, file, offset);
}

void *mmap64(void *where, size_t size, int access, int flags, int file, off64_t offset) noexcept {
    return map_file(next("mmap64", &mmap64), where, size, access, flags, file, offset);
}

int ioctl(int file, unsigned long request, ...) noexcept {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (!is_device(file)) return next("ioctl", &ioctl)(file, request, argument);
    const int answer = device.load()->answer(request, argument);
    if (answer < 0) errno = -answer;
    return answer < 0 ? -1 : answer;
}
}
