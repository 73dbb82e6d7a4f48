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

// Between two code values, the mean of both.
__device__ const u32 THRESHOLD_BITS[15] = {
    0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec, 0xbe0d38bc, 0xbd3a7871, 0x3d22faff,
    0x3df64862, 0x3e5067e0, 0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da,
};

// Values to codes and a scale for 64 of them. Blocks of 256 threads, eight values a thread; behind the end are zeros.
// A scale is NaN or infinite if a value of its block is.
extern "C" __global__ void quantise_nf4(const element* values, i64 count, int aligned, u8* codes, float* scales) {
    const i64 at = (i64(blockIdx.x) * 256 + threadIdx.x) * 8;
    Eight eight = {};
    if (aligned && at + 8 <= count) {
        eight = *reinterpret_cast<const Eight*>(values + at);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (at + i < count) eight.values[i] = values[at + i];
    }
    // Without the sign bit, the order of float32 is that of integers, with NaN above infinity.
    u32 most = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) most = max(most, __float_as_uint(widen(eight.values[i])) & 0x7FFFFFFFu);
#pragma unroll
    for (int distance = 4; distance > 0; distance >>= 1)
        most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, distance));
    if (at >= count) return;
    const float scale = __uint_as_float(most), inverse = __fdiv_rn(1.0f, scale);
    if ((threadIdx.x & 7) == 0) scales[at / 64] = scale;
    u32 word = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float scaled = __fmul_rn(widen(eight.values[i]), inverse);
        // False for NaN: a block of zeros has code 0.
        u32 code = 0;
#pragma unroll
        for (int t = 0; t < 15; ++t) code += scaled > __uint_as_float(THRESHOLD_BITS[t]);
        word |= code << (i * 4 + (i % 2 == 0 ? 4 : -4));
    }
    if (at + 8 <= count) {
        *reinterpret_cast<u32*>(codes + at / 2) = word;
    } else {
        for (int i = 0; at + 2 * i < count; ++i) codes[at / 2 + i] = u8(word >> (8 * i));
    }
}

// What a warp finds of its part of the scales, [warps, 3]: their sum, the bits of the largest, and the exponent (as float32
// counts it, with 23 more) of the lowest bit that any of them has. Blocks of 256 threads.
extern "C" __global__ void __launch_bounds__(256) sum_scales(const float* scales, int count, double* partials) {
    const int warps = gridDim.x * 8, warp = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    double sum = 0.0;
    u32 most = 0, lowest = 255 + 23;
    for (i64 at = warp * 32 + lane; at < count; at += i64(warps) * 32) {
        const u32 bits = __float_as_uint(scales[at]), exponent = bits >> 23;
        sum += double(scales[at]);
        most = max(most, bits);
        if (bits) lowest = min(lowest, max(exponent, 1u) + u32(__ffs(int(exponent ? bits | 0x800000u : bits))) - 1);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
        most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, distance));
        lowest = min(lowest, __shfl_xor_sync(0xFFFFFFFFu, lowest, distance));
    }
    if (lane > 0) return;
    partials[warp * 3] = sum;
    partials[warp * 3 + 1] = double(most);
    partials[warp * 3 + 2] = double(lowest);
}

// Scales to codes of a map and a scale for 256 of them. Blocks of 256 threads, a warp for 256 scales.
extern "C" __global__ void quantise_scales(const float* scales, int count, float offset, const float* map_256,
                                           u8* codes, float* absmax) {
    __shared__ float map[SKEWED];
    map[skewed(threadIdx.x)] = map_256[threadIdx.x];
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
