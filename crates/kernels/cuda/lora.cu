// LoRA beside a frozen product: the inner values of the adapters, the gradient of an augmented input, and the gradients
// of A and B. Types of 16 bits go by tensor cores; `plain` kernels take every type, width and alignment.

// Which adapter and which of its ranks a block has: adapters one behind the other, each rounded up to `step` ranks.
__device__ __forceinline__ int find_adapter(const LoraGroup& group, int number, int step, int& first_rank) {
    int n = 0;
    for (; n < int(group.count); ++n) {
        const int blocks = (group.adapters[n].rank + step - 1) / step;
        if (number < blocks) break;
        number -= blocks;
    }
    first_rank = number * step;
    return n;
}

// The columns behind the adapters': 1 in the bias column, 0 elsewhere.
__device__ __forceinline__ void fill_rest(element* x, int x_ld, i64 first, int rows, int first_free, int bias) {
    const int columns = x_ld - first_free;
    for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
        const int row = i / columns, column = first_free + i % columns;
        x[(first + row) * x_ld + column] = to<element>(column == bias ? 1.0f : 0.0f);
    }
}

// x [T, ld] in place. A block for a row and 8 ranks of an adapter.
extern "C" __global__ void __launch_bounds__(256)
    lora_down_plain(element* x, int x_ld, const __grid_constant__ LoraGroup group, int width, int first_free,
                    int bias) {
    __shared__ float scratch[33];
    const i64 row = blockIdx.x;
    if (blockIdx.y == 0) fill_rest(x, x_ld, row, 1, first_free, bias);
    int first_rank;
    const int n = find_adapter(group, blockIdx.y, 8, first_rank);
    if (n == int(group.count)) return;
    const LoraAdapter& adapter = group.adapters[n];
    const int ranks = min(8, adapter.rank - first_rank);
    x += row * x_ld;
    float sums[8] = {};
    for (int i = 4 * threadIdx.x; i < width; i += 4 * 256) {
        const u32 keep = group.dropout.drops ? keep_bits(group.dropout, row, adapter.module, u32(i) / 4) : 15;
        float values[4];
        load_quad(x + i, width - i, false, values);
        for (int j = 0; j < 4; ++j)
            if (!(keep >> j & 1)) values[j] = 0.0f;
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            if (r >= ranks) continue;
            float weights[4];
            load_quad(adapter.a + i64(first_rank + r) * width + i, width - i, false, weights);
            for (int j = 0; j < 4; ++j) sums[r] += values[j] * widen(to<element>(weights[j]));
        }
    }
#pragma unroll
    for (int r = 0; r < 8; ++r) {
        const float sum = block_sum(sums[r], scratch);
        if (threadIdx.x == 0 && r < ranks) x[adapter.column + first_rank + r] = to<element>(adapter.factor * sum);
    }
}

// dx [T, ld], out [T, width].
extern "C" __global__ void __launch_bounds__(256)
    input_gradient(const element* dx, int dx_ld, const __grid_constant__ LoraGroup group, element* out, i64 tokens,
                   int width, int vector) {
    extern __shared__ __align__(16) float inner[];
    const i64 first = i64(blockIdx.x) * LORA_ROWS;
    const int rows = int(min(i64(LORA_ROWS), tokens - first));
    load_inner(dx, dx_ld, width, first, rows, inner);
    __syncthreads();
    const int i = 4 * int(blockIdx.y * 256 + threadIdx.x);
    if (i >= width) return;
    float values[LORA_ROWS][4];
#pragma unroll
    for (int row = 0; row < LORA_ROWS; ++row)
        load_quad(dx + (first + min(row, rows - 1)) * dx_ld + i, width - i, vector, values[row]);
    add_lora(group, inner, width, first, rows, i, vector, values);
#pragma unroll
    for (int row = 0; row < LORA_ROWS; ++row)
        if (row < rows) store_quad(out + (first + row) * width + i, width - i, vector, values[row]);
}

// x [T, x_ld] to y [T, y_ld], `width` columns.
extern "C" __global__ void __launch_bounds__(256)
    widen_columns(const element* x, i64 x_ld, element* y, int y_ld, int width, int vector) {
    constexpr int SIZE = Pack<element>::SIZE;
    const int i = int(blockIdx.y * 256 + threadIdx.x) * SIZE;
    if (i >= width) return;
    x += blockIdx.x * x_ld + i;
    y += i64(blockIdx.x) * y_ld + i;
    if (vector) {
        *reinterpret_cast<Pack<element>*>(y) = *reinterpret_cast<const Pack<element>*>(x);
    } else {
        for (int j = 0; j < SIZE && i + j < width; ++j) y[j] = x[j];
    }
}

