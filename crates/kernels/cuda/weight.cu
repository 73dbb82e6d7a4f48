// The frozen weights of a group of projections, unpacked into one augmented matrix, and NF4 quantisation.
//
// Every operation on a value is one IEEE operation with one rounding: the bits are those of the codec on the CPU.

// The 16 values of NF4.
__device__ const u32 CODE_BITS[16] = {
    0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
    0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000,
};

// One projection. Laid out in words of 8 bytes, as the host fills it.
struct Part {
    const void* values;  // codes, or a dense weight
    const void* scales;  // float, or bytes where there is a map; of a row in 8 bits the largest magnitude
    const float* map;
    const float* absmax;
    const float* b;     // [rows, rank], null without an adapter
    const void* bias;   // [rows], null without
    float offset;
    u32 nested_block;
    u32 block;          // values a scale
    u32 shift;          // its logarithm, on the fast path
    u32 rows;
    u32 first_row;
    u32 first_block;    // of the grid, on the fast path
    int rank;
    int column;         // first column of the adapter
    int bias_is_float;  // else `element`
    u32 bits;           // of a code, 4 or 8; 0 of a dense weight
    u32 unused;
};
struct Parts {
    Part parts[3];
    u32 count;
    u32 first_extra_block;
    u32 rows;
    int bias_column;  // -1 without
    u32 width;
    u32 columns;
};

__device__ __forceinline__ float scale_of(const Part& part, u64 index) {
    if (!part.map) return static_cast<const float*>(part.scales)[index];
    const u8 code = static_cast<const u8*>(part.scales)[index];
    // A scale of scales is asked for by 32 bits: a weight has fewer than 2^37 values.
    const float absmax = part.absmax[u32(index) / part.nested_block];
    return __fadd_rn(__fmul_rn(part.map[code], absmax), part.offset);
}

// What a code of 8 bits in a row is multiplied by.
__device__ __forceinline__ float row_scale(const Part& part, u32 row) {
    return __fmul_rn(static_cast<const float*>(part.scales)[row], 1.0f / 127.0f);
}

// What stands in a column behind the weight's own.
__device__ __forceinline__ element extra(const Parts& group, const Part& part, u32 row, int column) {
    const int r = column - part.column;
    if (part.b && r >= 0 && r < part.rank) return to<element>(part.b[u64(row) * part.rank + r]);
    if (column != group.bias_column || !part.bias) return to<element>(0.0f);
    if (part.bias_is_float) return to<element>(static_cast<const float*>(part.bias)[row]);
    return static_cast<const element*>(part.bias)[row];
}

__device__ __forceinline__ u32 part_of_row(const Parts& group, u32 row) {
    u32 p = 0;
    while (p + 1 < group.count && row >= group.parts[p + 1].first_row) ++p;
    return p;
}

// Eight neighbours: one store of 16 bytes, or two.
struct __align__(16) Eight { element values[8]; };

__device__ __forceinline__ void narrow_all(const float (&from)[8], Eight& to_) {
#if ELEMENT == 0
#pragma unroll
    for (int i = 0; i < 8; ++i) to_.values[i] = from[i];
#else
    u32* words = reinterpret_cast<u32*>(&to_);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#if ELEMENT == 1
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[i]) : "f"(from[2 * i + 1]), "f"(from[2 * i]));
#else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(words[i]) : "f"(from[2 * i + 1]), "f"(from[2 * i]));
#endif
    }
#endif
}

