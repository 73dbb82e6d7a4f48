// What tch does not bind of libtorch's C++: global switches, the device allocator, flash attention over packed samples.
//
// Every function returns 0, or 1 after writing a message to `message`. No exception leaves this file.
// It uses libtorch_cpu and libc10 only, so that a program links without CUDA; the CUDA allocator is reached through
// the registry that libtorch_cuda fills when it is loaded.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iomanip>
#include <locale>
#include <optional>
#include <sstream>
#include <utility>

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/_flash_attention_backward_ops.h>
#include <ATen/ops/_flash_attention_forward_ops.h>
#include <c10/core/Allocator.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace {

void say(char* message, size_t capacity, const char* what) {
    if (capacity == 0) return;
    std::strncpy(message, what, capacity - 1);
    message[capacity - 1] = '\0';
}

template <typename Body>
int32_t guarded(char* message, size_t capacity, Body body) noexcept {
    try {
        body();
        return 0;
    } catch (const c10::Error& error) {
        say(message, capacity, error.what_without_backtrace());
    } catch (const std::exception& error) {
        say(message, capacity, error.what());
    } catch (...) {
        say(message, capacity, "unknown C++ exception");
    }
    return 1;
}

const at::Tensor& tensor(const void* pointer) { return *static_cast<const at::Tensor*>(pointer); }

c10::DeviceAllocator& cuda_allocator() {
    auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::DeviceType::CUDA));
    TORCH_CHECK(allocator != nullptr, "libtorch's CUDA library is not loaded");
    return *allocator;
}

}  // namespace

extern "C" {

int32_t pipe_shim_set_deterministic(bool on, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        // cuBLAS is reproducible only with a workspace of fixed size; libtorch refuses deterministic algorithms
        // without this variable, which it reads once. A value that the user set is kept.
        if (on) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
        at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
        // Only hides reads of uninitialised memory, at the price of a fill for every allocation.
        at::globalContext().setDeterministicFillUninitializedMemory(false);
        at::globalContext().setDeterministicCuDNN(on);
    });
}

int32_t pipe_shim_set_tf32(bool allow, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        at::globalContext().setAllowTF32CuBLAS(allow);
        at::globalContext().setAllowTF32CuDNN(allow);
    });
}

int32_t pipe_shim_set_cudnn_benchmark(bool on, char* message, size_t capacity) {
    return guarded(message, capacity, [&] { at::globalContext().setBenchmarkCuDNN(on); });
}

struct PipeTensor {
    int32_t kind;
    int32_t device;  // -1 for the CPU, the number of a CUDA device, -2 for others
    int32_t contiguous;
    int32_t dimensions;
    void* address;
    int64_t sizes[5];
    int64_t strides[5];
};

// What a tensor is, in one call. Nothing is written behind the fifth dimension.
void pipe_shim_describe(const void* pointer, PipeTensor* out) noexcept {
    const at::Tensor& from = tensor(pointer);
    *out = {-1, -2, 0, 0, nullptr, {}, {}};
    if (!from.defined()) return;
    try {
        const at::IntArrayRef sizes = from.sizes(), strides = from.strides();
        out->kind = static_cast<int32_t>(from.scalar_type());
        if (from.device().is_cpu()) out->device = -1;
        if (from.device().is_cuda()) out->device = from.device().index();
        out->contiguous = from.is_contiguous();
        out->dimensions = static_cast<int32_t>(sizes.size());
        out->address = from.data_ptr();
        for (size_t i = 0; i < sizes.size() && i < 5; ++i) {
            out->sizes[i] = sizes[i];
            out->strides[i] = strides[i];
        }
    } catch (...) {
        // Sparse, symbolic: no operand of ours.
        out->kind = -1;
    }
}

struct PipeMemory {
    int64_t allocated_bytes;
    int64_t allocated_peak_bytes;
    int64_t reserved_bytes;
    int64_t reserved_peak_bytes;
};

int32_t pipe_shim_cuda_memory(int32_t device, PipeMemory* memory, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        const auto aggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
        const auto stats = cuda_allocator().getDeviceStats(static_cast<c10::DeviceIndex>(device));
        memory->allocated_bytes = stats.allocated_bytes[aggregate].current;
        memory->allocated_peak_bytes = stats.allocated_bytes[aggregate].peak;
        memory->reserved_bytes = stats.reserved_bytes[aggregate].current;
        memory->reserved_peak_bytes = stats.reserved_bytes[aggregate].peak;
    });
}

int32_t pipe_shim_cuda_reset_peak(int32_t device, char* message, size_t capacity) {
    return guarded(message, capacity,
                   [&] { cuda_allocator().resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

int32_t pipe_shim_cuda_empty_cache(char* message, size_t capacity) {
    return guarded(message, capacity, [&] { cuda_allocator().emptyCache(); });
}

// Bytes in page-locked memory, not written.
int32_t pipe_shim_page_locked(int64_t bytes, void** result, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        *result = new at::Tensor(at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true)));
    });
}

// Must be called before the first tensor on a device: the allocator of a device reads it once.
int32_t pipe_shim_cuda_limit(double fraction, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        cuda_allocator();
        std::ostringstream setting;
        setting.imbue(std::locale::classic());
        // Settings that the user made stay.
        const auto made = c10::CachingAllocator::getAllocatorSettings();
        if (!made.empty()) setting << made << ',';
        setting << "per_process_memory_fraction:" << std::fixed << std::setprecision(9) << fraction;
        c10::CachingAllocator::setAllocatorSettings(setting.str());
    });
}

// Tensors come in as borrowed `at::Tensor*` and go out as owned ones, in `results`: output, logarithms of the sums of
// exponentials, and two that only the backward pass reads.
int32_t pipe_shim_flash_forward(const void* query, const void* key, const void* value, const void* starts,
                                int64_t longest, double scale, void** results, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        const auto& ends = tensor(starts);
        auto outcome = at::_ops::_flash_attention_forward::call(
            tensor(query), tensor(key), tensor(value), ends, ends, longest, longest, /*dropout_p=*/0.0,
            /*is_causal=*/true, /*return_debug_mask=*/false, scale, std::nullopt, std::nullopt, std::nullopt,
            std::nullopt);
        results[0] = new at::Tensor(std::move(std::get<0>(outcome)));
        results[1] = new at::Tensor(std::move(std::get<1>(outcome)));
        results[2] = new at::Tensor(std::move(std::get<2>(outcome)));
        results[3] = new at::Tensor(std::move(std::get<3>(outcome)));
    });
}

// `forward` holds what the forward pass gave, in its order. Gradients of query, key and value go out.
int32_t pipe_shim_flash_backward(const void* gradient, const void* query, const void* key, const void* value,
                                 const void* const* forward, const void* starts, int64_t longest, double scale,
                                 void** results, char* message, size_t capacity) {
    return guarded(message, capacity, [&] {
        const auto& ends = tensor(starts);
        auto outcome = at::_ops::_flash_attention_backward::call(
            tensor(gradient), tensor(query), tensor(key), tensor(value), tensor(forward[0]), tensor(forward[1]), ends,
            ends, longest, longest, /*dropout_p=*/0.0, /*is_causal=*/true, tensor(forward[2]), tensor(forward[3]),
            scale, std::nullopt, std::nullopt);
        results[0] = new at::Tensor(std::move(std::get<0>(outcome)));
        results[1] = new at::Tensor(std::move(std::get<1>(outcome)));
        results[2] = new at::Tensor(std::move(std::get<2>(outcome)));
    });
}

}  // extern "C"