// The gradient of one matrix: `factor * sum over t of values[t, channel] * inner[t, rank]`, dropout on the values.
struct Task {
    const element* values;
    const element* inner;
    float* gradient;
    i64 offset;  // of its partial sums
    int values_ld, inner_ld;
    int width, rank;
    float factor;
    u32 module;
    int drops;
    int by_channel;  // the gradient is [width, rank], else [rank, width]
};
struct Tasks {
    Task tasks[6];
    LoraDropout dropout;
    i64 count;
};

constexpr int STRIP = 64;

// The task of a strip of channels; `strip` becomes its number within the task.
__device__ __forceinline__ int find_task(const Tasks& tasks, int& strip) {
    int n = 0;
    for (; n < int(tasks.count) - 1; ++n) {
        const int strips = (tasks.tasks[n].width + STRIP - 1) / STRIP;
        if (strip < strips) break;
        strip -= strips;
    }
    return n;
}

// Adds what the parts of a block have for 8 ranks of a strip, `parts[part][channel][rank]`, and stores it.
__device__ __forceinline__ void store_partial(const Task& task, const float* parts, int count, int strip,
                                              int first_rank, float* partial) {
    for (int i = threadIdx.x; i < STRIP * 8; i += blockDim.x) {
        const int channel = task.by_channel ? i / 8 : i % STRIP;
        const int r = task.by_channel ? i % 8 : i / STRIP;
        float sum = 0.0f;
        for (int part = 0; part < count; ++part) sum += parts[part * STRIP * 8 + channel * 8 + r];
        const int column = strip * STRIP + channel, rank = first_rank + r;
        if (column >= task.width || rank >= task.rank) continue;
        const i64 at = task.by_channel ? i64(column) * task.rank + rank : i64(rank) * task.width + column;
        partial[task.offset + at] = task.factor * sum;
    }
}

