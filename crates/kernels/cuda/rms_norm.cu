// RMS norm of rows, with an addition to the residual stream in front of it, and the way back.

// A thread's part of a row. Channels that do not exist are read as the last ones.
template <int CHUNKS, typename E>
__device__ __forceinline__ void load_chunks(const E* from, int width, bool vector, float (&values)[CHUNKS][4]) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
        const int i = 4 * (threadIdx.x + chunk * blockDim.x);
        load_quad(from + (vector ? min(i, width - 4) : i), width - i, vector, values[chunk]);
    }
}

// h [T, D]; add [T, D] or null; sum [T, D], only with add; x [T, ld] of which D columns are written; rstd [T]. A block
// a row, of at most 512 threads. A row of up to CHUNKS fours a thread stays in registers between the two passes.
__device__ __forceinline__ void rms_norm(const float* h, const element* add, int add_ld, const float* weight,
                                         float epsilon, float* sum, element* x, int x_ld, float* rstd, int width,
                                         bool vector) {
    __shared__ float scratch[16];
    constexpr int CHUNKS = 4;
    const i64 row = blockIdx.x;
    const int apart = 4 * blockDim.x, begin = 4 * threadIdx.x;
    h += row * width;
    x += row * x_ld;
    if (add) {
        add += row * add_ld;
        sum += row * width;
    }
    // All loads are on their way before the first is waited for.
    float values[CHUNKS][4], others[CHUNKS][4] = {}, weights[CHUNKS][4];
    load_chunks(h, width, vector, values);
    load_chunks(weight, width, vector, weights);
    if (add) load_chunks(add, width, vector, others);
    float square = 0.0f;
    const auto finish_sum = [&](int i, float (&value)[4], const float (&other)[4]) {
        if (i >= width) return;
        if (add) {
#pragma unroll
            for (int j = 0; j < 4; ++j) value[j] += other[j];
            store_quad(sum + i, width - i, vector, value);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) square += value[j] * value[j];
    };
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) finish_sum(begin + chunk * apart, values[chunk], others[chunk]);
    for (int i = begin + CHUNKS * apart; i < width; i += apart) {
        float value[4], other[4];
        load_quad(h + i, width - i, vector, value);
        if (add) load_quad(add + i, width - i, vector, other);
        finish_sum(i, value, other);
    }
    square = warp_sum(square);
    if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = square;
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < int(blockDim.x >> 5); ++warp) total += scratch[warp];
    const float reciprocal = rsqrtf(total / width + epsilon);
    if (threadIdx.x == 0) rstd[row] = reciprocal;
    const auto store = [&](int i, float (&value)[4], const float (&weights)[4]) {
        if (i >= width) return;
#pragma unroll
        for (int j = 0; j < 4; ++j) value[j] = value[j] * reciprocal * weights[j];
        store_quad(x + i, width - i, vector, value);
    };
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) store(begin + chunk * apart, values[chunk], weights[chunk]);
    const float* in = add ? sum : h;
    for (int i = begin + CHUNKS * apart; i < width; i += apart) {
        // A thread reads again what it wrote itself.
        float value[4], other[4];
        load_quad(in + i, width - i, vector, value);
        load_quad(weight + i, width - i, vector, other);
        store(i, value, other);
    }
}
extern "C" __global__ void __launch_bounds__(512)
    rms_norm(const float* h, const element* add, int add_ld, const float* weight, float epsilon, float* sum, element* x,
             int x_ld, float* rstd, int width, int vector) {
    if (vector) {
        rms_norm(h, add, add_ld, weight, epsilon, sum, x, x_ld, rstd, width, true);
    } else {
        rms_norm(h, add, add_ld, weight, epsilon, sum, x, x_ld, rstd, width, false);
    }
}