// Rows of a multiple of 8 values, scales for a row or for 64 or a larger power of two, everything aligned. Blocks of 128
// threads; a warp unpacks 1024 flat values of a part, in four chunks: the codes of 8 values a lane make one store of 16
// bytes, side by side over the warp. The blocks from `first_extra_block` on write the columns behind the weight's.
extern "C" __global__ void __launch_bounds__(128) weight(const __grid_constant__ Parts group, element* out) {
    if (blockIdx.x >= group.first_extra_block) {
        const u32 per_row = (group.columns - group.width) / 8;
        const u64 index = u64(blockIdx.x - group.first_extra_block) * 128 + threadIdx.x;
        const u64 row = index / per_row;
        if (row >= group.rows) return;
        const Part& part = group.parts[part_of_row(group, u32(row))];
        const u32 column = group.width + u32(index - row * per_row) * 8;
        Eight eight;
#pragma unroll
        for (int i = 0; i < 8; ++i) eight.values[i] = extra(group, part, u32(row) - part.first_row, int(column) + i);
        *reinterpret_cast<Eight*>(out + row * group.columns + column) = eight;
        return;
    }
    u32 p = 0;
    while (p + 1 < group.count && blockIdx.x >= group.parts[p + 1].first_block) ++p;
    const Part& part = group.parts[p];
    const u32 lane = threadIdx.x & 31;
    // Counted in eights of values; the host checks that 32 bits are enough.
    const u32 per_row = group.width / 8;
    const u32 count = part.rows * per_row;
    const u32 first = ((blockIdx.x - part.first_block) * 4 + (threadIdx.x >> 5)) * 128;
    if (first >= count) return;
    out += u64(part.first_row) * group.columns;

    if (part.bits == 0) {
        const Eight* in = static_cast<const Eight*>(part.values);
        Eight eights[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 at = first + j * 32 + lane;
            if (at < count) eights[j] = in[at];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 at = first + j * 32 + lane;
            const u32 row = at / per_row;
            if (at >= count) continue;
            *reinterpret_cast<Eight*>(out + u64(row) * group.columns + (at - row * per_row) * 8) = eights[j];
        }
        return;
    }

    if (part.bits == 8) {
        const u64* eights = static_cast<const u64*>(part.values);
        u64 words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 at = first + j * 32 + lane;
            words[j] = at < count ? eights[at] : 0;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 at = first + j * 32 + lane;
            const u32 row = at / per_row;
            if (at >= count) continue;
            const float scale = row_scale(part, row);
            float values[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) values[i] = __fmul_rn(float(static_cast<signed char>(words[j] >> (8 * i))), scale);
            Eight eight;
            narrow_all(values, eight);
            *reinterpret_cast<Eight*>(out + u64(row) * group.columns + (at - row * per_row) * 8) = eight;
        }
        return;
    }

    const u32* codes = static_cast<const u32*>(part.values);
    u32 words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const u32 at = first + j * 32 + lane;
        words[j] = at < count ? codes[at] : 0;
    }
    // Lane s, and lane 16 + s, have the scale of the warp's values from 64 s on, and the value of the code s.
    const float code_value = __uint_as_float(CODE_BITS[lane & 15]);
    const u32 unit = first + (lane & 15) * 8;
    const float lane_scale = unit < count ? scale_of(part, (u64(unit) * 8) >> part.shift) : 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const u32 at = first + j * 32 + lane;
        const float scale = __shfl_sync(0xFFFFFFFFu, lane_scale, j * 4 + (lane >> 3));
        float values[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            // The first of two codes is in the high half of its byte. A shuffle of width 16 looks at 4 bits.
            const u32 code = words[j] >> (i * 4 + (i % 2 == 0 ? 4 : -4));
            values[i] = __fmul_rn(__shfl_sync(0xFFFFFFFFu, code_value, code, 16), scale);
        }
        if (at < count) {
            Eight eight;
            narrow_all(values, eight);
            const u32 row = at / per_row;
            *reinterpret_cast<Eight*>(out + u64(row) * group.columns + (at - row * per_row) * 8) = eight;
        }
    }
}

// Any shape: a thread for each value. Blocks of 256 threads, (row, 256 columns).
extern "C" __global__ void weight_plain(const __grid_constant__ Parts group, element* out) {
    const u32 row = blockIdx.x, column = blockIdx.y * 256 + threadIdx.x;
    if (column >= group.columns) return;
    const Part& part = group.parts[part_of_row(group, row)];
    const u32 own_row = row - part.first_row;
    element value;
    if (column >= group.width) {
        value = extra(group, part, own_row, int(column));
    } else {
        const u64 at = u64(own_row) * group.width + column;
        if (part.bits == 0) {
            value = static_cast<const element*>(part.values)[at];
        } else if (part.bits == 8) {
            const float code = float(static_cast<const signed char*>(part.values)[at]);
            value = to<element>(__fmul_rn(code, row_scale(part, own_row)));
        } else {
            const u8 byte = static_cast<const u8*>(part.values)[at >> 1];
            const u32 code = at & 1 ? byte & 15 : byte >> 4;
            value = to<element>(__fmul_rn(__uint_as_float(CODE_BITS[code]), scale_of(part, at / part.block)));
        }
    }
    out[u64(row) * group.columns + column] = value;
}