// A block of 256 threads for a strip, 8 ranks and a part of the tokens: 16 threads have four channels each, 16 such
// groups take turns at the tokens. Grid: strips of all tasks, ranks, parts. partial [parts, total].
extern "C" __global__ void __launch_bounds__(256)
    lora_gradients_plain(const __grid_constant__ Tasks tasks, i64 tokens, float* partial, i64 total) {
    __shared__ float parts[16 * STRIP * 8];
    int strip = blockIdx.x;
    const Task& task = tasks.tasks[find_task(tasks, strip)];
    const int first_rank = blockIdx.y * 8;
    if (first_rank >= task.rank) return;
    const int ranks = min(8, task.rank - first_rank);
    const int group = threadIdx.x / 16, quad = threadIdx.x % 16, i = strip * STRIP + 4 * quad;
    const i64 share = (tokens + gridDim.z - 1) / gridDim.z;
    const i64 begin = blockIdx.z * share, end = min(tokens, begin + share);
    float sums[4][8] = {};
    if (i < task.width) {
        for (i64 t = begin + group; t < end; t += 16) {
            const u32 keep = task.drops ? keep_bits(tasks.dropout, t, task.module, u32(i) / 4) : 15;
            float values[4];
            load_quad(task.values + t * task.values_ld + i, task.width - i, false, values);
            const element* inner = task.inner + t * task.inner_ld + first_rank;
#pragma unroll
            for (int r = 0; r < 8; ++r) {
                const float other = r < ranks ? widen(inner[r]) : 0.0f;
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[j][r] += keep >> j & 1 ? values[j] * other : 0.0f;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int r = 0; r < 8; ++r) parts[(group * STRIP + 4 * quad + j) * 8 + r] = sums[j][r];
    __syncthreads();
    store_partial(task, parts, 16, strip, first_rank, partial + blockIdx.z * total);
}

// Adds the parts to the gradients. Grid: `total` by 256.
extern "C" __global__ void __launch_bounds__(256)
    add_gradients(const __grid_constant__ Tasks tasks, const float* partial, int parts, i64 total) {
    const i64 i = i64(blockIdx.x) * 256 + threadIdx.x;
    if (i >= total) return;
    int n = 0;
    while (n + 1 < int(tasks.count) && i >= tasks.tasks[n + 1].offset) ++n;
    float sum = 0.0f;
#pragma unroll 4
    for (int part = 0; part < parts; ++part) sum += partial[part * total + i];
    tasks.tasks[n].gradient[i - tasks.tasks[n].offset] += sum;
}

#if ELEMENT != 0

// d += a b of 16 x 16 by 16 x 8. Lane l has, with g = l / 4 and q = l % 4: of a rows g and g + 8, of b column g, both
// at 2q, 2q + 1, 2q + 8 and 2q + 9 of the inner dimension; of d rows g and g + 8 at columns 2q and 2q + 1.
__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if ELEMENT == 1
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
#endif
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 pair(float low, float high) {
    return u32(to<element>(low).bits) | u32(to<element>(high).bits) << 16;
}

// Eight values of a row as four words, the dropped ones zero.
struct Eight { u32 words[4]; };
__device__ __forceinline__ Eight load_eight(const element* from) {
    const uint4 four = *reinterpret_cast<const uint4*>(from);
    return {{four.x, four.y, four.z, four.w}};
}
__device__ __forceinline__ void drop_eight(Eight& eight, const LoraDropout& dropout, i64 token, u32 module,
                                           int channel) {
    const u32 keep = keep_bits(dropout, token, module, u32(channel) / 4) |
                     keep_bits(dropout, token, module, u32(channel) / 4 + 1) << 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const u32 bits = keep >> 2 * i;
        eight.words[i] &= (bits & 1 ? 0x0000FFFFu : 0u) | (bits & 2 ? 0xFFFF0000u : 0u);
    }
}

// A block for 16 rows and 8 BLOCKS ranks of an adapter; its warps share the channels, 32 at a time, 8 a lane. Which
// channel stands at which place of the inner dimension is free as long as both operands agree: lane q has 8q..8q+7.
template <int BLOCKS>
__device__ __forceinline__ void lora_down(element* x, int x_ld, const LoraGroup& group, i64 tokens, int width,
                                          int first_free, int bias) {
    __shared__ float parts[16][16 * 8];
    const i64 first = i64(blockIdx.x) * 16;
    const int rows = int(min(i64(16), tokens - first));
    if (blockIdx.y == 0) fill_rest(x, x_ld, first, rows, first_free, bias);
    int first_rank;
    const int n = find_adapter(group, blockIdx.y, 8 * BLOCKS, first_rank);
    if (n == int(group.count)) return;
    const LoraAdapter& adapter = group.adapters[n];
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const element* low_row = x + (first + min(g, rows - 1)) * x_ld;
    const element* high_row = x + (first + min(g + 8, rows - 1)) * x_ld;
    float sums[BLOCKS][4] = {};
#pragma unroll 2
    for (int step = warp; step * 32 < width; step += warps) {
        const int channel = step * 32 + q * 8;
        const bool inside = channel < width;
        Eight low = {}, high = {};
        if (inside) {
            low = load_eight(low_row + channel);
            high = load_eight(high_row + channel);
            if (group.dropout.drops) {
                drop_eight(low, group.dropout, first + min(g, rows - 1), adapter.module, channel);
                drop_eight(high, group.dropout, first + min(g + 8, rows - 1), adapter.module, channel);
            }
        }
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
            const int rank = first_rank + block * 8 + g;
            float4 front = {}, back = {};
            if (inside && rank < adapter.rank) {
                const float4* a = reinterpret_cast<const float4*>(adapter.a + i64(rank) * width + channel);
                front = a[0];
                back = a[1];
            }
            mma(sums[block], low.words[0], high.words[0], low.words[1], high.words[1], pair(front.x, front.y),
                pair(front.z, front.w));
            mma(sums[block], low.words[2], high.words[2], low.words[3], high.words[3], pair(back.x, back.y),
                pair(back.z, back.w));
        }
    }
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
        __syncthreads();
        float* part = parts[warp];
        part[g * 8 + 2 * q] = sums[block][0];
        part[g * 8 + 2 * q + 1] = sums[block][1];
        part[(g + 8) * 8 + 2 * q] = sums[block][2];
        part[(g + 8) * 8 + 2 * q + 1] = sums[block][3];
        __syncthreads();
        if (threadIdx.x < 16 * 8) {
            const int row = threadIdx.x / 8, rank = first_rank + block * 8 + threadIdx.x % 8;
            float sum = 0.0f;
            for (int other = 0; other < warps; ++other) sum += parts[other][threadIdx.x];
            if (row < rows && rank < adapter.rank)
                x[(first + row) * x_ld + adapter.column + rank] = to<element>(adapter.factor * sum);
        }
    }
}

