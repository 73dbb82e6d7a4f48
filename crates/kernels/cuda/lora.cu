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
        u32 keep = 15;
        if (group.dropout.drops)
            keep = keep_bits(group.dropout, token_key(group.dropout, row), adapter.module, u32(i) / 4);
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

// dx [T, ld], out [T, width]. A block for eight rows and eight warps' part of them, 64 channels a warp; a lane has
// eight channels of two rows.
__device__ __forceinline__ void input_gradient(const element* dx, int dx_ld, const LoraGroup& group, element* out,
                                               i64 tokens, int width, bool vector) {
    const i64 first = i64(blockIdx.x) * 8;
    const int rows = int(min(i64(8), tokens - first)), row = lora_row<8>();
    const int begin = int(blockIdx.y * 8 + threadIdx.x / 32) * 64;
    if (begin >= width) return;
    const int i = begin + int(threadIdx.x & 31) / 4 * 8;
    dx += first * dx_ld;
    float values[2][2][4];
    TokenKey keys[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        const int inside = min(row + k, rows - 1), at = vector ? min(i, width - 8) : i;
        keys[k] = token_key(group.dropout, first + inside);
        load_quads(dx + i64(inside) * dx_ld + at, width - i, vector, values[0][k], values[1][k]);
    }
#pragma unroll
    for (int quad = 0; quad < 2; ++quad)
        add_lora<8>(group, dx, dx_ld, rows, keys, width, i + 4 * quad, vector, values[quad]);
#pragma unroll
    for (int k = 0; k < 2; ++k)
        if (row + k < rows && i < width)
            store_quads(out + (first + row + k) * width + i, width - i, vector, values[0][k], values[1][k]);
}
extern "C" __global__ void __launch_bounds__(256)
    input_gradient(const element* dx, int dx_ld, const __grid_constant__ LoraGroup group, element* out, i64 tokens,
                   int width, int vector) {
    if (vector) {
        input_gradient(dx, dx_ld, group, out, tokens, width, true);
    } else {
        input_gradient(dx, dx_ld, group, out, tokens, width, false);
    }
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

// A block has a strip of channels, eight ranks or a few times eight, and all tokens: no sum needs a second block.
constexpr int STRIP = 32;

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

// Where a part of a block keeps a channel's sums of eight ranks, so that the lanes of a warp meet no bank twice.
constexpr int PART = STRIP / 4 * 40;
__device__ __forceinline__ int part_index(int channel, int r) { return channel / 4 * 40 + channel % 4 * 8 + r; }

// Adds what the parts of a block have for 8 ranks of a strip to the gradient.
template <int PARTS>
__device__ __forceinline__ void add_parts(const Task& task, const float* parts, int strip, int first_rank) {
    const int channel = threadIdx.x / 8, r = threadIdx.x % 8;
    const int column = strip * STRIP + channel, rank = first_rank + r;
    if (channel >= STRIP || column >= task.width || rank >= task.rank) return;
    float* gradient = task.gradient;
    gradient += task.by_channel ? i64(column) * task.rank + rank : i64(rank) * task.width + column;
    const float old = *gradient;
    float sum = 0.0f;
#pragma unroll
    for (int part = 0; part < PARTS; ++part) sum += parts[part * PART + part_index(channel, r)];
    *gradient = old + task.factor * sum;
}

// A block of 256 threads: 8 threads have four channels each, 32 such groups take turns at the tokens. Grid: strips of
// all tasks, ranks.
extern "C" __global__ void __launch_bounds__(256)
    lora_gradients_plain(const __grid_constant__ Tasks tasks, i64 tokens) {
    __shared__ float parts[32 * PART];
    int strip = blockIdx.x;
    const Task& task = tasks.tasks[find_task(tasks, strip)];
    const int first_rank = blockIdx.y * 8;
    if (first_rank >= task.rank) return;
    const int ranks = min(8, task.rank - first_rank);
    const int group = threadIdx.x / 8, quad = threadIdx.x % 8, i = strip * STRIP + 4 * quad;
    float sums[4][8] = {};
    if (i < task.width) {
        for (i64 t = group; t < tokens; t += 32) {
            const u32 keep =
                task.drops ? keep_bits(tasks.dropout, token_key(tasks.dropout, t), task.module, u32(i) / 4) : 15;
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
        for (int r = 0; r < 8; ++r) parts[group * PART + part_index(4 * quad + j, r)] = sums[j][r];
    __syncthreads();
    add_parts<32>(task, parts, strip, first_rank);
}

#if ELEMENT != 0

// Eight values as four words.
struct Eight { u32 words[4]; };
__device__ __forceinline__ Eight load_words(const element* from) {
    const uint4 four = *reinterpret_cast<const uint4*>(from);
    return {{four.x, four.y, four.z, four.w}};
}
// Makes the values zero, two a word, that are dropped.
template <int WORDS>
__device__ __forceinline__ void drop_words(u32 (&words)[WORDS], u32 keep) {
#pragma unroll
    for (int i = 0; i < WORDS; ++i) {
        const u32 bits = keep >> 2 * i;
        words[i] &= (bits & 1 ? 0x0000FFFFu : 0u) | (bits & 2 ? 0xFFFF0000u : 0u);
    }
}

// A block for 8 tokens and 8 BLOCKS ranks of an adapter; its warps share the channels, 32 at a time, 8 a lane. Ranks
// are the rows of the products and tokens the columns. Which channel stands at which place of the inner dimension is
// free as long as both operands agree: lane 4g + q has 8q..8q+7 of token g and of ranks g, g + 8, ...
template <int BLOCKS>
__device__ __forceinline__ void lora_down(element* x, int x_ld, const LoraGroup& group, i64 tokens, int width,
                                          int first_free, int bias) {
    __shared__ float parts[16][BLOCKS * 64];
    constexpr int TILES = (BLOCKS + 1) / 2;
    const i64 first = i64(blockIdx.x) * 8;
    const int rows = int(min(i64(8), tokens - first));
    if (blockIdx.y == 0) fill_rest(x, x_ld, first, rows, first_free, bias);
    int first_rank;
    const int n = find_adapter(group, blockIdx.y, 8 * BLOCKS, first_rank);
    if (n == int(group.count)) return;
    const LoraAdapter& adapter = group.adapters[n];
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const i64 token = first + min(g, rows - 1);
    const element* row = x + token * x_ld;
    const TokenKey key = token_key(group.dropout, token);
    // Ranks and tokens that do not exist do as the last ones, and are not stored.
    const float* a[BLOCKS];
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block)
        a[block] = adapter.a + i64(min(first_rank + block * 8 + g, adapter.rank - 1)) * width;
    struct Step {
        Eight values;
        float4 front[BLOCKS], back[BLOCKS];
    };
    const auto load = [&](int begin) {
        const int channel = min(begin + 8 * q, width - 8);
        Step step;
        step.values = load_words(row + channel);
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
            step.front[block] = *reinterpret_cast<const float4*>(a[block] + channel);
            step.back[block] = *reinterpret_cast<const float4*>(a[block] + channel + 4);
        }
        return step;
    };
    float sums[TILES][4] = {};
    Step next = load(32 * warp);
    for (int begin = 32 * warp; begin < width; begin += 32 * warps) {
        Step step = next;
        if (begin + 32 * warps < width) next = load(begin + 32 * warps);
        const int channel = begin + 8 * q;
        u32 keep = channel < width ? 255 : 0;
        if (group.dropout.drops)
            keep &= keep_bits(group.dropout, key, adapter.module, u32(channel) / 4) |
                    keep_bits(group.dropout, key, adapter.module, u32(channel) / 4 + 1) << 4;
        drop_words(step.values.words, keep);
        u32 weights[2 * TILES][4] = {};
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
            const float4 &front = step.front[block], &back = step.back[block];
            weights[block][0] = pack_pair(front.x, front.y);
            weights[block][1] = pack_pair(front.z, front.w);
            weights[block][2] = pack_pair(back.x, back.y);
            weights[block][3] = pack_pair(back.z, back.w);
        }
        const u32(&words)[4] = step.values.words;
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            const u32(&low)[4] = weights[2 * tile], (&high)[4] = weights[2 * tile + 1];
            multiply_add(sums[tile], {low[0], high[0], low[1], high[1]}, words[0], words[1]);
            multiply_add(sums[tile], {low[2], high[2], low[3], high[3]}, words[2], words[3]);
        }
    }
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
        float* part = parts[warp] + block * 64 + g * 8 + 2 * q;
        part[0] = sums[block / 2][block % 2 * 2];
        part[1] = sums[block / 2][block % 2 * 2 + 1];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BLOCKS * 64; i += blockDim.x) {
        const int out = i / (BLOCKS * 8), r = i % (BLOCKS * 8), rank = first_rank + r;
        float sum = 0.0f;
#pragma unroll 8
        for (int other = 0; other < warps; ++other) sum += parts[other][r * 8 + out];
        if (out < rows && rank < adapter.rank)
            x[(first + out) * x_ld + adapter.column + rank] = to<element>(adapter.factor * sum);
    }
}