// Of the 32 parts that [-1, 1] is cut into around 2 i / 31 - 1, the threshold in it, the mean of two neighbouring code
// values, or infinity; and the code below it. No part has two, and none is near to a border.
__device__ const u32 PART_THRESHOLDS[32] = {
    0x7f800000, 0x7f800000, 0xbf591cd8, 0x7f800000, 0x7f800000, 0x7f800000, 0xbf1c5270, 0x7f800000,
    0xbeeb8480, 0x7f800000, 0xbeadea76, 0x7f800000, 0xbe703cec, 0xbe0d38bc, 0x7f800000, 0xbd3a7871,
    0x3d22faff, 0x3df64862, 0x7f800000, 0x3e5067e0, 0x3e9582d4, 0x7f800000, 0x3ec753f9, 0x3f006d04,
    0x7f800000, 0x3f248daf, 0x7f800000, 0x7f800000, 0x7f800000, 0x3f5c89da, 0x7f800000, 0x7f800000,
};
__device__ const u8 PART_CODES[32] = {
    0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 14, 14, 14, 15, 15,
};

// The part of a value in the five low bits: 0 for NaN, as a block of zeros has it, and the outer ones for infinities.
__device__ __forceinline__ u32 part_of(float value) {
    float place;
    asm("fma.rn.sat.f32 %0, %1, 0f3F000000, 0f3F000000;" : "=f"(place) : "f"(value));
    return __float_as_uint(__fmaf_rn(place, 31.0f, 8388608.0f));
}

// NaN where one of both is.
__device__ __forceinline__ float max_or_nan(float a, float b) {
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}

// What some scales say of themselves: their sum, the bits of the largest, and the exponent (as float32 counts it, with 23
// more) of the lowest bit that any of them has. Scales are not negative and multiples of that bit: if their sum is below
// 2^53 of these, so is every part of it in any order, and none was rounded.
struct __align__(16) Partial {
    double sum;
    u32 most, lowest;
};
__device__ __forceinline__ void join(Partial& own, double sum, u32 most, u32 lowest) {
    own.sum += sum;
    own.most = max(own.most, most);
    own.lowest = min(own.lowest, lowest);
}
__device__ __forceinline__ void join_warp(Partial& own) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        join(own, __shfl_xor_sync(0xFFFFFFFFu, own.sum, distance), __shfl_xor_sync(0xFFFFFFFFu, own.most, distance),
             __shfl_xor_sync(0xFFFFFFFFu, own.lowest, distance));
}
constexpr u32 NO_BIT = 255 + 23;
__device__ __forceinline__ void join_scale(Partial& own, float scale) {
    const u32 bits = __float_as_uint(scale), exponent = bits >> 23;
    const u32 digits = exponent ? bits | 0x800000u : bits;
    join(own, double(scale), bits, bits ? max(exponent, 1u) + u32(__ffs(int(digits))) - 1 : NO_BIT);
}

// Values to codes and a scale for 64 of them. Blocks of 256 threads; a warp has 512 values, in two chunks: the codes of 8
// values a lane make a store of 4 bytes, side by side over the warp. Behind the end are zeros. A scale is NaN or infinite
// if a value of its block is. `partials`, one for each block of the grid, may be null.
extern "C" __global__ void __launch_bounds__(256)
    quantise_nf4(const element* values, i64 count, int aligned, u8* codes, float* scales, Partial* partials) {
    __shared__ float block_scales[64];
    const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const i64 first = i64(blockIdx.x) * 4096 + warp * 512;
    const i64 at[2] = {first + lane * 8, first + 256 + lane * 8};
    const bool whole = first + 512 <= count;
    Eight eights[2] = {};
    if (whole && aligned) {
        eights[0] = *reinterpret_cast<const Eight*>(values + at[0]);
        eights[1] = *reinterpret_cast<const Eight*>(values + at[1]);
    } else {
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int i = 0; i < 8; ++i)
                if (at[j] + i < count) eights[j].values[i] = values[at[j] + i];
    }
    // Lane i has what is known of part i.
    const float part_threshold = __uint_as_float(PART_THRESHOLDS[lane]);
    const u32 part_code = PART_CODES[lane];
    float own_scales[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        float most = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) most = max_or_nan(most, fabsf(widen(eights[j].values[i])));
