// AdamW and clipping. No word goes to the host: the kernels read the clip factor, and whether to do anything, on the
// device. All operations on a value have one rounding each, as on the CPU.

// What AdamW multiplies and divides with; computed on the host.
struct Step {
    float keep;           // of the value, behind weight decay
    float mean_weight;    // 1 - beta1
    float square_weight;  // 1 - beta2
    float step;           // learning rate over the bias correction of the mean
    float root;           // root of the bias correction of the square
    float epsilon;
};

// The gradient of `count` flat values, in rows of `width`: `dense`, and of rows with a slot also that row of `sparse`.
// Laid out in words of 8 bytes, as the host fills it.
struct Gradient {
    const float* dense;   // null: zeros
    const int* slots;     // one a row, negative without; null: no row has one
    const float* sparse;
    i64 count;
    u32 width;
    u32 aligned;          // four neighbours from a multiple of 4 on can be loaded at once, in all operands
};

// Up to four values from a multiple of 4 on; zeros behind the end.
__device__ __forceinline__ void load_gradient(const Gradient& gradient, i64 at, float (&g)[4]) {
    if (gradient.aligned && at + 4 <= gradient.count) {
        Pack<float> pack = {};
        if (gradient.dense) pack = *reinterpret_cast<const Pack<float>*>(gradient.dense + at);
        if (gradient.slots) {
            // The host checks that 32 bits are enough for fours of values.
            const u32 quad = u32(at >> 2), per_row = gradient.width >> 2, row = quad / per_row;
            const int slot = gradient.slots[row];
            if (slot >= 0) {
                const i64 from = i64(slot) * gradient.width + (quad - row * per_row) * 4;
                const Pack<float> more = *reinterpret_cast<const Pack<float>*>(gradient.sparse + from);
#pragma unroll
                for (int i = 0; i < 4; ++i) pack.values[i] += more.values[i];
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) g[i] = pack.values[i];
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        g[i] = 0.0f;
        if (at + i >= gradient.count) continue;
        if (gradient.dense) g[i] = gradient.dense[at + i];
        if (gradient.slots) {
            const i64 row = (at + i) / gradient.width;
            const int slot = gradient.slots[row];
            if (slot >= 0) g[i] += gradient.sparse[i64(slot) * gradient.width + (at + i - row * gradient.width)];
        }
    }
}

// Sum over a block of 256 threads, in thread 0. Used once in a kernel.
__device__ __forceinline__ double block_sum_of_doubles(double x) {
    __shared__ double scratch[8];
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
    __syncthreads();
    double sum = 0.0;
#pragma unroll
    for (int warp = 0; warp < 8; ++warp) sum += scratch[warp];
    return sum;
}

// One partial sum a block of 256 threads.
extern "C" __global__ void sum_of_squares(const __grid_constant__ Gradient gradient, double* partials) {
    double sum = 0.0;
    for (i64 at = (i64(blockIdx.x) * 256 + threadIdx.x) * 4; at < gradient.count; at += i64(gridDim.x) * 1024) {
        float g[4];
        load_gradient(gradient, at, g);
        // Only four squares are summed in float: cheap on cards whose float64 is slow.
        sum += double(g[0] * g[0] + g[1] * g[1] + g[2] * g[2] + g[3] * g[3]);
    }
    sum = block_sum_of_doubles(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// One block of 256 threads. clip: the norm, the factor of the gradient, and 1 where the update may go on. The gradient
// is to be multiplied by `unscale`, a power of two, before anything else.
extern "C" __global__ void clip(const double* partials, int count, float max_norm, float unscale, int* sticky,
                                float* clip) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 256) sum += partials[i];
    sum = block_sum_of_doubles(sum);
    if (threadIdx.x != 0) return;
    const float norm = float(sqrt(sum) * double(unscale));
    // False for NaN too.
    const bool finite = norm < __uint_as_float(0x7F800000u);
    if (!finite) *sticky = 1;
    clip[0] = norm;
    clip[1] = (max_norm > 0.0f && finite ? fminf(max_norm / (norm + 1e-6f), 1.0f) : 1.0f) * unscale;
    clip[2] = *sticky == 0 ? 1.0f : 0.0f;
}

// Where the trained values are: float32, or its two halves as `Halves` of the host describes them.
struct Target {
    float* whole;  // null: halves
    u16* high;
    u16* low;
};

__device__ __forceinline__ float join(u16 high, u16 low) {
    const u32 upper = u32(high) - (low >> 15);
    return __uint_as_float(upper << 16 | low);
}
__device__ __forceinline__ void split(float value, u16& high, u16& low) {
    const u32 bits = __float_as_uint(value);
    const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    high = u16(nan ? bits >> 16 | 0x40u : (bits + 0x8000u) >> 16);
    low = u16(nan ? 0u : bits);
}

struct __align__(8) Shorts { u16 values[4]; };

// Up to four values; zeros behind the end.
__device__ __forceinline__ void load_values(const Target& target, i64 at, i64 count, bool aligned, float (&values)[4]) {
    if (aligned && at + 4 <= count) {
        if (target.whole) {
            const Pack<float> pack = *reinterpret_cast<const Pack<float>*>(target.whole + at);
#pragma unroll
            for (int i = 0; i < 4; ++i) values[i] = pack.values[i];
        } else {
            const Shorts high = *reinterpret_cast<const Shorts*>(target.high + at);
            const Shorts low = *reinterpret_cast<const Shorts*>(target.low + at);
#pragma unroll
            for (int i = 0; i < 4; ++i) values[i] = join(high.values[i], low.values[i]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        values[i] = 0.0f;
        if (at + i >= count) continue;
        values[i] = target.whole ? target.whole[at + i] : join(target.high[at + i], target.low[at + i]);
    }
}

__device__ __forceinline__ void store_values(const Target& target, i64 at, i64 count, bool aligned,
                                             const float (&values)[4]) {
    if (aligned && at + 4 <= count) {
        if (target.whole) {
            Pack<float> pack;
#pragma unroll
            for (int i = 0; i < 4; ++i) pack.values[i] = values[i];
            *reinterpret_cast<Pack<float>*>(target.whole + at) = pack;
        } else {
            Shorts high, low;
#pragma unroll
            for (int i = 0; i < 4; ++i) split(values[i], high.values[i], low.values[i]);
            *reinterpret_cast<Shorts*>(target.high + at) = high;
            *reinterpret_cast<Shorts*>(target.low + at) = low;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (at + i >= count) continue;
        if (target.whole) target.whole[at + i] = values[i];
        else split(values[i], target.high[at + i], target.low[at + i]);
    }
}

// From `from` to `to` by `weight`, as torch.lerp: exact at both ends.
__device__ __forceinline__ float lerp(float from, float to, float weight) {
    const float way = __fsub_rn(to, from);
    if (weight < 0.5f) return __fadd_rn(from, __fmul_rn(weight, way));
    return __fsub_rn(to, __fmul_rn(way, __fsub_rn(1.0f, weight)));
}

__device__ __forceinline__ void update(const Step& step, float g, float& value, float& mean, float& square) {
    mean = lerp(mean, g, step.mean_weight);
    square = lerp(square, __fmul_rn(g, g), step.square_weight);
    const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(square), step.root), step.epsilon);
    const float change = __fmul_rn(__fdiv_rn(mean, denominator), step.step);
    value = __fsub_rn(__fmul_rn(value, step.keep), change);
}

// Blocks of 256 threads, four values a thread.
extern "C" __global__ void adamw(const __grid_constant__ Gradient gradient, const __grid_constant__ Target target,
                                 float* mean, float* square, const __grid_constant__ Step step, const float* clip) {
    const i64 at = (i64(blockIdx.x) * 256 + threadIdx.x) * 4, count = gradient.count;
    if (at >= count || clip[2] == 0.0f) return;
    const bool aligned = gradient.aligned;
    const Target means = {mean, nullptr, nullptr}, squares = {square, nullptr, nullptr};
    float g[4], values[4], m[4], v[4];
    load_gradient(gradient, at, g);
    load_values(target, at, count, aligned, values);
    load_values(means, at, count, aligned, m);
    load_values(squares, at, count, aligned, v);
    const float factor = clip[1];
#pragma unroll
    for (int i = 0; i < 4; ++i) update(step, __fmul_rn(g[i], factor), values[i], m[i], v[i]);
    store_values(target, at, count, aligned, values);
    store_values(means, at, count, aligned, m);
    store_values(squares, at, count, aligned, v);
}

// States in 8 bits. Laid out in words of 8 bytes, as the host fills it.
struct States {
    u8* mean;
    u8* square;
    float* mean_scales;    // the largest magnitude of 256 neighbours
    float* square_scales;
    const float* maps;     // [2, 256]: for the mean with a sign, for the square without
};

// A warp updates 256 neighbours, a block of 256 threads eight times as many.
extern "C" __global__ void adamw_8bit(const __grid_constant__ Gradient gradient, const __grid_constant__ Target target,
                                      const __grid_constant__ States states, const __grid_constant__ Step step,
                                      const float* clip) {
    __shared__ float maps[2 * SKEWED];
    if (clip[2] == 0.0f) return;
    for (u32 i = 0; i < 2; ++i) maps[i * SKEWED + skewed(threadIdx.x)] = states.maps[i * 256 + threadIdx.x];
    __syncthreads();
    const float *signed_map = maps, *unsigned_map = maps + SKEWED;
    const u32 lane = threadIdx.x & 31;
    const i64 block = i64(blockIdx.x) * 8 + (threadIdx.x >> 5), count = gradient.count;
    if (block * 256 >= count) return;
    const bool aligned = gradient.aligned;
    const float mean_scale = states.mean_scales[block], square_scale = states.square_scales[block];
    const float factor = clip[1];
    float m[2][4], v[2][4];
    float most_mean = 0.0f, most_square = 0.0f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const i64 at = block * 256 + half * 128 + lane * 4;
        float g[4], values[4];
        load_gradient(gradient, at, g);
        load_values(target, at, count, aligned, values);
        u32 mean_codes = 0, square_codes = 0;
        if (aligned && at + 4 <= count) {
            mean_codes = *reinterpret_cast<const u32*>(states.mean + at);
            square_codes = *reinterpret_cast<const u32*>(states.square + at);
        } else {
            for (int i = 0; i < 4 && at + i < count; ++i) {
                mean_codes |= u32(states.mean[at + i]) << (8 * i);
                square_codes |= u32(states.square[at + i]) << (8 * i);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            m[half][i] = v[half][i] = 0.0f;
            if (at + i >= count) continue;
            m[half][i] = __fmul_rn(signed_map[skewed(mean_codes >> (8 * i) & 255)], mean_scale);
            v[half][i] = __fmul_rn(unsigned_map[skewed(square_codes >> (8 * i) & 255)], square_scale);
            update(step, __fmul_rn(g[i], factor), values[i], m[half][i], v[half][i]);
            most_mean = fmaxf(most_mean, fabsf(m[half][i]));
            most_square = fmaxf(most_square, v[half][i]);
        }
        store_values(target, at, count, aligned, values);
    }
    most_mean = warp_max(most_mean);
    most_square = warp_max(most_square);
    if (lane == 0) {
        states.mean_scales[block] = most_mean;
        states.square_scales[block] = most_square;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const i64 at = block * 256 + half * 128 + lane * 4;
        u32 mean_codes = 0, square_codes = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float mean = m[half][i], square = v[half][i];
            u32 mean_code = 127, square_code = 0;
            if (mean != 0.0f) {
                mean_code = nearest(signed_map, __fdiv_rn(mean, most_mean));
                // A mean keeps its sign, except that a small one above zero may become zero.
                const float entry = signed_map[skewed(mean_code)];
                if (mean > 0.0f && entry < 0.0f) ++mean_code;
                if (mean < 0.0f && entry >= 0.0f) --mean_code;
            }
            // A square above zero stays above it: the root of it divides.
            if (square > 0.0f) square_code = max(nearest(unsigned_map, __fdiv_rn(square, most_square)), 1u);
            mean_codes |= mean_code << (8 * i);
            square_codes |= square_code << (8 * i);
        }
        if (aligned && at + 4 <= count) {
            *reinterpret_cast<u32*>(states.mean + at) = mean_codes;
            *reinterpret_cast<u32*>(states.square + at) = square_codes;
        } else {
            for (int i = 0; i < 4 && at + i < count; ++i) {
                states.mean[at + i] = u8(mean_codes >> (8 * i));
                states.square[at + i] = u8(square_codes >> (8 * i));
            }
        }
    }
}