// dx [T, ld], h, residual and dh [T, D], rstd [T], rounded [T, D]. A block for four rows; a warp takes 64 channels at a
// time. What is between the two passes, the finished dx times the weight, waits in registers for CHUNKS steps of all
// warps, which must be enough for the row; without CHUNKS it waits in dh.
constexpr int NORM_ROWS = 4;
template <int CHUNKS>
__device__ __forceinline__ void rms_norm_backward(const element* dx, int dx_ld, const LoraGroup& group, const float* h,
                                                  const float* rstd, const float* weight, const float* residual,
                                                  float* dh, element* rounded, i64 tokens, int width, bool vector) {
    __shared__ float scratch[NORM_ROWS][16];
    const i64 first = i64(blockIdx.x) * NORM_ROWS;
    const int rows = int(min(i64(NORM_ROWS), tokens - first));
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const int row = lora_row<NORM_ROWS>(), apart = 2 * LORA_SET * warps;
    dx += first * dx_ld;
    // Rows behind the last do as if they were the last, and store nothing.
    i64 starts[2];
    TokenKey keys[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int inside = min(row + i, rows - 1);
        starts[i] = (first + inside) * width;
        keys[i] = token_key(group.dropout, first + inside);
    }
    // Channels that do not exist are read as the last ones.
    const auto place = [&](int i) { return vector ? min(i, width - 4) : i; };
    float sums[2] = {};
    // Of the 64 channels from `base`: dx times the weight, and what it adds to the sums.
    const auto gradient = [&](int base, float (&values)[2][4]) {
        const int channel = base + 4 * (lane / 4), i = channel + lora_set<NORM_ROWS>(), at = place(i);
        float old[2][4], weights[4];
#pragma unroll
        for (int k = 0; k < 2; ++k)
            load_quad(dx + i64(min(row + k, rows - 1)) * dx_ld + at, width - i, vector, values[k]);
        add_lora<NORM_ROWS>(group, dx, dx_ld, rows, keys, width, channel, vector, values);
        load_quad(weight + at, width - i, vector, weights);
#pragma unroll
        for (int k = 0; k < 2; ++k) load_quad(h + starts[k] + at, width - i, vector, old[k]);
#pragma unroll
        for (int k = 0; k < 2; ++k)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                values[k][j] *= weights[j];
                sums[k] += i < width ? values[k][j] * old[k][j] : 0.0f;
            }
    };
    const int begin = 2 * LORA_SET * warp;
    float values[CHUNKS > 0 ? CHUNKS : 1][2][4];
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk)
        if (begin + chunk * apart < width) gradient(begin + chunk * apart, values[chunk]);
    for (int base = begin; CHUNKS == 0 && base < width; base += apart) {
        const int i = base + 4 * (lane / 4) + lora_set<NORM_ROWS>();
        float waiting[2][4];
        gradient(base, waiting);
#pragma unroll
        for (int k = 0; k < 2; ++k)
            if (row + k < rows && i < width) store_quad(dh + starts[k] + i, width - i, vector, waiting[k]);
    }
    // Lanes with the same last bit have the same rows.
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int distance = 16; distance > 1; distance >>= 1)
            sums[k] += __shfl_xor_sync(0xFFFFFFFFu, sums[k], distance);
        if (lane < 2) scratch[row + k][warp] = sums[k];
    }
    __syncthreads();
    float reciprocals[2], shares[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        float sum = 0.0f;
#pragma unroll 8
        for (int other = 0; other < warps; ++other) sum += scratch[row + k][other];
        // n mean(g n), with n = h rstd.
        reciprocals[k] = rstd[first + min(row + k, rows - 1)];
        shares[k] = reciprocals[k] * reciprocals[k] * (sum / width);
    }
    const auto finish = [&](int base, const float (&values)[2][4]) {
        const int i = base + 4 * (lane / 4) + lora_set<NORM_ROWS>();
        float old[2][4], beside[2][4];
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            load_quad(h + starts[k] + place(i), width - i, vector, old[k]);
            load_quad(residual + starts[k] + place(i), width - i, vector, beside[k]);
        }
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            if (row + k >= rows || i >= width) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j) beside[k][j] += reciprocals[k] * (values[k][j] - old[k][j] * shares[k]);
            store_quad(dh + starts[k] + i, width - i, vector, beside[k]);
            store_quad(rounded + starts[k] + i, width - i, vector, beside[k]);
        }
    };
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk)
        if (begin + chunk * apart < width) finish(begin + chunk * apart, values[chunk]);
    for (int base = begin; CHUNKS == 0 && base < width; base += apart) {
        const int i = base + 4 * (lane / 4) + lora_set<NORM_ROWS>();
        float waiting[2][4];
#pragma unroll
        for (int k = 0; k < 2; ++k) load_quad(dh + starts[k] + place(i), width - i, vector, waiting[k]);
        finish(base, waiting);
    }
}

#define INSTANCE(NAME, CHUNKS, THREADS, BLOCKS, VECTOR)                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) rms_norm_backward_##NAME(                           \
        const element* dx, int dx_ld, const __grid_constant__ LoraGroup group, const float* h, const float* rstd,     \
        const float* weight, const float* residual, float* dh, element* rounded, i64 tokens, int width, int vector) { \
        rms_norm_backward<CHUNKS>(dx, dx_ld, group, h, rstd, weight, residual, dh, rounded, tokens, width, VECTOR);   \
    }
INSTANCE(2, 2, 256, 2, true)
INSTANCE(4, 4, 512, 1, true)
INSTANCE(any, 0, 512, 1, bool(vector))