#pragma unroll
        for (int distance = 4; distance > 0; distance >>= 1)
            most = max_or_nan(most, __shfl_xor_sync(0xFFFFFFFFu, most, distance));
        own_scales[j] = most;
        const float inverse = __frcp_rn(most);
        u32 word = 0;
        // The first of two codes is in the high half of its byte, the first byte the lowest.
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const float scaled = __fmul_rn(widen(eights[j].values[6 - (k & ~1) + (k & 1)]), inverse);
            const u32 part = part_of(scaled);
            const float threshold = __shfl_sync(0xFFFFFFFFu, part_threshold, part);
            word = (word << 4) + __shfl_sync(0xFFFFFFFFu, part_code, part) + (scaled > threshold ? 1u : 0u);
        }
        if (whole || at[j] + 8 <= count) {
            *reinterpret_cast<u32*>(codes + at[j] / 2) = word;
        } else {
            for (int i = 0; at[j] + 2 * i < count; ++i) codes[at[j] / 2 + i] = u8(word >> (8 * i));
        }
    }
    if ((lane & 7) < 2) {
        const u32 own = (lane & 1) * 4 + (lane >> 3);
        const float scale = lane & 1 ? own_scales[1] : own_scales[0];
        if (whole || first + own * 64 < count) scales[first / 64 + own] = scale;
        block_scales[warp * 8 + own] = scale;
    }
    if (!partials) return;
    __syncthreads();
    if (warp > 0) return;
    Partial sum = {0.0, 0, NO_BIT};
    join_scale(sum, block_scales[lane]);
    join_scale(sum, block_scales[lane + 32]);
    join_warp(sum);
    if (lane == 0) partials[blockIdx.x] = sum;
}

// The mean of the scales, as a loop in float64 in the order of the index gives it; NaN if one is not finite. One block of
// 1024 threads.
extern "C" __global__ void __launch_bounds__(1024)
    mean_scale(const float* scales, int count, const Partial* partials, int partial_count, float* mean) {
    __shared__ Partial of_warps[32];
    __shared__ float some_scales[1024];
    Partial own = {0.0, 0, NO_BIT};
#pragma unroll 4
    for (int i = threadIdx.x; i < partial_count; i += 1024) {
        const Partial partial = partials[i];
        join(own, partial.sum, partial.most, partial.lowest);
    }
    join_warp(own);
    if ((threadIdx.x & 31) == 0) of_warps[threadIdx.x >> 5] = own;
    __syncthreads();
    own = of_warps[threadIdx.x & 31];
    join_warp(own);
    const bool finite = own.most < 0x7F800000u;
    // float32 counts exponents from 127 on, float64 from 1023; 23 digits stand behind the point.
    const double limit = __longlong_as_double(i64(own.lowest - 150 + 53 + 1023) << 52);
    if (finite && !(own.sum < limit)) {
        own.sum = 0.0;
        for (i64 first = 0; first < count; first += 1024) {
            const i64 at = first + threadIdx.x;
            __syncthreads();
            some_scales[threadIdx.x] = at < count ? scales[at] : 0.0f;
            __syncthreads();
            if (threadIdx.x > 0) continue;
#pragma unroll 8
            for (int i = 0; i < 1024; ++i) own.sum += double(some_scales[i]);
        }
    }
    if (threadIdx.x > 0) return;
    const float exact = count > 0 ? __double2float_rn(__ddiv_rn(own.sum, double(count))) : 0.0f;
    *mean = finite ? exact : __uint_as_float(0x7FC00000u);
}

// Scales to codes of a map and a scale for 256 of them. Blocks of 256 threads, a warp for 256 scales.
extern "C" __global__ void quantise_scales(const float* scales, int count, const float* mean, const float* map_256,
                                           u8* codes, float* absmax) {
    __shared__ float map[SKEWED];
    map[skewed(threadIdx.x)] = map_256[threadIdx.x];
    const float offset = *mean;
    __syncthreads();
    const int block = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (i64(block) * 256 >= count) return;
    float distances[8];
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const i64 at = i64(block) * 256 + i * 32 + lane;
        distances[i] = at < count ? __fsub_rn(scales[at], offset) : 0.0f;
        most = fmaxf(most, fabsf(distances[i]));
    }
    most = warp_max(most);
    const float inverse = __fdiv_rn(1.0f, most);
    if (lane == 0) absmax[block] = most;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const i64 at = i64(block) * 256 + i * 32 + lane;
        if (at < count) codes[at] = u8(nearest(map, __fmul_rn(distances[i], inverse)));
    }
}