// A block of 8 warps for a strip, 8 BLOCKS ranks and a part of the tokens, which the warps take 16 at a time. The inner
// dimension is that of the tokens: a lane reads 8 channels of four tokens and pairs those of neighbouring tokens. Rows
// g and g + 8 of tile p are channels 8g + 2p and 8g + 2p + 1.
template <int BLOCKS>
__device__ __forceinline__ void lora_gradients(const Tasks& tasks, i64 tokens, float* partial, i64 total) {
    __shared__ float parts[8 * STRIP * 8];
    int strip = blockIdx.x;
    const Task& task = tasks.tasks[find_task(tasks, strip)];
    const int first_rank = blockIdx.y * 8 * BLOCKS;
    if (first_rank >= task.rank) return;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int channel = strip * STRIP + 8 * g;
    const bool inside = channel < task.width;
    const i64 chunks = (tokens + 15) / 16, share = (chunks + gridDim.z - 1) / gridDim.z;
    const i64 begin = blockIdx.z * share, end = min(chunks, begin + share);
    float sums[BLOCKS][4][4] = {};
    for (i64 chunk = begin + warp; chunk < end; chunk += 8) {
        Eight values[4] = {};
        i64 token[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            token[k] = chunk * 16 + 2 * q + (k & 1) + (k & 2) * 4;
            if (inside && token[k] < tokens) values[k] = load_eight(task.values + token[k] * task.values_ld + channel);
        }
        u32 inner[BLOCKS][2];
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
            const int rank = first_rank + block * 8 + g;
            u32 bits[4] = {};
#pragma unroll
            for (int k = 0; k < 4; ++k)
                if (rank < task.rank && token[k] < tokens) bits[k] = task.inner[token[k] * task.inner_ld + rank].bits;
            inner[block][0] = bits[0] | bits[1] << 16;
            inner[block][1] = bits[2] | bits[3] << 16;
        }
        if (task.drops && inside) {
#pragma unroll
            for (int k = 0; k < 4; ++k)
                if (token[k] < tokens) drop_eight(values[k], tasks.dropout, token[k], task.module, channel);
        }
#pragma unroll
        for (int p = 0; p < 4; ++p) {
            const u32 a0 = __byte_perm(values[0].words[p], values[1].words[p], 0x5410);
            const u32 a1 = __byte_perm(values[0].words[p], values[1].words[p], 0x7632);
            const u32 a2 = __byte_perm(values[2].words[p], values[3].words[p], 0x5410);
            const u32 a3 = __byte_perm(values[2].words[p], values[3].words[p], 0x7632);
#pragma unroll
            for (int block = 0; block < BLOCKS; ++block)
                mma(sums[block][p], a0, a1, a2, a3, inner[block][0], inner[block][1]);
        }
    }
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
        __syncthreads();
#pragma unroll
        for (int p = 0; p < 4; ++p) {
            float* part = parts + (warp * STRIP + 8 * g + 2 * p) * 8 + 2 * q;
            part[0] = sums[block][p][0];
            part[1] = sums[block][p][1];
            part[8] = sums[block][p][2];
            part[9] = sums[block][p][3];
        }
        __syncthreads();
        store_partial(task, parts, 8, strip, first_rank + block * 8, partial + blockIdx.z * total);
    }
}

#define INSTANCES(BLOCKS)                                                                                             \
    extern "C" __global__ void __launch_bounds__(512)                                                                 \
        lora_down_##BLOCKS(element* x, int x_ld, const __grid_constant__ LoraGroup group, i64 tokens, int width,      \
                           int first_free, int bias) {                                                                \
        lora_down<BLOCKS>(x, x_ld, group, tokens, width, first_free, bias);                                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        lora_gradients_##BLOCKS(const __grid_constant__ Tasks tasks, i64 tokens, float* partial, i64 total) {         \
        lora_gradients<BLOCKS>(tasks, tokens, partial, total);                                                        \
    }
INSTANCES(1)
INSTANCES(2)
INSTANCES(4)

#endif