// A block of 16 warps for a strip and 8 BLOCKS ranks; the warps take turns at the tokens, 16 at a time, which are the
// inner dimension: a lane reads channels 4g..4g+3 of four tokens and pairs those of neighbouring tokens. Rows g and g +
// 8 of tile p are channels 4g + 2p and 4g + 2p + 1.
template <int BLOCKS>
struct Chunk {
    u32 values[4][2];
    u32 inner[BLOCKS][2];
    TokenKey keys[4];
};
template <int BLOCKS>
__device__ __forceinline__ Chunk<BLOCKS> load_chunk(const Task& task, const LoraDropout& dropout, int tokens,
                                                    int chunk, int channel, int first_rank) {
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    // Channels and ranks that do not exist do as the last ones, and are not stored; tokens that do not exist have inner
    // values of zero.
    const int column = min(channel, task.width - 4);
    Chunk<BLOCKS> result = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const int wanted = chunk * 16 + 2 * q + (k & 1) + (k & 2) * 4, token = min(wanted, tokens - 1);
        const element* inner = task.inner + i64(token) * task.inner_ld;
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
            const u32 bits = inner[min(first_rank + block * 8 + g, task.rank - 1)].bits;
            result.inner[block][k / 2] |= (wanted < tokens ? bits : 0) << 16 * (k % 2);
        }
        const uint2 two = *reinterpret_cast<const uint2*>(task.values + i64(token) * task.values_ld + column);
        result.values[k][0] = two.x;
        result.values[k][1] = two.y;
    }
    if (task.drops) {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            result.keys[k] = token_key(dropout, min(chunk * 16 + 2 * q + (k & 1) + (k & 2) * 4, tokens - 1));
    }
    return result;
}
template <int BLOCKS>
__device__ __forceinline__ void lora_gradients(const Tasks& tasks, int tokens) {
    __shared__ float parts[16 * PART];
    int strip = blockIdx.x;
    const Task& task = tasks.tasks[find_task(tasks, strip)];
    const int first_rank = blockIdx.y * 8 * BLOCKS;
    if (first_rank >= task.rank) return;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int channel = strip * STRIP + 4 * g, chunks = (tokens + 15) / 16;
    float sums[BLOCKS][2][4] = {};
    Chunk<BLOCKS> next = load_chunk<BLOCKS>(task, tasks.dropout, tokens, warp, channel, first_rank);
    for (int number = warp; number < chunks; number += 16) {
        Chunk<BLOCKS> chunk = next;
        if (number + 16 < chunks)
            next = load_chunk<BLOCKS>(task, tasks.dropout, tokens, number + 16, channel, first_rank);
        if (task.drops) {
#pragma unroll
            for (int k = 0; k < 4; ++k)
                drop_words(chunk.values[k], keep_bits(tasks.dropout, chunk.keys[k], task.module, u32(channel) / 4));
        }
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            const u32 a[4] = {__byte_perm(chunk.values[0][p], chunk.values[1][p], 0x5410),
                              __byte_perm(chunk.values[0][p], chunk.values[1][p], 0x7632),
                              __byte_perm(chunk.values[2][p], chunk.values[3][p], 0x5410),
                              __byte_perm(chunk.values[2][p], chunk.values[3][p], 0x7632)};
#pragma unroll
            for (int block = 0; block < BLOCKS; ++block)
                multiply_add(sums[block][p], a, chunk.inner[block][0], chunk.inner[block][1]);
        }
    }
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
        if (block) __syncthreads();
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            float* part = parts + warp * PART + part_index(4 * g + 2 * p, 2 * q);
            part[0] = sums[block][p][0];
            part[1] = sums[block][p][1];
            part[8] = sums[block][p][2];
            part[9] = sums[block][p][3];
        }
        __syncthreads();
        add_parts<16>(task, parts, strip, first_rank + block * 8);
    }
}

// WANTED blocks on a multiprocessor: a launch often has only little more blocks than a large card has multiprocessors.
#define INSTANCES(BLOCKS, WANTED)                                                                                     \
    extern "C" __global__ void __launch_bounds__(512, WANTED)                                                         \
        lora_down_##BLOCKS(element* x, int x_ld, const __grid_constant__ LoraGroup group, i64 tokens, int width,      \
                           int first_free, int bias) {                                                                \
        lora_down<BLOCKS>(x, x_ld, group, tokens, width, first_free, bias);                                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(512, WANTED)                                                         \
        lora_gradients_##BLOCKS(const __grid_constant__ Tasks tasks, i64 tokens) {                                    \
        lora_gradients<BLOCKS>(tasks, int(tokens));                                                                   \
    }
INSTANCES(1, 2)
INSTANCES(2, 1)
INSTANCES(4, 1)

#endif
